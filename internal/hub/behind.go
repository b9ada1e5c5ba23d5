package hub

import (
	"slices"

	"github.com/carillon-rt/carillon"
)

// lookBudget is how many entries a feed that is behind looks at before others
// get their turn.
const lookBudget = 2048

// nextBehind reads on from the position: a pass's entries, the ring, or, below
// the ring, the next pass.
func (f *Feed) nextBehind() (Item, bool) {
	b := f.need()
	here := f.here()
	slow := f.slow()
	if slow && f.overrun() {
		return Item{Overrun: true}, true
	}
	for range lookBudget {
		d, ok := f.look(here)
		if f.live {
			return f.nextLive()
		}
		if !ok {
			return Item{}, false
		}
		if d == nil {
			return f.arrived(here)
		}
		if b.backfill && d.at.pos.Seq > b.end {
			b.looked = max(b.looked, b.end)
			return f.arrived(here)
		}
		f.take(d)
		if f.wants(d.Entry) && !(slow && f.leavesOut(d.Entry)) {
			f.shard().stats.Replayed++
			return Item{Delivery: d}, true
		}
		if it, ok := f.dueMark(); ok {
			return it, true
		}
	}
	f.m.Due()
	return Item{}, false
}

// look finds the organization's next entry after the feed's; nil means that
// there is none up to here. ok is false when a pass has to bring it first.
func (f *Feed) look(here place) (d *Delivery, ok bool) {
	b := f.busy
	if c := b.chunk; c != nil {
		for b.chunkAt < len(c.entries) {
			d := c.entries[b.chunkAt]
			b.chunkAt++
			if d.at.pos.Seq > f.looked() {
				return d, true
			}
		}
		b.looked = max(b.looked, c.seen)
		b.chunk = nil
	}
	if b.backfill && f.looked() >= b.end {
		return nil, true
	}
	realm := f.realm()
	v := realm.part.ring.view(realm.chain)
	if f.looked() < v.floor {
		f.board()
		return nil, false
	}
	if !b.walks && !f.slow() && f.mayLive(here) {
		if f.attach(here) {
			return nil, false
		}
		b.walks = true
	}
	if cur := v.table.get(b.cur); cur != nil && cur.Entry.Org == realm.org && cur.at.pos.Seq <= f.looked() {
		for d = v.following(cur); d != nil && d.at.pos.Seq <= f.looked(); d = v.following(d) {
		}
	} else {
		d = v.after(f.looked())
	}
	if d != nil && d.at.n > here.n {
		d = nil
	}
	return d, true
}

// board makes the feed wait for a pass over the log.
func (f *Feed) board() {
	s, b := f.shard(), f.busy
	s.tickets++
	b.asking, b.ticket = true, s.tickets
	s.hub.scans.board(passenger{feed: f, shard: s, realm: f.realm(), ticket: b.ticket, pos: f.Position(), seq: f.looked()})
}

// maxAttachKeys bounds the subscriptions of a feed that attaches by key.
const maxAttachKeys = 8

// attach makes a feed with a few literal subscriptions live at once: what it
// missed is found through the entries of its own keys, however much else its
// organization has in the ring. It fails when that is more than a queue holds.
// The feed's place is in the ring and not past here.
func (f *Feed) attach(here place) bool {
	var (
		buf  [maxAttachKeys]*Sub // nil: the inbox
		keys = buf[:0]
	)
	if f.inboxAt != 0 {
		keys = append(keys, nil)
	}
	for sub := range f.Subs {
		if len(keys) == maxAttachKeys || !sub.Pattern().Literal() {
			return false
		}
		keys = append(keys, sub)
	}
	if len(keys) == 0 {
		return false
	}
	s, c := f.shard(), f.realm().chain
	var newest [maxAttachKeys]uint64
	for i, sub := range keys {
		key := directKey
		if sub != nil {
			key = sub.node.text
		}
		newest[i] = c.newest(key)
	}
	v := f.part().ring.view(c) // after the keys, so that the table has them
	if f.looked() < v.floor {
		return false
	}
	queue := s.newQueue()
	giveUp := func() bool {
		s.pool = append(s.pool, queue[:0])
		return false
	}
	for i, sub := range keys {
		looked := 0
		for d := v.table.get(newest[i]); d != nil && d.at.pos.Seq > f.looked(); d = v.table.get(d.same) {
			if looked++; looked > lookBudget {
				return giveUp()
			}
			if d.at.n > here.n || sub == nil && !f.mine(d.Entry) || sub != nil && !sub.accepts(d.Entry) {
				continue
			}
			if len(queue) == s.hub.cfg.FeedQueue {
				return giveUp()
			}
			queue = append(queue, d.at.n)
		}
	}
	slices.Sort(queue)
	queue = slices.Compact(queue) // one entry may be for two subjects' subscriptions
	f.live, f.busy.queue = true, queue
	if len(queue) == 0 {
		f.passTo(here)
		f.dropQueue()
	}
	return true
}

// mayLive reports whether a feed that has looked at everything up to its shard's place is
// live from there. It is not while entries behind that are being offered: it may have been
// passed over. A socket that takes something again asks at any time.
func (f *Feed) mayLive(here place) bool {
	b := f.busy
	return !b.backfill && here.n >= b.hold && here.pos.Seq >= f.looked() && !f.shard().offering(f.part())
}

// arrived is called when a feed that is behind has looked at everything up to
// its shard's place.
func (f *Feed) arrived(here place) (Item, bool) {
	b := f.busy
	if !b.backfill || here.pos.Seq <= b.end {
		f.passTo(here)
	} else {
		b.looked = max(b.looked, b.end)
	}
	if it, ok := f.dueMark(); ok {
		return it, true
	}
	if b.backfill && f.looked() >= b.end {
		if b.ended {
			return Item{}, false
		}
		b.ended = true
		return Item{End: true}, true
	}
	if f.mayLive(here) {
		f.live, b.late = true, nil
		if len(b.marks) == 0 {
			return Item{}, false
		}
	}
	f.shard().catchLater(f)
	return Item{}, false
}

// Rest is called when the owner's socket is full: a feed that is behind keeps
// nothing meanwhile, and boards the next pass when it is asked again.
func (f *Feed) Rest() {
	if f.busy != nil {
		f.busy.chunk = nil
	}
}

// land is what a pass brings.
func (f *Feed) land(ticket uint64, r passResult) {
	b := f.busy
	if b == nil || !b.asking || ticket != b.ticket {
		return
	}
	b.asking = false
	switch r.outcome {
	case passChunk:
		b.chunk, b.chunkAt = r.chunk, 0
	case passExpired:
		b.gap = &carillon.Gap{Reason: carillon.GapExpired, Pos: r.from}
		looked := f.looked()
		f.goTo(r.from)
		b.looked = looked
		b.cur = 0
	case passReset:
		f.reset()
	}
	f.m.Due()
}
