package hub

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine/memory"
)

// tab is a feed of a user, with its member, on a shard that is moved by hand.
type tab struct {
	member Member
	feed   Feed
}

func openTab(s *Shard, org carillon.OrgID, user string) *tab {
	t := new(tab)
	s.Join(&t.member, nil)
	t.member.Enter(org)
	s.Open(&t.feed, &t.member, carillon.Position{})
	t.feed.For(user)
	t.feed.OpenInbox()
	t.feed.live, t.feed.held = true, false
	return t
}

func (t *tab) close() {
	t.feed.Close()
	t.member.Leave()
}

func newEngine(t *testing.T) *memory.Engine {
	e := memory.New(memory.Config{})
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	return e
}

func sentTo(org carillon.OrgID, seq uint64, users ...string) *Delivery {
	e := &carillon.Entry{Org: org, Pos: carillon.Position{Seq: seq}}
	e.Type, e.To.Users = "note", users
	return &Delivery{Entry: e, at: place{n: seq, pos: e.Pos}}
}

// However many tabs a user has, and on whichever shards: what is sent to them is
// offered to each, and to nobody else.
func TestWhatIsSentToAUserIsOfferedToTheirFeeds(t *testing.T) {
	engine := newEngine(t)
	rapid.Check(t, func(t *rapid.T) {
		h := New(Config{Engine: engine, Shards: rapid.SampledFrom([]int{1, 2, 5}).Draw(t, "shards")})
		open := map[string][]*tab{}
		user := rapid.Custom(func(t *rapid.T) string { return fmt.Sprint("user-", rapid.IntRange(0, 3).Draw(t, "user")) })
		for seq := range uint64(rapid.IntRange(1, 60).Draw(t, "steps")) {
			name := user.Draw(t, "who")
			if tabs := open[name]; len(tabs) > 0 && rapid.Bool().Draw(t, "close") {
				i := rapid.IntRange(0, len(tabs)-1).Draw(t, "which")
				tabs[i].close()
				open[name] = slices.Delete(tabs, i, i+1)
			} else {
				open[name] = append(tabs, openTab(rapid.SampledFrom(h.shards).Draw(t, "shard"), "acme", name))
			}
			to := user.Draw(t, "to")
			d := sentTo("acme", seq+1, to)
			realm := h.Enter("acme")
			nodes, shards := realm.match(d.Entry)
			for _, s := range h.shards {
				if shards>>s.id&1 != 0 {
					s.offerAll(d, nodes)
				}
			}
			for name, tabs := range open {
				for i, tab := range tabs {
					if got, want := tab.feed.busy != nil && slices.Contains(tab.feed.busy.queue, seq+1), name == to; got != want {
						t.Fatalf("sent to %s: tab %d of %d of %s was offered it: %t", to, i, len(tabs), name, got)
					}
				}
			}
			total := 0
			for _, tabs := range open {
				if len(tabs) > 0 {
					total++
				}
			}
			if have := realm.alone.n + realm.among.n; have != total {
				t.Fatalf("the directory has %d users, want %d", have, total)
			}
			h.Leave(realm)
		}
	})
}

// A feed's number is given to another one, of whatever user and organization, while an
// event for the first one's user is on its way to the shard.
func TestWhoTakesOverANumberDoesNotGetWhatIsOnItsWay(t *testing.T) {
	h := New(Config{Engine: newEngine(t), Shards: 1})
	s := h.shards[0]
	for _, tt := range []struct {
		org  carillon.OrgID
		user string
		want bool
	}{
		{"acme", "bob", false},
		{"zenith", "alice", false},
		{"acme", "", false},
		{"acme", "alice", true},
	} {
		first := openTab(s, "acme", "alice")
		d := sentTo("acme", 5, "alice")
		nodes, _ := first.feed.realm().match(d.Entry)
		number := first.feed.number
		first.close()
		s.offerAll(d, nodes) // nobody is there
		second := openTab(s, tt.org, tt.user)
		if second.feed.number != number {
			t.Fatalf("the number is %d, not %d", second.feed.number, number)
		}
		s.offerAll(d, nodes)
		s.hear(d, nodes)
		if got := second.feed.queued() > 0; got != tt.want {
			t.Errorf("%s of %s, who comes next, is offered it: %t", tt.user, tt.org, got)
		}
		second.close()
	}
}
