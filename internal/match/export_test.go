package match

import "github.com/carillon-rt/carillon"

const (
	MaxRememberedValues = maxRememberedValues
	MaxPage             = maxPage
)

// Probes is how many patterns a Match of ty looks for.
func (t *Tree[V]) Probes(ty carillon.Type) int {
	_, looked := t.match(ty, nil)
	return looked
}

// Remembered is how many results are remembered, and the values in them.
func (t *Tree[V]) Remembered() (types, values int) { return len(t.memory.m), t.memory.held }

// Slots is how many patterns there is room for.
func (t *Tree[V]) Slots() int {
	seen, slots := map[*page[V]]bool{}, 0
	for _, p := range t.index.pages {
		if !seen[p] {
			seen[p] = true
			slots += len(p.slots)
		}
	}
	return slots
}
