package hub

import (
	"context"
	"iter"
	"time"

	"github.com/carillon-rt/carillon"
)

// turnBudget is how long a shard serves members before it looks at its mailbox
// again.
const turnBudget = 500 * time.Microsecond

// Shard is one goroutine that owns feeds and the sessions around them.
type Shard struct {
	hub    *Hub
	id     int
	box    *mailbox
	poller Poller

	// Owned by the shard's goroutine.
	now      time.Time
	members  members
	branches map[carillon.OrgID]*branch
	nobody   *branch // of members that have no organization yet
	wheel    wheel
	moments  moments
	mail     mail
	places   []place // per partition: every entry up to here has been offered
	before   []place // the places of the turn before
	posted   []place // every notice up to here is in the mail, or was in a mail before
	todo     []offers
	opened   []*partition // those that have some, in turn
	feeds    table[Feed]
	catching []*Feed // behind, at the shard's place, not yet allowed to be live
	due      dueList
	tickets  uint64     // of feeds that waited for a pass
	busies   []*busy    // spare
	pool     [][]uint64 // spare queues of feeds
	asides   []*aside   // and of their ephemeral events
	one      list       // see node.on
	stats    Stats
}

// Post hands the shard a task; it runs on the shard's goroutine, after every
// task posted before by the same goroutine. Safe from anywhere; never blocks.
// Each poster has a fixed few tasks outstanding, which bounds the mailbox.
func (s *Shard) Post(t Task) { s.box.do(t) }

// ID is the shard's number, from 0.
func (s *Shard) ID() int { return s.id }

// Now is the time of the current turn.
func (s *Shard) Now() time.Time { return s.now }

// Elapsed is how long after the shard was made that is, by the monotonic clock.
func (s *Shard) Elapsed() time.Duration { return s.now.Sub(s.wheel.begin) }

func (s *Shard) run(ctx context.Context) {
	const asLongAsItTakes = -1
	for ctx.Err() == nil {
		if s.turn() || s.due.any() {
			s.poller.Wait(0)
			continue
		}
		if !s.box.sleep() {
			continue
		}
		wait := time.Duration(asLongAsItTakes)
		if s.wheel.count > 0 {
			wait = s.wheel.untilTick(s.now)
		}
		s.poller.Wait(s.moments.until(wait))
	}
}

// turn handles the mail, the timers, what the sockets have, and a slice of the
// members that have something due. It reports whether there may be more for the
// next.
func (s *Shard) turn() (more bool) {
	s.now = time.Now()
	// A place is read before the mailbox: whatever the tail posted up to it is
	// in the mail taken afterwards.
	for p, part := range s.hub.parts {
		s.before[p], s.posted[p] = s.places[p], *part.posted.Load()
	}
	if s.box.take(&s.mail) || len(s.opened) > 0 {
		s.handle()
	} else {
		s.move()
	}
	late := s.wheel.advance(s.now)
	s.moments.advance(s.now)
	more = s.poller.Serve()
	s.catch()
	s.due.serve(turnBudget)
	return more || late || len(s.opened) > 0
}

// move moves the places to where everything has been offered.
func (s *Shard) move() {
	for p, part := range s.hub.parts {
		if here := s.posted[p]; !s.offering(part) && (here.n > s.places[p].n || s.places[p].n == 0) {
			s.places[p] = here
		}
	}
}

func (s *Shard) handle() {
	for p, reset := range s.mail.resets {
		if reset {
			s.reset(s.hub.parts[p])
		}
	}
	s.sort()
	s.offer(s.hub.cfg.Offers)
	s.move()
	for _, n := range s.mail.signals {
		s.hear(n.d, n.nodes)
	}
	for i, t := range s.mail.tasks {
		t.Run()
		s.mail.tasks[i] = nil
	}
	clear(s.mail.notices)
	clear(s.mail.signals)
}

// readFrom makes up for notices that had no room: it reads the ring from index
// n on and matches by itself. Entries that come again in a notice are known by
// their index.
func (s *Shard) readFrom(part *partition, n uint64) {
	s.stats.MailboxOverflows++
	head := part.ring.head.Load()
	table := part.ring.table.Load()
	if n < table.base {
		// Some have left the ring: every feed reads the log from where it stood. Those
		// that are still there were for the mark, too: no feed is live before them.
		for f := range s.feedsOf(part) {
			f.fallBehindFrom(s.before[part.id])
		}
		s.passed(part, part.ring.newest())
		return
	}
	for ; n <= head; n++ {
		d := table.get(n)
		if d == nil { // a hole
			continue
		}
		if realm := part.ring.chainOf(d.Entry.Org).realm.Load(); realm != nil {
			nodes, _ := realm.match(d.Entry)
			s.offerAll(d, nodes)
		}
		s.passed(part, d)
	}
}

// passed moves the shard's place to an entry it has offered: a feed must not
// become live before it. The tail posts in order, so that nothing up to there is
// still to come.
func (s *Shard) passed(part *partition, d *Delivery) {
	if d.at.n > s.places[part.id].n {
		s.places[part.id] = d.at
	}
}

// reset tells every feed of the partition that the log is not the one it knew.
func (s *Shard) reset(part *partition) {
	s.places[part.id] = *part.posted.Load()
	s.before[part.id] = s.places[part.id]
	s.todo[part.id].clear()
	for f := range s.feedsOf(part) {
		f.reset()
	}
}

// feedsOf goes through the feeds of a partition.
func (s *Shard) feedsOf(part *partition) iter.Seq[*Feed] {
	return func(yield func(*Feed) bool) {
		s.feeds.all(func(f *Feed) bool { return f.part() != part || yield(f) })
	}
}

// catch lets feeds that waited for the shard's place look again.
func (s *Shard) catch() {
	if len(s.catching) == 0 {
		return
	}
	waiting := s.catching
	s.catching = nil
	for _, f := range waiting {
		if f.number == 0 {
			continue
		}
		f.busy.catching = false
		if here := f.here(); here.n < f.busy.hold || here.pos.Seq < f.looked() {
			s.catchLater(f)
			continue
		}
		f.m.Due()
	}
}

// catchLater has f looked at again when the shard's place has moved.
func (s *Shard) catchLater(f *Feed) {
	b := f.busy
	if b.catching {
		return
	}
	b.catching = true
	s.catching = append(s.catching, f)
	part := f.part()
	part.watch(s.id)
	if part.posted.Load().n != s.places[part.id].n {
		s.box.nudge()
	}
}

// Head is the position of the end of the realm's log as this process knows it:
// at least everything acknowledged here.
func (s *Shard) head(r *Realm) carillon.Position {
	pos := s.places[r.part.id].pos
	if known := s.hub.cfg.Engine.Head(r.part.id); known.Seq > pos.Seq {
		return known
	}
	return pos
}
