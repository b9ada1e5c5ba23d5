package session

import (
	"slices"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
)

// A node with many sessions plans their ends without a piece of memory for each of
// them, and tells them some at a time.
func TestManyGoodbyesArePlannedTogether(t *testing.T) {
	const many = 10_000
	e := memory.New(memory.Config{})
	defer e.Close(t.Context())
	h := hub.New(hub.Config{Engine: e, Shards: 4})
	sessions := make([]*Session, many)
	for i := range sessions {
		sessions[i] = &Session{}
		h.Shard().Join(&sessions[i].Member, sessions[i])
	}
	as := slices.Clone(sessions)
	var all []*goodbyes
	d := &departures{begin: time.Now(), window: time.Minute, pace: time.Millisecond}
	if n := testing.AllocsPerRun(1, func() { all = d.plan(sessions, h.Shards()) }); n > 200 {
		t.Errorf("%v pieces of memory for %d sessions", n, many)
	}
	if slices.Equal(as, sessions) {
		t.Error("their order is that in which they came")
	}
	seen := map[time.Duration]bool{}
	for _, g := range all {
		for _, b := range g.left {
			if b.s.Shard() != g.shard || seen[b.after] || b.after%(time.Minute/many) != 0 || b.after >= time.Minute {
				t.Fatalf("a goodbye after %v", b.after)
			}
			seen[b.after] = true
		}
		before := len(g.left)
		if g.Run(); before-len(g.left) != goodbyesAtOnce {
			t.Errorf("%d goodbyes were said in one turn", before-len(g.left))
		}
	}
	if len(seen) != many {
		t.Errorf("%d sessions have a goodbye, of %d", len(seen), many)
	}
}
