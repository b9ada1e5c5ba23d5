package bench

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
)

// Checks is what the receivers found. All of it but Received must be 0.
type Checks struct {
	Received      uint64 `json:"received"`
	Lost          uint64 `json:"lost"`
	Duplicated    uint64 `json:"duplicated"`
	Reordered     uint64 `json:"reordered"`
	Misrouted     uint64 `json:"misrouted"`
	Misnumbered   uint64 `json:"misnumbered"` // "n" was not one more than before
	Gaps          uint64 `json:"gaps"`        // gap notices, though nothing had expired
	Protocol      uint64 `json:"protocol"`    // error frames, early events, missing caught_up, bad framing
	Closed        uint64 `json:"closed"`      // connections the server ended
	PublishErrors uint64 `json:"publish_errors"`
	First         string `json:"first_problem,omitempty"`
}

// Err is nil when nothing is wrong.
func (c *Checks) Err() error {
	var parts []string
	for _, p := range c.list() {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.name))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	err := fmt.Errorf("bench: %s", strings.Join(parts, ", "))
	if c.First != "" {
		err = fmt.Errorf("%w; first: %s", err, c.First)
	}
	return err
}

type namedCount struct {
	name string
	n    uint64
}

func (c *Checks) list() []namedCount {
	return []namedCount{
		{"lost", c.Lost},
		{"duplicated", c.Duplicated},
		{"reordered", c.Reordered},
		{"misrouted", c.Misrouted},
		{"misnumbered", c.Misnumbered},
		{"gaps", c.Gaps},
		{"protocol", c.Protocol},
		{"closed", c.Closed},
		{"publish errors", c.PublishErrors},
	}
}

// Add counts what o found too.
func (c *Checks) Add(o *Checks) {
	c.Received += o.Received
	c.Lost += o.Lost
	c.Duplicated += o.Duplicated
	c.Reordered += o.Reordered
	c.Misrouted += o.Misrouted
	c.Misnumbered += o.Misnumbered
	c.Gaps += o.Gaps
	c.Protocol += o.Protocol
	c.Closed += o.Closed
	c.PublishErrors += o.PublishErrors
	if c.First == "" {
		c.First = o.First
	}
}

func (c *Checks) note(format string, args ...any) {
	if c.First == "" {
		c.First = fmt.Sprintf(format, args...)
	}
}

// stream is what a receiver expects: one type of one org in one run.
type stream struct {
	run       string
	org       string
	eventType string
	subject   string
	pattern   string // that readers ask for; "": the type
}

// wanted is the pattern that readers ask for.
func (s *stream) wanted() string { return cmp.Or(s.pattern, s.eventType) }

// receiver is one reader of a stream and how far it is.
type receiver struct {
	id     int
	stream *stream
	next   []uint64 // per lane, the sequence number due
	order  uint64   // hash of everything, ids too, in the order it came
	got    uint64
	seen   []marks // per lane, what came, where it may come in any order; nil: it may not

	numbered bool   // the server was asked for "n"
	n        uint64 // the last one on this connection
}

func newReceiver(id int, s *stream, lanes int) receiver {
	return receiver{id: id, stream: s, next: make([]uint64, lanes)}
}

// maxMissing bounds how many holes are remembered one by one. Beyond it a late
// event still counts as lost, and as a duplicate when it comes.
const maxMissing = 1 << 20

type hole struct {
	receiver  int
	lane, seq uint64
}

// checker judges the events of any number of receivers. It is not safe for
// concurrent use.
type checker struct {
	Checks
	missing map[hole]struct{}
}

// event judges one event.
func (c *checker) event(r *receiver, m *message) {
	c.Received++
	r.got++
	if r.numbered {
		if m.n != r.n+1 {
			c.Misnumbered++
			c.note("receiver %d: n is %d after %d", r.id, m.n, r.n)
		}
		r.n = m.n
	}
	s, k := r.stream, &m.mark
	if string(m.eventType) != s.eventType || string(m.subject) != s.subject || !m.hasMark ||
		string(k.run) != s.run || string(k.org) != s.org || k.lane >= uint64(len(r.next)) {
		c.Misrouted++
		c.note("receiver %d of %s %s got %q %q of org %q", r.id, s.org, s.eventType, m.eventType, m.subject, k.org)
		return
	}
	r.order = mix(r.order^(k.lane<<48|k.seq), m.id)
	if r.seen != nil {
		c.anyOrder(r, k)
		return
	}
	next := &r.next[k.lane]
	switch {
	case k.seq == *next:
		*next++
	case k.seq > *next:
		c.note("receiver %d, lane %d: %d came when %d was due", r.id, k.lane, k.seq, *next)
		for seq := *next; seq < k.seq; seq++ {
			c.Lost++
			if len(c.missing) >= maxMissing {
				continue
			}
			if c.missing == nil {
				c.missing = map[hole]struct{}{}
			}
			c.missing[hole{r.id, k.lane, seq}] = struct{}{}
		}
		*next = k.seq + 1
	default:
		h := hole{r.id, k.lane, k.seq}
		if _, late := c.missing[h]; late {
			delete(c.missing, h)
			c.Lost--
			c.Reordered++
			return
		}
		c.Duplicated++
		c.note("receiver %d, lane %d: %d came again", r.id, k.lane, k.seq)
	}
}

// anyOrder judges an event of a receiver that may get them in any order.
func (c *checker) anyOrder(r *receiver, k *mark) {
	switch {
	case k.seq > maxMark:
		c.Misrouted++
		c.note("receiver %d, lane %d: %d was never sent", r.id, k.lane, k.seq)
	case !r.seen[k.lane].add(k.seq):
		c.Duplicated++
		c.note("receiver %d, lane %d: %d came again", r.id, k.lane, k.seq)
	}
}

// missed compares a receiver that gets events in any order with what of a lane it
// should have.
func (c *checker) missed(r *receiver, lane int, want *marks) {
	if n, least := want.without(&r.seen[lane]); n > 0 {
		c.Lost += n
		c.note("receiver %d, lane %d: %d of %d never came, the first of them %d", r.id, lane, n, want.count, least)
	}
}

// mix is what was seen so far and a text more.
func mix(h uint64, text []byte) uint64 {
	const odd = 0x9e3779b97f4a7c15
	h *= odd
	for len(text) >= 8 {
		h = bits.RotateLeft64(h^binary.LittleEndian.Uint64(text), 29) * odd
		text = text[8:]
	}
	for _, b := range text {
		h = (h ^ uint64(b)) * odd
	}
	return h
}

// finish compares a receiver that should have everything with what was sent.
func (c *checker) finish(r *receiver, sent []uint64) {
	for lane, total := range sent {
		if next := r.next[lane]; next < total {
			c.Lost += total - next
			c.note("receiver %d, lane %d: the last %d of %d never came", r.id, lane, total-next, total)
		}
	}
}

// sameOrder compares receivers of one stream that saw everything: each must have
// seen it in the same order, however the lanes interleaved, and with the same ids.
func (c *checker) sameOrder(a, b *receiver) {
	if a.got == b.got && a.order != b.order {
		c.Reordered++
		c.note("receivers %d and %d saw different orders or ids", a.id, b.id)
	}
}
