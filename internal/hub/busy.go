package hub

import "github.com/carillon-rt/carillon"

// busy is what a feed knows that is behind, or for which something waits.
type busy struct {
	queue []uint64 // live: ring indices
	aside *aside   // nil: empty
	marks []mark
	gap   *carillon.Gap
	late  *late // nil: nothing is noted

	hold uint64 // ring index it must reach before it is live
	cur  uint64 // behind, in the ring: index of an entry at or below what it has looked at

	looked uint64 // behind: up to which sequence it has looked, if that is more than its position

	backfill bool
	end      uint64 // a backfill stops at this sequence
	of       []*Sub // whose backfill it is
	less     *Feed  // it leaves out what this feed's other subscriptions brought

	chunk   *scanChunk
	chunkAt int
	ticket  uint64 // of the pass it waits for, or waited for last

	walks                   bool // behind, in the ring: it goes from entry to entry, attach was of no use
	asking, catching, ended bool
}

// need is f.busy, made if need be.
func (f *Feed) need() *busy {
	if f.busy == nil {
		f.busy = f.shard().newBusy()
	}
	return f.busy
}

// tidy gives busy back when nothing is in it.
func (f *Feed) tidy() {
	b := f.busy
	if b == nil || !f.live || b.catching || b.queue != nil || b.aside != nil || b.marks != nil || b.gap != nil || b.late != nil {
		return
	}
	f.busy = nil
	f.shard().giveBack(b)
}

// maxPooledBusy bounds what a shard keeps for feeds to come.
const maxPooledBusy = 4096

func (s *Shard) newBusy() *busy {
	if len(s.busies) > maxPooledBusy {
		s.busies = s.busies[:maxPooledBusy]
	}
	i := len(s.busies) - 1
	if i < 0 {
		return new(busy)
	}
	b := s.busies[i]
	s.busies = s.busies[:i]
	return b
}

func (s *Shard) giveBack(b *busy) {
	*b = busy{}
	s.busies = append(s.busies, b)
}

func (f *Feed) dropQueue() {
	if b := f.busy; b != nil && b.queue != nil {
		s := f.shard()
		s.pool = append(s.pool, b.queue[:0])
		b.queue = nil
	}
}

// maxPooledQueues bounds what a shard keeps for feeds to come.
const maxPooledQueues = 4096

func (s *Shard) newQueue() []uint64 {
	if len(s.pool) > maxPooledQueues {
		s.pool = s.pool[:maxPooledQueues]
	}
	if i := len(s.pool) - 1; i >= 0 {
		q := s.pool[i]
		s.pool = s.pool[:i]
		return q
	}
	return make([]uint64, 0, s.hub.cfg.FeedQueue)
}
