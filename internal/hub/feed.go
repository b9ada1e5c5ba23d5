package hub

import (
	"slices"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
)

// lookBudget is how many entries a feed that is behind looks at before others
// get their turn.
const lookBudget = 2048

// Sub is one subscription of a feed: a pattern with an optional subject, or the
// inbox of a user.
type Sub struct {
	Pattern  carillon.Pattern
	Subject  string
	Overflow carillon.Overflow // while it stands, SetOverflow changes it

	user  string // an inbox, when not empty
	start uint64 // entries up to this sequence are not for it
	since uint64 // what follows this sequence is, or a backfill has brought it; nothing of it was left out
	feed  *Feed
	node  *node
	index int // in node.lists[shard]
}

// NewInbox is the subscription to what is sent to the user by name.
func NewInbox(user string) *Sub { return &Sub{user: user} }

// accepts is for an entry that matched the node of the subscription.
func (s *Sub) accepts(e *carillon.Entry) bool {
	return e.Pos.Seq > s.start && s.about(e)
}

// about is accepts for an ephemeral event.
func (s *Sub) about(e *carillon.Entry) bool { return s.Subject == "" || s.Subject == e.Subject }

// wants is for any entry of the organization.
func (s *Sub) wants(e *carillon.Entry) bool { return s.accepts(e) && s.matches(e) }

// brought is wants for what the subscription got by a backfill, too.
func (s *Sub) brought(e *carillon.Entry) bool {
	return e.Pos.Seq > s.since && s.about(e) && s.matches(e)
}

func (s *Sub) matches(e *carillon.Entry) bool {
	if s.user != "" {
		return e.To.Direct() && slices.Contains(e.To.Users, s.user)
	}
	return e.To.Whole() && match.Match(s.Pattern, e.Type)
}

// FeedOwner is told that Next may have something. It calls Next later, not now.
type FeedOwner interface{ FeedDue() }

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
// comment for its two states.
type Feed struct {
	// Set once by Open.
	owner FeedOwner
	shard *Shard
	realm *Realm

	prev, next *Feed // the shard's feeds of the partition

	pos  carillon.Position // what has been given, or looked at and passed over
	seq  uint64            // how far it has looked; at least pos.Seq
	last uint64            // live: ring index of the last entry offered
	hold uint64            // ring index it must reach before it is live
	cur  uint64            // behind, in the ring: index of an entry at or below seq
	end  uint64            // a backfill stops at this sequence; 0: never

	subs  []*Sub
	less  *Feed  // a backfill leaves out what this feed's subscriptions brought
	of    []*Sub // but for these, whose backfill it is
	queue []uint64
	aside *aside // nil: empty
	marks []mark
	gap   *carillon.Gap
	late  *late // nil: nothing is noted

	chunk   *scanChunk
	chunkAt int
	ticket  uint32 // of the pass it waits for

	walks   bool // behind, in the ring: it goes from entry to entry, attach was of no use
	lenient bool // some subscription may miss something

	live, held, asking, catching, closed, ended, listens bool
}

func (f *Feed) part() *partition { return f.realm.part }

// Open puts the feed at pos, where it stands held until Release. The zero Feed
// can be opened once.
func (s *Shard) Open(f *Feed, realm *Realm, owner FeedOwner, pos carillon.Position) {
	f.owner, f.shard, f.realm = owner, s, realm
	f.pos, f.seq, f.held = pos, pos.Seq, true
	head := &s.feeds[realm.part.id]
	if f.next = *head; f.next != nil {
		f.next.prev = f
	}
	*head = f
}

// Close ends the feed. Closing twice is allowed, as is closing one never opened.
func (f *Feed) Close() {
	if f.shard == nil || f.closed {
		return
	}
	f.closed = true
	for _, sub := range f.subs {
		if sub.node != nil {
			f.realm.leave(sub, f.shard.id)
		}
	}
	f.subs, f.marks, f.chunk, f.late, f.aside = nil, nil, nil, nil, nil
	f.dropQueue()
	if f.listens {
		f.shard.hub.unlisten(f.realm)
	}
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		f.shard.feeds[f.part().id] = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	}
	f.prev, f.next = nil, nil
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
	f.owner.FeedDue()
}

// Held reports whether it stands still.
func (f *Feed) Held() bool { return f.held }

// settle makes an idle live feed's implicit position, its shard's place, its own.
func (f *Feed) settle() {
	if f.live && len(f.queue) == 0 {
		f.passTo(f.shard.places[f.part().id])
	}
}

// Position is where the feed stands: everything it will ever give of what was
// there has been given.
func (f *Feed) Position() carillon.Position {
	f.settle()
	return f.pos
}

// Seq is how far the feed has looked, at least Position's sequence.
func (f *Feed) Seq() uint64 {
	f.settle()
	return f.seq
}

// Live reports whether the feed is live, not behind.
func (f *Feed) Live() bool { return f.live }

// Jump moves a held feed to pos.
func (f *Feed) Jump(pos carillon.Position) {
	f.fallBehind()
	f.pos, f.seq, f.cur, f.chunk, f.late = pos, pos.Seq, 0, nil, nil
}

func (f *Feed) passTo(p place) {
	if p.pos.Seq > f.seq {
		f.pos, f.seq = p.pos, p.pos.Seq
	}
}

// Add makes a subscription that begins after the sequence start. It fails when
// the organization has too many kinds of wildcard patterns.
func (f *Feed) Add(sub *Sub, start uint64) error {
	sub.feed, sub.start, sub.since = f, start, start
	if err := f.realm.enter(sub, f.shard.id); err != nil {
		f.shard.stats.TooManyShapes++
		return err
	}
	f.subs = append(f.subs, sub)
	f.late, f.lenient = nil, f.lenient || sub.Overflow != carillon.OverflowReplay
	f.catchUp()
	f.lookAgain(start)
	return nil
}

// Remove ends a subscription: from now on nothing comes that only it wanted.
func (f *Feed) Remove(sub *Sub) {
	f.realm.leave(sub, f.shard.id)
	if i := slices.Index(f.subs, sub); i >= 0 {
		f.subs = slices.Delete(f.subs, i, i+1)
	}
	f.judgeAnew()
	f.sift()
	f.siftAside(func(d *Delivery) bool { return !f.hears(d.Entry) })
}

// Restart has a subscription begin anew, after the sequence start.
func (f *Feed) Restart(sub *Sub, start uint64) {
	sub.start, sub.since = start, start
	f.late = nil
	f.sift()
	f.lookAgain(start)
}

// lookAgain is called when a subscription begins after start: a live feed has not
// been offered what the shard has handled already and only it wants, and so reads
// the ring from where it stands.
func (f *Feed) lookAgain(start uint64) {
	if f.live && start < f.shard.places[f.part().id].pos.Seq {
		f.fallBehind()
	}
}

// Forget ends a subscription of a backfill.
func (f *Feed) Forget(p carillon.Pattern, subject string) {
	f.subs = slices.DeleteFunc(f.subs, func(s *Sub) bool { return s.Pattern == p && s.Subject == subject })
	if len(f.subs) == 0 {
		f.finish()
	}
}

// finish has a backfill end where it is.
func (f *Feed) finish() {
	f.chunk, f.asking = nil, false
	f.ticket++
	f.end = max(f.end, f.seq, 1)
	f.seq = f.end
	f.owner.FeedDue()
}

// sift takes from the queue what no subscription wants any more.
func (f *Feed) sift() {
	if len(f.queue) == 0 {
		return
	}
	table := f.part().ring.table.Load()
	f.queue = slices.DeleteFunc(f.queue, func(n uint64) bool {
		d := table.get(n)
		return d != nil && !f.wants(d.Entry)
	})
}

// catchUp is called when a subscription was added: entries that the tail has
// matched without it, but whose notices this shard has not handled, must be
// looked at in the ring.
func (f *Feed) catchUp() {
	matched := f.part().ring.head.Load()
	if matched > f.shard.places[f.part().id].n {
		f.fallBehind()
		f.hold = max(f.hold, matched)
	}
}

// Backfill makes f, just opened at its start, give the entries up to main's
// position that match the patterns, less those that main's other subscriptions
// brought. The subscriptions of subs belong to main already.
func (f *Feed) Backfill(main *Feed, subs []*Sub) {
	f.less = main
	f.end = main.Seq()
	f.of = slices.Clone(subs)
	for _, s := range subs {
		f.subs = append(f.subs, &Sub{Pattern: s.Pattern, Subject: s.Subject, user: s.user, feed: f})
		s.since = f.seq
	}
	f.held = false
	if len(f.subs) == 0 {
		f.finish()
	}
	f.owner.FeedDue()
}

// Mark has Next give tag once everything up to seq has been given.
func (f *Feed) Mark(seq uint64, tag any) {
	f.marks = append(f.marks, mark{seq, tag})
	f.owner.FeedDue()
}

// offer is called for a match of one subscription after the other.
func (f *Feed) offer(d *Delivery, sub *Sub) {
	if !f.live {
		if f.lenient {
			f.note(d.Entry, sub)
		}
		return
	}
	if d.at.n <= f.last {
		return
	}
	if len(f.queue) == 0 {
		f.passTo(f.shard.before[f.part().id])
	}
	f.last = d.at.n
	if len(f.queue) >= f.shard.hub.cfg.FeedQueue {
		f.shard.stats.FellBehind++
		f.fallBehind()
		if f.lenient {
			f.note(d.Entry, sub)
		}
		return
	}
	if f.queue == nil {
		f.queue = f.shard.newQueue()
	}
	f.queue = append(f.queue, d.at.n)
	if len(f.queue) == 1 && !f.held {
		f.owner.FeedDue()
	}
}

// fallBehind forgets the queue: the feed will read from its position.
func (f *Feed) fallBehind() { f.fallBehindFrom(f.shard.places[f.part().id]) }

// fallBehindFrom is fallBehind for a feed that was offered everything up to here.
func (f *Feed) fallBehindFrom(here place) {
	if f.live {
		if len(f.queue) == 0 {
			f.passTo(here)
		}
		f.live = false
		f.cur = 0
	}
	f.walks = false
	if f.lenient {
		f.noteQueue()
	}
	f.dropQueue()
	f.discard()
	f.owner.FeedDue()
}

func (f *Feed) dropQueue() {
	if f.queue != nil {
		f.shard.pool = append(f.shard.pool, f.queue[:0])
		f.queue = nil
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

// reset: the log is not the one the feed knew. It goes on from now.
func (f *Feed) reset() {
	if f.closed {
		return
	}
	if f.less != nil { // what it was to bring is gone; the feed it serves says so
		f.finish()
		return
	}
	f.fallBehind()
	here := f.shard.places[f.part().id]
	f.pos, f.seq, f.last, f.cur, f.hold = here.pos, here.pos.Seq, here.n, 0, here.n
	f.chunk, f.asking, f.late = nil, false, nil
	f.ticket++
	f.gap = &carillon.Gap{Reason: carillon.GapReset, Pos: here.pos}
	for _, sub := range f.subs {
		sub.start = min(sub.start, here.pos.Seq)
	}
	for i := range f.marks {
		f.marks[i].seq = 0
	}
}

// Next gives the next item, if there is one now. Giving an entry moves the
// position past it. After it returned false the owner is told when to ask again.
func (f *Feed) Next() (Item, bool) {
	if f.closed || f.held || f.asking {
		return Item{}, false
	}
	if f.gap != nil {
		g := f.gap
		f.gap = nil
		return Item{Gap: g}, true
	}
	if it, ok := f.dueMark(); ok {
		return it, true
	}
	if f.live {
		if it, ok := f.nextLive(); ok || f.live {
			return it, ok
		}
	}
	return f.nextBehind()
}

func (f *Feed) dueMark() (Item, bool) {
	if len(f.marks) == 0 || f.marks[0].seq > f.seq {
		return Item{}, false
	}
	tag := f.marks[0].tag
	if f.marks = f.marks[1:]; len(f.marks) == 0 {
		f.marks = nil
	}
	return Item{Mark: tag}, true
}

func (f *Feed) nextLive() (Item, bool) {
	if len(f.queue) > 0 {
		d := f.part().ring.table.Load().get(f.queue[0])
		if d == nil { // it left the ring while it waited
			f.fallBehind()
			return Item{}, false
		}
		copy(f.queue, f.queue[1:])
		f.queue = f.queue[:len(f.queue)-1]
		f.take(d)
		if len(f.queue) == 0 {
			f.dropQueue()
		}
		return Item{Delivery: d}, true
	}
	f.settle()
	if f.late != nil { // everything was taken
		f.late = nil
	}
	if it, ok := f.dueMark(); ok {
		return it, true
	}
	if f.aside != nil {
		return Item{Delivery: f.nextAside()}, true
	}
	if len(f.marks) > 0 {
		f.shard.catchLater(f)
	}
	return Item{}, false
}

func (f *Feed) take(d *Delivery) {
	f.pos, f.seq = d.at.pos, d.at.pos.Seq
	if d.at.n != 0 {
		f.cur = d.at.n
	}
}

// wants reports whether an entry of the log is for this feed.
func (f *Feed) wants(e *carillon.Entry) bool {
	wanted := false
	for _, sub := range f.subs {
		if sub.wants(e) {
			wanted = true
			break
		}
	}
	if !wanted || f.less == nil {
		return wanted
	}
	for _, sub := range f.less.subs {
		if sub.brought(e) && !slices.Contains(f.of, sub) {
			return false
		}
	}
	return true
}

// nextBehind reads on from the position: a pass's entries, the ring, or, below
// the ring, the next pass.
func (f *Feed) nextBehind() (Item, bool) {
	here := f.shard.places[f.part().id]
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
		if f.end != 0 && d.at.pos.Seq > f.end {
			f.seq = max(f.seq, f.end)
			return f.arrived(here)
		}
		f.take(d)
		if f.wants(d.Entry) && !(slow && f.leavesOut(d.Entry)) {
			f.shard.stats.Replayed++
			return Item{Delivery: d}, true
		}
		if it, ok := f.dueMark(); ok {
			return it, true
		}
	}
	f.owner.FeedDue()
	return Item{}, false
}

// look finds the organization's next entry after the feed's; nil means that
// there is none up to here. ok is false when a pass has to bring it first.
func (f *Feed) look(here place) (d *Delivery, ok bool) {
	if c := f.chunk; c != nil {
		for f.chunkAt < len(c.entries) {
			d := c.entries[f.chunkAt]
			f.chunkAt++
			if d.at.pos.Seq > f.seq {
				return d, true
			}
		}
		f.seq = max(f.seq, c.seen)
		f.chunk = nil
	}
	if f.end != 0 && f.seq >= f.end {
		return nil, true
	}
	r := f.part().ring
	v := r.view(f.realm.chain)
	if f.seq < v.floor {
		f.asking = true
		f.ticket++
		f.shard.hub.scans.board(passenger{feed: f, ticket: f.ticket, pos: f.pos, seq: f.seq})
		return nil, false
	}
	if f.end == 0 && !f.walks && !f.slow() && here.n >= f.hold && here.pos.Seq >= f.seq {
		if f.attach(here) {
			return nil, false
		}
		f.walks = true
	}
	if cur := v.table.get(f.cur); cur != nil && cur.Entry.Org == f.realm.org && cur.at.pos.Seq <= f.seq {
		for d = v.following(cur); d != nil && d.at.pos.Seq <= f.seq; d = v.following(d) {
		}
	} else {
		d = v.after(f.seq)
	}
	if d != nil && d.at.n > here.n {
		d = nil
	}
	return d, true
}

// maxAttachKeys bounds the subscriptions of a feed that attaches by key.
const maxAttachKeys = 8

// attach makes a feed with a few literal subscriptions live at once: what it
// missed is found through the entries of its own keys, however much else its
// organization has in the ring. It fails when that is more than a queue holds.
// The feed's place is in the ring and not past here.
func (f *Feed) attach(here place) bool {
	if len(f.subs) == 0 || len(f.subs) > maxAttachKeys {
		return false
	}
	for _, sub := range f.subs {
		if sub.user == "" && !sub.Pattern.Literal() {
			return false
		}
	}
	c := f.realm.chain
	var newest [maxAttachKeys]uint64
	for i, sub := range f.subs {
		key := string(sub.Pattern)
		if sub.user != "" {
			key = directKey
		}
		newest[i] = c.newest(key)
	}
	v := f.part().ring.view(c) // after the keys, so that the table has them
	if f.seq < v.floor {
		return false
	}
	queue := f.shard.newQueue()
	for i, sub := range f.subs {
		looked := 0
		for d := v.table.get(newest[i]); d != nil && d.at.pos.Seq > f.seq; d = v.table.get(d.same) {
			if looked++; looked > lookBudget {
				return f.giveUp(queue)
			}
			if d.at.n > here.n || !sub.accepts(d.Entry) || sub.user != "" && !slices.Contains(d.Entry.To.Users, sub.user) {
				continue
			}
			if len(queue) == f.shard.hub.cfg.FeedQueue {
				return f.giveUp(queue)
			}
			queue = append(queue, d.at.n)
		}
	}
	slices.Sort(queue)
	queue = slices.Compact(queue) // one entry may be for two subjects' subscriptions
	f.live, f.last, f.queue = true, here.n, queue
	if len(queue) == 0 {
		f.passTo(here)
		f.dropQueue()
	}
	return true
}

func (f *Feed) giveUp(queue []uint64) bool {
	f.shard.pool = append(f.shard.pool, queue[:0])
	return false
}

// arrived is called when a feed that is behind has looked at everything up to
// its shard's place.
func (f *Feed) arrived(here place) (Item, bool) {
	if f.end == 0 || here.pos.Seq <= f.end {
		f.passTo(here)
	} else {
		f.seq = max(f.seq, f.end)
	}
	if it, ok := f.dueMark(); ok {
		return it, true
	}
	if f.end != 0 && f.seq >= f.end {
		if f.ended {
			return Item{}, false
		}
		f.ended = true
		return Item{End: true}, true
	}
	if f.end == 0 && here.n >= f.hold && here.pos.Seq >= f.seq {
		f.live, f.last, f.late = true, here.n, nil
		if len(f.marks) == 0 {
			return Item{}, false
		}
	}
	f.shard.catchLater(f)
	return Item{}, false
}

// Rest is called when the owner's socket is full: a feed that is behind keeps
// nothing meanwhile, and boards the next pass when it is asked again.
func (f *Feed) Rest() { f.chunk = nil }

// Pending reports whether Next would have something to look at. It is a hint.
func (f *Feed) Pending() bool {
	return !f.closed && !f.held && (f.gap != nil || len(f.queue) > 0 || f.aside != nil || !f.live && !f.asking && !f.catching)
}

// land is what a pass brings.
func (f *Feed) land(ticket uint32, r passResult) {
	if f.closed || !f.asking || ticket != f.ticket {
		return
	}
	f.asking = false
	switch r.outcome {
	case passChunk:
		f.chunk, f.chunkAt = r.chunk, 0
	case passExpired:
		f.gap = &carillon.Gap{Reason: carillon.GapExpired, Pos: r.from}
		f.pos, f.seq, f.cur = r.from, max(f.seq, r.from.Seq), 0
	case passReset:
		f.reset()
	}
	f.owner.FeedDue()
}
