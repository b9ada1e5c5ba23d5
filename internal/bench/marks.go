package bench

import "math/bits"

// maxMark is the highest number that marks hold: 8 MB of them.
const maxMark = 1<<26 - 1

// marks is a set of small numbers. The zero value is empty.
type marks struct {
	words []uint64
	count uint64
}

// add puts n into the set and reports whether it is new there. A number above
// maxMark must not be added.
func (m *marks) add(n uint64) bool {
	w, bit := n/64, uint64(1)<<(n%64)
	for uint64(len(m.words)) <= w {
		m.words = append(m.words, 0)
	}
	if m.words[w]&bit != 0 {
		return false
	}
	m.words[w] |= bit
	m.count++
	return true
}

// without is how many are in m and not in o, and the least of them.
func (m *marks) without(o *marks) (n, least uint64) {
	for w, word := range m.words {
		if w < len(o.words) {
			word &^= o.words[w]
		}
		if word != 0 && n == 0 {
			least = uint64(w*64 + bits.TrailingZeros64(word))
		}
		n += uint64(bits.OnesCount64(word))
	}
	return n, least
}
