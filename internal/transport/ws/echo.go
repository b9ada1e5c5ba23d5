package ws

import (
	"net/http"
	"time"

	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Echo is a door that sends every message back, for conformance suites. Its
// connections are read as all are, those in the clear on the loops, where there are
// any; there is no session behind them, and nobody is asked who it is. Core is
// required.
func Echo(cfg Config) http.Handler {
	h := newHandler(cfg)
	h.rules.binary, h.rules.control = true, 0 // suites send more small frames than anybody else
	return http.HandlerFunc(h.echo)
}

func (h *handler) echo(w http.ResponseWriter, r *http.Request) {
	if !upgradable(w, r) {
		return
	}
	extensions, err := h.extensions(r)
	if err != nil {
		transport.Problem(w, r, h.Logger, err)
		return
	}
	netConn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		transport.Problem(w, r, h.Logger, err)
		return
	}
	before := left(buf)
	if !answered(netConn, acceptance(r.Header.Get("Sec-Websocket-Key"), agreed{extensions: extensions})) {
		return
	}
	if len(h.Loops) > 0 {
		if fd, ok := loop.Adopt(netConn, h.Sockets.SendBuffer); ok {
			c := &echo{handler: h, fd: fd, before: before}
			c.deflate = extensions != ""
			h.Core.Join(&c.Member, c)
			c.Shard().Post(c)
			return
		}
	}
	c := &portableEcho{conn{handler: h, pending: before}}
	c.deflate = extensions != ""
	h.Sockets.Init(&c.Socket, netConn, &c.conn)
	h.Sockets.Go(&c.Socket, c.run, func() {})
}

// echo is a connection that gets back what it sends. Everything but its making
// happens on its shard.
type echo struct {
	loop.Link
	frames
	session.Member

	handler *handler
	timer   session.Timer
	fd      int
	before  []byte
	out     [][]byte
	waiting int // bytes in out
	deaf    bool
}

// Run is called by the shard, once.
func (c *echo) Run() {
	c.Open(c.handler.Loops[c.Shard().ID()], c.fd, c.before, c)
	c.before = nil
}

// Turn is called by the shard.
func (c *echo) Turn() { c.Ready() }

// Pull is called by the link.
func (c *echo) Pull(dst [][]byte) ([][]byte, bool) {
	full := c.full()
	dst = append(dst, c.out...)
	c.out, c.waiting = nil, 0
	if full {
		c.More()
	}
	return dst, c.deaf && len(c.out) == 0
}

// full reports whether so much waits that no more is read.
func (c *echo) full() bool { return c.waiting > c.handler.Core.Limits.OutboxBytes }

// Input is called by the link.
func (c *echo) Input(b []byte) int {
	if c.full() {
		return 0
	}
	if c.deaf {
		return len(b)
	}
	n, again := c.input(b, &c.handler.rules, c.Now(), c)
	if again {
		c.Again()
	}
	return n
}

func (c *echo) send(bufs ...[]byte) bool {
	for _, b := range bufs {
		c.out, c.waiting = append(c.out, b), c.waiting+len(b)
	}
	c.Due()
	return !c.full()
}

func (c *echo) message(raw []byte, binary bool) bool {
	return c.send(messageHeader(len(raw), binary), raw)
}

func messageHeader(length int, binary bool) []byte {
	header := wire.AppendTextHeader(make([]byte, 0, maxHeader), length)
	if binary {
		header[0] ^= opText ^ opBinary
	}
	return header
}

// deflated answers plainly, as a server may.
func (c *echo) deflated(packed []byte, binary bool) bool {
	raw, err := c.handler.inflate(packed, binary, c.handler.rules.bytes)
	if err != nil {
		c.refuse(why(err))
		return false
	}
	return c.message(raw, binary)
}

// control answers each ping, where a session answers the newest: some suites
// count them.
func (c *echo) control(opcode byte, payload []byte) bool {
	switch opcode {
	case wire.OpPing:
		return c.send(wire.AppendControl(nil, wire.OpPong, payload))
	case wire.OpClose:
		c.refuse(closing(payload))
		return false
	}
	return true
}

func (c *echo) refuse(code wire.CloseCode, reason string) {
	c.deaf = true
	c.send(wire.AppendClose(nil, code, reason))
}

// Now is called by the link.
func (c *echo) Now() time.Time { return c.Shard().Now() }

// Alarm is called by the link.
func (c *echo) Alarm(at time.Time) {
	if at.IsZero() {
		c.Shard().StopTimer(&c.timer)
	} else {
		c.Shard().SetTimer(&c.timer, c, at)
	}
}

// Timeout is called by the shard.
func (c *echo) Timeout(time.Time) { c.Link.Alarm() }

// Gone is called by the link.
func (c *echo) Gone() { c.data, c.command, c.out = nil, nil, nil }
