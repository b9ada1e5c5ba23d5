package hub

import (
	"testing"

	"pgregory.net/rapid"
)

func TestATableGivesEachItsOwnNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var table table[int]
		have := map[uint32]*int{}
		for range rapid.IntRange(1, 20).Draw(t, "rounds") {
			for range rapid.IntRange(0, 3*tableChunk).Draw(t, "add") {
				v := new(int)
				n := table.add(v)
				if n == 0 || have[n] != nil {
					t.Fatalf("the number %d is not free", n)
				}
				have[n] = v
			}
			left := rapid.IntRange(0, len(have)).Draw(t, "left")
			seen := 0
			table.all(func(v *int) bool {
				seen++
				return true
			})
			if seen != len(have) || table.count != len(have) {
				t.Fatalf("there are %d, counted %d, want %d", seen, table.count, len(have))
			}
			for n := uint32(1); len(have) > left; n++ {
				if have[n] != nil {
					table.remove(n)
					delete(have, n)
				}
			}
			for n := range table.last + 2 {
				if table.get(n) != have[n] {
					t.Fatalf("%d is not who has the number", n)
				}
			}
			if len(have) == 0 && len(table.chunks) > 1 {
				t.Fatal("an empty table keeps its memory")
			}
		}
	})
}
