package match

import (
	"strings"

	"github.com/carillon-rt/carillon"
)

// maxRememberedValues bounds the values in all remembered results together, so
// that results of a thousand values each are not kept by the thousands.
const maxRememberedValues = 1 << 16

// memory remembers results per type, within limits; when one is reached it
// forgets everything, which costs less than choosing. The zero value is empty.
type memory[V any] struct {
	m    map[carillon.Type][]V
	held int // values in m
}

// keep stores a result. It copies t, which may be part of something large.
func (r *memory[V]) keep(t carillon.Type, values []V, maxTypes int) {
	switch {
	case r.m == nil:
		r.m = make(map[carillon.Type][]V)
	case len(r.m) >= maxTypes || r.held+len(values) > maxRememberedValues:
		clear(r.m)
		r.held = 0
	}
	r.m[carillon.Type(strings.Clone(string(t)))] = values
	r.held += len(values)
}

func (r *memory[V]) forget(t carillon.Type) {
	if values, ok := r.m[t]; ok {
		r.held -= len(values)
		delete(r.m, t)
	}
}

func (r *memory[V]) forgetAll() { *r = memory[V]{} }
