package hub

import (
	"slices"

	"github.com/carillon-rt/carillon"
)

// Item is what a feed gives: exactly one of its fields is set.
type Item struct {
	Delivery *Delivery
	Mark     any           // everything up to this mark has been given
	Gap      *carillon.Gap // entries are missing here
	End      bool          // a backfill has given all
	Overrun  bool          // more waits under disconnect than may: the owner ends
}

// mark asks to be told when the feed has looked at everything up to seq.
type mark struct {
	seq uint64
	tag any
}

// Feed is one cursor in one organization's log, on one shard. See the package
// comment for its two states. When Next may have something its member is due.
//
// Most feeds are live and nothing waits for them: what only the others need is in
// busy. What an entry for a live feed touches stands first.
type Feed struct {
	busy   *busy  // nil: live, or held, and nothing waits
	pos    uint64 // with check: what has been given, or looked at and passed over
	check  uint32
	number uint32 // in the shard's table; 0: not open

	inboxAt uint32 // 1 + the inbox's place in its list; 0: it has not begun

	live, held, listens bool
	lenient             bool // some subscription may miss something

	first Sub     // its number is 0
	more  *[]*Sub // theirs begin at 1; there may be holes

	m    *Member
	user string // whose feed it is; "": nobody's. Others read it while the inbox is open
}

func (f *Feed) shard() *Shard    { return f.m.Shard() }
func (f *Feed) realm() *Realm    { return f.m.Realm() }
func (f *Feed) part() *partition { return f.m.Realm().part }

// here is the shard's place in the feed's partition.
func (f *Feed) here() place {
	b := f.m.branch.Load()
	return b.shard.places[b.realm.part.id]
}

// queued is how many entries wait for a feed that is live.
func (f *Feed) queued() int {
	if f.busy == nil {
		return 0
	}
	return len(f.busy.queue)
}

// Open puts the feed of a member that has entered its organization at pos, where it
// stands held until Release. The zero Feed can be opened once.
func (s *Shard) Open(f *Feed, m *Member, pos carillon.Position) {
	f.m, f.held = m, true
	f.pos, f.check = pos.Seq, pos.Check
	f.number = s.feeds.add(f)
}

// Open reports whether the shard has opened the feed, and it is not closed.
func (f *Feed) Open() bool { return f.number != 0 }

// Close ends the feed. Closing twice is allowed, as is closing one never opened.
func (f *Feed) Close() {
	if f.number == 0 {
		return
	}
	s := f.shard()
	for n, sub := range f.numbered {
		f.end(sub, n)
	}
	f.more = nil
	if f.inboxAt != 0 {
		f.closeInbox()
	}
	if f.busy != nil {
		f.dropQueue()
		f.busy.aside = nil
		s.giveBack(f.busy)
		f.busy = nil
	}
	if f.listens {
		f.unlisten()
	}
	s.feeds.remove(f.number)
	f.number = 0
}

// Hold makes the feed stand still; Release lets it go on.
func (f *Feed) Hold() {
	f.settle()
	f.discard()
	f.held = true
}

// Release lets the feed go on.
func (f *Feed) Release() {
	f.held = false
	f.m.Due()
}

// Held reports whether it stands still.
func (f *Feed) Held() bool { return f.held }

// settle makes an idle live feed's implicit position, its shard's place, its own.
func (f *Feed) settle() {
	if f.live && f.queued() == 0 {
		f.passTo(f.here())
	}
}

// Position is where the feed stands: everything it will ever give of what was
// there has been given.
func (f *Feed) Position() carillon.Position {
	f.settle()
	return carillon.Position{Partition: uint16(f.part().id), Seq: f.pos, Check: f.check}
}

// Seq is how far the feed has looked, at least Position's sequence.
func (f *Feed) Seq() uint64 {
	f.settle()
	return f.looked()
}

// looked is Seq for a feed that has settled, or is not idle.
func (f *Feed) looked() uint64 {
	if f.busy == nil {
		return f.pos
	}
	return max(f.pos, f.busy.looked)
}

// Live reports whether the feed is live, not behind.
func (f *Feed) Live() bool { return f.live }

func (f *Feed) passTo(p place) {
	if p.pos.Seq > f.looked() {
		f.goTo(p.pos)
	}
}

// goTo sets the position, which is how far the feed has looked, too.
func (f *Feed) goTo(pos carillon.Position) {
	f.pos, f.check = pos.Seq, pos.Check
	if f.busy != nil {
		f.busy.looked = 0
	}
}

// finish has a backfill end where it is.
func (f *Feed) finish() {
	b := f.busy
	b.chunk, b.asking = nil, false
	b.end = max(b.end, f.looked(), 1)
	b.looked = b.end
	f.m.Due()
}

// sift takes from the queue what no subscription wants any more.
func (f *Feed) sift() {
	if f.queued() == 0 {
		return
	}
	table := f.part().ring.table.Load()
	f.busy.queue = slices.DeleteFunc(f.busy.queue, func(n uint64) bool {
		d := table.get(n)
		return d != nil && !f.wants(d.Entry)
	})
}

// catchUp is called when a subscription was added: entries that the tail has
// matched without it, but whose notices this shard has not handled, must be
// looked at in the ring.
func (f *Feed) catchUp() {
	matched := f.part().ring.head.Load()
	if matched > f.here().n {
		f.fallBehind()
		b := f.need()
		b.hold = max(b.hold, matched)
	}
}

// Backfill makes f, just opened at its start, give the entries up to main's
// position that match the patterns of subs, which are main's, less those that main's
// other subscriptions brought.
func (f *Feed) Backfill(main *Feed, subs []*Sub) {
	b := f.need()
	b.backfill, b.less, b.end = true, main, main.Seq()
	b.of = slices.Clone(subs)
	for _, s := range subs {
		s.setSince(f.looked())
	}
	f.held = false
	if len(b.of) == 0 {
		f.finish()
	}
	f.m.Due()
}

// Forget leaves a subscription out of a backfill. Its last ends it.
func (f *Feed) Forget(sub *Sub) {
	b := f.busy
	b.of = slices.DeleteFunc(b.of, func(s *Sub) bool { return s == sub })
	if len(b.of) == 0 {
		f.finish()
	}
}

// Mark has Next give tag once everything up to seq has been given.
func (f *Feed) Mark(seq uint64, tag any) {
	b := f.need()
	b.marks = append(b.marks, mark{seq, tag})
	f.m.Due()
}

// offer is called for a match of one subscription after the other; nil is the inbox.
func (f *Feed) offer(s *Shard, d *Delivery, sub *Sub) {
	if !f.live {
		if f.lenient {
			f.note(d.Entry, sub)
		}
		return
	}
	b := f.busy
	switch {
	case b != nil && len(b.queue) > 0:
		if d.at.n <= b.queue[len(b.queue)-1] { // another subscription matched it too
			return
		}
	case d.at.pos.Seq <= f.pos: // the same, and it has been taken
		return
	default:
		f.passTo(s.before[f.part().id])
		b = f.need()
	}
	if len(b.queue) >= s.hub.cfg.FeedQueue {
		s.stats.FellBehind++
		f.fallBehind()
		if f.lenient {
			f.note(d.Entry, sub)
		}
		return
	}
	if b.queue == nil {
		b.queue = s.newQueue()
	}
	b.queue = append(b.queue, d.at.n)
	if len(b.queue) == 1 && !f.held {
		f.m.Due()
	}
}

// fallBehind forgets the queue: the feed will read from its position.
func (f *Feed) fallBehind() { f.fallBehindFrom(f.here()) }

// fallBehindFrom is fallBehind for a feed that was offered everything up to here.
func (f *Feed) fallBehindFrom(here place) {
	b := f.need()
	if f.live {
		if len(b.queue) == 0 {
			f.passTo(here)
		}
		f.live = false
		b.cur = 0
	}
	b.walks = false
	if f.lenient {
		f.noteQueue()
	}
	f.dropQueue()
	f.discard()
	f.m.Due()
}

// reset: the log is not the one the feed knew. It goes on from now.
func (f *Feed) reset() {
	if f.number == 0 {
		return
	}
	b := f.need()
	if b.backfill { // what it was to bring is gone; the feed it serves says so
		f.finish()
		return
	}
	f.fallBehind()
	here := f.here()
	f.goTo(here.pos)
	b.cur, b.hold = 0, here.n
	b.chunk, b.asking, b.late = nil, false, nil
	b.gap = &carillon.Gap{Reason: carillon.GapReset, Pos: here.pos}
	for sub := range f.Subs {
		sub.start = min(sub.start, here.pos.Seq)
	}
	for i := range b.marks {
		b.marks[i].seq = 0
	}
}

// Next gives the next item, if there is one now. Giving an entry moves the
// position past it. After it returned false the member is due when it is time to ask
// again.
func (f *Feed) Next() (Item, bool) {
	if f.number == 0 || f.held {
		return Item{}, false
	}
	if f.live { // mostly that is all there is to it
		b := f.busy
		if b == nil {
			f.settle()
			return Item{}, false
		}
		if b.gap == nil && b.marks == nil {
			if d := f.takeQueued(); d != nil {
				return Item{Delivery: d}, true
			}
		}
	}
	it, ok := f.next()
	if !ok {
		f.tidy()
	}
	return it, ok
}

func (f *Feed) next() (Item, bool) {
	if b := f.busy; b != nil {
		if b.asking {
			return Item{}, false
		}
		if g := b.gap; g != nil {
			b.gap = nil
			return Item{Gap: g}, true
		}
		if it, ok := f.dueMark(); ok {
			return it, true
		}
	}
	if f.live {
		if it, ok := f.nextLive(); ok || f.live {
			return it, ok
		}
	}
	return f.nextBehind()
}

func (f *Feed) dueMark() (Item, bool) {
	b := f.busy
	if len(b.marks) == 0 || b.marks[0].seq > f.looked() {
		return Item{}, false
	}
	tag := b.marks[0].tag
	if b.marks = b.marks[1:]; len(b.marks) == 0 {
		b.marks = nil
	}
	return Item{Mark: tag}, true
}

// takeQueued is the entry that waits first for a live feed, or nil; the feed may be
// behind then.
func (f *Feed) takeQueued() *Delivery {
	b := f.busy
	if len(b.queue) == 0 {
		return nil
	}
	d := f.part().ring.table.Load().get(b.queue[0])
	if d == nil { // it left the ring while it waited
		f.fallBehind()
		return nil
	}
	copy(b.queue, b.queue[1:])
	b.queue = b.queue[:len(b.queue)-1]
	f.take(d)
	if len(b.queue) == 0 {
		f.dropQueue()
		f.tidy()
	}
	return d
}

func (f *Feed) nextLive() (Item, bool) {
	if d := f.takeQueued(); d != nil || !f.live {
		return Item{Delivery: d}, d != nil
	}
	f.dropQueue() // sift may have emptied it
	f.settle()
	b := f.busy
	b.late = nil // everything was taken
	if it, ok := f.dueMark(); ok {
		return it, true
	}
	if b.aside != nil {
		return Item{Delivery: f.nextAside()}, true
	}
	if len(b.marks) > 0 {
		f.shard().catchLater(f)
	}
	return Item{}, false
}

func (f *Feed) take(d *Delivery) {
	f.goTo(d.at.pos)
	if d.at.n != 0 {
		f.busy.cur = d.at.n
	}
}

// wants reports whether an entry of the log is for this feed.
func (f *Feed) wants(e *carillon.Entry) bool {
	if b := f.busy; b != nil && b.backfill {
		return b.brings(e)
	}
	if e.To.Direct() {
		return f.mine(e)
	}
	if f.first.place != 0 && f.first.wants(e) {
		return true
	}
	if f.more == nil {
		return false
	}
	for sub := range f.Subs {
		if sub.wants(e) {
			return true
		}
	}
	return false
}

// mine reports whether an entry is sent to the user by name.
func (f *Feed) mine(e *carillon.Entry) bool {
	return f.inboxAt != 0 && slices.Contains(e.To.Users, f.user)
}

// brings is wants for a backfill.
func (b *busy) brings(e *carillon.Entry) bool {
	wanted := slices.ContainsFunc(b.of, func(s *Sub) bool { return s.about(e) && s.matches(e) })
	if !wanted {
		return false
	}
	for sub := range b.less.Subs {
		if sub.brought(e) && !slices.Contains(b.of, sub) {
			return false
		}
	}
	return true
}

// Pending reports whether Next would have something to look at. It is a hint.
func (f *Feed) Pending() bool {
	if f.number == 0 || f.held {
		return false
	}
	b := f.busy
	return !f.live && (b == nil || !b.asking && !b.catching) || b != nil && (b.gap != nil || len(b.queue) > 0 || b.aside != nil)
}
