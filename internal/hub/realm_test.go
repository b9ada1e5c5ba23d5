package hub

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon/internal/match"
)

func TestUsersAreThoseAddedAndNotRemoved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u users[*node]
		have := map[string]*node{}
		most := rapid.SampledFrom([]int{3, 40, 5000}).Draw(t, "most")
		for range rapid.IntRange(1, 30).Draw(t, "rounds") {
			first, count := rapid.IntRange(0, most).Draw(t, "first"), rapid.IntRange(1, most).Draw(t, "count")
			leave := rapid.Bool().Draw(t, "leave")
			for i := first; i < min(first+count, most); i++ {
				name := fmt.Sprint("user-", i)
				switch n := have[name]; {
				case leave && n != nil:
					u.remove(n)
					delete(have, name)
				case !leave && n == nil:
					have[name] = &node{text: name}
					u.add(have[name])
				}
			}
			for i := range most {
				name := fmt.Sprint("user-", i)
				if got := u.find(name); got != have[name] {
					t.Fatalf("%s: found %v, want %v", name, got, have[name])
				}
			}
			if u.n != len(have) {
				t.Fatalf("there are %d, want %d", u.n, len(have))
			}
		}
	})
}

// A page grows, and is split, by no more than it needs.
func TestMostOfAPageOfUsersIsInUse(t *testing.T) {
	var u users[*node]
	for n := 1; n <= 20_000; n++ {
		u.add(&node{text: fmt.Sprint("user-", n)})
		if n < 1000 || n%100 != 0 {
			continue
		}
		places, seen := 0, map[*userPage[*node]]bool{}
		for _, p := range u.pages {
			if !seen[p] {
				seen[p] = true
				places += len(p.places)
			}
		}
		if 5*n < 3*places {
			t.Fatalf("%d users take %d places", n, places)
		}
	}
}

// subscribers are what one shard keeps of its subscriptions to a pattern.
type subscribers struct {
	shard  int
	places map[ref]int
}

// enter makes a subscription, which may be listed later.
func (s *subscribers) enter(t interface{ Fatal(...any) }, r *Realm, sub uint32) {
	n, err := r.pattern("a.*")
	if err != nil {
		t.Fatal(err)
	}
	at := refOf(7, s.shard, sub)
	s.places[at] = r.enter(n, at)
}

func (s *subscribers) leave(r *Realm, sub ref) {
	n, _ := r.tree.Get("a.*")
	place := s.places[sub]
	delete(s.places, sub)
	if moved := r.leave(n, s.shard, place); moved != 0 && moved != sub {
		s.places[moved] = place
	}
	r.release(n)
}

// wrong says how the shard's list of the node is not what it should be, or "".
func (s *subscribers) wrong(n *node) string {
	var one list
	l := n.on(s.shard, &one)
	if len(l) != len(s.places) {
		return fmt.Sprintf("shard %d has a list of %d, and %d subscriptions", s.shard, len(l), len(s.places))
	}
	for sub, place := range s.places {
		if l[place] != sub {
			return fmt.Sprintf("shard %d: in place %d is %x, not %x", s.shard, place, l[place], sub)
		}
	}
	return ""
}

func TestANodeKnowsWhereItsSubscriptionsAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &Realm{tree: match.New[*node](match.Config{})}
		all := make([]subscribers, rapid.SampledFrom([]int{1, 2, 5, 64}).Draw(t, "shards"))
		for i := range all {
			all[i] = subscribers{shard: i, places: map[ref]int{}}
		}
		next, total := uint32(1), 0
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			s := &all[rapid.IntRange(0, len(all)-1).Draw(t, "shard")]
			if rapid.Bool().Draw(t, "leave") && len(s.places) > 0 {
				subs := slices.Sorted(maps.Keys(s.places))
				s.leave(r, rapid.SampledFrom(subs).Draw(t, "who"))
				total--
			} else {
				s.enter(t, r, next)
				next++
				total++
			}
			n, found := r.tree.Get("a.*")
			if found != (total > 0) {
				t.Fatalf("with %d subscriptions there is a node: %t", total, found)
			}
			if !found {
				continue
			}
			var shards uint64
			for i := range all {
				if what := all[i].wrong(n); what != "" {
					t.Fatal(what)
				}
				if len(all[i].places) > 0 {
					shards |= 1 << i
				}
			}
			if n.shards() != shards {
				t.Fatalf("the shards are %b, want %b", n.shards(), shards)
			}
		}
	})
}

// The second subscription to a pattern comes while the first one's shard looks for it,
// without a lock.
func TestTheOnlySubscriptionIsFoundWhileAnotherComes(t *testing.T) {
	for range 2000 {
		r := &Realm{tree: match.New[*node](match.Config{})}
		n, _ := r.pattern("a.*")
		only := refOf(7, 3, 0)
		r.enter(n, only)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = r.pattern("a.*") // there is one
			r.enter(n, refOf(7, 2, 0))
		})
		var one list
		for range 20 {
			if l := n.on(3, &one); len(l) != 1 || l[0] != only {
				t.Errorf("found %x", l)
				break
			}
		}
		wg.Wait()
		if n.shards() != 1<<3|1<<2 {
			t.Fatalf("the shards are %b", n.shards())
		}
		if ref(n.only.Load()) != only { // or a shard between its two looks would find nothing
			t.Fatal("the only subscription was taken away from whoever looks for it")
		}
	}
}

// Shards come to a node and go, each on its own goroutine.
func TestShardsShareANodeWithoutALock(t *testing.T) {
	r := &Realm{tree: match.New[*node](match.Config{})}
	n, _ := r.pattern("a.*") // whoever this is has it stay
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			s := subscribers{shard: i, places: map[ref]int{}}
			at := func(k uint32) ref { return refOf(7, i, k) }
			for round := range 2000 {
				for k := range uint32(1 + round%3) {
					if _, err := r.pattern("a.*"); err != nil {
						t.Error(err)
					}
					s.places[at(k)] = r.enter(n, at(k))
				}
				if what := s.wrong(n); what != "" {
					t.Error(what)
					return
				}
				for k := range uint32(1 + round%3) {
					place := s.places[at(k)]
					delete(s.places, at(k))
					if moved := r.leave(n, s.shard, place); moved != 0 && moved != at(k) {
						s.places[moved] = place
					}
					r.release(n)
				}
			}
		})
	}
	wg.Wait()
	if n.shards() != 0 {
		t.Errorf("the shards are %b when all have gone", n.shards())
	}
}
