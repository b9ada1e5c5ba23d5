package hub

import (
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
)

// slowAfter is how long a client may leave something untaken, once its socket was
// full, before it is slow.
const slowAfter = 250 * time.Millisecond

// late is what a feed with subscriptions that may miss something knows of the
// entries that wait for it. While the feed is behind, each that its shard offers
// is noted here.
//
// The client is slow when the feed is behind, and its owner's socket was full
// slowAfter ago, every mark was given by then, and it has not taken everything
// since; until it has. Meanwhile an entry leaves the feed only if
//   - conflate: for one of the subscriptions nothing newer of its topic is noted;
//   - drop_oldest: fewer than FeedQueue newer ones under drop_oldest are noted.
//
// What was never noted is older than what is, so that it can be left out, but
// leaves nothing out: a newest entry is never missing. The position passes over
// what is left out as over what does not match.
type late struct {
	since  time.Time // the socket was full; zero: it has not been, or all was taken
	slow   bool
	open   bool              // more subscriptions may want last
	policy carillon.Overflow // of last, so far
	last   uint64            // sequence of the newest entry noted
	newest map[topic]uint64  // under conflate: sequences
	kept   recent            // under drop_oldest
	cut    recent            // under disconnect
}

// topic is what conflate keeps the newest entry of: a subject, or, of entries
// without one, a type.
type topic struct {
	sub     *Sub
	subject string
	typ     carillon.Type
}

func topicOf(sub *Sub, e *carillon.Entry) topic {
	if e.Subject != "" {
		return topic{sub: sub, subject: e.Subject}
	}
	return topic{sub: sub, typ: e.Type}
}

// recent is the sequences of the newest entries, as many as are asked for.
type recent struct {
	seqs []uint64
	next int // when there are as many: the oldest
}

func (r *recent) add(seq uint64, most int) {
	if len(r.seqs) < most {
		r.seqs = append(r.seqs, seq)
		return
	}
	r.seqs[r.next] = seq
	r.next = (r.next + 1) % most
}

// oldest is the first of them, or 0 if there are fewer.
func (r *recent) oldest(most int) uint64 {
	if len(r.seqs) < most {
		return 0
	}
	return r.seqs[r.next]
}

// SetOverflow gives a subscription another policy, for what waits too.
func (f *Feed) SetOverflow(sub *Sub, o carillon.Overflow) {
	if sub.overflow != o {
		sub.overflow = o
		f.judgeAnew()
	}
}

// judgeAnew is called when the subscriptions have changed: what was noted says
// nothing any more.
func (f *Feed) judgeAnew() {
	if f.busy != nil {
		f.busy.late = nil
	}
	f.lenient = false
	for sub := range f.Subs {
		f.lenient = f.lenient || sub.overflow != carillon.OverflowReplay
	}
}

// Stuck is called when the owner had a turn in which its socket took nothing.
func (f *Feed) Stuck() {
	if !f.lenient || f.held || f.busy != nil && len(f.busy.marks) > 0 {
		return
	}
	if l := f.lateness(); l.since.IsZero() {
		l.since = f.shard().now
	}
}

func (f *Feed) lateness() *late {
	b := f.need()
	if b.late == nil {
		b.late = new(late)
	}
	return b.late
}

// slow reports whether the client of a feed that is behind is slow.
func (f *Feed) slow() bool {
	l := f.busy.late
	if l == nil {
		return false
	}
	l.slow = l.slow || !l.since.IsZero() && f.shard().now.Sub(l.since) >= slowAfter
	return l.slow
}

// overrun reports whether more entries under disconnect wait than a queue holds.
func (f *Feed) overrun() bool {
	f.file()
	return f.busy.late.cut.oldest(f.shard().hub.cfg.FeedQueue+1) > f.looked()
}

// note remembers an entry that waits, for one of the subscriptions that want it; nil
// is the inbox. It is called for the others before the next entry.
func (f *Feed) note(e *carillon.Entry, sub *Sub) {
	l, seq, policy := f.lateness(), e.Pos.Seq, carillon.OverflowReplay
	if sub != nil {
		policy = sub.overflow
	}
	switch {
	case seq > l.last:
		f.file()
		l.last, l.policy, l.open = seq, policy, true
	case seq == l.last:
		l.policy = min(l.policy, policy)
	default:
		return
	}
	if s := f.shard(); policy == carillon.OverflowConflate && !l.supersede(topicOf(sub, e), seq, s.hub.cfg.Conflated) {
		s.stats.TooManySubjects++
	}
}

// file puts the newest entry with those of its policy: all who want it are known.
func (f *Feed) file() {
	l, most := f.busy.late, f.shard().hub.cfg.FeedQueue
	if !l.open {
		return
	}
	l.open = false
	switch l.policy {
	case carillon.OverflowDropOldest:
		l.kept.add(l.last, most)
	case carillon.OverflowDisconnect:
		l.cut.add(l.last, most+1)
	case carillon.OverflowReplay, carillon.OverflowConflate:
	}
}

// noteQueue remembers what waits in the queue of a feed that falls behind.
func (f *Feed) noteQueue() {
	table := f.part().ring.table.Load()
	for _, n := range f.busy.queue {
		d := table.get(n)
		if d == nil {
			continue
		}
		if f.mine(d.Entry) {
			f.note(d.Entry, nil)
		}
		for sub := range f.Subs {
			if sub.wants(d.Entry) {
				f.note(d.Entry, sub)
			}
		}
	}
}

// supersede notes the newest entry of a topic. It fails when there are too many:
// then every entry of this one comes.
func (l *late) supersede(t topic, seq uint64, most int) bool {
	if _, known := l.newest[t]; !known {
		if len(l.newest) >= most {
			return false
		}
		if l.newest == nil {
			l.newest = map[topic]uint64{}
		}
		t.subject, t.typ = strings.Clone(t.subject), carillon.Type(strings.Clone(string(t.typ))) // not all that they are part of
	}
	l.newest[t] = seq
	return true
}

// leavesOut decides about an entry that the feed wants, while the client is slow.
func (f *Feed) leavesOut(e *carillon.Entry) bool {
	l, stats, seq := f.busy.late, &f.shard().stats, e.Pos.Seq
	policy, newest := carillon.OverflowDisconnect, false
	if f.mine(e) {
		policy = carillon.OverflowReplay
	}
	for sub := range f.Subs {
		if !sub.wants(e) {
			continue
		}
		policy = min(policy, sub.overflow)
		if t := topicOf(sub, e); sub.overflow == carillon.OverflowConflate && l.newest[t] <= seq {
			delete(l.newest, t)
			newest = true
		}
	}
	switch {
	case policy == carillon.OverflowConflate && !newest:
		stats.Conflated++
	case policy == carillon.OverflowDropOldest && seq < l.kept.oldest(f.shard().hub.cfg.FeedQueue):
		stats.DroppedOldest++
	default:
		return false
	}
	for sub := range f.Subs {
		if sub.wants(e) {
			sub.setSince(seq) // a backfill of another may have to bring this one
		}
	}
	return true
}
