package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const repository = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	namedTest  = regexp.MustCompile("\\[`(\\w+)\\.((?:Test|Fuzz)\\w+)`\\]\\(\\.\\./([^)]+)\\)")
	anyTest    = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`)
	rowOfTable = regexp.MustCompile(`(?m)^\|.*\|$`)
)

// A threat that no test shows to be met is a hope.
func TestTheThreatModelNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	page := read(t, "docs/security.md")
	checkNamedTests(t, page)
	for _, test := range anyTest.FindAllString(namedTest.ReplaceAllString(page, ""), -1) {
		t.Errorf("%s is named without its package and file", test)
	}
	const column = "| shown by |"
	if !strings.Contains(page, column) {
		t.Errorf("no table has the last column %q", column)
	}
	shows := false
	for _, row := range rowOfTable.FindAllString(page, -1) {
		switch {
		case strings.HasPrefix(row, "|---"):
		case strings.HasSuffix(row, column):
			shows = true
		case strings.HasPrefix(row, "| who |"):
			shows = false
		case shows && !namedTest.MatchString(row):
			t.Errorf("no test shows: %s", row)
		}
	}
}

func TestThePromisesOfDurabilityNameTestsThatExist(t *testing.T) {
	t.Parallel()
	checkNamedTests(t, read(t, "docs/durability.md"))
}

// checkNamedTests looks for each test that a page links to, in its file.
func checkNamedTests(t *testing.T, page string) {
	t.Helper()
	named := namedTest.FindAllStringSubmatch(page, -1)
	if len(named) == 0 {
		t.Error("no test is named")
	}
	inFile := map[string]map[string]bool{}
	for _, m := range named {
		pkg, test, file := m[1], m[2], m[3]
		if inFile[file] == nil {
			inFile[file] = functions(t, file)
		}
		if !inFile[file][pkg+"."+test] {
			t.Errorf("there is no test %s in package %s in %s", test, pkg, file)
		}
	}
}

// functions are those of a test file, behind the name of the package they test.
func functions(t *testing.T, file string) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(repository, file), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return nil
	}
	all := map[string]bool{}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
			all[strings.TrimSuffix(f.Name.Name, "_test")+"."+fn.Name.Name] = true
		}
	}
	return all
}

// Whoever is paged at night copies a query that asks for something that is there.
func TestTheOperationsPageAsksForMetricsThatExist(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`e\.\w+\("(\w+)"`).FindAllStringSubmatch(read(t, "internal/telemetry/metrics.go"), -1) {
		there[m[1]] = true
	}
	if len(there) < 10 {
		t.Fatalf("only %d metrics were found in the code", len(there))
	}
	asked := regexp.MustCompile(`\b(?:carillon|ws)_\w+`).FindAllString(read(t, "docs/operations.md"), -1)
	if len(asked) == 0 {
		t.Error("no metric is named")
	}
	for _, name := range asked {
		base := name
		for _, part := range []string{"_bucket", "_sum", "_count"} { // of a histogram and a summary
			base = strings.TrimSuffix(base, part)
		}
		if !there[name] && !there[base] {
			t.Errorf("there is no metric %s", name)
		}
	}
}

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.+)$`)
	noAnchor = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors are where a link into a page can lead, as a forge names its headings.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		all[strings.ReplaceAll(noAnchor.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return all
}

func TestLinksBetweenPagesLeadSomewhere(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join(repository, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(repository, "*", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, more...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") {
				continue
			}
			target := page
			if to != "" {
				target = filepath.Join(filepath.Dir(page), to)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s leads to %s, which is not there", page, m[1])
				continue
			}
			if anchor == "" || filepath.Ext(target) != ".md" {
				continue
			}
			b, err := os.ReadFile(target)
			if err != nil {
				t.Fatal(err)
			}
			if !anchors(string(b))[anchor] {
				t.Errorf("%s leads to %s, where no heading is named so", page, m[1])
			}
		}
	}
}
