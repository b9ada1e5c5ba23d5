package match_test

import (
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
	"github.com/carillon-rt/carillon/internal/testkit/vectors"
)

// Match, a Tree and the definition agree on whatever parses.
func FuzzMatch(f *testing.F) {
	for _, v := range vectors.Inputs[matchVector](f, "patterns.json", "match") {
		for _, typ := range v.Types {
			f.Add(v.Pattern, typ)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, typ string) {
		p, err := carillon.ParsePattern(pattern)
		if err != nil {
			t.Skip()
		}
		ty, err := carillon.ParseType(typ)
		if err != nil {
			t.Skip()
		}
		want := naiveMatch(p, ty)
		if got := match.Match(p, ty); got != want {
			t.Errorf("Match(%q, %q) = %v, want %v", p, ty, got, want)
		}
		tree := newTree[int](match.Config{})
		if err := tree.Add(p, 1); err != nil {
			t.Fatal(err)
		}
		if got := len(tree.Lookup(ty)) == 1; got != want {
			t.Errorf("a tree of %q, asked for %q: %v, want %v", p, ty, got, want)
		}
		if p.Literal() != (tree.Shapes() == 0) {
			t.Errorf("%q: Literal is %v, but its tree has %d shapes", p, p.Literal(), tree.Shapes())
		}
	})
}

// A pattern that contains another accepts what the other accepts, and contains
// the literal patterns of exactly the types it accepts.
func FuzzContains(f *testing.F) {
	for _, v := range vectors.Inputs[containVector](f, "patterns.json", "contain") {
		for _, p := range v.Patterns {
			f.Add(v.Granted, p, "orders.paid")
		}
	}
	f.Fuzz(func(t *testing.T, granted, requested, typ string) {
		g, err := carillon.ParsePattern(granted)
		if err != nil {
			t.Skip()
		}
		r, err := carillon.ParsePattern(requested)
		if err != nil {
			t.Skip()
		}
		ty, err := carillon.ParseType(typ)
		if err != nil {
			t.Skip()
		}
		if !match.Contains(g, g) {
			t.Errorf("%q does not contain itself", g)
		}
		if match.Contains(g, r) && match.Match(r, ty) && !match.Match(g, ty) {
			t.Errorf("%q contains %q, which accepts %q, but does not accept that", g, r, ty)
		}
		if got, want := match.Contains(g, carillon.Pattern(ty)), match.Match(g, ty); got != want {
			t.Errorf("Contains(%q, %q) = %v, but Match says %v", g, ty, got, want)
		}
	})
}
