package ws

import (
	"unicode/utf8"

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
	handler *handler
	message []byte        // the fragments so far
	open    bool          // a fragmented message is
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
	for c.frame(s) {
	}
	c.Drain()
}

// do runs f on the session's shard and waits until f's resume was called. It
// returns false when there is nothing more to read for.
func (c *conn) do(s *session.Session, f func(resume func())) bool {
	s.Post(func() { f(c.resume) })
	select {
	case <-c.resumed:
		return true
	case <-c.Ended():
		return false
	}
}

// end closes the session; its close frame is the last.
func (c *conn) end(s *session.Session, code wire.CloseCode, reason string) bool {
	c.do(s, func(resume func()) { s.Close(code, reason); resume() })
	return false
}

// frame reads one frame and does what it says. It returns false when it was the
// last.
func (c *conn) frame(s *session.Session) bool {
	h, ok, err := c.readHeader()
	if err != nil {
		return false
	}
	if !ok {
		return c.end(s, wire.CloseProtocol, "not a frame of RFC 6455")
	}
	if h.opcode >= wire.OpClose {
		return c.control(s, h)
	}
	switch {
	case h.opcode == opBinary:
		return c.end(s, wire.CloseUnsupported, Protocol+" is spoken in text frames")
	case (h.opcode == opContinuation) != c.open:
		return c.end(s, wire.CloseProtocol, "a fragment out of order")
	case h.length > uint64(c.handler.FrameBytes-len(c.message)):
		c.handler.Core.Met("frame_bytes")
		return c.end(s, wire.CloseTooBig, "the message is too large")
	}
	start := len(c.message)
	if c.message, err = c.payload(c.message, int(h.length)); err != nil {
		return false
	}
	ws.Cipher(c.message[start:], h.mask, 0)
	c.open = !h.final
	if c.open {
		return true
	}
	raw := c.message
	c.message = nil // it is the session's
	if !utf8.Valid(raw) {
		return c.end(s, wire.CloseInvalidData, "text is UTF-8")
	}
	message := s.Read(raw)
	return c.do(s, func(resume func()) { s.Receive(message, resume) })
}

func (c *conn) control(s *session.Session, h header) bool {
	payload, err := c.payload(nil, int(h.length))
	if err != nil {
		return false
	}
	ws.Cipher(payload, h.mask, 0)
	switch h.opcode {
	case wire.OpPing:
		return c.do(s, func(resume func()) { s.Pong(payload); resume() })
	case wire.OpPong:
		return c.do(s, func(resume func()) { s.Heard(); resume() })
	}
	code, reason := closing(payload)
	return c.end(s, code, reason)
}

// closing is the answer to a client's close frame: its own code, or what was
// wrong with it.
func closing(payload []byte) (wire.CloseCode, string) {
	if len(payload) == 0 {
		return wire.CloseNormal, ""
	}
	if len(payload) == 1 {
		return wire.CloseProtocol, "half a close code"
	}
	code := wire.CloseCode(uint16(payload[0])<<8 | uint16(payload[1]))
	switch {
	case code < 1000, code >= 1004 && code <= 1006, code >= 1015 && code < 3000, code >= 5000:
		return wire.CloseProtocol, "not a close code"
	case !utf8.Valid(payload[2:]):
		return wire.CloseInvalidData, "text is UTF-8"
	}
	return code, ""
}
