package config_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/carillon-rt/carillon/internal/config"
)

// The table of limits on the page for operators has every limit, and the default
// that it has in the code.
func TestTheTableOfLimitsIsThatOfTheCode(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(config.Example(), &doc); err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{}
	for i := 0; i < len(doc.Content[0].Content); i += 2 {
		key, value := doc.Content[0].Content[i], doc.Content[0].Content[i+1]
		for _, r := range flatten(key.Value, key, value) {
			defaults[r.path] = r.value
		}
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z._]+)` \\| `([^`]+)` \\| `([a-z_]+)` \\| .+ \\|$").FindAllStringSubmatch(string(page), -1) {
		path, value, label := m[1], m[2], m[3]
		if listed[path] {
			t.Errorf("%s is there twice", path)
		}
		listed[path] = true
		if have, ok := defaults[path]; !ok || have != value {
			t.Errorf("%s: the page says %q, the code %q", path, value, have)
		}
		if !strings.HasSuffix(path, "."+label) {
			t.Errorf("%s is counted as %q?", path, label)
		}
	}
	for path := range defaults {
		if strings.HasPrefix(path, "limits.") && !listed[path] {
			t.Errorf("%s is not in the table", path)
		}
	}
}
