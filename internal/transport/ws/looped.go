package ws

import (
	"math"
	"sync"
	"time"

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

// frames takes a client's frames apart as their bytes come.
type frames struct {
	fragments
	h       header // of which length is what is still to come
	command []byte // payload of a control frame
	head    [maxHeader]byte
	headLen uint8
	offset  uint8 // in the payload, modulo that of the mask
	inside  bool  // a frame: its header is read
}

// input takes bytes, as many as it says: fewer when the sink wants no more now,
// or again with the rest in the next turn.
func (f *frames) input(b []byte, r *rules, now time.Time, to sink) (n int, again bool) {
	for whole := 0; n < len(b); {
		if !f.inside {
			k, ok := f.header(b[n:])
			n += k
			switch {
			case !ok:
				to.refuse(wire.CloseProtocol, notAFrame)
				return n, false
			case !f.inside || !f.begin(&f.h, r, now, to):
				return n, false
			}
		}
		n += f.payload(b[n:])
		if f.h.length > 0 {
			return n, false
		}
		f.inside = false
		if !f.ended(to) {
			return n, false
		}
		if whole++; whole == framesPerTurn && n < len(b) {
			return n, true
		}
	}
	return n, false
}

// header takes bytes of the next header. When that is whole the frame begins; ok
// is false when it breaks the protocol.
func (f *frames) header(b []byte) (n int, ok bool) {
	need := minHeader
	if f.headLen > minHeader {
		_, need, _ = parseHeader(f.head[:f.headLen]) // it was right so far
	}
	for {
		k := copy(f.head[f.headLen:need], b[n:])
		n, f.headLen = n+k, f.headLen+uint8(k)
		if int(f.headLen) < need {
			return n, true
		}
		h, size, ok := parseHeader(f.head[:f.headLen])
		if !ok {
			return n, false
		}
		if size == int(f.headLen) {
			f.h, f.offset, f.headLen, f.inside = h, 0, 0, true
			return n, true
		}
		need = size
	}
}

// payload takes bytes of the frame's payload.
func (f *frames) payload(b []byte) int {
	k := int(min(f.h.length, uint64(len(b))))
	dst := &f.data
	if f.h.opcode >= wire.OpClose {
		dst = &f.command
	}
	if *dst == nil {
		*dst = make([]byte, 0, min(f.h.length, trusted))
	}
	start := len(*dst)
	*dst = append(*dst, b[:k]...)
	ws.Cipher((*dst)[start:], f.h.mask, int(f.offset))
	f.offset, f.h.length = uint8((int(f.offset)+k)%len(f.h.mask)), f.h.length-uint64(k)
	return k
}

// ended tells of a whole frame.
func (f *frames) ended(to sink) (more bool) {
	if f.h.opcode < wire.OpClose {
		return f.end(&f.h, to)
	}
	payload := f.command
	f.command = nil
	return to.control(f.h.opcode, payload)
}

// looped is a session's connection on its shard's loop: no goroutine waits for
// it. Everything happens on the shard.
type looped struct {
	loop.Link

	session *session.Session // nil until it begins
	handler *handler
	begun   *unfinished // nil: nothing is
	minute  uint16      // of the count
	count   uint16      // of the client's frames that ended no message
	deflate bool        // that was agreed on
	deaf    bool        // nothing more is read for
	paused  bool        // the session takes nothing more now
	within  bool        // of a call to the session, which may resume at once
}

// unfinished is what a connection for which nothing is under way has no use for.
type unfinished struct {
	partial *frames        // the client's, while one of them, or a message, is not whole, or very many came
	timer   *session.Timer // while it is set
}

// unfinished is what is under way.
func (c *looped) unfinished() unfinished {
	if c.begun == nil {
		return unfinished{}
	}
	return *c.begun
}

func (c *looped) setUnfinished(u unfinished) {
	if u == (unfinished{}) {
		c.begun = nil
		return
	}
	if c.begun == nil {
		c.begun = new(unfinished)
	}
	*c.begun = u
}

// keep makes f, or with nil nothing, the client's frames that go on.
func (c *looped) keep(f *frames) {
	if u := c.unfinished(); u.partial != f {
		u.partial = f
		c.setUnfinished(u)
	}
}

// spareFrames hold nothing of a connection.
var spareFrames = sync.Pool{New: func() any { return new(frames) }} //nolint:gochecknoglobals // a pool is shared by nature

// begin takes the descriptor into the loop of the session's shard.
func (c *looped) begin(s *session.Session, l *loop.Loop, fd int, before []byte) {
	c.session = s
	c.Open(l, fd, before, c)
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
	u := c.unfinished()
	u.timer = c.session.Shard().Rearm(u.timer, c, at)
	c.setUnfinished(u)
}

// Timeout is called by the shard.
func (c *looped) Timeout(time.Time) { c.Link.Alarm() }

// Gone is called by the link.
func (c *looped) Gone() {
	c.keep(nil)
	c.session.Gone()
}

// Input is called by the link.
func (c *looped) Input(b []byte) int {
	if c.paused {
		return 0
	}
	if c.deaf {
		return len(b)
	}
	n, again := c.frames(b)
	if c.deaf {
		return len(b)
	}
	if again {
		c.Again()
	}
	return n
}

// frames takes the client's frames apart, as far as it goes.
func (c *looped) frames(b []byte) (n int, again bool) {
	f, r, now := c.unfinished().partial, &c.handler.rules, c.Now()
	if f == nil {
		f = spareFrames.Get().(*frames)
		f.deflate, f.minute = c.deflate, uint32(now.Sub(r.made)/time.Minute)
		if uint16(f.minute) == c.minute {
			f.control = uint32(c.count)
		}
	}
	n, again = f.input(b, r, now, c)
	switch {
	case c.Over():
		c.keep(nil)
	case f.inside || f.open || f.headLen > 0 || f.control > math.MaxUint16:
		c.keep(f)
	default:
		c.keep(nil)
		c.minute, c.count = uint16(f.minute), uint16(f.control)
		*f = frames{}
		spareFrames.Put(f)
	}
	return n, again
}

func (c *looped) message(raw []byte, _ bool) bool {
	c.paused = true
	if len(raw) < heavyMessage {
		c.receive(c.session.Read(raw))
		return !c.paused
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
	return false
}

func (c *looped) deflated(packed []byte, binary bool) bool {
	if raw, ok, err := c.handler.openSmall(packed, binary); ok && err != nil {
		c.refuse(why(err))
		return false
	} else if ok {
		return c.message(raw, binary)
	}
	c.paused = true
	s, h := c.session, c.handler
	go func() {
		h.place()
		raw, err := h.inflate(packed, binary, h.rules.bytes)
		var m session.Message
		if err == nil {
			m = s.Read(raw)
		}
		s.Post(func() {
			defer h.leave()
			switch {
			case c.Over():
				return
			case err != nil:
				c.paused = false
				c.refuse(why(err))
			default:
				c.receive(m)
			}
			if !c.paused {
				c.More()
			}
		})
	}()
	return false
}

func (c *looped) receive(m session.Message) {
	c.within = true
	c.session.Receive(m, c.resumed)
	c.within = false
}

// resumed is called when the session takes the next message.
func (c *looped) resumed() {
	c.paused = false
	if !c.within {
		c.More()
	}
}

func (c *looped) control(opcode byte, payload []byte) bool {
	switch opcode {
	case wire.OpPing:
		c.session.Pong(payload)
	case wire.OpPong:
		c.session.Heard()
	default:
		c.close(closing(payload))
	}
	return !c.deaf
}

func (c *looped) refuse(code wire.CloseCode, reason string) {
	c.handler.met(code)
	c.close(code, reason)
}

// close closes the session; its close frame is the last. What comes from now on is
// not looked at.
func (c *looped) close(code wire.CloseCode, reason string) {
	c.deaf = true
	c.session.Close(code, reason)
}
