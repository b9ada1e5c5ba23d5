package ws

import (
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/wire"
)

const (
	// framesPerTurn bounds the frames of one connection before the others get
	// their turn.
	framesPerTurn = 16

	// heavyMessage is from how many bytes a message is parsed on a goroutine of
	// its own: on the shard it would keep everybody else waiting.
	heavyMessage = 32 << 10
)

// looped is a session's connection on its shard's loop: no goroutine waits for
// it. Everything happens on the shard.
type looped struct {
	loop.Link

	session *session.Session // nil until it begins
	handler *handler
	timer   session.Timer
	resume  func()

	h       header
	left    uint64 // of the frame's payload
	offset  int    // in the payload, for the mask
	message []byte // the fragments so far
	control []byte // payload of a control frame
	head    [maxHeader]byte
	headLen uint8
	payload bool // the header is read
	open    bool // a fragmented message is
	deaf    bool // nothing more is read for
	paused  bool // the session takes nothing more now
	within  bool // of a call to the session, which may resume at once
}

// begin takes the descriptor into the loop of the session's shard.
func (c *looped) begin(s *session.Session, l *loop.Loop, fd int, before []byte) {
	c.session = s
	c.resume = c.resumed
	c.Open(l, fd, before, c, c.handler.Sockets.WriteTimeout, c.handler.Sockets.Linger)
}

// Ready is called by the session.
func (c *looped) Ready() {
	if c.session != nil {
		c.Link.Ready()
	}
}

// Pull is called by the link.
func (c *looped) Pull(dst [][]byte) ([][]byte, bool) { return c.session.Pull(dst, writeBudget) }

// Now is called by the link.
func (c *looped) Now() time.Time { return c.session.Shard().Now() }

// Alarm is called by the link.
func (c *looped) Alarm(at time.Time) {
	if at.IsZero() {
		c.session.Shard().StopTimer(&c.timer)
	} else {
		c.session.Shard().SetTimer(&c.timer, c, at)
	}
}

// Timeout is called by the shard.
func (c *looped) Timeout(time.Time) { c.Link.Alarm() }

// Gone is called by the link.
func (c *looped) Gone() {
	c.message, c.control = nil, nil
	c.session.Gone()
}

// Input takes frames apart.
func (c *looped) Input(b []byte) int {
	n := 0
	for frames := 0; n < len(b) && !c.paused; {
		if c.deaf {
			return len(b)
		}
		if !c.payload {
			k := c.header(b[n:])
			n += k
			if !c.payload {
				continue
			}
		}
		k := int(min(c.left, uint64(len(b)-n)))
		dst := &c.message
		if c.h.opcode >= wire.OpClose {
			dst = &c.control
		}
		if *dst == nil {
			*dst = make([]byte, 0, min(c.left, trusted))
		}
		start := len(*dst)
		*dst = append(*dst, b[n:n+k]...)
		ws.Cipher((*dst)[start:], c.h.mask, c.offset)
		n, c.offset, c.left = n+k, c.offset+k, c.left-uint64(k)
		if c.left > 0 {
			return n
		}
		c.payload = false
		c.frame()
		if frames++; frames == framesPerTurn && n < len(b) && !c.paused {
			c.Again()
			return n
		}
	}
	return n
}

// header takes bytes of the next header. When it is whole and right, c.payload is
// set.
func (c *looped) header(b []byte) int {
	need := minHeader
	if c.headLen > minHeader {
		_, need, _ = parseHeader(c.head[:c.headLen]) // it was right so far
	}
	for n := 0; ; {
		k := copy(c.head[c.headLen:need], b[n:])
		n, c.headLen = n+k, c.headLen+uint8(k)
		if int(c.headLen) < need {
			return n
		}
		h, size, ok := parseHeader(c.head[:c.headLen])
		switch {
		case !ok:
			c.end(wire.CloseProtocol, "not a frame of RFC 6455")
			return n
		case size > int(c.headLen):
			need = size
			continue
		}
		c.h, c.left, c.offset, c.headLen = h, h.length, 0, 0
		c.payload = c.taken()
		return n
	}
}

// taken reports whether the frame that begins is taken; otherwise the connection
// ends.
func (c *looped) taken() bool {
	switch h := &c.h; {
	case h.opcode >= wire.OpClose:
		return true
	case h.opcode == opBinary:
		c.end(wire.CloseUnsupported, Protocol+" is spoken in text frames")
	case (h.opcode == opContinuation) != c.open:
		c.end(wire.CloseProtocol, "a fragment out of order")
	case h.length > uint64(c.handler.FrameBytes-len(c.message)):
		c.handler.Core.Met("frame_bytes")
		c.end(wire.CloseTooBig, "the message is too large")
	default:
		return true
	}
	return false
}

// frame does what a whole frame says.
func (c *looped) frame() {
	if c.h.opcode >= wire.OpClose {
		payload := c.control
		c.control = nil
		switch c.h.opcode {
		case wire.OpPing:
			c.session.Pong(payload)
		case wire.OpPong:
			c.session.Heard()
		default:
			c.end(closing(payload))
		}
		return
	}
	if c.open = !c.h.final; c.open {
		return
	}
	raw := c.message
	c.message = nil // it is the session's
	if !utf8.Valid(raw) {
		c.end(wire.CloseInvalidData, "text is UTF-8")
		return
	}
	c.paused = true
	if len(raw) < heavyMessage {
		c.receive(c.session.Read(raw))
		return
	}
	s := c.session
	go func() {
		m := s.Read(raw)
		s.Post(func() {
			if c.Over() {
				return
			}
			if c.receive(m); !c.paused {
				c.More()
			}
		})
	}()
}

func (c *looped) receive(m session.Message) {
	c.within = true
	c.session.Receive(m, c.resume)
	c.within = false
}

// resumed is called when the session takes the next message.
func (c *looped) resumed() {
	c.paused = false
	if !c.within {
		c.More()
	}
}

// end closes the session; its close frame is the last. What comes from now on is
// not looked at.
func (c *looped) end(code wire.CloseCode, reason string) {
	c.deaf = true
	c.session.Close(code, reason)
}
