package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// WebSocket opcodes (RFC 6455).
const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// maxFrame is the largest frame taken from a server: the largest event, and room
// for what stands around it.
const maxFrame = 400 << 10

var errMasked = errors.New("the server masked a frame")

// parseFrame reads one frame of a server from the front of b. size 0 means that
// it is not all there yet. The payload is a part of b. Servers under test write
// whole messages, so a fragment is an error like any other breach.
func parseFrame(b []byte) (op byte, payload []byte, size int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	op = b[0] & 0x0f
	switch {
	case b[0]&0x70 != 0:
		return 0, nil, 0, fmt.Errorf("reserved bits set in frame head %#02x", b[0])
	case b[0]&0x80 == 0 || op == 0:
		return 0, nil, 0, errors.New("a fragmented message")
	case op > 2 && op < opClose || op > opPong:
		return 0, nil, 0, fmt.Errorf("unknown opcode %d", op)
	case b[1]&0x80 != 0:
		return 0, nil, 0, errMasked
	case op >= opClose && b[1] > 125:
		return 0, nil, 0, errors.New("a control frame over 125 bytes")
	}
	head, length := 2, uint64(b[1])
	switch length {
	case 126:
		if len(b) < 4 {
			return 0, nil, 0, nil
		}
		if head, length = 4, uint64(binary.BigEndian.Uint16(b[2:])); length < 126 {
			return 0, nil, 0, errors.New("a length not in its shortest form")
		}
	case 127:
		if len(b) < 10 {
			return 0, nil, 0, nil
		}
		if head, length = 10, binary.BigEndian.Uint64(b[2:]); length < 1<<16 {
			return 0, nil, 0, errors.New("a length not in its shortest form")
		}
	}
	if length > maxFrame {
		return 0, nil, 0, fmt.Errorf("a frame of %d bytes; at most %d are taken", length, maxFrame)
	}
	size = head + int(length)
	if len(b) < size {
		return 0, nil, 0, nil
	}
	return op, b[head:size], size, nil
}

// appendClientFrame appends a masked frame, as clients must send them.
func appendClientFrame(dst []byte, op byte, payload []byte) []byte {
	dst = appendFrameHead(dst, op, len(payload), 0x80)
	mask := [4]byte{0x5a, 0xc3, 0x17, 0x88} // nothing between us and the server could be confused by it
	dst = append(dst, mask[:]...)
	for i, c := range payload {
		dst = append(dst, c^mask[i&3])
	}
	return dst
}

// appendServerFrame appends an unmasked frame.
func appendServerFrame(dst []byte, op byte, payload []byte) []byte {
	return append(appendFrameHead(dst, op, len(payload), 0), payload...)
}

func appendFrameHead(dst []byte, op byte, size int, maskBit byte) []byte {
	dst = append(dst, 0x80|op)
	switch {
	case size < 126:
		return append(dst, maskBit|byte(size))
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, maskBit|126), uint16(size))
	}
	return binary.BigEndian.AppendUint64(append(dst, maskBit|127), uint64(size))
}
