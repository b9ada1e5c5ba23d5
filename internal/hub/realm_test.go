package hub

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon/internal/match"
)

func TestUsersAreThoseAddedAndNotRemoved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u users
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
					have[name] = &node{text: directKey + name}
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

// subscribers are what one shard keeps of its subscriptions to a node.
type subscribers struct {
	shard  int
	places map[ref]int
}

func (s *subscribers) enter(r *Realm, n *node, sub ref) { s.places[sub] = r.enter(n, s.shard, sub) }

func (s *subscribers) leave(r *Realm, n *node, sub ref) {
	place := s.places[sub]
	delete(s.places, sub)
	if moved := r.leave(n, s.shard, place); moved != 0 && moved != sub {
		s.places[moved] = place
	}
}

// wrong says how the shard's list of the node is not what it should be, or "".
func (s *subscribers) wrong(n *node) string {
	l := n.on(s.shard)
	if l == nil {
		if len(s.places) > 0 {
			return fmt.Sprintf("shard %d has no list, and %d subscriptions", s.shard, len(s.places))
		}
		return ""
	}
	if l.len() != len(s.places) || l.len() == 0 {
		return fmt.Sprintf("shard %d has a list of %d, and %d subscriptions", s.shard, l.len(), len(s.places))
	}
	for sub, place := range s.places {
		if l.at(place) != sub {
			return fmt.Sprintf("shard %d: in place %d is %x, not %x", s.shard, place, l.at(place), sub)
		}
	}
	return ""
}

func TestANodeKnowsWhereItsSubscriptionsAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &Realm{tree: match.New[*node](match.Config{})}
		n, _ := r.pattern("a.*")
		all := make([]subscribers, rapid.SampledFrom([]int{1, 2, 5, 64}).Draw(t, "shards"))
		for i := range all {
			all[i] = subscribers{shard: i, places: map[ref]int{}}
		}
		next := ref(1)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			s := &all[rapid.IntRange(0, len(all)-1).Draw(t, "shard")]
			if rapid.Bool().Draw(t, "leave") && len(s.places) > 0 {
				subs := make([]ref, 0, len(s.places))
				for sub := range s.places {
					subs = append(subs, sub)
				}
				slices.Sort(subs)
				s.leave(r, n, rapid.SampledFrom(subs).Draw(t, "who"))
			} else {
				s.enter(r, n, next)
				next++
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

// Shards come to a node and go, each on its own goroutine.
func TestShardsShareANodeWithoutALock(t *testing.T) {
	r := &Realm{tree: match.New[*node](match.Config{})}
	n, _ := r.pattern("a.*")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			s := subscribers{shard: i, places: map[ref]int{}}
			for round := range 2000 {
				for k := range ref(1 + round%3) {
					s.enter(r, n, k+1)
				}
				if what := s.wrong(n); what != "" {
					t.Error(what)
					return
				}
				for k := range ref(1 + round%3) {
					s.leave(r, n, k+1)
				}
			}
		})
	}
	wg.Wait()
	if n.shards() != 0 {
		t.Errorf("the shards are %b when all have gone", n.shards())
	}
}
