package org_test

import (
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/org"
)

func TestKeysDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		text, key := org.NewKey("demo")
		if seen[text] || seen[key.ID] || len(text) != 3+16+1+52 {
			t.Fatalf("key %q", text)
		}
		seen[text], seen[key.ID] = true, true
	}
}

func TestParseKeyRefuses(t *testing.T) {
	text, key := org.NewKey("demo")
	for _, line := range []string{"", ":", key.ID, key.ID + ":", text, key.Line() + "0", key.Line()[:len(key.Line())-2], "A:" + key.Line(), " " + key.Line(), key.ID + ":" + strings.Repeat("zz", 32), strings.Repeat("a", 33) + ":" + strings.Repeat("00", 32)} {
		if k, err := org.ParseKey("demo", line); err == nil {
			t.Errorf("%q is %+v", line, k)
		} else if strings.Contains(err.Error(), text[20:]) {
			t.Errorf("the error tells the key: %v", err)
		}
	}
}
