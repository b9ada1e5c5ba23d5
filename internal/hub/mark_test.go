package hub

import (
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine/memory"
)

// A mark stands for every entry since, also for those that came after the shard had
// looked how far the tail was. When some of them have left the ring, so that all
// feeds read the log, none may be live before the others.
func TestNoFeedIsLiveBeforeWhatAMarkStandsFor(t *testing.T) {
	const entries = 4 * chunkSize
	engine := memory.New(memory.Config{Partitions: 1})
	defer engine.Close(t.Context())
	h := New(Config{Engine: engine, Shards: 1, RingBytes: 1, Mailbox: 1})
	s, part := h.shards[0], h.parts[0]
	part.posted.Store(&place{})
	realm := h.Enter("acme")
	defer h.Leave(realm)
	node, err := realm.pattern(">")
	if err != nil {
		t.Fatal(err)
	}
	realm.enter(node, refOf(s.feeds.add(&Feed{}), s.id, 0))
	take := func(from, to uint64) {
		for seq := from; seq <= to; seq++ {
			e := &carillon.Entry{Org: "acme", Pos: carillon.Position{Seq: seq}}
			e.Type = "a.b"
			part.take(e)
		}
	}
	take(1, 1)
	s.places[0] = *part.posted.Load() // the shard looks, and is kept from going on
	take(2, entries)
	if !s.box.take(&s.mail) || s.mail.marks[0] == 0 || s.mail.marks[0] >= part.ring.table.Load().base {
		t.Fatalf("the mark is %d, the ring begins at %d", s.mail.marks[0], part.ring.table.Load().base)
	}
	s.feeds = table[Feed]{} // what it does to feeds is not the question
	s.mail.notices = nil
	s.handle()
	if here := s.places[0]; here.n != entries || here.pos.Seq != entries {
		t.Errorf("a feed may be live at %+v", here)
	}
}
