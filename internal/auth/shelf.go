package auth

import (
	"math/rand/v2"
	"sync"
)

// shelf is a table of memories by their sums: open addressing of small numbers, which
// say where in the blocks a memory stands. So what is not in use takes two bytes, and
// growing moves no memory. The zero value is empty.
type shelf struct {
	mu     sync.Mutex // whoever calls a method has it
	slots  []uint16   // 1 + a place, or 0; a power of two, at most 3/4 in use; from the last bits of a sum on
	blocks []*block   // places, one after the other
	n      int        // the first n places are in use
	from   int64      // since when, in nanoseconds since 1970, all their lives have begun
}

// block is as large as a size class of Go's has room for: 42 times 48 bytes.
type block [42]memory

const minSlots = 8

func (s *shelf) at(place int) *memory { return &s.blocks[place/len(block{})][place%len(block{})] }

func (s *shelf) home(sum *tokenSum) int { return int(sum[0]) & (len(s.slots) - 1) }

// seek is the slot of a sum, or the free one in which the search for it ends. There
// are slots.
func (s *shelf) seek(sum *tokenSum) (slot int, found bool) {
	for i := s.home(sum); ; i = (i + 1) & (len(s.slots) - 1) {
		if s.slots[i] == 0 {
			return i, false
		}
		if s.at(int(s.slots[i])-1).sum == *sum {
			return i, true
		}
	}
}

// get is a copy of what is remembered under a sum.
func (s *shelf) get(sum *tokenSum) (m memory, found bool) {
	if s.n == 0 {
		return m, false
	}
	i, found := s.seek(sum)
	if found {
		m = *s.at(int(s.slots[i]) - 1)
	}
	return m, found
}

// put remembers m. full reports that there were as many as there may be, and one of
// them, by chance, had to go.
func (s *shelf) put(m *memory, most int) (full bool) {
	if s.n > 0 {
		if i, found := s.seek(&m.sum); found {
			*s.at(int(s.slots[i]) - 1) = *m
			return false
		}
	}
	if full = s.n >= most; full {
		some := s.at(rand.IntN(s.n)).sum
		s.remove(&some)
	}
	if (s.n+1)*4 > len(s.slots)*3 {
		s.resize(max(minSlots, 2*len(s.slots)))
	}
	if s.n == len(s.blocks)*len(block{}) {
		s.blocks = append(s.blocks, new(block))
	}
	*s.at(s.n) = *m
	s.n++
	i, _ := s.seek(&m.sum)
	s.slots[i] = uint16(s.n)
	return full
}

// forget forgets everything.
func (s *shelf) forget() { s.slots, s.blocks, s.n, s.from = nil, nil, 0, 0 }

// remove forgets what is remembered under a sum, if anything is.
func (s *shelf) remove(sum *tokenSum) {
	if s.n == 0 {
		return
	}
	i, found := s.seek(sum)
	if !found {
		return
	}
	place := int(s.slots[i]) - 1
	s.free(i)
	s.n--
	last := s.at(s.n)
	if place != s.n { // the last one takes its place
		i, _ := s.seek(&last.sum)
		s.slots[i] = uint16(place + 1)
		*s.at(place) = *last
	}
	*last = memory{}
	if need := (s.n + len(block{}) - 1) / len(block{}); len(s.blocks) > need+1 {
		s.blocks[len(s.blocks)-1] = nil
		s.blocks = s.blocks[:len(s.blocks)-1]
	}
	if len(s.slots) > minSlots && s.n <= len(s.slots)/8 {
		s.resize(len(s.slots) / 2)
	}
}

// free empties a slot, and moves up those after it that would no longer be found.
func (s *shelf) free(i int) {
	mask := len(s.slots) - 1
	for j := (i + 1) & mask; s.slots[j] != 0; j = (j + 1) & mask {
		home := s.home(&s.at(int(s.slots[j]) - 1).sum)
		if (j-home)&mask >= (j-i)&mask {
			s.slots[i], i = s.slots[j], j
		}
	}
	s.slots[i] = 0
}

func (s *shelf) resize(slots int) {
	s.slots = make([]uint16, slots)
	for place := range s.n {
		i, _ := s.seek(&s.at(place).sum)
		s.slots[i] = uint16(place + 1)
	}
}
