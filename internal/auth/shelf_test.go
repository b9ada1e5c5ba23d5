package auth

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
)

// TestAShelfKeepsWhatItWasGiven compares one with a map, with sums that begin alike,
// or begin their search in the same slot.
func TestAShelfKeepsWhatItWasGiven(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		most := rapid.SampledFrom([]int{1, 2, 7, 40, 200}).Draw(r, "most")
		alike := rapid.SampledFrom([]uint64{1, 3, 16, 1 << 40}).Draw(r, "beginnings")
		var s shelf
		want := map[tokenSum]string{}
		sum := func() tokenSum {
			return tokenSum{rapid.Uint64Range(0, alike).Draw(r, "first") << 4, rapid.Uint64Range(0, 60).Draw(r, "second")}
		}
		for i := range rapid.IntRange(1, 300).Draw(r, "steps") {
			one := sum()
			if rapid.IntRange(0, 3).Draw(r, "what") > 0 {
				m := memory{sum: one, user: fmt.Sprint("u", i)}
				_, there := want[one]
				full := s.put(&m, most)
				if full != (!there && len(want) == most) {
					r.Fatalf("%d of %d are there: full is %t", len(want), most, full)
				}
				want[one] = m.user
				if full { // one of the others had to go
					maps.DeleteFunc(want, func(sum tokenSum, _ string) bool {
						_, found := s.get(&sum)
						return !found && sum != one
					})
				}
			} else {
				s.remove(&one)
				delete(want, one)
			}
			if s.n != len(want) || s.n > most {
				r.Fatalf("it has %d, want %d, at most %d", s.n, len(want), most)
			}
			for sum, user := range want {
				if m, found := s.get(&sum); !found || m.user != user || m.sum != sum {
					r.Fatalf("%x: %q, %t, want %q", sum, m.user, found, user)
				}
			}
			if other := sum(); want[other] == "" {
				if m, found := s.get(&other); found {
					r.Fatalf("%x was not put there: %+v", other, m)
				}
			}
		}
	})
}

func TestAShelfGivesMemoryBack(t *testing.T) {
	var s shelf
	for i := range mostOfShelf {
		s.put(&memory{sum: tokenSum{rand.Uint64(), uint64(i)}, user: "someone"}, mostOfShelf)
	}
	if blocks := (mostOfShelf + len(block{}) - 1) / len(block{}); len(s.blocks) != blocks || len(s.slots) != 2*mostOfShelf {
		t.Errorf("full, it has %d blocks and %d slots", len(s.blocks), len(s.slots))
	}
	for s.n > 0 {
		sum := s.at(rand.IntN(s.n)).sum
		s.remove(&sum)
	}
	if len(s.blocks) > 1 || len(s.slots) > minSlots {
		t.Errorf("empty, it has %d blocks and %d slots", len(s.blocks), len(s.slots))
	}
	if last := *s.blocks[0]; last != (block{}) {
		t.Error("it holds on to what it has forgotten")
	}
}

func TestKindsAreBounded(t *testing.T) {
	var k kinds
	of := func(p *carillon.Permissions) *kind {
		return k.of(&proof{principal: &carillon.Principal{Org: "demo", Permissions: p}})
	}
	none := of(nil)
	if of(nil) != none {
		t.Error("what says the same is not one")
	}
	for range 3 * maxKinds {
		p := new(carillon.Permissions)
		if got := of(p); got.permissions != p || got.org != "demo" {
			t.Fatalf("%+v", got)
		}
		if len(k.seen) > maxKinds {
			t.Fatalf("%d are kept", len(k.seen))
		}
	}
	if none.permissions != nil {
		t.Error("one that is not kept any more has changed")
	}
}

// BenchmarkAShelfGrows is the most that one memory costs beside itself, however many
// others there are: the numbers of a full shelf are put anew.
func BenchmarkAShelfGrows(b *testing.B) {
	var s shelf
	for i := range uint64(mostOfShelf) {
		s.put(&memory{sum: tokenSum{rand.Uint64(), i}}, mostOfShelf)
	}
	for b.Loop() {
		s.resize(len(s.slots))
	}
}

// BenchmarkAMillionMemories is what it takes to remember so many.
func BenchmarkAMillionMemories(b *testing.B) {
	p := proof{principal: &carillon.Principal{User: "someone"}}
	for b.Loop() {
		v := newVerified(1_000_000, func() {})
		for range 1_000_000 {
			v.remember(&tokenSum{rand.Uint64(), rand.Uint64()}, &p)
		}
	}
}
