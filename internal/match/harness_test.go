package match_test

import (
	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
)

// named is a value with its pattern.
type named[V any] struct {
	pattern carillon.Pattern
	value   V
}

func (n named[V]) Pattern() carillon.Pattern { return n.pattern }

// tree is a Tree of values that say nothing about patterns.
type tree[V any] struct{ *match.Tree[named[V]] }

func newTree[V any](config match.Config) tree[V] {
	return tree[V]{match.New[named[V]](config)}
}

func (t tree[V]) Add(p carillon.Pattern, v V) error { return t.Tree.Add(named[V]{p, v}) }

func (t tree[V]) Get(p carillon.Pattern) (V, bool) {
	v, ok := t.Tree.Get(p)
	return v.value, ok
}

func (t tree[V]) Match(ty carillon.Type, dst []V) []V {
	return append(dst, values(t.Tree.Match(ty, nil))...)
}

func (t tree[V]) Lookup(ty carillon.Type) []V { return values(t.Tree.Lookup(ty)) }

func values[V any](all []named[V]) []V {
	out := make([]V, len(all))
	for i, v := range all {
		out[i] = v.value
	}
	return out
}

// text is a value that is nothing but its pattern.
type text carillon.Pattern

func (t *text) Pattern() carillon.Pattern { return carillon.Pattern(*t) }
