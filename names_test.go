package carillon_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/carillon-rt/carillon"
)

func TestWhichNamesAreNames(t *testing.T) {
	org := func(s string) (string, error) {
		id, err := carillon.ParseOrgID(s)
		return string(id), err
	}
	for _, kind := range []struct {
		name  string
		parse func(string) (string, error)
		max   int // bytes
		good  []string
		bad   []string
	}{
		{
			"org", org, 64,
			[]string{"a", "acme", "acme-eu_2", "0", "-", "_"},
			[]string{"", "Acme", "a.b", "a b", "é", "a/b", "a*", ">", "a\x00", "a\n", "$sys"},
		},
		{
			"source", carillon.ParseSource, 64,
			[]string{"github", "stripe-live_2"},
			[]string{"", "GitHub", "a.b", "a:b", "é"},
		},
		{
			"room", carillon.ParseRoom, 128,
			[]string{"ops", "Ops:EU.west-1_a", ".", ":", "0"},
			[]string{"", "a b", "a/b", "a*", ">", "é", "a\x00", "a\n"},
		},
		{
			"user", carillon.ParseUser, 255,
			[]string{"alice", "alice@example.com", "Ålice O'Hara", "a/b", "用户", "*", " ", "\u2028"},
			[]string{"", "a\x00", "a\n", "a\x7f", "a\u0085", "\xff", "a\xc3"},
		},
		{
			"subject", carillon.ParseSubject, 255,
			[]string{"", "wf-123", "order/1 ü"},
			[]string{"a\x00", "a\r", "\xff"},
		},
	} {
		t.Run(kind.name, func(t *testing.T) {
			for _, s := range append(kind.good, strings.Repeat("a", kind.max)) {
				if got, err := kind.parse(s); got != s || err != nil {
					t.Errorf("%q: got %q, %v", s, got, err)
				}
			}
			for _, s := range append(kind.bad, strings.Repeat("a", kind.max+1)) {
				got, err := kind.parse(s)
				if got != "" {
					t.Errorf("%q: got %q beside the error", s, got)
				}
				wantBadRequest(t, s, err)
			}
		})
	}
}

func TestALimitIsInBytes(t *testing.T) {
	if _, err := carillon.ParseUser(strings.Repeat("é", 127)); err != nil {
		t.Errorf("254 bytes: %v", err)
	}
	if _, err := carillon.ParseUser(strings.Repeat("é", 128)); err == nil {
		t.Error("256 bytes in 128 characters: accepted")
	}
}

// A refusal says what was refused, but not all of it, and nothing that would
// break the line of a log.
func TestARefusalRepeatsLittleOfTheName(t *testing.T) {
	long := strings.Repeat("é", 100) + "\n"
	for name, parse := range map[string]func(string) error{
		"room":    func(s string) error { _, err := carillon.ParseRoom(s[:100]); return err },
		"user":    func(s string) error { _, err := carillon.ParseUser(s); return err },
		"subject": func(s string) error { _, err := carillon.ParseSubject(s); return err },
		"type":    func(s string) error { _, err := carillon.ParseType(s); return err },
		"pattern": func(s string) error { _, err := carillon.ParsePattern(s); return err },
	} {
		err := parse(long)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if m := err.Error(); len(m) > 300 || strings.Contains(m, "\n") || !utf8.ValidString(m) {
			t.Errorf("%s: %q", name, m)
		}
	}
}
