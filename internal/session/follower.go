package session

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/wire"
)

// follower is the feed of a poll. It lingers for a moment after the answer: when
// the same caller comes with the cursor it was given, for the same patterns, its
// feed goes on from where it stands.
//
// What that poll is told is what a new follower would tell it. A feed that cannot
// go on without a gap gives way to a new one, and whether the caller may still ask
// is asked anew.
type follower struct {
	hub.Member // its alarm is for the end of the poll's wait, or of the lingering
	feed       hub.Feed

	core      *Core
	principal *carillon.Principal // of the last poll
	patterns  []carillon.Pattern
	poll      *Poll             // in hand; nil: it lingers
	at        carillon.Position // that the last answer gave as its cursor
	due       stamp             // since when an event has been due that came while it lingered

	key          uint64    // set when it lingers, as what follows
	older, newer *follower // with the same key
	idle         bool

	opened, closed bool
}

func (c *Core) newFollower(shard *Shard, p *carillon.Principal, patterns []carillon.Pattern) *follower {
	f := &follower{core: c, principal: p, patterns: slices.Clone(patterns)}
	shard.Join(&f.Member, f)
	c.dir.polls.Add(1)
	return f
}

// begin takes a poll in hand.
func (f *follower) begin(p *Poll) {
	f.Number() // it can be found from here on: who drains or revokes comes before this, or walks past
	f.poll, f.principal = p, p.principal
	if f.core.Draining() {
		p.wait = 0
	}
}

// open puts the feed where the cursor says.
func (f *follower) open(cursor carillon.Cursor) {
	f.core.enter(&f.Member, f.principal.Org)
	f.Shard().Resolve(f.Realm(), cursor, f.resolved)
}

// ids are those of the organization, once it has entered that.
func (f *follower) ids() *wire.IDs { return f.Tag().(*tenant).ids }

func (f *follower) resolved(start hub.Start, err error) {
	p := f.poll
	if f.closed || p == nil {
		return
	}
	if err != nil {
		p.fail(logError(err))
		return
	}
	f.Shard().Open(&f.feed, &f.Member, start.Pos)
	f.opened = true
	if start.Gap != nil {
		p.find().gap = wire.AppendGap(nil, f.ids(), start.Gap)
	}
	for i, pattern := range f.patterns {
		sub, err := f.feed.Add(pattern, "", carillon.OverflowReplay, start.Pos.Seq)
		if err != nil {
			p.fail(err)
			return
		}
		f.patterns[i] = sub.Pattern() // the same text, which all share
	}
	f.feed.For(f.principal.User)
	f.feed.OpenInbox()
	f.feed.Mark(f.Shard().Head(f.Realm()).Seq, f)
	f.feed.Release()
	p.hold()
}

// goOn attaches the poll in hand to the feed as it stands. A live feed has in its
// queue what the shard has seen since; only a poll that does not wait has to know
// of what it has not seen yet.
func (f *follower) goOn() {
	f.core.stats.attached.Add(1)
	if f.poll.caught = f.poll.wait > 0 && f.feed.Live(); !f.poll.caught {
		f.feed.Mark(f.Shard().Head(f.Realm()).Seq, f)
	}
	f.poll.hold()
	f.Due()
}

// renew has the poll in hand begin anew.
func (f *follower) renew() {
	p := f.poll
	next := f.core.newFollower(f.Shard(), p.principal, f.patterns)
	f.poll = nil
	f.close()
	p.follower, p.attached, p.caught = next, false, false
	next.begin(p)
	next.open(carillon.At(f.at))
}

// Turn takes what the feed has.
func (f *follower) Turn() {
	p := f.poll
	if p == nil {
		if f.opened {
			f.note()
		}
		return
	}
	if p.err != nil {
		p.finish()
		return
	}
	for f.opened {
		if p.full() {
			p.found.more = true
			p.finish()
			return
		}
		item, ok := f.feed.Next()
		if !ok {
			break
		}
		switch {
		case item.Delivery != nil:
			p.add(item.Delivery)
		case item.Gap != nil && p.attached && p.found == nil:
			f.renew()
			return
		case item.Gap != nil:
			f.core.stats.gaps.Add(1)
			p.find().gap = wire.AppendGap(nil, f.ids(), item.Gap)
		case item.Mark != nil:
			p.caught = true
		}
	}
	p.settle()
}

// Timeout ends the wait of the poll in hand, or the lingering.
func (f *follower) Timeout(time.Time) {
	if f.poll != nil {
		f.poll.finish()
	} else {
		f.dismiss()
	}
}

// stand notes where the feed stands.
func (f *follower) stand() (cursor string) {
	f.at = f.feed.Position()
	return f.ids().String(f.at)
}

// linger lets the follower wait for the caller's next poll, if it may. more says that
// it has something for that already.
func (f *follower) linger(more bool) {
	c, shard := f.core, f.Shard()
	if f.due = 0; more {
		f.due = longAgo
	}
	f.note()
	if c.Limits.PollLinger <= 0 || c.Draining() || !c.lingering.put(f) {
		f.close()
		return
	}
	f.Alarm(shard.Now().Add(c.Limits.PollLinger))
}

// note notes that something is due for the poll to come. The feed keeps nothing
// large meanwhile.
func (f *follower) note() {
	if f.due == 0 && f.feed.Pending() {
		f.due = stampOf(f.Shard())
	}
	f.feed.Rest()
}

// stamp is a time of a shard, as Elapsed counts it; 0: none.
type stamp time.Duration

const longAgo = stamp(-time.Hour)

func stampOf(shard *Shard) stamp { return stamp(shard.Elapsed()) + 1 }

// until is how long it is until some time after the stamp.
func (s stamp) until(after time.Duration, shard *Shard) time.Duration {
	return time.Duration(s-stampOf(shard)) + after
}

// dismiss ends a follower that lingers, unless a poll is on its way to it.
func (f *follower) dismiss() {
	if f.core.lingering.remove(f) {
		f.close()
	}
}

func (f *follower) close() {
	if f.closed {
		return
	}
	f.closed = true
	f.feed.Close()
	f.Leave()
	f.core.dir.pollEnded()
}

// eachFollower calls f for every one, on its shard.
func (c *Core) eachFollower(f func(*follower)) {
	for _, shard := range c.Hub.Shards() {
		shard.Walk(func(owner any) {
			if one, ok := owner.(*follower); ok {
				f(one)
			}
		}, nil)
	}
}

// revoke ends the poll in hand, or the lingering, if who asked is not allowed any
// more.
func (f *follower) revoke(org carillon.OrgID) {
	if f.principal.Org != org {
		return
	}
	err := f.core.allowed(f.principal)
	switch {
	case err == nil:
	case f.poll != nil:
		f.poll.fail(err)
	default:
		f.dismiss()
	}
}

// lingering finds those followers of a node that wait for their caller.
type lingering struct {
	most int
	met  func() // the limit
	seed maphash.Seed
	held atomic.Int64

	parts [lingeringParts]struct {
		mu    sync.Mutex // guards what follows, and idle, older and newer of those in it
		byKey map[uint64]*follower
	}
}

const lingeringParts = 16

func (l *lingering) init(most int, met func()) {
	l.most, l.met, l.seed = most, met, maphash.MakeSeed()
	for i := range l.parts {
		l.parts[i].byKey = map[uint64]*follower{}
	}
}

// keyOf is the same for those who may take each other's place, and for few others.
func (l *lingering) keyOf(p *carillon.Principal, at carillon.Position, patterns []carillon.Pattern) uint64 {
	var h maphash.Hash
	h.SetSeed(l.seed)
	text := func(s string) {
		_, _ = h.WriteString(s) // never fails
		_ = h.WriteByte(0)      // as above
	}
	text(string(p.Org))
	text(p.User)
	for _, pattern := range patterns {
		text(string(pattern))
	}
	maphash.WriteComparable(&h, at)
	return h.Sum64()
}

// put lets a follower be found, unless as many as may be are.
func (l *lingering) put(f *follower) bool {
	if l.held.Add(1) > int64(l.most) {
		l.held.Add(-1)
		l.met()
		return false
	}
	f.key = l.keyOf(f.principal, f.at, f.patterns)
	part := &l.parts[f.key%lingeringParts]
	part.mu.Lock()
	defer part.mu.Unlock()
	if f.older = part.byKey[f.key]; f.older != nil {
		f.older.newer = f
	}
	part.byKey[f.key] = f
	f.idle = true
	return true
}

// take finds the follower for a poll, which is then the caller's: nobody else finds
// it, and it waits for the poll.
func (l *lingering) take(opt *PollOptions) *follower {
	if opt.Cursor.Kind != carillon.CursorAt || l.held.Load() == 0 {
		return nil
	}
	key := l.keyOf(opt.Principal, opt.Cursor.Pos, opt.Patterns)
	part := &l.parts[key%lingeringParts]
	part.mu.Lock()
	defer part.mu.Unlock()
	for f := part.byKey[key]; f != nil; f = f.older {
		if f.serves(opt) {
			l.drop(f)
			return f
		}
	}
	return nil
}

// serves reports whether a follower that lingers stands where a poll asks it to,
// for the same caller and patterns.
func (f *follower) serves(opt *PollOptions) bool {
	p := opt.Principal
	return f.at == opt.Cursor.Pos && f.principal.Org == p.Org && f.principal.User == p.User && slices.Equal(f.patterns, opt.Patterns)
}

// remove lets a follower be found no more; it reports false when it was.
func (l *lingering) remove(f *follower) bool {
	part := &l.parts[f.key%lingeringParts]
	part.mu.Lock()
	defer part.mu.Unlock()
	if !f.idle {
		return false
	}
	l.drop(f)
	return true
}

// drop is called with the mutex of the follower's part held.
func (l *lingering) drop(f *follower) {
	part := &l.parts[f.key%lingeringParts]
	switch {
	case f.newer != nil:
		f.newer.older = f.older
	case f.older != nil:
		part.byKey[f.key] = f.older
	default:
		delete(part.byKey, f.key)
	}
	if f.older != nil {
		f.older.newer = f.newer
	}
	f.older, f.newer, f.idle = nil, nil, false
	l.held.Add(-1)
}
