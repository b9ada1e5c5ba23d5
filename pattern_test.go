package carillon_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/testkit/vectors"
)

var deep = strings.TrimSuffix(strings.Repeat("a.", carillon.MaxSegments), ".")

func TestWhichTextsAreTypes(t *testing.T) {
	for _, s := range []string{
		"a", "orders", "workflow.step.completed", "A-Z_09.x", "-", "_", "presence", "carillon.gap", deep,
		strings.Repeat("a", carillon.MaxTypeLen),
	} {
		if got, err := carillon.ParseType(s); string(got) != s || err != nil {
			t.Errorf("%q: got %q, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", ".", "a.", ".a", "a..b", "a b", "a/b", "a:b", "é", "a\x00", "a\n", "$x",
		"*", ">", "a.*", "a.>", "a*", "a.**", deep + ".a", strings.Repeat("a", carillon.MaxTypeLen+1),
	} {
		got, err := carillon.ParseType(s)
		if got != "" {
			t.Errorf("%q: got %q beside the error", s, got)
		}
		wantBadRequest(t, s, err)
	}
}

func TestWhichTextsArePatterns(t *testing.T) {
	for s, want := range map[string]string{
		"orders": "orders", "orders.paid": "orders.paid", "orders.*": "orders.*", "*.paid": "*.paid", "*": "*", "*.*": "*.*",
		">": ">", "orders.>": "orders.>", "*.>": "*.>", "**": ">", "orders.**": "orders.>", "*.**": "*.>",
		"presence.>": "presence.>", deep: deep, deep[:len(deep)-1] + ">": deep[:len(deep)-1] + ">",
	} {
		if got, err := carillon.ParsePattern(s); string(got) != want || err != nil {
			t.Errorf("%q: got %q, %v, want %q", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", ".", "a.", ".a", "a..b", "ord*", "*ord", "ord>", "a.b*.c", "a.>x", "***", "a.***", "*>", ">.a", "a.>.b", "**.a", "a.**.b",
		"a.>.", "a.*.", "a b", "é.*", "a\n.*", deep + ".*", deep + ".>", deep + ".**", strings.Repeat("a", carillon.MaxTypeLen) + ".>",
	} {
		got, err := carillon.ParsePattern(s)
		if got != "" {
			t.Errorf("%q: got %q beside the error", s, got)
		}
		wantBadRequest(t, s, err)
	}
}

func TestARefusedWildcardSaysWhatToWrite(t *testing.T) {
	_, err := carillon.ParsePattern("a.bad*.c")
	want := `pattern "a.bad*.c": a wildcard stands for whole segments; in place of "bad*" write '*' for any one segment, or end with '>' for one or more`
	if got := carillon.AsError(err).Message; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestALiteralPatternHasNoWildcard(t *testing.T) {
	for p, want := range map[carillon.Pattern]bool{
		"orders": true, "orders.paid": true, "presence.joined": true,
		"*": false, ">": false, "orders.*": false, "orders.>": false, "*.paid": false, "a.*.b": false,
	} {
		if got := p.Literal(); got != want {
			t.Errorf("%q: Literal = %v, want %v", p, got, want)
		}
	}
}

func TestReservedTypesAreTheServers(t *testing.T) {
	for ty, want := range map[carillon.Type]bool{
		"room": true, "room.joined": true, "presence.joined": true, "chat.message": true, "carillon.gap": true, "carillon": true,
		"orders.paid": false, "rooms.a": false, "Room.a": false, "a.room": false, "typing": false,
	} {
		if got := ty.Reserved(); got != want {
			t.Errorf("%q: Reserved = %v, want %v", ty, got, want)
		}
	}
}

func TestFirstIsTheFirstSegment(t *testing.T) {
	for ty, want := range map[carillon.Type]string{"a": "a", "a.b": "a", "orders.eu.paid": "orders", "": ""} {
		if got := ty.First(); got != want {
			t.Errorf("%q: First = %q, want %q", ty, got, want)
		}
	}
}

// The grammar, once more and in another way.
var (
	typeGrammar    = regexp.MustCompile(`\A[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,15}\z`)
	patternGrammar = regexp.MustCompile(`\A([A-Za-z0-9_-]+|\*)(\.([A-Za-z0-9_-]+|\*)){0,14}(\.([A-Za-z0-9_-]+|\*|>|\*\*))?\z|\A(>|\*\*)\z`)
)

// ParseType accepts exactly the grammar and changes nothing, and every type is
// a pattern that means itself.
func FuzzParseType(f *testing.F) {
	for _, s := range vectors.Inputs[vectors.Text](f, "types.json", "parse") {
		f.Add(string(s))
	}
	f.Fuzz(func(t *testing.T, s string) {
		ty, err := carillon.ParseType(s)
		if want := len(s) <= carillon.MaxTypeLen && typeGrammar.MatchString(s); (err == nil) != want {
			t.Fatalf("ParseType(%q): %v, the grammar says %v", s, err, want)
		}
		if err != nil {
			wantBadRequest(t, s, err)
			return
		}
		if string(ty) != s {
			t.Errorf("ParseType(%q) = %q", s, ty)
		}
		if p, err := carillon.ParsePattern(s); err != nil || string(p) != s || !p.Literal() {
			t.Errorf("type %q as a pattern: %q, %v, literal %v", s, p, err, p.Literal())
		}
	})
}

// ParsePattern accepts exactly the grammar; what it returns has one spelling,
// is what it returns for itself, and is a type exactly if it is literal.
func FuzzParsePattern(f *testing.F) {
	for _, s := range vectors.Inputs[vectors.Text](f, "patterns.json", "parse") {
		f.Add(string(s))
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := carillon.ParsePattern(s)
		if want := len(s) <= carillon.MaxTypeLen && patternGrammar.MatchString(s); (err == nil) != want {
			t.Fatalf("ParsePattern(%q): %v, the grammar says %v", s, err, want)
		}
		if err != nil {
			wantBadRequest(t, s, err)
			return
		}
		if strings.Contains(string(p), "**") {
			t.Errorf("ParsePattern(%q) = %q, with the alias left in", s, p)
		}
		if again, err := carillon.ParsePattern(string(p)); err != nil || again != p {
			t.Errorf("%q parsed again: %q, %v", p, again, err)
		}
		if _, err := carillon.ParseType(string(p)); (err == nil) != p.Literal() {
			t.Errorf("%q: Literal = %v, as a type: %v", p, p.Literal(), err)
		}
	})
}
