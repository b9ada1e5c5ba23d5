package loop

// slotChunk is how many places one piece of the slots has. They grow piece by piece:
// nothing moves.
const slotChunk = 512

// slots are the links of a loop by the numbers that stand in their events. The
// generation of a slot tells those that it has one after the other apart.
type slots struct {
	chunks []*slotPiece
	free   []uint32
	n      uint32 // how many were ever in use at the same time
}

type slotPiece struct {
	links [slotChunk]*Link
	gens  [slotChunk]uint32
}

func (s *slots) add(k *Link) (slot uint32) {
	if i := len(s.free) - 1; i >= 0 {
		slot, s.free = s.free[i], s.free[:i]
	} else {
		if slot = s.n; slot%slotChunk == 0 {
			s.chunks = append(s.chunks, new(slotPiece))
		}
		s.n++
	}
	s.set(slot, k)
	return slot
}

func (s *slots) set(slot uint32, k *Link) { s.chunks[slot/slotChunk].links[slot%slotChunk] = k }

func (s *slots) gen(slot uint32) uint32 { return s.chunks[slot/slotChunk].gens[slot%slotChunk] }

// get is the link that an event is for; nil: it is gone.
func (s *slots) get(slot, gen uint32) *Link {
	if s.gen(slot) != gen {
		return nil
	}
	return s.chunks[slot/slotChunk].links[slot%slotChunk]
}

func (s *slots) remove(slot uint32) {
	s.set(slot, nil)
	s.chunks[slot/slotChunk].gens[slot%slotChunk]++
	s.free = append(s.free, slot)
}

// all goes through the links there are, which may be removed meanwhile.
func (s *slots) all(yield func(*Link) bool) {
	for _, c := range s.chunks {
		for _, k := range &c.links {
			if k != nil && !yield(k) {
				return
			}
		}
	}
}
