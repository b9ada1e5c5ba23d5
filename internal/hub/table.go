package hub

// tableChunk is how many places one piece of a table has. A table grows piece by
// piece: nothing in it moves.
const tableChunk = 512

// table gives numbers, from 1, to what a shard owns. They stand for pointers where
// there are many: they take half the memory, and the garbage collector need not
// follow them. The zero value is empty.
type table[T any] struct {
	chunks []*[tableChunk]*T
	free   []uint32 // numbers that were taken back
	last   uint32   // the largest ever given
	count  int
}

// add gives v a number.
func (t *table[T]) add(v *T) uint32 {
	n := t.last + 1
	if i := len(t.free) - 1; i >= 0 {
		n, t.free = t.free[i], t.free[:i]
	} else if t.last++; int(t.last/tableChunk) == len(t.chunks) {
		t.chunks = append(t.chunks, new([tableChunk]*T))
	}
	t.chunks[n/tableChunk][n%tableChunk] = v
	t.count++
	return n
}

// get is what has the number, or nil.
func (t *table[T]) get(n uint32) *T {
	if int(n/tableChunk) >= len(t.chunks) {
		return nil
	}
	return t.chunks[n/tableChunk][n%tableChunk]
}

// remove takes a number back, for the next.
func (t *table[T]) remove(n uint32) {
	t.chunks[n/tableChunk][n%tableChunk] = nil
	if t.count--; t.count == 0 {
		*t = table[T]{chunks: append(t.chunks[:0:0], t.chunks[0])} // so that most of its memory can go
		return
	}
	t.free = append(t.free, n)
}

// all calls f for everything there is, until it says false. f may remove what it is
// called for.
func (t *table[T]) all(f func(*T) bool) {
	for n := uint32(1); n <= t.last; n++ {
		if v := t.get(n); v != nil && !f(v) {
			return
		}
	}
}
