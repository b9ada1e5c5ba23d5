package ws

import (
	"encoding/binary"
	"time"
	"unicode/utf8"

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
	length   uint64
	mask     [4]byte
	opcode   byte
	final    bool
	deflated bool // RSV1: the first of a compressed message (RFC 7692, section 6)
}

// minHeader and maxHeader are the sizes that a header can have.
const (
	minHeader = 2
	maxHeader = 14
)

// maxControl is the longest payload of a control frame.
const maxControl = 125

// parseHeader reads a header from the front of b, which has at least two bytes.
// It needs size bytes: with fewer in b it is to be called again. ok is false when
// the header breaks the protocol.
func parseHeader(b []byte) (h header, size int, ok bool) {
	h.final, h.deflated, h.opcode, h.length = b[0]&0x80 != 0, b[0]&0x40 != 0, b[0]&0x0f, uint64(b[1]&0x7f)
	control := h.opcode >= wire.OpClose
	switch {
	case b[0]&0x30 != 0, // no extension that uses them is known
		h.deflated && (h.opcode == opContinuation || control),
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

// notAFrame is what is said of a header that breaks the protocol, and notUTF8 of
// text that is none.
const (
	notAFrame = "not a frame of RFC 6455"
	notUTF8   = "text is UTF-8"
)

// trusted is how much memory a length gets before the bytes come.
const trusted = 4 << 10

// sink is told what a client's frames say, in order. more is whether the next is
// to be read now.
type sink interface {
	message(raw []byte, binary bool) (more bool)
	deflated(raw []byte, binary bool) (more bool) // a message, to be inflated
	control(opcode byte, payload []byte) (more bool)

	// refuse says that the connection is to be closed, and why. It is the last.
	refuse(code wire.CloseCode, reason string)
}

// rules are what a client's messages are held to, beside RFC 6455.
type rules struct {
	bytes   int           // of one, as it is sent and inflated
	binary  bool          // they may be
	within  time.Duration // from one's first frame to its last; 0: however long
	control uint32        // frames in a minute that end none; 0: however many
	made    time.Time
}

// fragments are the message that a client's data frames make.
type fragments struct {
	data    []byte
	began   time.Duration // since the rules were made
	control uint32        // frames that ended no message
	minute  uint32        // in this minute
	open    bool          // it has begun
	binary  bool
	packed  bool // it is compressed
	deflate bool // it may be: that was agreed on; set once
}

// begin takes a frame's header. It reports whether the frame is taken.
func (m *fragments) begin(h *header, r *rules, now time.Time, to sink) bool {
	at := now.Sub(r.made)
	switch {
	case h.opcode == wire.OpClose:
	case h.deflated && !m.deflate:
		to.refuse(wire.CloseProtocol, notAFrame)
		return false
	case r.control > 0 && (h.opcode > wire.OpClose || !h.final) && m.another(uint32(at/time.Minute)) > r.control:
		to.refuse(wire.CloseRateLimited, "too many frames that are no message")
		return false
	case m.open && r.within > 0 && at-m.began > r.within:
		to.refuse(wire.ClosePolicy, "the message took too long")
		return false
	case h.opcode > wire.OpClose:
	case h.opcode == opBinary && !r.binary:
		to.refuse(wire.CloseUnsupported, Protocol+" is spoken in text frames")
		return false
	case (h.opcode == opContinuation) != m.open:
		to.refuse(wire.CloseProtocol, "a fragment out of order")
		return false
	case h.length > uint64(r.bytes-len(m.data)):
		to.refuse(wire.CloseTooBig, "the message is too large")
		return false
	case !m.open:
		m.open, m.binary, m.packed, m.began = true, h.opcode == opBinary, h.deflated, at
	}
	return true
}

// another counts a frame that ends no message.
func (m *fragments) another(minute uint32) uint32 {
	if m.minute != minute {
		m.minute, m.control = minute, 0
	}
	m.control++
	return m.control
}

// end is called when a data frame's payload is in data.
func (m *fragments) end(h *header, to sink) (more bool) {
	if !h.final {
		return true
	}
	raw := m.data
	m.data, m.open = nil, false // it is the sink's
	switch {
	case m.packed:
		return to.deflated(raw, m.binary)
	case !m.binary && !utf8.Valid(raw):
		to.refuse(wire.CloseInvalidData, notUTF8)
		return false
	}
	return to.message(raw, m.binary)
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
		return wire.CloseInvalidData, notUTF8
	}
	return code, ""
}
