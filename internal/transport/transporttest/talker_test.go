package transporttest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

// progress is how many of an organization's events its publisher has begun to
// publish, and how many of them are acknowledged.
type progress struct{ begun, acked atomic.Int64 }

// talker is a WebSocket client that subscribes, subscribes again and unsubscribes
// as it goes, often before the last answer has come, and notes what it hears. It
// may be slow, and asks for some patterns with an overflow.
type talker struct {
	org, user string
	after     *published // of the handshake; nil: none
	steps     []step
	queue     int           // how many events may wait for it
	pause     time.Duration // it takes nothing for so long when all is said
	acked     int64         // events acknowledged before the handshake
	heard     []heard
	cut       bool // for being slow
	err       error
}

// step is one frame of a talker.
type step struct {
	patterns []string
	overflow carillon.Overflow
	after    *published // nil: none
	leave    bool       // unsubscribe, from the only pattern
	owes     bool       // a caught_up is to come
	wait     bool       // for all that is owed, before the next step
	acked    int64      // events acknowledged before it was sent
}

// heard is a message, and how many events had been begun when it came.
type heard struct {
	transporttest.Message
	begun int64
}

// newTalker makes up a talker of an organization that has published log. Whoever
// subscribes with a cursor waits for the end of it: then the client can tell what
// is of a backfill.
func newTalker(r *rand.Rand, org, user string, log []published, pattern func() string, queue int) *talker {
	place := func() *published { return &log[r.IntN(len(log))] }
	x := &talker{org: org, user: user, queue: queue}
	if r.IntN(2) == 0 {
		x.pause = 300 * time.Millisecond // of which a client is slow
	}
	if r.IntN(4) > 0 {
		x.after = place()
	}
	standing := []string{"fin"}
	for range 2 + r.IntN(7) {
		var s step
		switch {
		case len(x.steps) == 0:
			s.patterns, s.owes = []string{"fin"}, true
		case r.IntN(6) == 0 && len(standing) > 1:
			i := 1 + r.IntN(len(standing)-1)
			s.leave, s.patterns = true, []string{standing[i]}
			standing = slices.Delete(standing, i, i+1)
		}
		for range r.IntN(3) + 1 - len(s.patterns) {
			p := pattern()
			if r.IntN(4) == 0 {
				p = pick(r, standing)
			}
			if !slices.Contains(s.patterns, p) {
				s.patterns = append(s.patterns, p)
			}
		}
		if !s.leave && r.IntN(3) == 0 {
			s.after = place()
		}
		if !s.leave && !slices.Contains(s.patterns, "fin") {
			s.overflow = carillon.Overflow(r.IntN(4))
		}
		for _, p := range s.patterns {
			if !s.leave && !slices.Contains(standing, p) {
				standing, s.owes = append(standing, p), true
			}
		}
		s.owes = s.owes || s.after != nil
		s.wait = s.after != nil || r.IntN(2) == 0
		x.steps = append(x.steps, s)
	}
	x.steps[len(x.steps)-1].wait = true
	return x
}

// run says everything, then hears on until the end of the organization's events.
func (x *talker) run(t *testing.T, n *transporttest.Node, at *progress, said func()) {
	defer said()
	x.acked = at.acked.Load()
	a := ask{Token: n.Token(t, x.org, x.user), Idle: true, Narrow: x.pause > 0}
	if x.after != nil {
		a.After = x.after.id
	}
	c, err := transporttest.Doors[0].Open(t, n, a)
	if err != nil {
		x.err = err
		return
	}
	defer c.Close()
	socket := c.(*transporttest.Socket)
	answers, owed := 0, 0
	hear := func() (m transporttest.Message, ok bool) {
		if m, x.err = socket.Next(); x.err != nil {
			var ended *transporttest.Ended
			if x.cut && errors.As(x.err, &ended) && ended.Code == 4102 {
				x.err = nil
			}
			return m, false
		}
		x.heard = append(x.heard, heard{m, at.begun.Load()})
		switch m.Type {
		case "subscribed", "unsubscribed":
			answers--
		case "caught_up":
			owed--
		case "error", "gap":
			if x.cut = m.Code == "quota_exceeded"; x.cut {
				break
			}
			x.err = fmt.Errorf("%s %s %s", m.Type, m.Reason, m.Text)
		}
		return m, x.err == nil
	}
	for i := range x.steps {
		s := &x.steps[i]
		s.acked = at.acked.Load()
		frame := map[string]any{"type": "subscribe", "ref": i, "patterns": s.patterns, "overflow": s.overflow.String()}
		if s.leave {
			frame = map[string]any{"type": "unsubscribe", "ref": i, "pattern": s.patterns[0]}
		} else if s.after != nil {
			frame["after"] = s.after.id
		}
		socket.Send(frame)
		if answers++; s.owes {
			owed++
		}
		for s.wait && (answers > 0 || owed > 0) {
			if _, ok := hear(); !ok {
				return
			}
		}
	}
	said()
	time.Sleep(x.pause)
	for {
		if m, ok := hear(); !ok || m.EventType == "fin" {
			return
		}
	}
}

// check goes through what was heard and compares it with what the publisher
// knows. It returns how many events it compared, and how many were left out.
func (x *talker) check(t *testing.T, n *transporttest.Node, log []published, w *whispers) (events, left int) {
	t.Helper()
	o := &oracle{talker: x, log: log, seq: func(id string) uint64 {
		pos, ok := n.IDs.Org(carillon.OrgID(x.org)).Decode(id)
		if !ok {
			t.Errorf("%q is no id of %s", id, x.org)
		}
		return pos.Seq
	}}
	err := x.err
	for i := 0; i < len(x.heard) && err == nil; i++ {
		h := &x.heard[i]
		switch h.Type {
		case "welcome":
			err = o.welcome(h)
		case "subscribed":
			err = o.subscribed(h)
		case "unsubscribed":
			o.subs = slices.DeleteFunc(o.subs, func(s *standing) bool { return s.pattern == h.Pattern })
			o.changed(h)
		case "caught_up":
			err = o.caughtUp(h)
		case "event":
			switch {
			case h.ID == "":
				err = o.whispered(h, w)
			case h.EventType != "fin":
				events++
				err = o.event(h)
			}
		case "error":
			if !slices.ContainsFunc(o.subs, func(s *standing) bool { return s.overflow == carillon.OverflowDisconnect }) {
				err = fmt.Errorf("cut without a subscription that says so: %s", h.Text)
			}
		}
	}
	if err == nil && !x.cut {
		err = o.passes(log[len(log)-1].seq, nil)
	}
	if err == nil {
		return events, o.leftOut
	}
	t.Errorf("%s of %s: %v", x.user, x.org, err)
	for i, s := range x.steps {
		after := "-"
		if s.after != nil {
			after = strconv.FormatUint(s.after.seq, 10)
		}
		t.Logf("step %d: leave %t, patterns %v, overflow %s, after %s, wait %t", i, s.leave, s.patterns, s.overflow, after, s.wait)
	}
	return events, o.leftOut
}

// oracle knows, from what a talker said and which cursors it was answered with,
// the events it must and must not get, however the server came to them.
type oracle struct {
	*talker

	log  []published
	seq  func(id string) uint64
	subs []*standing

	start   uint64 // of the connection
	began   bool   // the inbox has, at start
	at      uint64 // what comes next lies behind this
	pos     uint64 // the connection's own feed has come so far, or further
	owed    int    // caught_ups
	due     uint64 // what the last of them is not before
	filling bool   // a backfill may still go on
	before  uint64 // what lies behind this was judged by the subscriptions there are
	leftOut int    // how many events could come and did not
}

// standing is a subscription.
type standing struct {
	pattern  string
	overflow carillon.Overflow
	since    uint64 // it brought what lies behind this,
	own      uint64 // and on the connection's own feed what lies behind this
	whole    uint64 // up to here nothing is left out
	filling  bool
	loose    bool   // it may have left something out
	strict   uint64 // but nothing behind this, if it leaves out nothing now
}

func (s *standing) wants(p *published) bool {
	return len(p.users) == 0 && match.Match(carillon.Pattern(s.pattern), carillon.Type(p.typ))
}

// claim is whether an event is to come.
type claim int

const (
	never claim = iota
	may
	must
)

func (o *oracle) wanted(p *published) claim {
	if len(p.users) > 0 {
		if o.began && p.seq > o.start && p.seq > o.pos && slices.Contains(p.users, o.user) {
			return must
		}
		return never
	}
	c := never
	var live []*standing
	perhaps := false
	for _, s := range o.subs {
		switch {
		case !s.wants(p):
		case s.filling:
			if p.seq > s.since {
				c = must
			}
		case p.seq > s.own && p.seq > o.pos:
			live = append(live, s)
		case p.seq > s.since && s.loose:
			perhaps = true // it has come, or was left out
		case p.seq > s.since:
			return never // it has come, by a backfill or without one
		}
	}
	if len(live) > 0 {
		c = max(c, o.left(p, live))
	}
	if perhaps {
		c = min(c, may)
	}
	return c
}

// left says what the overflow of the subscriptions leaves of an event.
func (o *oracle) left(p *published, subs []*standing) claim {
	overflow := slices.MinFunc(subs, func(a, b *standing) int { return int(a.overflow) - int(b.overflow) }).overflow
	later := func(ok func(q *published) bool) (n int) {
		for i := range o.log {
			if q := &o.log[i]; q.seq > p.seq && ok(q) {
				n++
			}
		}
		return n
	}
	for _, s := range subs {
		switch {
		case p.seq <= s.whole:
			return must
		case s.overflow != overflow:
		case overflow == carillon.OverflowReplay || overflow == carillon.OverflowDisconnect:
			if p.seq > s.strict {
				return must
			}
		case p.seq <= o.before:
		case overflow == carillon.OverflowConflate:
			if later(func(q *published) bool { return s.wants(q) && q.topic() == p.topic() }) == 0 {
				return must
			}
		case later(func(q *published) bool {
			return slices.ContainsFunc(o.subs, func(s *standing) bool { return s.overflow == overflow && s.wants(q) })
		}) < o.queue:
			return must
		}
	}
	return may
}

// topic is what conflate keeps the newest of.
func (p *published) topic() string {
	if p.subject != "" {
		return "/" + p.subject
	}
	return p.typ
}

// changed notes that the subscriptions are others now: what has begun may have
// been left out by those before.
func (o *oracle) changed(h *heard) {
	if h.begun > 0 {
		o.before = o.log[min(h.begun, int64(len(o.log)))-1].seq
	}
}

// passes notes that whatever is to come up to seq has come, and event has.
func (o *oracle) passes(seq uint64, event *published) error {
	for i := range o.log {
		p := &o.log[i]
		if p == event || p.seq <= o.at || p.seq > seq || p.typ == "fin" {
			continue
		}
		switch o.wanted(p) {
		case must:
			return fmt.Errorf("%s at %d (to %v) is missing between %d and %d", p.typ, p.seq, p.users, o.at, seq)
		case may:
			o.leftOut++
		case never:
		}
	}
	o.at = max(o.at, seq)
	if !o.filling {
		o.pos = o.at
	}
	return nil
}

func (o *oracle) event(h *heard) error {
	seq := o.seq(h.ID)
	i := slices.IndexFunc(o.log, func(p published) bool { return p.seq == seq })
	switch {
	case i < 0:
		return fmt.Errorf("%s at %d was never published", h.EventType, seq)
	case seq <= o.at:
		return fmt.Errorf("%s at %d comes after %d", h.EventType, seq, o.at)
	case o.wanted(&o.log[i]) == never:
		return fmt.Errorf("%s at %d (to %v) is not wanted", h.EventType, seq, o.log[i].users)
	}
	return o.passes(seq, &o.log[i])
}

// isNow checks a cursor that is where the log ended: behind what was acknowledged
// when it was asked for, before what was begun after the answer came.
func (o *oracle) isNow(cursor uint64, acked, begun int64) error {
	if acked > 0 && cursor < o.log[acked-1].seq || begun < int64(len(o.log)) && cursor >= o.log[begun].seq {
		return fmt.Errorf("now is %d, with %d events acknowledged and %d begun", cursor, acked, begun)
	}
	return nil
}

func (o *oracle) welcome(h *heard) error {
	o.start = o.seq(h.Cursor)
	o.at, o.pos = o.start, o.start
	if o.after == nil {
		o.began = true
		return o.isNow(o.start, o.acked, h.begun)
	}
	if o.start != o.after.seq {
		return fmt.Errorf("welcome at %d, after %d", o.start, o.after.seq)
	}
	return nil
}

func (o *oracle) subscribed(h *heard) error {
	i, err := strconv.Atoi(string(h.Ref))
	if err != nil {
		return err
	}
	s, cursor := o.steps[i], o.seq(h.Cursor)
	switch {
	case s.after != nil:
		if cursor != s.after.seq || !h.Backfill && cursor < o.at {
			return fmt.Errorf("step %d: subscribed at %d (backfill %t) after %d, and %d has passed", i, cursor, h.Backfill, s.after.seq, o.at)
		}
	case !o.began:
		if cursor != o.start || h.Backfill {
			return fmt.Errorf("step %d: subscribed at %d (backfill %t), the connection stands at %d", i, cursor, h.Backfill, o.start)
		}
	case h.Backfill:
		return fmt.Errorf("step %d: a backfill without after", i)
	default:
		if err := o.isNow(cursor, s.acked, h.begun); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	o.began = true
	if s.owes {
		o.owed++
	}
	if s.acked > 0 {
		o.due = o.log[s.acked-1].seq
	}
	if h.Backfill {
		o.at, o.filling = cursor, true
	}
	o.changed(h)
	whole := uint64(0)
	if s.after != nil || i == 0 {
		whole = o.due
	}
	for _, p := range s.patterns {
		j := slices.IndexFunc(o.subs, func(s *standing) bool { return s.pattern == p })
		if j < 0 {
			j = len(o.subs)
			o.subs = append(o.subs, &standing{pattern: p})
		} else if s.after == nil {
			o.subs[j].replace(s.overflow, o.before)
			continue
		}
		*o.subs[j] = standing{pattern: p, overflow: s.overflow, since: cursor, own: cursor, whole: whole, filling: h.Backfill, loose: lenient(s.overflow)}
	}
	return nil
}

// lenient reports whether a policy leaves something out.
func lenient(o carillon.Overflow) bool {
	return o == carillon.OverflowConflate || o == carillon.OverflowDropOldest
}

func (s *standing) replace(o carillon.Overflow, before uint64) {
	if lenient(s.overflow) {
		s.strict = before
	}
	s.overflow, s.loose = o, s.loose || lenient(o)
}

func (o *oracle) caughtUp(h *heard) error {
	if err := o.passes(o.seq(h.Cursor), nil); err != nil {
		return err
	}
	if o.owed--; o.owed > 0 {
		return nil
	}
	if o.at < o.due {
		return fmt.Errorf("caught up at %d, before %d", o.at, o.due)
	}
	for _, s := range o.subs {
		if s.filling {
			s.filling, s.own = false, o.at
		}
	}
	o.filling, o.pos = false, o.at
	return nil
}
