package jetstream

import (
	"slices"
	"sync"

	"github.com/carillon-rt/carillon"
)

// Limits of what lies in an inlet. Beyond them its tail reads the stream.
const (
	inletEntries = 4096
	inletBytes   = 8 << 20
)

// feed hands what the committer of a partition has stored to the partition's tails.
type feed struct {
	mu     sync.Mutex
	inlets []*inlet
}

// inlet is what one tail has yet to take.
type inlet struct {
	wake chan struct{} // has a token while there is something

	mu      sync.Mutex
	entries []*carillon.Entry
	spare   []*carillon.Entry // what the tail took before
	bytes   int
	missed  bool // the stream has more than is here
}

func (f *feed) join() *inlet {
	in := &inlet{wake: make(chan struct{}, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inlets = append(f.inlets, in)
	return in
}

func (f *feed) leave(in *inlet) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inlets = slices.DeleteFunc(f.inlets, func(other *inlet) bool { return other == in })
}

// followed reports whether anybody would take an entry.
func (f *feed) followed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.inlets) > 0
}

// put hands on an entry; nil says that the stream may have one that is not known.
func (f *feed) put(entry *carillon.Entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, in := range f.inlets {
		in.put(entry)
	}
}

func (in *inlet) put(entry *carillon.Entry) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case entry == nil, in.missed, len(in.entries) == inletEntries, in.bytes >= inletBytes:
		in.missed = true
	default:
		in.entries = append(in.entries, entry)
		in.bytes += len(entry.Data)
	}
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// take empties the inlet. The entries are the caller's until the next call.
func (in *inlet) take() (entries []*carillon.Entry, missed bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	entries, missed = in.entries, in.missed
	clear(in.spare)
	in.entries, in.spare = in.spare[:0], entries
	in.bytes, in.missed = 0, false
	return entries, missed
}
