package match_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server/gsl"
	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
)

// Any sequence of operations leaves a Tree that answers like a plain map asked
// pattern by pattern, and like the subject list of NATS.
func TestTreeAgreesWithAMapAndWithNATS(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const maxShapes = 6
		tree := newTree[int](match.Config{MaxShapes: maxShapes, MaxRemembered: 4})
		model := map[carillon.Pattern]int{}
		nats := gsl.NewSublist[int]()
		next := 0
		existing := func(t *rapid.T) carillon.Pattern {
			if len(model) > 0 && rapid.Bool().Draw(t, "existing") {
				return rapid.SampledFrom(slices.Sorted(maps.Keys(model))).Draw(t, "pattern")
			}
			return genPattern.Draw(t, "pattern")
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				p, before := existing(t), tree.Generation()
				next++
				if err := tree.Add(p, next); err != nil {
					var e *carillon.Error
					if !errors.As(err, &e) || e.Code != carillon.CodeQuotaExceeded {
						t.Fatalf("Add(%q): %v", p, err)
					}
					model[p] = next
					if len(shapesOf(model)) <= maxShapes {
						t.Fatalf("Add(%q) refused with %d shapes", p, len(shapesOf(model)))
					}
					delete(model, p)
					if tree.Generation() != before {
						t.Fatalf("Add(%q), refused, changed the generation", p)
					}
					return
				}
				if tree.Generation() == before {
					t.Fatalf("Add(%q) left the generation", p)
				}
				if old, ok := model[p]; ok {
					_ = nats.Remove(string(p), old)
				}
				if err := nats.Insert(string(p), next); err != nil {
					t.Fatal(err)
				}
				model[p] = next
			},
			"remove": func(t *rapid.T) {
				p, before := existing(t), tree.Generation()
				old, had := model[p]
				tree.Remove(p)
				if changed := tree.Generation() != before; changed != had {
					t.Fatalf("Remove(%q): generation changed %v, was there %v", p, changed, had)
				}
				if had {
					_ = nats.Remove(string(p), old)
				}
				delete(model, p)
			},
			"get": func(t *rapid.T) {
				p := existing(t)
				got, ok := tree.Get(p)
				if want, had := model[p]; got != want || ok != had {
					t.Fatalf("Get(%q) = %v, %v; want %v, %v", p, got, ok, want, had)
				}
			},
			"find": func(t *rapid.T) {
				ty := genType.Draw(t, "type")
				if len(model) > 0 && rapid.Bool().Draw(t, "aimed") {
					p := rapid.SampledFrom(slices.Sorted(maps.Keys(model))).Draw(t, "at")
					ty = carillon.Type(strings.NewReplacer("*", "a", ">", "b").Replace(string(p)))
				}
				var want []int
				for p, v := range model {
					if naiveMatch(p, ty) {
						want = append(want, v)
					}
				}
				slices.Sort(want)
				for name, got := range map[string][]int{"Match": tree.Match(ty, nil), "Lookup": slices.Clone(tree.Lookup(ty)), "Lookup again": slices.Clone(tree.Lookup(ty))} {
					slices.Sort(got)
					if !slices.Equal(got, want) {
						t.Fatalf("%s(%q) = %v, want %v, of %v", name, ty, got, want, model)
					}
				}
				if unguarded(ty) {
					var theirs []int
					nats.Match(string(ty), func(v int) { theirs = append(theirs, v) })
					slices.Sort(theirs)
					if !slices.Equal(theirs, want) {
						t.Fatalf("NATS matches %q with %v, want %v, of %v", ty, theirs, want, model)
					}
				}
			},
			"": func(t *rapid.T) {
				if tree.Len() != len(model) {
					t.Fatalf("Len = %d, want %d", tree.Len(), len(model))
				}
				if want := len(shapesOf(model)); tree.Shapes() != want {
					t.Fatalf("Shapes = %d, want %d", tree.Shapes(), want)
				}
			},
		})
	})
}

func TestMatchAppends(t *testing.T) {
	tree := newTree[string](match.Config{})
	add(t, tree, "orders.*", "orders.paid", ">", "users.>")
	got := tree.Match("orders.paid", []string{"before"})
	if got[0] != "before" {
		t.Errorf("what was in dst is gone: %q", got)
	}
	slices.Sort(got[1:])
	if want := []string{"before", ">", "orders.*", "orders.paid"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAddOfAKnownPatternReplacesItsValue(t *testing.T) {
	for _, p := range []carillon.Pattern{"orders.paid", "orders.*"} {
		tree := newTree[int](match.Config{})
		for v := 1; v <= 2; v++ {
			if err := tree.Add(p, v); err != nil {
				t.Fatal(err)
			}
			if got := tree.Lookup("orders.paid"); !slices.Equal(got, []int{v}) {
				t.Errorf("%q: Lookup = %v, want [%d]", p, got, v)
			}
		}
		if tree.Len() != 1 {
			t.Errorf("%q: Len = %d, want 1", p, tree.Len())
		}
	}
}

func TestAResultOnceGivenStaysAsItWas(t *testing.T) {
	tree := newTree[string](match.Config{})
	add(t, tree, ">", "orders.paid")
	first := tree.Lookup("orders.paid")
	kept := slices.Clone(first)
	if cap(first) != len(first) {
		t.Errorf("cap %d, len %d: an append by one caller would be seen by another", cap(first), len(first))
	}
	add(t, tree, "*.paid", "orders.*")
	tree.Remove(">")
	if got := tree.Lookup("orders.paid"); len(got) != 3 {
		t.Errorf("after the changes: %q", got)
	}
	tree.Remove("orders.paid")
	if got := tree.Lookup("orders.paid"); len(got) != 2 {
		t.Errorf("after the removal: %q", got)
	}
	if !slices.Equal(first, kept) {
		t.Errorf("the first result became %q, was %q", first, kept)
	}
}

func TestAChangeForgetsOnlyWhatItCanMakeWrong(t *testing.T) {
	tree := newTree[string](match.Config{})
	add(t, tree, ">")
	tree.Lookup("orders.paid")
	tree.Lookup("orders.late")
	add(t, tree, "orders.paid")
	if types, values := tree.Remembered(); types != 1 || values != 1 {
		t.Errorf("after a pattern without wildcards: %d types, %d values remembered, want 1, 1", types, values)
	}
	add(t, tree, "users.*")
	if types, values := tree.Remembered(); types != 0 || values != 0 {
		t.Errorf("after a pattern with wildcards: %d types, %d values remembered, want 0, 0", types, values)
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	t.Run("types", func(t *testing.T) {
		tree := newTree[string](match.Config{})
		add(t, tree, ">")
		most := 0
		for i := range 3 * match.DefaultMaxRemembered {
			tree.Lookup(carillon.Type(fmt.Sprint("t.", i)))
			types, values := tree.Remembered()
			if types != values {
				t.Fatalf("%d types with one value each, %d values counted", types, values)
			}
			most = max(most, types)
		}
		if most != match.DefaultMaxRemembered {
			t.Errorf("%d types remembered at most, want %d", most, match.DefaultMaxRemembered)
		}
	})
	t.Run("values", func(t *testing.T) {
		tree := newTree[string](match.Config{})
		hostile := hostilePatterns(16, 1000)
		add(t, tree, hostile...)
		most := 0
		for i := range 200 {
			if n := len(tree.Lookup(carillon.Type(fmt.Sprint("a", i, strings.Repeat(".a", 15))))); n == 0 {
				t.Fatal("nothing matched")
			}
			_, values := tree.Remembered()
			most = max(most, values)
		}
		if most > match.MaxRememberedValues || most < match.MaxRememberedValues/2 {
			t.Errorf("%d values remembered at most, want nearly %d", most, match.MaxRememberedValues)
		}
	})
}

// However patterns are chosen, a match makes at most one probe per shape and one
// more, and there are at most MaxShapes shapes.
func TestNoSetOfPatternsCostsMoreProbesThanShapes(t *testing.T) {
	deepest := carillon.Type(strings.TrimSuffix(strings.Repeat("a.", 16), "."))
	for name, patterns := range map[string][]string{
		"every arrangement of '*', all matching":                hostilePatterns(16, 1<<16),
		"every arrangement with '>', of all lengths":            append(openPatterns(12), "a"),
		"every arrangement, none matching":                      replaced(hostilePatterns(16, 1<<16), "a", "b"),
		"100,000 patterns of few arrangements, all of one node": wide(100_000),
	} {
		t.Run(name, func(t *testing.T) {
			tree := newTree[string](match.Config{})
			refused := 0
			for _, p := range patterns {
				if err := tree.Add(pattern(t, p), p); err != nil {
					refused++
				}
			}
			if tree.Shapes() > match.DefaultMaxShapes {
				t.Fatalf("%d shapes, want at most %d", tree.Shapes(), match.DefaultMaxShapes)
			}
			for _, ty := range []carillon.Type{deepest, deepest[:2*11+1], "a.a.a", "a", "b.b.b.b"} {
				if probes, limit := tree.Probes(ty), tree.Shapes()+1; probes > limit {
					t.Errorf("%q: %d probes, want at most %d", ty, probes, limit)
				}
			}
			t.Logf("%d patterns (%d refused), %d shapes, %d probes at the deepest type, %d matches",
				tree.Len(), refused, tree.Shapes(), tree.Probes(deepest), len(tree.Match(deepest, nil)))
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		tree := newTree[int](match.Config{})
		model := map[carillon.Pattern]int{}
		for i, p := range rapid.SliceOf(genPattern).Draw(t, "patterns") {
			if err := tree.Add(p, i); err != nil {
				t.Fatal(err)
			}
			model[p] = i
		}
		if probes, limit := tree.Probes(genType.Draw(t, "type")), len(shapesOf(model))+1; probes > limit {
			t.Fatalf("%d probes, want at most %d", probes, limit)
		}
	})
}

func TestTooManyShapesAreRefusedAndExplained(t *testing.T) {
	tree := newTree[string](match.Config{MaxShapes: 2})
	add(t, tree, "a.*", "a.>")
	err := tree.Add("*.a", "x")
	var e *carillon.Error
	if !errors.As(err, &e) || e.Code != carillon.CodeQuotaExceeded {
		t.Fatalf("a third shape: %v, want %s", err, carillon.CodeQuotaExceeded)
	}
	for _, part := range []string{`"*.a"`, "wildcards", "2 different ways"} {
		if !strings.Contains(e.Message, part) {
			t.Errorf("message %q does not say %s", e.Message, part)
		}
	}
	if _, ok := tree.Get("*.a"); ok || tree.Len() != 2 {
		t.Errorf("the refused pattern is in the tree")
	}
	add(t, tree, "b.*", "b.>", "literal.pattern.of.any.length", "x") // known shapes, and none
	tree.Remove("a.*")
	if err := tree.Add("*.a", "x"); err == nil {
		t.Error("the shape of a.* was released while b.* has it")
	}
	tree.Remove("b.*")
	tree.Remove("b.*")
	add(t, tree, "*.a")
	if got := tree.Match("c.a", nil); !slices.Equal(got, []string{"*.a"}) {
		t.Errorf("got %q", got)
	}
}

func TestRemoveGivesMemoryBack(t *testing.T) {
	tree := newTree[string](match.Config{})
	const n, left = 50 * match.MaxPage, 10
	name := func(i int) string { return fmt.Sprint("t.", i) }
	for i := range n {
		add(t, tree, name(i))
	}
	if got := tree.Slots(); got < n || got > 3*n {
		t.Errorf("room for %d patterns is taken for %d", got, n)
	}
	for i := range n {
		if got := tree.Match(carillon.Type(name(i)), nil); !slices.Equal(got, []string{name(i)}) {
			t.Fatalf("%q: got %q", name(i), got)
		}
	}
	for i := range n - left {
		tree.Remove(carillon.Pattern(name(i)))
	}
	if got := tree.Slots(); got > 8*left {
		t.Errorf("room for %d patterns is kept for the last %d", got, left)
	}
	for i := range n {
		if got, want := len(tree.Match(carillon.Type(name(i)), nil)), i >= n-left; (got == 1) != want {
			t.Errorf("%q: %d matches, is there %v", name(i), got, want)
		}
	}
	for i := n - left; i < n; i++ {
		tree.Remove(carillon.Pattern(name(i)))
	}
	if got := tree.Slots(); got != 0 || tree.Len() != 0 {
		t.Errorf("room for %d patterns is kept for none", got)
	}
}

// Adding and removing at random, over many pages, loses and invents nothing.
func TestALargeTreeAgreesWithAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	tree, model := newTree[int](match.Config{}), map[carillon.Pattern]int{}
	const names = 20_000
	for i := range 400_000 {
		p := carillon.Pattern(fmt.Sprintf("t%d.x", random.IntN(names)))
		if i%3 == 0 {
			p = p[:len(p)-1] + "*"
		}
		// Tides, so that pages split, shrink and grow again.
		if add := random.IntN(8) < 2+4*(i/50_000%2); add {
			if err := tree.Add(p, i); err != nil {
				t.Fatal(err)
			}
			model[p] = i
		} else {
			tree.Remove(p)
			delete(model, p)
		}
		if i%50_000 != 49_999 {
			continue
		}
		if tree.Len() != len(model) {
			t.Fatalf("Len = %d, want %d", tree.Len(), len(model))
		}
		for j := range names {
			ty := carillon.Type(fmt.Sprintf("t%d.x", j))
			var want []int
			for _, p := range []carillon.Pattern{carillon.Pattern(ty), carillon.Pattern(ty[:len(ty)-1] + "*")} {
				if v, ok := model[p]; ok {
					want = append(want, v)
				}
			}
			if got := tree.Match(ty, nil); !slices.Equal(got, want) {
				t.Fatalf("%q: got %v, want %v", ty, got, want)
			}
		}
	}
}

func TestTheHitPathDoesNotAllocate(t *testing.T) {
	tree := match.New[*text](match.Config{})
	for _, p := range []text{">", "orders.*", "orders.>", "*.paid", "orders.paid"} {
		if err := tree.Add(&p); err != nil {
			t.Fatal(err)
		}
	}
	dst := make([]*text, 0, 8)
	tree.Lookup("orders.paid")
	if n := testing.AllocsPerRun(100, func() {
		if len(tree.Lookup("orders.paid")) != 5 || len(tree.Match("orders.paid", dst)) != 5 {
			t.Fatal("not 5 matches")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestAnEmptyTreeAnswers(t *testing.T) {
	tree := newTree[int](match.Config{})
	tree.Remove("a")
	tree.Remove("*")
	_, literal := tree.Get("a")
	_, wild := tree.Get("*")
	if literal || wild || tree.Len() != 0 || tree.Generation() != 0 || len(tree.Match("a", nil)) != 0 || len(tree.Lookup("a")) != 0 {
		t.Error("an empty tree knows something")
	}
}

// What no Parse function lets through must not take the server down either.
func TestUnparsedTextDoesNotPanic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.StringOf(rapid.SampledFrom([]rune("a*>."))), rapid.StringN(0, 300, -1), rapid.Just(strings.Repeat("*.", 300)))
		p, ty := carillon.Pattern(text.Draw(t, "pattern")), carillon.Type(text.Draw(t, "type"))
		match.Match(p, ty)
		match.Contains(p, carillon.Pattern(ty))
		tree := newTree[int](match.Config{})
		if err := tree.Add(p, 1); err != nil {
			t.Fatal(err)
		}
		tree.Match(ty, nil)
		tree.Lookup(ty)
		tree.Remove(p)
		if tree.Len() != 0 || tree.Shapes() != 0 {
			t.Fatalf("%q is still there", p)
		}
	})
}

// hostilePatterns is up to limit patterns of n segments, each with its '*' in
// other places, all matching a.a.a…
func hostilePatterns(n, limit int) []string {
	var all []string
	for mask := 1; mask < 1<<n && len(all) < limit; mask++ {
		segments := make([]string, n)
		for i := range segments {
			segments[i] = "a"
			if mask>>i&1 != 0 {
				segments[i] = "*"
			}
		}
		all = append(all, strings.Join(segments, "."))
	}
	return all
}

// openPatterns is the same with '>' at the end, for all lengths up to n.
func openPatterns(n int) []string {
	all := []string{">"}
	for length := 1; length <= n; length++ {
		for _, p := range hostilePatterns(length, 1<<length) {
			all = append(all, p+".>")
		}
	}
	return all
}

// wide is n patterns that share their first segments and shapes.
func wide(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("a.*.a%d.>", i)
	}
	return all
}

func replaced(texts []string, old, fresh string) []string {
	out := make([]string, len(texts))
	for i, s := range texts {
		out[i] = strings.ReplaceAll(s, old, fresh)
	}
	return out
}

// shapesOf spells the shapes with wildcards among the patterns.
func shapesOf(patterns map[carillon.Pattern]int) map[string]bool {
	shapes := map[string]bool{}
	for p := range patterns {
		segments := strings.Split(string(p), ".")
		for i, s := range segments {
			if s != "*" && s != ">" {
				segments[i] = "w"
			}
		}
		if shape := strings.Join(segments, "."); strings.ContainsAny(shape, "*>") {
			shapes[shape] = true
		}
	}
	return shapes
}

func add(t testing.TB, tree tree[string], patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if err := tree.Add(pattern(t, p), p); err != nil {
			t.Fatal(err)
		}
	}
}
