package carillon

import "strings"

// Type is a dotted event type: 1–16 segments of [A-Za-z0-9_-], at most 255
// bytes, such as workflow.step.completed.
type Type string

// ParseType checks an event type.
func ParseType(s string) (Type, error) {
	if strings.ContainsAny(s, "*>") {
		return "", BadRequest("event type %q: an event has one exact type; wildcards are for patterns", clip(s))
	}
	if err := checkSegments("event type", s, false); err != nil {
		return "", err
	}
	return Type(s), nil
}

// Reserved reports whether only the server may publish t. The names of
// configured webhook sources are reserved too; the gate knows those.
func (t Type) Reserved() bool {
	switch t.First() {
	case "room", "presence", "chat", "carillon":
		return true
	}
	return false
}

// First is the first segment.
func (t Type) First() string {
	first, _, _ := strings.Cut(string(t), ".")
	return first
}

// Pattern says which event types are wanted: an event type in which '*' stands
// for exactly one segment and a last segment '>' for one or more. The alias
// '**' is stored as '>', so that two spellings are one pattern.
//
// A wildcard as first segment does not match types beginning with "presence."
// or "carillon."; package match holds the rules.
type Pattern string

// ParsePattern checks a pattern.
func ParsePattern(s string) (Pattern, error) {
	if err := checkSegments("pattern", s, true); err != nil {
		return "", err
	}
	if s == "**" || strings.HasSuffix(s, ".**") {
		s = s[:len(s)-2] + ">"
	}
	return Pattern(s), nil
}

// Literal reports whether p has no wildcard and so matches one type only.
func (p Pattern) Literal() bool {
	return strings.IndexByte(string(p), '*') < 0 && !strings.HasSuffix(string(p), ">")
}

func checkSegments(what, s string, wildcards bool) error {
	if s == "" {
		return BadRequest("%s is empty; it is 1–%d segments with dots between, such as workflow.step.completed", what, MaxSegments)
	}
	if len(s) > MaxTypeLen {
		return BadRequest("%s is at most %d bytes, not %d", what, MaxTypeLen, len(s))
	}
	n := 0
	for rest, more := s, true; more; {
		var seg string
		seg, rest, more = strings.Cut(rest, ".")
		if n++; n > MaxSegments {
			return BadRequest("%s %q has more than %d segments", what, clip(s), MaxSegments)
		}
		if wildcards {
			if seg == "*" {
				continue
			}
			if seg == ">" || seg == "**" {
				if more {
					return BadRequest("pattern %q: '%s' may only be the last segment", clip(s), seg)
				}
				continue
			}
			if strings.ContainsAny(seg, "*>") {
				return BadRequest("pattern %q: a wildcard stands for whole segments; in place of %q write '*' for any one segment, or end with '>' for one or more", clip(s), clip(seg))
			}
		}
		if seg == "" {
			return BadRequest("%s %q has an empty segment", what, clip(s))
		}
		for i := 0; i < len(seg); i++ {
			if c := seg[i]; !isLower(c) && !isUpper(c) && !isDigit(c) && c != '_' && c != '-' {
				return BadRequest("%s %q: segments are letters, digits, '_' and '-'", what, clip(s))
			}
		}
	}
	return nil
}
