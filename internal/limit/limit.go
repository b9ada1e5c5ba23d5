// Package limit counts how often limits are met, each by its name: its key under
// limits: in the config, which is also its label in the metrics.
package limit

import "sync/atomic"

// Hits counts for a few limits, whose names are fixed. Its methods may be called
// from any goroutine.
type Hits struct {
	count map[string]*atomic.Uint64 // set once
}

// Of makes the counters of these limits.
func Of(names ...string) Hits {
	h := Hits{count: make(map[string]*atomic.Uint64, len(names))}
	for _, name := range names {
		h.count[name] = new(atomic.Uint64)
	}
	return h
}

// Add counts one hit. A limit that is counted elsewhere, and the name "" of none,
// are ignored: the limit of any refusal can be handed in.
func (h Hits) Add(name string) {
	if n := h.count[name]; n != nil {
		n.Add(1)
	}
}

// Load reads all counters; they are not read at one moment.
func (h Hits) Load() map[string]uint64 {
	all := make(map[string]uint64, len(h.count))
	for name, n := range h.count {
		all[name] = n.Load()
	}
	return all
}
