package hub

import (
	"fmt"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine/memory"
)

// taker counts what its feed gives.
type taker struct {
	Member
	feed Feed
	took int
}

func (r *taker) Timeout(time.Time) {}

func (r *taker) Turn() {
	for it, ok := r.feed.Next(); ok; it, ok = r.feed.Next() {
		if it.Delivery != nil {
			r.took++
		}
	}
}

// While an entry is offered to very many, another organization is served, feeds come and
// go, and each feed gets the entry once.
func TestAnEntryForManyDoesNotKeepOthersWaiting(t *testing.T) {
	const (
		many     = 1000
		quantum  = 64
		pattern  = "a.b"
		patience = 100
	)
	engine := memory.New(memory.Config{Partitions: 2})
	defer engine.Close(t.Context())
	h := New(Config{Engine: engine, Shards: 1, Offers: quantum, FeedQueue: 2})
	s := h.shards[0]
	for _, p := range h.parts {
		p.posted.Store(&place{})
	}
	var orgs [2]carillon.OrgID // one in each partition
	for i := 0; orgs[0] == "" || orgs[1] == ""; i++ {
		org := carillon.OrgID(fmt.Sprint("org", i))
		orgs[engine.Open(org).Partition()] = org
	}
	join := func(org carillon.OrgID) *taker {
		r := new(taker)
		s.Join(&r.Member, r)
		r.Enter(org)
		s.Open(&r.feed, &r.Member, carillon.Position{})
		if _, err := r.feed.Add(pattern, "", carillon.OverflowReplay, 0); err != nil {
			t.Fatal(err)
		}
		r.feed.Release()
		return r
	}
	leave := func(r *taker) {
		r.feed.Close()
		r.Leave()
	}
	publish := func(partition int, seq uint64) {
		e := &carillon.Entry{Org: orgs[partition], Pos: carillon.Position{Partition: uint16(partition), Seq: seq}}
		e.Type = pattern
		h.parts[partition].take(e)
	}
	takers := make([]*taker, many)
	for i := range takers {
		takers[i] = join(orgs[0])
	}
	one := join(orgs[1])
	for range patience {
		s.turn()
	}
	for _, r := range append(takers, one) {
		if !r.feed.Live() {
			t.Fatal("a feed is not live, with nothing to wait for")
		}
	}

	slow := join(orgs[0]) // not live, and at the list's end, where the offers begin
	publish(0, 1)
	publish(0, 2)
	publish(1, 1)
	s.turn()
	slow.Turn() // its socket takes something again, whoever's turn it is
	if one.took != 1 {
		t.Error("the other organization has to wait")
	}
	if !s.offering(h.parts[0]) {
		t.Fatal("everything was offered at once; this test is about something else")
	}
	last := takers[many-1] // is gone through first
	if n := last.took; n != 0 {
		t.Errorf("one was given %d while another was not offered the first", n)
	}
	leave(takers[many-2]) // the slow one takes its place, which is through
	leave(takers[0])      // the last takes its place, which is not
	new1 := join(orgs[0])
	turns := 1
	for ; s.offering(h.parts[0]); turns++ {
		if turns == patience {
			t.Fatal("it does not end")
		}
		if more := s.turn(); !more && s.offering(h.parts[0]) {
			t.Fatal("the shard may sleep before it has offered everything")
		}
	}
	if turns < 2*many/quantum {
		t.Errorf("%d feeds were offered two entries in %d turns of %d", many, turns, quantum)
	}
	for range patience {
		s.turn()
	}
	gone := map[*taker]bool{takers[0]: true, takers[many-2]: true}
	for i, r := range append(takers, new1, slow) {
		switch {
		case gone[r]:
		case r.took != 2:
			t.Fatalf("%d was given %d entries of 2", i, r.took)
		default:
			leave(r)
		}
	}
	leave(one)
	if s.turn() || s.due.any() {
		t.Error("there is something to do for nobody")
	}
}
