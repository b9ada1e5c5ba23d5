package match

import (
	"slices"
	"testing"

	"github.com/carillon-rt/carillon"
)

type literal carillon.Pattern

func (l literal) Pattern() carillon.Pattern { return carillon.Pattern(l) }

// Nobody can choose patterns of one hash, but there may be some.
func TestPatternsOfOneHashAreToldApart(t *testing.T) {
	all := []literal{"c.d", "a.b", "e.f"}
	for _, gone := range all {
		var tree Tree[literal]
		if err := tree.Add("x"); err != nil { // which seeds it
			t.Fatal(err)
		}
		h := tree.hash("a.b")
		for _, l := range all {
			tree.index.insert(slot[literal]{h, l})
			tree.literals++
		}
		if got := tree.Match("a.b", nil); !slices.Equal(got, []literal{"a.b"}) {
			t.Errorf("matched %q", got)
		}
		if !tree.index.remove(h, string(gone)) {
			t.Errorf("%q is not there", gone)
		}
		for _, l := range all {
			s := tree.index.find(h, string(l))
			if (s != nil) != (l != gone) || s != nil && s.value != l {
				t.Errorf("without %q: %q is found: %t", gone, l, s != nil)
			}
		}
		if got := tree.Match("a.b", nil); len(got) > 0 != (gone != "a.b") {
			t.Errorf("without %q: matched %q", gone, got)
		}
	}
}
