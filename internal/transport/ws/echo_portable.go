package ws

import "github.com/carillon-rt/carillon/internal/wire"

// portableEcho is an echo on a connection that no loop has. Its frames are read as all
// are there; the goroutine that does it also writes, so that a client that takes
// nothing is not read from either.
type portableEcho struct{ conn }

func (c *portableEcho) run() {
	for c.frame(&c.handler.rules, c) {
	}
	c.Finish()
	c.Drain()
}

func (c *portableEcho) send(bufs ...[]byte) bool {
	if c.WriteAll(bufs) != nil {
		c.Abort() // it is gone
		return false
	}
	return true
}

func (c *portableEcho) message(raw []byte, binary bool) bool {
	return c.send(messageHeader(len(raw), binary), raw)
}

func (c *portableEcho) deflated(packed []byte, binary bool) bool {
	raw, err := c.handler.inflate(packed, binary, c.handler.rules.bytes)
	if err != nil {
		c.refuse(why(err))
		return false
	}
	return c.message(raw, binary)
}

func (c *portableEcho) control(opcode byte, payload []byte) bool {
	switch opcode {
	case wire.OpPing:
		return c.send(wire.AppendControl(nil, wire.OpPong, payload))
	case wire.OpClose:
		c.refuse(closing(payload))
		return false
	}
	return true
}

func (c *portableEcho) refuse(code wire.CloseCode, reason string) {
	c.send(wire.AppendClose(nil, code, reason))
}
