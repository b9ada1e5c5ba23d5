package match_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
)

const million = 1_000_000

var sink carillon.Type

func BenchmarkMatch(b *testing.B) {
	for _, row := range []struct{ pattern, typ string }{
		{"orders.eu.paid", "orders.eu.paid"},
		{"orders.*.paid", "orders.eu.paid"},
		{"orders.>", "orders.eu.paid"},
		{"users.>", "orders.eu.paid"},
		{"*.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p"},
	} {
		b.Run(row.pattern, func(b *testing.B) {
			p, ty := pattern(b, row.pattern), typ(b, row.typ)
			b.ReportAllocs()
			for b.Loop() {
				match.Match(p, ty)
			}
		})
	}
}

func BenchmarkContains(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		match.Contains("orders.*.>", "orders.eu.*.late")
	}
}

// The sets of a million patterns. In the mixed one a type finds 6 matches.
var millions = []struct {
	name    string
	pattern func(i int) string
}{
	{"literal", func(i int) string { return fmt.Sprintf("orders.o%d.paid", i) }},
	{"mixed", func(i int) string {
		switch i {
		case 0:
			return ">"
		case 1:
			return "orders.>"
		case 2:
			return "*.*.paid"
		}
		o := fmt.Sprintf("o%d", i/5*5)
		switch i % 5 {
		case 0:
			return "orders." + o + ".paid"
		case 1:
			return "orders." + o + ".*"
		case 2:
			return "orders." + o + ".>"
		case 3:
			return "*." + o + ".late"
		}
		return "users." + o + ".*.seen"
	}},
}

// BenchmarkTree measures a Tree of a million patterns: what one takes of
// memory beside its value, a type that is asked for again, types that are all
// new (Match and Lookup), types that only broad patterns know (stranger), and a
// change.
func BenchmarkTree(b *testing.B) {
	for _, set := range millions {
		b.Run(set.name, func(b *testing.B) {
			patterns := make([]text, million)
			for i := range patterns {
				patterns[i] = text(pattern(b, set.pattern(i)))
			}
			// A fresh type is made, not read from a list, because an event's
			// is in the cache when it is matched. "a fresh type" is its cost.
			random := rand.New(rand.NewPCG(1, 2))
			buf := make([]byte, 0, 64)
			spell := func(start string) carillon.Type {
				buf = append(buf[:0], start...)
				buf = strconv.AppendInt(buf, int64(random.IntN(million/5)*5), 10)
				return carillon.Type(append(buf, ".paid"...))
			}
			fresh := func() carillon.Type { return spell("orders.o") }
			stranger := func() carillon.Type { return spell("orders.x") }
			types := make([]carillon.Type, 1000)
			for i := range types {
				types[i] = fresh()
			}
			before := heap()
			tree := match.New[*text](match.Config{})
			for i := range patterns {
				if err := tree.Add(&patterns[i]); err != nil {
					b.Fatal(err)
				}
			}
			perPattern := float64(heap()-before) / float64(tree.Len())

			b.Run("Lookup/hit", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					tree.Lookup(types[0])
				}
			})
			b.Run("Lookup/1000 types", func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					tree.Lookup(types[i%len(types)])
				}
			})
			b.Run("a fresh type", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					sink = fresh()
				}
			})
			b.Run("Lookup/miss", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					tree.Lookup(fresh())
				}
			})
			b.Run("Match/stranger", func(b *testing.B) {
				dst, found := make([]*text, 0, 16), 0
				b.ReportAllocs()
				for b.Loop() {
					found += len(tree.Match(stranger(), dst))
				}
				b.ReportMetric(float64(found)/float64(b.N), "matches/op")
			})
			b.Run("Match", func(b *testing.B) {
				dst, found := make([]*text, 0, 16), 0
				b.ReportAllocs()
				for b.Loop() {
					found += len(tree.Match(fresh(), dst))
				}
				b.ReportMetric(float64(found)/float64(b.N), "matches/op")
				b.ReportMetric(perPattern, "B/pattern")
			})
			b.Run("AddRemove", func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					p := &patterns[i%million]
					tree.Remove(p.Pattern())
					if err := tree.Add(p); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkHostile is the dearest match that the default limits allow: as many
// shapes as there may be, all fitting one type, short and as long as can be.
func BenchmarkHostile(b *testing.B) {
	for name, segment := range map[string]string{"short": "a", "longest": strings.Repeat("a", 15)} {
		b.Run(name, func(b *testing.B) {
			ty := typ(b, strings.Join(strings.Split(strings.Repeat(segment+" ", 16), " ")[:16], "."))
			tree := match.New[*text](match.Config{})
			for _, p := range hostilePatterns(16, match.DefaultMaxShapes) {
				p := text(pattern(b, strings.ReplaceAll(p, "a", segment)))
				if err := tree.Add(&p); err != nil {
					b.Fatal(err)
				}
			}
			dst := make([]*text, 0, match.DefaultMaxShapes+1)
			b.ReportAllocs()
			for b.Loop() {
				dst = tree.Match(ty, dst[:0])
			}
			b.ReportMetric(float64(tree.Probes(ty)), "probes/op")
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
