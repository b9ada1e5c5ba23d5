package hub

import (
	"sync"
	"testing"

	"github.com/carillon-rt/carillon"
)

// counted is what a ring should say that it holds.
func counted(r *ring) (bytes int64) {
	t := r.table.Load()
	for n := t.base; n <= r.head.Load(); n++ {
		d := t.get(n)
		bytes += int64(d.Entry.Size())
		for f := range Form(NumForms) {
			bytes += int64(len(d.Encoding(f)))
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
			}
		},
		"reset": func(r *ring) { r.reset(carillon.Position{Seq: 9}) },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRing(1, carillon.Position{})
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
	r := newRing(100_000, carillon.Position{})
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
