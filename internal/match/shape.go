package match

import (
	"hash/maphash"
	"math/bits"
	"strings"

	"github.com/carillon-rt/carillon"
)

// form is the shape of a pattern: what is left when its words are forgotten.
type form struct {
	stars uint16 // bit i: segment i is '*'
	n     uint8  // how many segments, a last '>' not counted
	rest  bool   // it ends in '>'
}

func formOf(p carillon.Pattern) form {
	var f form
	for s, more := string(p), true; more; {
		var segment string
		segment, s, more = strings.Cut(s, ".")
		switch segment {
		case ">":
			f.rest = true
			return f
		case "*":
			f.stars |= 1 << f.n
		}
		f.n++
	}
	return f
}

// literal reports whether the patterns of this shape have no wildcard.
func (f form) literal() bool { return f.stars == 0 && !f.rest }

// fits reports whether a pattern of this shape can match the type.
func (f form) fits(t *segments) bool {
	if f.rest {
		if int(f.n) >= t.n {
			return false
		}
	} else if int(f.n) != t.n {
		return false
	}
	wildFirst := f.stars&1 != 0 || f.n == 0
	return !(wildFirst && t.guarded)
}

// hash is the hash of the one pattern of this shape that matches t, which it
// fits: one addition for each '*'.
func (f form) hash(t *segments) uint64 {
	sum := t.sums[f.n]
	for stars := f.stars; stars != 0; stars &= stars - 1 {
		sum += t.stars[bits.TrailingZeros16(stars)]
	}
	if f.rest {
		sum += restSum
	}
	return finish(sum)
}

// spell appends the one pattern of this shape that matches t, which it fits.
func (f form) spell(buf []byte, t *segments) []byte {
	from := 0
	for stars := f.stars; stars != 0; stars &= stars - 1 {
		i := bits.TrailingZeros16(stars)
		buf = append(buf, t.text[from:t.starts[i]]...)
		buf = append(buf, '*')
		from = t.starts[i+1] - 1
	}
	if f.rest {
		buf = append(buf, t.text[from:t.starts[f.n]]...)
		return append(buf, '>')
	}
	return append(buf, t.text[from:]...)
}

// segments is a type cut into its segments: segment i is
// text[starts[i] : starts[i+1]-1].
type segments struct {
	text    string
	n       int
	guarded bool
	starts  [carillon.MaxSegments + 1]int
	sums    [carillon.MaxSegments + 1]uint64 // [i]: of the words of the first i segments
	stars   [carillon.MaxSegments]uint64     // [i]: what a '*' in place of segment i adds
}

// cut fills s; ok is false if there are more segments than a type may have.
func (s *segments) cut(t carillon.Type, seed maphash.Seed) (ok bool) {
	s.text = string(t)
	start := 0
	for i := 0; i <= len(s.text); i++ {
		if i < len(s.text) && s.text[i] != '.' {
			continue
		}
		if s.n == carillon.MaxSegments {
			return false
		}
		word := wordSum(seed, s.n, s.text[start:i])
		s.sums[s.n+1] = s.sums[s.n] + word
		s.stars[s.n] = starSum(s.n) - word
		s.n++
		start = i + 1
		s.starts[s.n] = start
	}
	s.guarded = guarded(s.text[:s.starts[1]-1])
	return true
}
