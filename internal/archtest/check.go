package archtest

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	module  = "github.com/carillon-rt/carillon"
	depsDoc = "docs/dependencies.md"
)

// The sections of docs/dependencies.md, by what may be imported where.
const (
	inBinary = "In the binary"
	inClient = "In the Go client"
	inTests  = "In tests"
)

// Check compares the repository in fsys with the table, and returns what is
// wrong, one sentence each, sorted.
func Check(fsys fs.FS, table []Rule, confined map[string][]string) ([]string, error) {
	c := checker{rules: map[string]Rule{}, confined: confined, documented: map[string]bool{}}
	for _, r := range table {
		c.rules[r.Package] = r
	}
	var err error
	if c.libraries, err = readLibraries(fsys); err != nil {
		return nil, err
	}
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && skipped(fsys, name):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		return c.file(fsys, name)
	})
	if err != nil {
		return nil, err
	}
	for pkg, ok := range c.documented {
		if !ok {
			c.found("%s: no file has a package comment; say in one sentence what it is", pkg)
		}
	}
	slices.Sort(c.problems)
	return c.problems, nil
}

// skipped leaves out what the go command does, and the other modules but the
// Go client.
func skipped(fsys fs.FS, dir string) bool {
	if dir == "." || dir == "clients/go" {
		return false
	}
	base := path.Base(dir)
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "node_modules" {
		return true
	}
	_, err := fs.Stat(fsys, path.Join(dir, "go.mod"))
	return err == nil
}

type checker struct {
	rules      map[string]Rule
	confined   map[string][]string
	libraries  map[string][]string // section of docs/dependencies.md → modules
	documented map[string]bool     // package → some file has a package comment
	problems   []string
}

func (c *checker) found(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

func (c *checker) file(fsys fs.FS, name string) error {
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, src, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return fmt.Errorf("archtest: %w", err)
	}
	if ignored(f) {
		return nil
	}
	pkg := path.Dir(name)
	test := strings.HasSuffix(name, "_test.go")
	if !test {
		c.documented[pkg] = c.documented[pkg] || f.Doc.Text() != ""
	}
	rule, known := c.rule(pkg)
	if !known {
		c.found("%s: %s has no row in the table of internal/archtest", name, pkg)
		return nil
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		if why := c.refusal(rule, pkg, imported, test); why != "" {
			c.found("%s: %s must not import %s: %s", set.Position(spec.Pos()), pkg, imported, why)
		}
	}
	return nil
}

// rule finds the row of a package. What lies below clients/go belongs to it, and
// examples are programs of users: they have a user's view.
func (c *checker) rule(pkg string) (Rule, bool) {
	if below(pkg, "clients/go") {
		pkg = "clients/go"
	}
	if below(pkg, "examples") {
		return Rule{Package: pkg, May: []string{"clients/go"}, Why: "an example has a user's view"}, true
	}
	r, ok := c.rules[pkg]
	return r, ok
}

// refusal says why a file of the package must not import a path; "" if it may.
func (c *checker) refusal(r Rule, pkg, imported string, test bool) string {
	for lib, rooms := range c.confined {
		if !test && below(imported, lib) && !slices.Contains(rooms, pkg) {
			return lib + " is only for " + strings.Join(rooms, ", ")
		}
	}
	client := r.Package == "clients/go"
	switch first, _, _ := strings.Cut(imported, "/"); {
	case client && below(imported, module+"/clients/go"):
		return ""
	case !test && slices.Contains(r.Never, imported):
		return r.Why
	case below(imported, module):
		return c.firstParty(r, pkg, strings.TrimPrefix(strings.TrimPrefix(imported, module), "/"), test)
	case !strings.Contains(first, "."):
		return "" // the standard library
	case r.StdOnly && !test:
		return "standard library only: " + r.Why
	}
	sections := []string{inBinary}
	if client {
		sections = []string{inClient}
	}
	if test || r.Test {
		sections = append(sections, inTests)
	}
	for _, s := range sections {
		for _, lib := range c.libraries[s] {
			if below(imported, lib) {
				return ""
			}
		}
	}
	return fmt.Sprintf("%s does not list it under %q", depsDoc, strings.Join(sections, `" or "`))
}

func (c *checker) firstParty(r Rule, pkg, imported string, test bool) string {
	target := c.rules[imported]
	switch {
	case r.Package == "clients/go":
		return r.Why
	case below(imported, "cmd"):
		return "nothing imports a command"
	case test || imported == "" || imported == pkg:
		return ""
	case target.Test && !r.Test:
		return "it is for tests: " + target.Why
	}
	for _, may := range r.May {
		if dir, all := strings.CutSuffix(may, "/*"); may == imported || all && below(imported, dir) {
			return ""
		}
	}
	return r.Why
}

// below reports whether a path is dir or lies in it.
func below(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir+"/")
}

// ignored reports whether the file is never built: //go:build ignore.
func ignored(f *ast.File) bool {
	for _, group := range f.Comments {
		for _, line := range group.List {
			if group.Pos() < f.Package && constraint.IsGoBuild(line.Text) && strings.TrimSpace(line.Text[len("//go:build"):]) == "ignore" {
				return true
			}
		}
	}
	return false
}

// readLibraries reads the first `code` of each table row, by section.
func readLibraries(fsys fs.FS) (map[string][]string, error) {
	f, err := fsys.Open(depsDoc)
	if err != nil {
		return nil, fmt.Errorf("archtest: %w", err)
	}
	defer f.Close()
	libraries := map[string][]string{}
	section := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if title, ok := strings.CutPrefix(lines.Text(), "## "); ok {
			section = title
		}
		if row, ok := strings.CutPrefix(lines.Text(), "| `"); ok {
			lib, _, _ := strings.Cut(row, "`")
			libraries[section] = append(libraries[section], lib)
		}
	}
	return libraries, lines.Err()
}
