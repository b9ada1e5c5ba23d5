package intake

import "sync"

// MaxLent is how large a buffer is, in bytes, that is lent again and again.
const MaxLent = 64 << 10

// Buffers lend memory for as long as a body is worked at. The zero value is ready; a nil
// *Buffers gives new memory each time. Safe for concurrent use.
type Buffers struct{ pool sync.Pool }

// Lend returns n bytes, whatever is in them.
func (b *Buffers) Lend(n int) []byte {
	if b == nil || n > MaxLent {
		return make([]byte, n)
	}
	if buf, ok := b.pool.Get().(*[]byte); ok {
		if cap(*buf) >= n {
			return (*buf)[:n]
		}
		b.pool.Put(buf)
	}
	return make([]byte, n, roomFor(n))
}

// Return takes back what was lent: nothing may hold any of it any more.
func (b *Buffers) Return(buf []byte) {
	if b != nil && cap(buf) > 0 && cap(buf) <= MaxLent {
		b.pool.Put(&buf)
	}
}

// roomFor is the next power of two, so that bodies of about the same size share buffers.
func roomFor(n int) int {
	room := 1 << 10
	for room < n {
		room *= 2
	}
	return room
}
