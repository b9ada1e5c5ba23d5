package match

import (
	"strings"

	"github.com/carillon-rt/carillon"
)

// Match reports whether p accepts t. It does not allocate; its cost is at most
// that of reading both texts once.
func Match(p carillon.Pattern, t carillon.Type) bool {
	ps, ts := string(p), string(t)
	for first := true; ; first = false {
		want, pRest, pMore := strings.Cut(ps, ".")
		have, tRest, tMore := strings.Cut(ts, ".")
		switch {
		case first && wild(want) && guarded(have):
			return false
		case want == ">":
			return true
		case want != "*" && want != have:
			return false
		}
		if !pMore || !tMore {
			return pMore == tMore
		}
		ps, ts = pRest, tRest
	}
}

// Contains reports whether granted accepts every type that requested accepts:
// whether someone allowed granted may have requested. The first-segment rule
// counts: > contains *.x, but not presence.x.
//
// It reasons as if types could be of any length. Where only the limits on the
// size of a type would make the answer yes (a requested '>' with room for one
// segment, a granted '*'), it says no. It does not allocate.
func Contains(granted, requested carillon.Pattern) bool {
	gs, rs := string(granted), string(requested)
	for first := true; ; first = false {
		g, gRest, gMore := strings.Cut(gs, ".")
		r, rRest, rMore := strings.Cut(rs, ".")
		switch {
		case first && wild(g) && guarded(r):
			return false
		case g == ">":
			return true
		case r == ">": // one or more is more than one
			return false
		case g != "*" && g != r:
			return false
		}
		if !gMore || !rMore {
			return gMore == rMore
		}
		gs, rs = gRest, rRest
	}
}

func wild(segment string) bool { return segment == "*" || segment == ">" }

// guarded reports whether a first segment is out of reach of wildcards.
func guarded(first string) bool { return first == "presence" || first == "carillon" }
