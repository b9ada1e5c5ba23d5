package bench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
)

// schedule is when to publish what, through the publishers of one loop.
//
// With a rate it is an open loop: publish k is due at start + k/rate, whoever is
// idle sends it, and its latency counts from when it was due. Without one it is a
// closed loop: who is answered sends the next, until the end.
type schedule struct {
	rate  float64 // per second; 0: closed loop
	start int64
	total uint64 // publishes in all; closed loop: 0 is as many as there is time for
	until int64  // closed loop: when to stop
	size  int    // bytes of data per event
	array int    // events per request; 0: a single object
	quota uint64 // of each publisher in all, who then rests; 0: none

	// What is sent late because this process got to it late counts from when it was sent.
	// What waited for the answers to others counts from when it was due all the same.
	lenient bool
	starved bool // nobody was idle when the next was due

	numbered bool // the floor server's frames have an "n", as those it is compared with

	hook *hookMaker // they are webhooks, one a request; nil: publishes

	// pick chooses what an idle publisher sends: the stream, its lane and next
	// sequence number, which it advances by n. done is told when it is answered.
	pick func(c *conn, n int) (s *stream, lane int, seq uint64)
	done func(c *conn)

	sent   uint64 // requests
	events uint64 // acknowledged
	idle   []int
	busy   int

	ack    Histogram // from due to answered
	late   Histogram // from due to sent: what the client, or a server that answers slowly, held up
	errors uint64
	first  string
	lastID []byte

	answeredAt int64  // when the last one was taken
	aside      uint64 // webhooks that were taken and are not in the log yet: they have no id
}

// begin starts a new phase; publishers stay as they are.
func (s *schedule) begin(start int64, rate float64, total uint64, until int64) {
	s.start, s.rate, s.total, s.until = start, rate, total, until
	s.sent, s.events, s.answeredAt, s.aside = 0, 0, 0, 0
	s.ack.Reset()
	s.late.Reset()
}

// over reports whether everything was sent and answered.
func (s *schedule) over(now int64) bool {
	if s.busy > 0 {
		return false
	}
	if s.rate > 0 {
		return s.sent >= s.total
	}
	return s.ended(now)
}

// ended reports whether a closed loop sends no more.
func (s *schedule) ended(now int64) bool { return now >= s.until || s.total > 0 && s.sent >= s.total }

func (s *schedule) dueAt() int64 { return s.start + int64(float64(s.sent)*1e9/s.rate) }

// rest lets a publisher wait for the next publish, unless it has done all of its
// own.
func (s *schedule) rest(i int, c *conn) {
	if c.state == open && (s.quota == 0 || c.seq < s.quota) {
		s.idle = append(s.idle, i)
	}
}

func (s *schedule) failed(c *conn, why string) {
	s.errors++
	if s.first == "" {
		s.first = why
	}
	s.busy--
	c.events = 0
}

// due is when the next publish is, if somebody could send it; 0 is never.
func (l *loop) due() int64 {
	if s := l.pub; s != nil && s.rate > 0 && s.sent < s.total && len(s.idle) > 0 {
		return s.dueAt()
	}
	return 0
}

// pump sends what is due.
func (l *loop) pump(now int64) {
	s := l.pub
	if s == nil {
		return
	}
	for len(s.idle) > 0 {
		var at int64
		switch {
		case s.rate == 0:
			if s.ended(now) {
				return
			}
			at = l.clock.now()
		case s.sent >= s.total:
			return
		default:
			if at = s.dueAt(); at > now {
				return
			}
			s.late.Record(now - at)
			if s.lenient && !s.starved {
				at = l.clock.now()
			}
			s.starved = false
		}
		i := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		c := &l.conns[i]
		if c.state != open {
			continue
		}
		s.sent++
		if c.kind == bareSender {
			l.sendBare(i, c, at)
			continue
		}
		s.busy++
		l.publish(i, c, at)
	}
	s.starved = s.starved || s.rate > 0 && s.sent < s.total && s.dueAt() <= now
}

func (l *loop) publish(i int, c *conn, at int64) {
	s := l.pub
	c.events = max(s.array, 1)
	st, lane, seq := s.pick(c, c.events)
	c.intended = at
	b := l.scratch[:0]
	switch {
	case s.hook != nil:
		b = s.hook.appendBody(b, st, lane, seq, at)
	case s.array == 0:
		b = appendEvent(b, st, lane, seq, at, s.size)
	default:
		for k := range c.events {
			if k == 0 {
				b = append(b, '[')
			} else {
				b = append(b, ',')
			}
			b = appendEvent(b, st, lane, seq+uint64(k), at, s.size)
		}
		b = append(b, ']')
	}
	body := len(b)
	b = append(b, c.head...)
	if s.hook != nil {
		b = s.hook.appendHeaders(b, b[:body], st.run, lane, seq)
	}
	b = strconv.AppendInt(b, int64(body), 10)
	b = append(b, "\r\n\r\n"...)
	b = append(b, b[:body]...)
	l.scratch = b
	l.send(i, c, b[body:])
}

// took counts a request that was answered as it should be.
func (s *schedule) took(c *conn, now int64) {
	s.ack.Record(now - c.intended)
	s.answeredAt = now
	if c.answered != nil {
		c.answered.add(c.seq - 1) // its only one in flight
	}
	s.events += uint64(c.events)
	s.busy--
	c.events = 0
}

// taken is the status of an answer that says so.
func (s *schedule) taken() int {
	if s.hook != nil {
		return 200
	}
	return 202
}

// answer takes the answer to a publisher's request.
func (l *loop) answer(i int, c *conn, b []byte, now int64) int {
	if len(b) == 0 {
		return 0
	}
	h, body, size, err := parseResponse(b, l.scratch)
	if err != nil || size != 0 && c.events == 0 {
		l.lost(i, c, "an answer nobody asked for, or unreadable: %.100s", b)
		return 0
	}
	if size == 0 {
		return 0
	}
	s := l.pub
	if s.done != nil {
		s.done(c)
	}
	switch ids := bytes.Count(body, []byte(`"id":"`)); {
	case h.status != s.taken():
		s.failed(c, fmt.Sprintf("publish: status %d: %.200s", h.status, body))
	case s.hook != nil && ids == 0 && string(bytes.TrimSpace(body)) == "{}":
		s.aside++
		s.took(c, now)
	case ids != c.events || bytes.Contains(body, []byte(`"duplicate":true`)):
		s.failed(c, fmt.Sprintf("publish of %d events answered %.200s", c.events, body))
	default:
		s.took(c, now)
		id := body[bytes.LastIndex(body, []byte(`"id":"`))+6:]
		if end := bytes.IndexByte(id, '"'); end > 0 {
			s.lastID = append(s.lastID[:0], id[:end]...)
		}
	}
	s.rest(i, c)
	return size
}

// toAll addresses every reader of the floor server.
const toAll = 1<<32 - 1

// sendBare hands the floor server what it writes at once, one frame or as many as
// a request has events: a reader's number or toAll, the length, the frames. A timed
// one has, before the frames, when they were due.
func (l *loop) sendBare(i int, c *conn, at int64) {
	s := l.pub
	n := max(s.array, 1)
	st, lane, seq := s.pick(c, n)
	b := binary.BigEndian.AppendUint32(l.scratch[:0], uint32(c.target))
	b = binary.BigEndian.AppendUint32(b, 0) // the length, once it is known
	if c.timed {
		b = binary.BigEndian.AppendUint64(b, uint64(l.clock.everywhere(at)))
	}
	for k := range uint64(n) {
		l.bare = append(l.bare[:0], `{"type":"event",`...)
		if s.numbered {
			l.bare = strconv.AppendUint(append(l.bare, `"n":`...), seq+k+1, 10)
			l.bare = append(l.bare, ',')
		}
		l.bare = append(l.bare, `"id":"00000000000000000000000000","event_type":"`...)
		l.bare = append(l.bare, st.eventType...)
		l.bare = append(l.bare, `","timestamp":"2006-01-02T15:04:05.000Z","payload":`...)
		l.bare = appendData(l.bare, st.run, st.org, lane, seq+k, at, s.size)
		l.bare = append(l.bare, `,"subject":"`...)
		l.bare = append(l.bare, st.subject...)
		l.bare = append(l.bare, `"}`...)
		b = appendServerFrame(b, opText, l.bare)
	}
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-8))
	l.scratch = b
	l.send(i, c, b)
	s.events += uint64(n)
	s.rest(i, c)
}
