package match

import (
	"hash/maphash"
	"slices"

	"github.com/carillon-rt/carillon"
)

// What a Tree is limited to unless its Config says otherwise.
const (
	// DefaultMaxShapes is generous: people arrange wildcards in a handful of
	// ways, and a thousand probes that all find something are 0.1 to 0.3 ms.
	DefaultMaxShapes = 1024

	// DefaultMaxRemembered is more types than most organizations have, at
	// some 150 bytes each.
	DefaultMaxRemembered = 4096
)

// Config limits a Tree. Zero fields mean the defaults.
type Config struct {
	MaxShapes     int // distinct arrangements of wildcards; the most probes of one match
	MaxRemembered int // types whose result Lookup remembers
}

// Value is what a Tree holds. It says which pattern it is for, which must not change
// as long as it is there.
type Value interface{ Pattern() carillon.Pattern }

// Tree is a set of patterns, each with one value, in which its text is. The zero value
// is an empty Tree with the default limits.
//
// # Concurrency
//
// A Tree has no lock; its owner has. Get, Len, Match and Generation only read
// and may run together. Add, Remove and Lookup, which remembers, must run alone.
//
// # Costs
//
// Add, Get and Remove cost one probe and a search among the shapes. Match costs
// one probe for the patterns without wildcards, and one for each shape that
// fits the number of segments of the type. In a Tree too large for the caches a
// probe that finds nothing is one read of memory, overlapping with those of the
// other probes; one that finds a pattern reads its value's text too. BenchmarkTree
// measures what a pattern takes of memory beside its value.
type Tree[V Value] struct {
	config     Config // as given
	seed       maphash.Seed
	generation uint64
	index      index[V] // all patterns
	literals   int      // those without wildcards
	shapes     []shape  // of the others; no two of one form, none empty
	memory     memory[V]
}

// shape counts the patterns of one form.
type shape struct {
	form
	patterns int
}

// New makes an empty Tree.
func New[V Value](config Config) *Tree[V] { return &Tree[V]{config: config} }

// Len is the number of patterns.
func (t *Tree[V]) Len() int { return t.index.n }

// Shapes is the number of distinct arrangements of wildcards: the most probes a
// Match costs beside the one for the patterns without.
func (t *Tree[V]) Shapes() int { return len(t.shapes) }

// Generation changes with every Add and every Remove that removed something.
// What was found at one generation is right while it lasts.
func (t *Tree[V]) Generation() uint64 { return t.generation }

// Get finds the value of exactly this pattern.
func (t *Tree[V]) Get(p carillon.Pattern) (V, bool) {
	if t.index.n > 0 {
		if s := t.index.find(t.hash(p), string(p)); s != nil {
			return s.value, true
		}
	}
	var none V
	return none, false
}

// Add puts in a value, instead of the one that its pattern has, if it has one. The
// error is a *carillon.Error with CodeQuotaExceeded: the pattern has its wildcards
// where no other pattern of the Tree has, and there are too many such
// arrangements already; the Tree is then as it was.
func (t *Tree[V]) Add(v V) error {
	p := v.Pattern()
	if t.generation == 0 {
		t.seed = maphash.MakeSeed()
	}
	f, h := formOf(p), t.hash(p)
	if s := t.index.find(h, string(p)); s != nil {
		s.value = v
		t.changed(p, f)
		return nil
	}
	if f.literal() {
		t.literals++
	} else if i := t.find(f); i >= 0 {
		t.shapes[i].patterns++
	} else {
		if limit := orDefault(t.config.MaxShapes, DefaultMaxShapes); len(t.shapes) >= limit {
			return carillon.Errorf(carillon.CodeQuotaExceeded, "pattern %q: the subscriptions of this organization already place their wildcards "+
				"in %d different ways, which is the limit; put wildcards where another pattern in use has them, or name the types without", p, limit)
		}
		t.shapes = append(t.shapes, shape{form: f, patterns: 1})
	}
	t.index.insert(slot[V]{h, v})
	t.changed(p, f)
	return nil
}

// Remove takes a pattern out, if it is there.
func (t *Tree[V]) Remove(p carillon.Pattern) {
	if t.index.n == 0 || !t.index.remove(t.hash(p), string(p)) {
		return
	}
	f := formOf(p)
	if f.literal() {
		t.literals--
	} else {
		i := t.find(f)
		if t.shapes[i].patterns--; t.shapes[i].patterns == 0 {
			t.shapes = slices.Delete(t.shapes, i, i+1)
		}
	}
	t.changed(p, f)
}

// Match appends to dst the values of all patterns that accept ty, each once, in
// no particular order. It allocates only if dst has no room.
func (t *Tree[V]) Match(ty carillon.Type, dst []V) []V {
	dst, _ = t.match(ty, dst)
	return dst
}

// Lookup is Match for a type that is likely to come again: the result is
// remembered until a change could make it wrong. A remembered result costs one
// map access and no allocation. A change of a pattern without wildcards makes
// only its own type's result forgotten; a change of any other, all.
//
// The result is shared and must not be modified. The Tree does not modify it
// either: it stays what it was, whatever changes later.
func (t *Tree[V]) Lookup(ty carillon.Type) []V {
	if values, ok := t.memory.m[ty]; ok {
		return values
	}
	var few [8]V
	found, _ := t.match(ty, few[:0])
	var values []V
	if len(found) > 0 {
		values = make([]V, len(found)) // no spare room that an append could write to
		copy(values, found)
	}
	t.memory.keep(ty, values, orDefault(t.config.MaxRemembered, DefaultMaxRemembered))
	return values
}

// probe is a pattern to look for: the one of this form that matches the type.
type probe struct {
	form form
	hash uint64
}

// batch is how many probes are prepared before the first is looked for, so that
// their reads of memory overlap.
const batch = 16

// match is Match; looked counts the probes.
func (t *Tree[V]) match(ty carillon.Type, dst []V) (_ []V, looked int) {
	var cut segments
	if t.index.n == 0 || !cut.cut(ty, t.seed) {
		return dst, 0
	}
	var (
		probes [batch]probe
		n      int
	)
	if t.literals > 0 {
		f := form{n: uint8(cut.n)}
		probes[0] = probe{f, f.hash(&cut)}
		n = 1
	}
	for i := range t.shapes {
		f := t.shapes[i].form
		if !f.fits(&cut) {
			continue
		}
		if n == batch {
			dst = t.collect(probes[:n], &cut, dst)
			looked += n
			n = 0
		}
		probes[n] = probe{f, f.hash(&cut)}
		n++
	}
	return t.collect(probes[:n], &cut, dst), looked + n
}

// collect appends the values that the probes find.
func (t *Tree[V]) collect(probes []probe, cut *segments, dst []V) []V {
	var first [batch]uint64
	for i := range probes { // nothing here waits for what is read
		first[i] = t.index.first(probes[i].hash)
	}
	var buf [carillon.MaxTypeLen]byte
	for i := range probes {
		if first[i] == 0 {
			continue
		}
		s := t.index.seek(probes[i].hash)
		if s == nil {
			continue
		}
		spelled := probes[i].form.spell(buf[:0], cut)
		if string(s.value.Pattern()) != string(spelled) { // two patterns of one hash
			if s = t.index.find(probes[i].hash, string(spelled)); s == nil {
				continue
			}
		}
		dst = append(dst, s.value)
	}
	return dst
}

func (t *Tree[V]) hash(p carillon.Pattern) uint64 { return hashPattern(t.seed, p) }

// find is the index of the shape, or -1.
func (t *Tree[V]) find(f form) int {
	for i := range t.shapes {
		if t.shapes[i].form == f {
			return i
		}
	}
	return -1
}

// changed forgets what the change of p could make wrong.
func (t *Tree[V]) changed(p carillon.Pattern, f form) {
	t.generation++
	if f.literal() {
		t.memory.forget(carillon.Type(p))
		return
	}
	t.memory.forgetAll()
}

func orDefault(n, standard int) int {
	if n <= 0 {
		return standard
	}
	return n
}
