package loop

import "unsafe"

// What may lie behind a piece of memory, as of the pages that a ring's encodings are in,
// and how many times the bytes of a piece it may be that are kept.
const (
	behindPiece = 8 << 10
	mostBehind  = 4
)

// own makes bufs, which are to wait until a socket takes them, hold no more memory than
// a few times their bytes: as they are, shared with everybody who is sent the same, if
// most lie one behind the other; or else a copy. A piece keeps all that it was cut from.
func own(bufs [][]byte) [][]byte {
	pieces, bytes := 0, 0
	end := uintptr(0) // of the last piece
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		begin := uintptr(unsafe.Pointer(&b[0]))
		if begin != end {
			pieces++
		}
		end = begin + uintptr(len(b))
		bytes += len(b)
	}
	if pieces*behindPiece <= mostBehind*bytes {
		return bufs
	}
	all := make([]byte, 0, bytes)
	for _, b := range bufs {
		all = append(all, b...)
	}
	return [][]byte{all}
}
