package loop

import (
	"math/rand/v2"
	"testing"
)

// A slot has one link at a time, and an event that was for another finds nothing.
func TestASlotIsForTheLinkThatHasIt(t *testing.T) {
	type place struct{ slot, gen uint32 }
	var s slots
	have, gone := map[place]*Link{}, map[place]bool{}
	random := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		for range random.IntN(2 * slotChunk) {
			k := new(Link)
			slot := s.add(k)
			at := place{slot, s.gen(slot)}
			if have[at] != nil || gone[at] {
				t.Fatalf("slot %d is given twice with generation %d", at.slot, at.gen)
			}
			have[at] = k
		}
		for at := range have {
			if random.IntN(2) == 0 {
				s.remove(at.slot)
				delete(have, at)
				gone[at] = true
			}
		}
		for at, k := range have {
			if s.get(at.slot, at.gen) != k {
				t.Fatalf("slot %d has another link", at.slot)
			}
		}
		for at := range gone {
			if s.get(at.slot, at.gen) != nil {
				t.Fatalf("slot %d is found by a generation that is over", at.slot)
			}
		}
		n := 0
		for range s.all {
			n++
		}
		if n != len(have) {
			t.Fatalf("there are %d links, want %d", n, len(have))
		}
	}
}
