package ws

import (
	"slices"
	"time"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/wire"
)

// writeBudget is about how many bytes one write takes.
const writeBudget = 64 << 10

// conn is a session's connection.
type conn struct {
	loop.Socket

	session *session.Session // owned by the shard; nil until it begins

	// Owned by the reader.
	fragments
	handler *handler
	resumed chan struct{} // capacity 1: the session takes more
	resume  func()
	pending []byte // read, not yet looked at; in buf, or what came with the handshake
	buf     [256]byte
}

// begin lets the session's frames out, on its shard.
func (c *conn) begin(s *session.Session) {
	c.session = s
	c.Ready()
}

// Ready is called by the session.
func (c *conn) Ready() {
	if c.session != nil {
		c.Port.Ready()
	}
}

// Pull is called by the port.
func (c *conn) Pull(dst [][]byte) ([][]byte, bool) { return c.session.Pull(dst, writeBudget) }

// Post is called by the port.
func (c *conn) Post(f func()) { c.session.Post(f) }

// Due is called by the port.
func (c *conn) Due() { c.session.Due() }

// read takes the client's messages, one after the other, to the end.
func (c *conn) read(s *session.Session) {
	c.resumed = make(chan struct{}, 1)
	c.resume = func() { c.resumed <- struct{}{} }
	for to := (&reader{c, s}); c.frame(&c.handler.rules, to); {
	}
	c.Drain()
}

// frame reads one frame. It reports whether there is to be another.
func (c *conn) frame(r *rules, to sink) (more bool) {
	h, ok, err := c.readHeader()
	if err != nil {
		return false
	}
	if !ok {
		to.refuse(wire.CloseProtocol, notAFrame)
		return false
	}
	if !c.fragments.begin(&h, r, time.Now(), to) {
		return false
	}
	if h.opcode >= wire.OpClose {
		payload, err := c.payload(nil, int(h.length))
		if err != nil {
			return false
		}
		ws.Cipher(payload, h.mask, 0)
		return to.control(h.opcode, payload)
	}
	start := len(c.data)
	if c.data, err = c.payload(c.data, int(h.length)); err != nil {
		return false
	}
	ws.Cipher(c.data[start:], h.mask, 0)
	return c.end(&h, to)
}

// readHeader reads the next header. ok is false when it breaks the protocol.
func (c *conn) readHeader() (h header, ok bool, err error) {
	for need := minHeader; ; {
		b, err := c.need(need)
		if err != nil {
			return h, false, err
		}
		if h, need, ok = parseHeader(b); !ok || need <= len(b) {
			c.pending = c.pending[need:]
			return h, ok, nil
		}
	}
}

// need returns the next n bytes or more, without taking them; n is at most that
// of a header.
func (c *conn) need(n int) ([]byte, error) {
	for len(c.pending) < n {
		have := copy(c.buf[:], c.pending)
		more, err := c.Read(c.buf[have:])
		c.pending = c.buf[:have+more]
		if err != nil && len(c.pending) < n {
			return nil, err
		}
	}
	return c.pending, nil
}

// payload appends the next n bytes.
func (c *conn) payload(dst []byte, n int) ([]byte, error) {
	dst = slices.Grow(dst, min(n, trusted))
	k := min(n, len(c.pending))
	dst = append(dst, c.pending[:k]...)
	c.pending = c.pending[k:]
	if len(c.pending) == 0 {
		c.pending = nil // what came with the handshake can go
	}
	for n -= k; n > 0; {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, min(n, len(dst)))
		}
		m, err := c.Read(dst[len(dst):min(cap(dst), len(dst)+n)])
		dst, n = dst[:len(dst)+m], n-m
		if err != nil && n > 0 {
			return dst, err
		}
	}
	return dst, nil
}

// reader tells a session what a connection's reader reads.
type reader struct {
	c *conn
	s *session.Session
}

// do runs f on the session's shard and waits until f's resume was called. It
// returns false when there is nothing more to read for.
func (r *reader) do(f func(resume func())) bool {
	r.s.Post(func() { f(r.c.resume) })
	select {
	case <-r.c.resumed:
		return true
	case <-r.c.Ended():
		return false
	}
}

func (r *reader) message(raw []byte, _ bool) bool {
	m := r.s.Read(raw)
	return r.do(func(resume func()) { r.s.Receive(m, resume) })
}

func (r *reader) deflated(packed []byte, binary bool) bool {
	h := r.c.handler
	raw, ok, err := h.openSmall(packed, binary)
	if ok && err == nil {
		return r.message(raw, binary)
	}
	leave := func() {}
	if !ok {
		h.place()
		leave = h.leave
		raw, err = h.inflate(packed, binary, h.rules.bytes)
	}
	if err != nil {
		leave()
		r.refuse(why(err))
		return false
	}
	m := r.s.Read(raw)
	return r.do(func(resume func()) { r.s.Receive(m, resume); leave() })
}

func (r *reader) control(opcode byte, payload []byte) bool {
	switch opcode {
	case wire.OpPing:
		return r.do(func(resume func()) { r.s.Pong(payload); resume() })
	case wire.OpPong:
		return r.do(func(resume func()) { r.s.Heard(); resume() })
	}
	r.close(closing(payload))
	return false
}

func (r *reader) refuse(code wire.CloseCode, reason string) {
	r.c.handler.met(code)
	r.close(code, reason)
}

// close closes the session; its close frame is the last.
func (r *reader) close(code wire.CloseCode, reason string) {
	r.do(func(resume func()) { r.s.Close(code, reason); resume() })
}
