package match_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server/gsl"
	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
)

// Each row is a pattern, then the types it accepts and those it does not.
var matchTable = []struct {
	pattern  string
	yes, not string
}{
	{"orders", "orders", "order orders.paid Orders"},
	{"orders.paid", "orders.paid", "orders orders.paid.late orders.pai paid.orders"},
	{"orders.*", "orders.paid orders.1 orders.presence orders.carillon", "orders orders.paid.late users.left"},
	{"orders.>", "orders.paid orders.paid.late orders.a.b.c.d", "orders users.left orders2.paid"},
	{"orders.*.late", "orders.paid.late orders.late.late", "orders.late orders.paid.soon orders.a.b.late"},
	{"orders.*.>", "orders.a.b orders.a.b.c", "orders orders.a"},
	{"*", "orders room chat a", "orders.paid presence carillon"},
	{"*.*", "orders.paid room.joined chat.message", "orders a.b.c presence.joined carillon.gap"},
	{"*.joined", "room.joined", "presence.joined carillon.joined joined"},
	{"*.>", "orders.paid a.b.c room.joined", "orders presence.joined presence.a.b carillon.x"},
	{
		">", "orders orders.paid a.b.c room.joined chat.message presences.a Presence.a pre.presence",
		"presence presence.joined carillon carillon.gap carillon.a.b",
	},
	{"presence.*", "presence.joined presence.carillon", "presence presence.a.b carillon.joined"},
	{"presence.>", "presence.joined presence.a.b", "presence orders.paid"},
	{"presence", "presence", "presence.joined carillon"},
	{"carillon.>", "carillon.gap", "presence.joined carillon"},
	{"a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.*", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o"},
	{"a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.>", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o"},
	{"*.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p", "presence.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p"},
	{"**", "orders orders.paid", "presence.joined"},
	{"orders.**", "orders.paid orders.a.b", "orders"},
}

func TestWhatAPatternAccepts(t *testing.T) {
	for _, row := range matchTable {
		p := pattern(t, row.pattern)
		check := func(types string, want bool) {
			for s := range strings.FieldsSeq(types) {
				ty := typ(t, s)
				if got := match.Match(p, ty); got != want {
					t.Errorf("Match(%q, %q) = %v, want %v", p, ty, got, want)
				}
				tree := newTree[string](match.Config{})
				if err := tree.Add(p, "v"); err != nil {
					t.Fatal(err)
				}
				if got := len(tree.Match(ty, nil)) == 1; got != want {
					t.Errorf("a tree of %q, asked for %q: %v, want %v", p, ty, got, want)
				}
			}
		}
		check(row.yes, true)
		check(row.not, false)
	}
}

// Each row is a granted pattern, then the requests it covers and those not.
var containsTable = []struct {
	granted  string
	yes, not string
}{
	{"orders", "orders", "* > orders.paid orders.* orders.> users"},
	{"orders.*", "orders.* orders.paid", "orders orders.> orders.*.* orders.paid.late *.* >"},
	{"orders.>", "orders.> orders.* orders.paid orders.*.> orders.*.late orders.a.b", "orders > *.> *.paid users.>"},
	{"orders.*.>", "orders.*.> orders.a.> orders.a.b orders.*.*", "orders.> orders.* orders.a"},
	{"*", "* orders", "> *.* presence carillon orders.paid"},
	{"*.*", "*.* *.x orders.* orders.paid x.presence", "*.> presence.* presence.x carillon.x * >"},
	{"*.x", "*.x orders.x", "presence.x carillon.x *.* *.>"},
	{">", "> * *.> *.x orders orders.> orders.*.x", "presence presence.> presence.x presence.* carillon carillon.>"},
	{"*.>", "*.> *.* *.x orders.> orders.x", "> * orders presence.> carillon.x"},
	{"presence.>", "presence.> presence.* presence.x", "presence > *.> carillon.>"},
	{"presence.*", "presence.* presence.x", "presence.> *.* *.x"},
	// The same types up to the longest allowed, but no one means this.
	{"a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.*", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.>"},
}

func TestWhatAGrantCovers(t *testing.T) {
	for _, row := range containsTable {
		check := func(requests string, want bool) {
			for s := range strings.FieldsSeq(requests) {
				if got := match.Contains(pattern(t, row.granted), pattern(t, s)); got != want {
					t.Errorf("Contains(%q, %q) = %v, want %v", row.granted, s, got, want)
				}
			}
		}
		check(row.yes, true)
		check(row.not, false)
	}
}

// Over every pair of patterns of up to three segments: one contains the other
// exactly if it accepts every type that the other does. Types go one segment
// further, and z is a segment that no pattern names, for all those there are.
func TestContainsIsInclusionOfWhatIsAccepted(t *testing.T) {
	words := []string{"a", "b", "presence", "carillon"}
	var types []carillon.Type
	for _, s := range texts(4, append(words, "z"), nil) {
		types = append(types, carillon.Type(s))
	}
	var patterns []carillon.Pattern
	for _, s := range texts(3, append(words, "*"), []string{">"}) {
		patterns = append(patterns, carillon.Pattern(s))
	}
	accepts := make(map[carillon.Pattern][]uint64, len(patterns))
	for _, p := range patterns {
		set := make([]uint64, len(types)/64+1)
		for i, ty := range types {
			if naiveMatch(p, ty) {
				set[i/64] |= 1 << (i % 64)
			}
		}
		accepts[p] = set
	}
	for _, granted := range patterns {
		for _, requested := range patterns {
			want := true
			for i, bits := range accepts[requested] {
				want = want && bits&^accepts[granted][i] == 0
			}
			if got := match.Contains(granted, requested); got != want {
				t.Errorf("Contains(%q, %q) = %v, want %v", granted, requested, got, want)
			}
		}
	}
	t.Logf("%d pairs of patterns, %d types", len(patterns)*len(patterns), len(types))
}

func TestMatchAgreesWithTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, ty := genPattern.Draw(t, "pattern"), genType.Draw(t, "type")
		if got, want := match.Match(p, ty), naiveMatch(p, ty); got != want {
			t.Fatalf("Match(%q, %q) = %v, want %v", p, ty, got, want)
		}
	})
}

func TestMatchAgreesWithNATS(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPattern.Draw(t, "pattern")
		ty := genType.Filter(unguarded).Draw(t, "type")
		list := gsl.NewSublist[int]()
		if err := list.Insert(string(p), 1); err != nil {
			t.Fatal(err)
		}
		if got, want := match.Match(p, ty), list.HasInterest(string(ty)); got != want {
			t.Fatalf("Match(%q, %q) = %v, NATS says %v", p, ty, got, want)
		}
	})
}

func TestContainsIsAPartialOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genPattern.Draw(t, "a"), genPattern.Draw(t, "b"), genPattern.Draw(t, "c")
		if !match.Contains(a, a) {
			t.Fatalf("%q does not contain itself", a)
		}
		if a != b && match.Contains(a, b) && match.Contains(b, a) {
			t.Fatalf("%q and %q contain each other", a, b)
		}
		if match.Contains(a, b) && match.Contains(b, c) && !match.Contains(a, c) {
			t.Fatalf("%q contains %q, which contains %q, but not that", a, b, c)
		}
	})
}

func TestMatchAndContainsDoNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		match.Match("orders.*.>", "orders.eu.paid.late")
		match.Contains("orders.>", "orders.*.late")
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// naiveMatch is the definition: split and recursion.
func naiveMatch(p carillon.Pattern, t carillon.Type) bool {
	ps, ts := strings.Split(string(p), "."), strings.Split(string(t), ".")
	if (ps[0] == "*" || ps[0] == ">") && (ts[0] == "presence" || ts[0] == "carillon") {
		return false
	}
	var walk func(ps, ts []string) bool
	walk = func(ps, ts []string) bool {
		if len(ps) == 0 || len(ts) == 0 {
			return len(ps) == len(ts)
		}
		if ps[0] == ">" {
			return true
		}
		return (ps[0] == "*" || ps[0] == ts[0]) && walk(ps[1:], ts[1:])
	}
	return walk(ps, ts)
}

// texts is every text of 1 to n segments of the words, with one of last also
// possible as the last segment.
func texts(n int, words, last []string) []string {
	all := append(append([]string{}, words...), last...)
	if n == 1 {
		return all
	}
	for _, first := range words {
		for _, rest := range texts(n-1, words, last) {
			all = append(all, first+"."+rest)
		}
	}
	return all
}

// Few words and short texts, so that patterns and types often meet.
var (
	words   = []string{"a", "b", "aa", "presence", "carillon", "room", "a-_9"}
	genType = rapid.Custom(func(t *rapid.T) carillon.Type {
		n := rapid.OneOf(rapid.IntRange(1, 4), rapid.IntRange(1, carillon.MaxSegments)).Draw(t, "segments")
		return carillon.Type(strings.Join(rapid.SliceOfN(rapid.SampledFrom(words), n, n).Draw(t, "words"), "."))
	})
	genPattern = rapid.Custom(func(t *rapid.T) carillon.Pattern {
		n := rapid.OneOf(rapid.IntRange(1, 4), rapid.IntRange(1, carillon.MaxSegments)).Draw(t, "segments")
		segments := rapid.SliceOfN(rapid.SampledFrom(append([]string{"*", "*", "*"}, words...)), n, n).Draw(t, "words")
		if rapid.Bool().Draw(t, "open") {
			segments[n-1] = ">"
		}
		return carillon.Pattern(strings.Join(segments, "."))
	})
)

func unguarded(t carillon.Type) bool { return t.First() != "presence" && t.First() != "carillon" }

func pattern(t testing.TB, s string) carillon.Pattern {
	t.Helper()
	p, err := carillon.ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func typ(t testing.TB, s string) carillon.Type {
	t.Helper()
	ty, err := carillon.ParseType(s)
	if err != nil {
		t.Fatal(err)
	}
	return ty
}
