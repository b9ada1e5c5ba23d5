package protocol_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/wire"
)

// most is how many cases a file may have: beyond that nobody reads it.
const most = 200

// tables reads a file of vectors, and checks the form that the README describes.
func tables(t *testing.T, file string) map[string]json.RawMessage {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Data of an event is JSON without a key that is there twice.
	if _, err := wire.ParseDraft(append(append([]byte(`{"type":"a","data":`), text...), '}')); err != nil {
		t.Fatal(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	var about string
	if err := json.Unmarshal(members["about"], &about); err != nil || about == "" {
		t.Errorf("it does not say what it is about: %v", err)
	}
	delete(members, "about")
	delete(members, "given")
	return members
}

func TestEveryVectorHasTheFormOfTheReadme(t *testing.T) {
	files, err := filepath.Glob("vectors/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	codes := readCodes(t)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			n := 0
			for table, text := range tables(t, file) {
				var cases []map[string]json.RawMessage
				if err := json.Unmarshal(text, &cases); err != nil || len(cases) == 0 {
					t.Errorf("%s is not a list of cases: %v", table, err)
				}
				n += len(cases)
				names := map[string]bool{}
				for _, c := range cases {
					var name, code string
					_ = json.Unmarshal(c["name"], &name) // found empty below
					if name == "" || names[name] {
						t.Errorf("%s: %q is no name, or there twice", table, c["name"])
					}
					names[name] = true
					if c["in"] == nil || (c["want"] == nil) == (c["error"] == nil) || len(c) != 3 {
						t.Errorf("%s: %s: a case has name, in, and one of want and error", table, name)
					}
					if c["error"] != nil && (json.Unmarshal(c["error"], &code) != nil || !slices.Contains(codes, code)) {
						t.Errorf("%s: %s: there is no code %s", table, name, c["error"])
					}
				}
			}
			if n > most {
				t.Errorf("%d cases; more than %d are not read", n, most)
			}
		})
	}
}

// readCodes are the codes of errors.
func readCodes(t *testing.T) (codes []string) {
	t.Helper()
	var problems []struct{ In struct{ Code string } }
	if err := json.Unmarshal(tables(t, "vectors/problems.json")["problem"], &problems); err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		codes = append(codes, p.In.Code)
	}
	return codes
}

// A table is run where a test names it, with its file right before.
func TestEveryVectorIsRun(t *testing.T) {
	var tests strings.Builder
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() != ".." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case strings.HasSuffix(path, "_test.go"):
			text, err := os.ReadFile(path)
			tests.Write(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir("vectors")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() == "README.md" {
			continue
		}
		for table := range tables(t, filepath.Join("vectors", f.Name())) {
			if !strings.Contains(tests.String(), `"`+f.Name()+`", "`+table+`"`) {
				t.Errorf("no test runs %s of %s", table, f.Name())
			}
		}
	}
}
