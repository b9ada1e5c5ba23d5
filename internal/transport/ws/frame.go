package ws

import (
	"encoding/binary"
	"slices"

	"github.com/carillon-rt/carillon/internal/wire"
)

// Opcodes of data frames (RFC 6455, section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
)

// header is the header of a client's frame.
type header struct {
	final  bool
	opcode byte
	length uint64
	mask   [4]byte
}

// maxControl is the longest payload of a control frame.
const maxControl = 125

// parseHeader reads a header from the front of b, which has at least two bytes.
// It needs size bytes: with fewer in b it is to be called again. ok is false when
// the header breaks the protocol.
func parseHeader(b []byte) (h header, size int, ok bool) {
	h.final, h.opcode, h.length = b[0]&0x80 != 0, b[0]&0x0f, uint64(b[1]&0x7f)
	control := h.opcode >= wire.OpClose
	switch {
	case b[0]&0x70 != 0, // no extension was agreed on
		b[1]&0x80 == 0, // a client masks
		h.opcode > opBinary && !control, h.opcode > wire.OpPong,
		control && (!h.final || h.length > maxControl):
		return h, 0, false
	}
	extended := 0
	switch h.length {
	case 126:
		extended = 2
	case 127:
		extended = 8
	}
	size = 2 + extended + len(h.mask)
	if len(b) < size {
		return h, size, true
	}
	ok = true
	switch extended {
	case 2:
		h.length = uint64(binary.BigEndian.Uint16(b[2:]))
		ok = h.length > maxControl // the shortest form is the only one
	case 8:
		h.length = binary.BigEndian.Uint64(b[2:])
		ok = h.length > 1<<16-1 && h.length < 1<<63
	}
	copy(h.mask[:], b[2+extended:])
	return h, size, ok
}

// minHeader and maxHeader are the sizes that a header can have.
const (
	minHeader = 2
	maxHeader = 14
)

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

// trusted is how much memory a length gets before the bytes come.
const trusted = 4 << 10

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
