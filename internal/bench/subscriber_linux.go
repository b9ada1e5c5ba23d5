package bench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// pollWait is how many seconds a poll waits, and how many events it takes.
const pollWait = "&wait=25&limit=1000&cursor="

// ask writes a subscriber's request from where it stands: its handshake, or its
// next poll.
func (l *loop) ask(i int, c *conn) {
	b := append(l.scratch[:0], "GET "...)
	b = append(b, c.path...)
	switch {
	case c.via == LongPoll && len(c.cursor) == 0:
		b = append(b, "&wait=0"...) // answered at once, with where now is
	case c.via == LongPoll:
		b = appendEscaped(append(b, pollWait...), c.cursor)
	case len(c.cursor) > 0:
		mark := byte('?')
		if strings.Contains(c.path, "?") {
			mark = '&'
		}
		b = append(b, mark)
		b = appendEscaped(append(b, "after="...), c.cursor)
	}
	b = append(b, c.head...)
	l.scratch = b
	l.send(i, c, b)
}

// appendEscaped appends a value of a query.
func appendEscaped(dst, value []byte) []byte {
	for _, c := range value {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			dst = append(dst, c)
			continue
		}
		dst = fmt.Appendf(dst, "%%%02X", c)
	}
	return dst
}

// The key of every handshake, and the answer it must get (RFC 6455, 4.2.2).
const (
	wsKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	wsAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

func (l *loop) upgraded(i int, c *conn, b []byte) int {
	h, size, err := parseHead(b)
	switch {
	case err != nil:
		l.lost(i, c, "handshake: %v", err)
	case size == 0:
	case h.status != 101:
		l.denied(i, c, h, b)
	case !bytes.Contains(b[:size], []byte(wsAccept)):
		l.lost(i, c, "handshake: wrong Sec-WebSocket-Accept")
	default:
		c.state = subscribing
		l.send(i, c, appendClientFrame(nil, opText, []byte(`{"type":"subscribe","pattern":"`+c.receiver.stream.wanted()+`","ref":1}`)))
		return size
	}
	return 0
}

// streaming takes the head of an SSE stream.
func (l *loop) streaming(i int, c *conn, b []byte) int {
	h, size, err := parseHead(b)
	switch {
	case err != nil:
		l.lost(i, c, "stream: %v", err)
	case size == 0:
	case h.status != 200 || !h.stream:
		l.denied(i, c, h, b)
	default:
		if c.state = subscribing; h.chunked {
			c.chunks = new(chunks)
		}
		return size
	}
	return 0
}

// denied ends a connection whose request was answered with something else.
func (l *loop) denied(i int, c *conn, h head, b []byte) {
	_, body, _, _ := parseResponse(b, nil)
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	if h.status == 503 || h.status == 429 {
		l.refused(i, c, h.retry, "%s: %.200s", line, body)
		return
	}
	l.lost(i, c, "%s: %.200s", line, body)
}

// frame takes one frame of a server; 0 means that there is none to take.
func (l *loop) frame(i int, c *conn, b []byte, now int64) int {
	op, payload, size, err := parseFrame(b)
	if err != nil {
		l.checker.Protocol++
		l.lost(i, c, "%v", err)
		return 0
	}
	if size == 0 {
		return 0
	}
	switch op {
	case opText:
		l.text(i, c, payload, now)
	case opPing:
		l.send(i, c, appendClientFrame(nil, opPong, payload))
	case opPong:
	case opClose:
		code := uint16(0)
		if len(payload) >= 2 {
			code = binary.BigEndian.Uint16(payload)
			payload = payload[2:]
		}
		if again := code == 4101 || code == 4103 || code/100 == 42; again {
			l.refused(i, c, c.retry, "closed by the server: %d %s", code, payload)
		} else {
			l.lost(i, c, "closed by the server: %d %s", code, payload)
		}
	default:
		l.problem(i, "a frame of opcode %d", op)
	}
	return size
}

func (l *loop) text(i int, c *conn, payload []byte, now int64) {
	if !l.msg.read(payload) {
		l.problem(i, "a frame that is not an object: %.100s", payload)
		return
	}
	l.take(i, c, payload, now)
}

// block takes one block of an SSE stream; 0 means that there is none to take.
func (l *loop) block(i int, c *conn, b []byte, now int64) int {
	k, size, err := parseBlock(b)
	if err != nil {
		l.checker.Protocol++
		l.lost(i, c, "%v: %.200s", err, b)
		return 0
	}
	if size == 0 {
		return 0
	}
	if k.hasID {
		c.cursor = append(c.cursor[:0], k.id...)
	}
	if k.data == nil {
		return size
	}
	if !l.msg.read(k.data) {
		l.problem(i, "data that is not an object: %.100s", k.data)
		return size
	}
	// An event has no name and its own id, anything else its type as a name and none.
	// The ids of a backfill would be missing, but here none is asked for.
	name, control := bytes.CutPrefix(k.name, []byte("carillon."))
	switch event := string(l.msg.kind) == "event"; {
	case event && (len(k.name) > 0 || !bytes.Equal(k.id, l.msg.id)), !event && (k.hasID || !control || !bytes.Equal(name, l.msg.kind)):
		l.problem(i, "a block named %q with id %q around %.200s", k.name, k.id, k.data)
	}
	l.take(i, c, k.data, now)
	return size
}

// page takes the answer to a poll and asks for the next; 0 means that it is not
// all there.
func (l *loop) page(i int, c *conn, b []byte, now int64) int {
	if len(b) == 0 {
		return 0
	}
	h, body, size, err := parseResponse(b, l.scratch)
	switch {
	case err != nil:
		l.lost(i, c, "poll: %v", err)
		return 0
	case size == 0:
		return 0
	case h.status != 200:
		l.denied(i, c, h, b)
		return 0
	}
	if c.state == upgrading {
		l.isOpen(i, c)
	}
	cursor := false
	f := object(body)
	for {
		key, value, ok := f.next()
		if !ok {
			break
		}
		switch string(key) {
		case "events":
			each(value, func(event []byte) {
				l.msg.read(event)
				l.take(i, c, event, now)
			})
		case "cursor":
			c.cursor, cursor = append(c.cursor[:0], text(value)...), true
		case "gap":
			l.gap(i, value)
		}
	}
	if f.bad || !cursor {
		l.checker.Protocol++
		l.lost(i, c, "a page without a cursor, or not JSON: %.200s", body)
		return 0
	}
	l.ask(i, c)
	return size
}

// each calls do for every object of a JSON array.
func each(list []byte, do func(object []byte)) {
	for i := bytes.IndexByte(list, '{'); i >= 0 && i < len(list); {
		end := skipValue(list, i)
		if end < 0 {
			return
		}
		do(list[i:end])
		next := bytes.IndexByte(list[end:], '{')
		if next < 0 {
			return
		}
		i = end + next
	}
}

// take judges one message, which has been read, of any transport.
func (l *loop) take(i int, c *conn, raw []byte, now int64) {
	m := &l.msg
	switch string(m.kind) {
	case "event":
		l.event(i, c, now)
	case "subscribed":
		if c.state == subscribing {
			l.isOpen(i, c)
		}
		if bytes.Contains(raw, []byte(`"gap":{`)) {
			l.gap(i, raw)
		}
	case "caught_up":
		c.caughtUp++
	case "gap":
		l.gap(i, raw)
	case "welcome", "heartbeat":
		c.cursor = append(c.cursor[:0], m.cursor...)
	case "token_expiring":
	case "goaway", "error":
		if !l.patient || m.retry == 0 {
			l.problem(i, "%.200s", raw)
			return
		}
		c.retry, c.leaving = time.Duration(m.retry)*time.Millisecond, true
	default:
		l.problem(i, "%.200s", raw)
	}
}

func (l *loop) event(i int, c *conn, now int64) {
	m := &l.msg
	if c.state != open {
		l.problem(i, "an event before subscribed")
	}
	if len(m.id) == 0 {
		l.problem(i, "an event without an id")
	}
	if c.first == 0 {
		c.first = now
	}
	c.last = now
	c.cursor = append(c.cursor[:0], m.id...)
	if !c.slow {
		l.prompt++
		if m.hasMark {
			l.latency.Record(now - m.mark.at)
		}
	}
	l.checker.event(&c.receiver, m)
}

func (l *loop) gap(i int, raw []byte) {
	l.checker.Gaps++
	l.checker.note("connection %d: %.200s", i, raw)
}

func (l *loop) problem(i int, format string, args ...any) {
	l.checker.Protocol++
	l.checker.note("connection %d: %s", i, fmt.Sprintf(format, args...))
}
