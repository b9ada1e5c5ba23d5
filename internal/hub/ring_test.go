package hub

import (
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
)

// counted is what a ring should say that it holds.
func counted(r *ring) (bytes int64) {
	t := r.table.Load()
	for n := t.base; n <= r.head.Load(); n++ {
		d := t.get(n)
		if d == nil { // a hole
			continue
		}
		bytes += int64(cost(d.Entry))
		for f := range Form(NumForms) {
			bytes += int64(allocated(cap(d.Encoding(f))))
		}
	}
	return bytes
}

func entryAt(seq uint64) *carillon.Entry {
	return &carillon.Entry{Org: "acme", Pos: carillon.Position{Seq: seq}, Event: carillon.Event{Type: "a", Data: []byte("1")}}
}

func TestEncodingsThatAreMadeTooLateAreNotCounted(t *testing.T) {
	for what, leave := range map[string]func(*ring){
		"evicted": func(r *ring) {
			for seq := uint64(2); r.evictions.Load() == 0; seq++ {
				r.append(entryAt(seq))
				r.budget.settle()
			}
		},
		"reset": func(r *ring) { r.reset(carillon.Position{Seq: 9}) },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRing(&budget{bytes: 1})
			d, _ := r.append(entryAt(1))
			before := d.Remember(0, []byte("made before"))
			if got := r.bytes.Load(); got != counted(r) {
				t.Errorf("%d bytes, want %d", got, counted(r))
			}
			leave(r)
			if d.Encoding(1) != nil || string(d.Encoding(0)) != string(before) {
				t.Errorf("it remembers %q and %q", d.Encoding(0), d.Encoding(1))
			}
			first := d.Remember(1, []byte("made after"))
			if again := d.Remember(1, []byte("once more")); &again[0] != &first[0] || &d.Encoding(1)[0] != &first[0] {
				t.Error("it is not shared")
			}
			d.Remember(2, []byte{})
			if b := d.Encoding(2); b == nil || len(b) != 0 {
				t.Errorf("that there is none is not remembered: %q", b)
			}
			if got := r.bytes.Load(); got != counted(r) {
				t.Errorf("%d bytes, want %d", got, counted(r))
			}
		})
	}
}

// TestEncodingsAreCountedOnceWhileEntriesLeave is for the race detector too.
func TestEncodingsAreCountedOnceWhileEntriesLeave(t *testing.T) {
	r := newRing(&budget{bytes: 100_000})
	made := make(chan *Delivery, 64)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for d := range made {
				for f := range Form(NumForms) {
					d.Remember(f, make([]byte, 10+d.at.n%7))
				}
			}
		})
	}
	for seq := range uint64(6000) {
		d, _ := r.append(entryAt(seq + 1))
		r.budget.settle()
		made <- d
		if seq%3 == 0 {
			made <- d
		}
	}
	close(made)
	wg.Wait()
	if r.evictions.Load() == 0 || r.bytes.Load() != counted(r) {
		t.Errorf("%d bytes after %d evictions, want %d", r.bytes.Load(), r.evictions.Load(), counted(r))
	}
}

// Whatever sizes entries have, what a ring holds is found by place and by organization,
// and rings hold more than their budget only in two chunks that the newest need.
func TestWhatARingHoldsIsFound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := &budget{bytes: 2 << 20}
		rings := []*ring{newRing(b), newRing(b)}
		orgs := [][]carillon.OrgID{{"a", "b"}, {"c"}}
		var all [2][]*carillon.Entry
		var seq [2]uint64
		for range rapid.IntRange(1, 30).Draw(rt, "runs") {
			i := rapid.IntRange(0, 1).Draw(rt, "ring")
			size := rapid.SampledFrom([]int{1, 1000, 20_000, chunkBytes, 3 * chunkBytes}).Draw(rt, "size")
			for range rapid.IntRange(1, 1+600*1000/max(size, 1000)).Draw(rt, "entries") {
				seq[i] += uint64(rapid.IntRange(1, 2).Draw(rt, "hole"))
				e := entryAt(seq[i])
				e.Pos.Check, e.Data = uint32(seq[i])+1, make([]byte, size)
				e.Org = rapid.SampledFrom(orgs[i]).Draw(rt, "org")
				all[i] = append(all[i], e)
				rings[i].append(e)
				b.settle()
			}
		}
		var held, largest int64
		for i, r := range rings {
			floor, known, entries := r.floor.Load().Seq, map[uint64]bool{}, 0
			for _, e := range all[i] {
				known[e.Pos.Seq] = true
				want := genuine
				if e.Pos.Seq < floor {
					want = unknown
				}
				if got := r.verify(e.Pos); got != want {
					rt.Fatalf("ring %d above %d says %d of %d", i, floor, got, e.Pos.Seq)
				}
				if wrong := (carillon.Position{Seq: e.Pos.Seq, Check: 1 << 31}); e.Pos.Seq > floor && r.verify(wrong) != mistaken {
					rt.Fatalf("ring %d does not know %d", i, e.Pos.Seq)
				}
				largest = max(largest, int64(cost(e)))
			}
			for n := floor + 1; n <= seq[i]; n++ {
				if !known[n] && r.verify(carillon.Position{Seq: n, Check: 1}) != unknown {
					rt.Fatalf("ring %d knows %d, which is not there", i, n)
				}
			}
			for _, org := range orgs[i] {
				var want, got []uint64
				for _, e := range all[i] {
					if e.Org == org && e.Pos.Seq > floor {
						want = append(want, e.Pos.Seq)
					}
				}
				v := r.view(r.chainOf(org))
				for d := v.after(floor); d != nil; d = v.following(d) {
					got = append(got, d.Entry.Pos.Seq)
				}
				if entries += len(got); !slices.Equal(got, want) {
					rt.Fatalf("ring %d above %d has %v of %s, want %v", i, floor, got, org, want)
				}
			}
			if r.bytes.Load() != counted(r) || int(r.count.Load()) != entries {
				rt.Fatalf("ring %d says %d bytes in %d entries, and has %d in %d", i, r.bytes.Load(), r.count.Load(), counted(r), entries)
			}
			held += r.bytes.Load()
		}
		if most := b.bytes + 4*max(chunkBytes, largest); held > most {
			rt.Fatalf("%d bytes are held, at most %d expected", held, most)
		}
	})
}

// One ring may have all of the budget while the others need nothing, and gives it back to
// one that does, down to an equal part.
func TestRingsShareTheirBudget(t *testing.T) {
	b := &budget{bytes: 32 << 20}
	rings := make([]*ring, 16)
	for i := range rings {
		rings[i] = newRing(b)
	}
	fill := func(r *ring, bytes int) {
		for seq := r.start.Load() + r.head.Load() + 1; bytes > 0; seq++ {
			e := entryAt(seq)
			e.Data = make([]byte, 7000)
			r.append(e)
			b.settle()
			bytes -= cost(e)
		}
	}
	about := func(what string, r *ring, want int64) {
		t.Helper()
		if got := r.bytes.Load(); got < want-2*chunkBytes || got > want+2*chunkBytes {
			t.Errorf("%s has %d KiB, want about %d", what, got>>10, want>>10)
		}
	}
	fill(rings[0], 100<<20)
	about("a ring alone", rings[0], 32<<20)
	fill(rings[1], 100<<20)
	about("the first of two", rings[0], 16<<20)
	about("the second", rings[1], 16<<20)
	for _, r := range rings {
		fill(r, 8<<20)
	}
	for _, r := range rings {
		about("one of sixteen", r, 2<<20)
	}
}

func TestWhatRingsBeginWith(t *testing.T) {
	b := &budget{bytes: 100}
	for _, c := range []struct{ has, may []int64 }{
		{[]int64{0, 0, 0, 0}, []int64{0, 0, 0, 0}},
		{[]int64{10, 1000, 0, 0}, []int64{10, 90, 0, 0}},
		{[]int64{200, 20, 300, 400}, []int64{26, 20, 27, 27}},
	} {
		if got := b.divide(c.has); !slices.Equal(got, c.may) {
			t.Errorf("of %v they may have %v, want %v", c.has, got, c.may)
		}
	}
}
