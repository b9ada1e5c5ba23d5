package wire

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/carillon-rt/carillon"
)

// AppendTextHeader appends the header of an unmasked, final WebSocket text frame
// of n bytes (RFC 6455 section 5.2).
func AppendTextHeader(dst []byte, n int) []byte { return appendHeader(dst, 0x81, n) }

// AppendControl appends a whole WebSocket control frame; the payload is at most
// 125 bytes.
func AppendControl(dst []byte, opcode byte, payload []byte) []byte {
	return append(appendHeader(dst, 0x80|opcode, len(payload)), payload...)
}

// Opcodes of control frames.
const (
	OpClose = 0x8
	OpPing  = 0x9
	OpPong  = 0xA
)

func appendHeader(dst []byte, first byte, n int) []byte {
	switch {
	case n < 126:
		return append(dst, first, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, first, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, 127), uint64(n))
	}
}

// AppendClose appends a close frame. The reason is cut to what fits.
func AppendClose(dst []byte, code CloseCode, reason string) []byte {
	const most = 123
	for len(reason) > most || !validEnd(reason) {
		reason = reason[:min(len(reason)-1, most)]
	}
	payload := binary.BigEndian.AppendUint16(make([]byte, 0, 125), uint16(code))
	return AppendControl(dst, OpClose, append(payload, reason...))
}

func validEnd(s string) bool {
	for i := len(s) - 1; i >= 0 && i >= len(s)-4; i-- {
		if c := s[i]; c < 0x80 {
			return true
		} else if c >= 0xC0 {
			n := 2
			if c >= 0xF0 {
				n = 4
			} else if c >= 0xE0 {
				n = 3
			}
			return len(s)-i == n
		}
	}
	return true
}

// CloseCode is a WebSocket close code. Those from 4000 say what to do: 4000–4099
// stop, 4100–4199 come back after back-off, 4200–4299 come back now or after the
// announced delay.
type CloseCode uint16

// The close codes in use.
const (
	CloseNormal        CloseCode = 1000
	CloseProtocol      CloseCode = 1002
	CloseUnsupported   CloseCode = 1003
	CloseInvalidData   CloseCode = 1007
	ClosePolicy        CloseCode = 1008
	CloseTooBig        CloseCode = 1009
	CloseInternal      CloseCode = 1011
	CloseBadFrames     CloseCode = 4000
	CloseBadToken      CloseCode = 4001
	CloseForbidden     CloseCode = 4003
	CloseReplaced      CloseCode = 4009
	CloseRateLimited   CloseCode = 4101
	CloseSlowConsumer  CloseCode = 4102
	CloseOverloaded    CloseCode = 4103
	CloseNoConnect     CloseCode = 4104
	CloseDrain         CloseCode = 4200
	CloseTokenExpired  CloseCode = 4201
	CloseLifetimeEnded CloseCode = 4202
)

// Ours reports whether the server itself closes with the code.
func (c CloseCode) Ours() bool {
	switch c {
	case CloseNormal, CloseProtocol, CloseUnsupported, CloseInvalidData, ClosePolicy, CloseTooBig, CloseInternal,
		CloseBadFrames, CloseBadToken, CloseForbidden, CloseReplaced, CloseRateLimited, CloseSlowConsumer, CloseOverloaded, CloseNoConnect,
		CloseDrain, CloseTokenExpired, CloseLifetimeEnded:
		return true
	}
	return false
}

// Text is a frame of the server as a WebSocket text frame.
func (f *Frame) Text() []byte {
	n := len(f.JSON())
	var header [headerRoom]byte
	start := headerRoom - copy(header[:], AppendTextHeader(header[:0], n))
	b := f.json[: headerRoom+n : headerRoom+n]
	copy(b[start:], header[:headerRoom-start])
	return b[start:]
}

// Block is the frame as an SSE block: event: carillon.<type>, and its JSON.
func (f *Frame) Block() []byte {
	b := append([]byte("event: carillon."), f.Type...)
	b = append(b, "\ndata: "...)
	b = append(b, f.JSON()...)
	return append(b, "\n\n"...)
}

// Priming begins an SSE stream: how long to wait before reconnecting, and the
// cursor, which the browser remembers without dispatching an event (HTML 9.2.6).
func Priming(retry time.Duration, ids *IDs, cursor carillon.Position) []byte {
	b := append([]byte("retry: "), strconv.FormatInt(retry.Milliseconds(), 10)...)
	b = append(b, "\nid: "...)
	b = ids.Append(b, cursor)
	return append(b, "\n\n"...)
}

// KeepAlive is an SSE block of only a cursor.
func KeepAlive(ids *IDs, cursor carillon.Position) []byte {
	return append(ids.Append([]byte("id: "), cursor), "\n\n"...)
}

// AppendBlock appends an event as an SSE block. js is from AppendEvent. With
// resume false it has no id: line, nor has an ephemeral event; name adds an event:
// line with the type.
func AppendBlock(dst []byte, ids *IDs, e *carillon.Entry, js []byte, resume, name bool) []byte {
	if resume && !e.Ephemeral() {
		dst = append(dst, "id: "...)
		dst = ids.Append(dst, e.Pos)
		dst = append(dst, '\n')
	}
	if name {
		dst = append(dst, "event: "...)
		dst = append(dst, e.Type...)
		dst = append(dst, '\n')
	}
	dst = append(dst, "data: "...)
	dst = append(dst, js...)
	return append(dst, "\n\n"...)
}

// AppendNumbered appends the beginning of an event's JSON with its number on the
// connection, and returns what of the JSON comes after it. js is from AppendEvent.
func AppendNumbered(dst []byte, js []byte, n uint64) (head, rest []byte) {
	dst = append(dst, eventHead...)
	dst = append(dst, `"n":`...)
	dst = strconv.AppendUint(dst, n, 10)
	return append(dst, ','), js[len(eventHead):]
}
