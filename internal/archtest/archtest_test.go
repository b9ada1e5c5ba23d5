package archtest_test

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/carillon-rt/carillon/internal/archtest"
)

func TestRepositoryKeepsItsArchitecture(t *testing.T) {
	t.Parallel()
	problems, err := archtest.Check(os.DirFS("../.."), archtest.Table, archtest.Confined)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

func TestEveryRowHasAReason(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range archtest.Table {
		if r.Why == "" {
			t.Errorf("%s: no reason", r.Package)
		}
		if seen[r.Package] {
			t.Errorf("%s: two rows", r.Package)
		}
		seen[r.Package] = true
	}
	for lib, rooms := range archtest.Confined {
		for _, room := range rooms {
			if !seen[room] {
				t.Errorf("%s is confined to %s, which has no row", lib, room)
			}
		}
	}
}

const dependencies = "# Dependencies\n\n" +
	"## In the binary\n\n| `example.com/lib` | why |\n| `example.com/engine/v2` | why |\n\n" +
	"## In the Go client\n\n| `example.com/ws` | why |\n\n" +
	"## In tests\n\n| `example.com/check` | why |\n"

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	const root = "github.com/carillon-rt/carillon"
	tests := []struct {
		name string
		file string
		src  string
		want string // a part of the only problem; "" for none
	}{
		{"an arrow that the table has", "internal/hub/x.go", doc + `import "` + root + `/internal/engine"`, ""},
		{"an arrow that it has not", "internal/hub/x.go", doc + `import "` + root + `/internal/wire"`, "internal/hub must not import " + root + "/internal/wire: it moves entries"},
		{"a line of an import block", "internal/hub/x.go", doc + "import (\n\t\"io\"\n\t_ \"" + root + "/internal/server\"\n)", "internal/hub/x.go:5:2:"},
		{"another transport", "internal/transport/ws/x.go", doc + `import "` + root + `/internal/transport/sse"`, "never the hub behind it"},
		{"whatever the build tags", "internal/loop/x_plan9.go", "//go:build plan9\n\n" + doc + `import "` + root + `/internal/session"`, "internal/loop must not import"},
		{"but not what is never built", "internal/loop/x.go", "//go:build ignore\n\n" + doc + `import "` + root + `/internal/session"`, ""},
		{"everything, for server", "internal/server/x.go", doc + `import "` + root + `/internal/engine/memory"`, ""},
		{"test parts in code, even for server", "internal/server/x.go", doc + `import "` + root + `/internal/testkit"`, "it is for tests"},
		{"a command", "internal/server/x.go", doc + `import "` + root + `/cmd/carillon"`, "nothing imports a command"},
		{"a command, in a test", "internal/server/x_test.go", doc + `import "` + root + `/cmd/carillon"`, "nothing imports a command"},
		{"the root, anywhere", "internal/config/x.go", doc + `import "` + root + `"`, ""},
		{"any room, in a test", "internal/hub/x_test.go", doc + `import "` + root + `/internal/gate"`, ""},
		{"a package without a row", "internal/helpers/x.go", doc, "internal/helpers has no row"},
		{"a package below one with a row", "internal/hub/util/x.go", doc, "internal/hub/util has no row"},
		{"a banned part of std", "internal/session/x.go", doc + `import "net/http"`, "without its socket"},
		{"which a test may use", "internal/session/x_test.go", doc + `import "net/http"`, ""},
		{"a library for the root", "x.go", doc + `import "example.com/lib"`, "standard library only"},
		{"a library that is listed", "internal/wire/x.go", doc + `import "example.com/lib/sub"`, ""},
		{"a library that is not", "internal/wire/x.go", doc + `import "example.com/library"`, `docs/dependencies.md does not list it under "In the binary"`},
		{"a test library in code", "internal/wire/x.go", doc + `import "example.com/check"`, "does not list it"},
		{"a test library in a test", "internal/wire/x_test.go", doc + `import "example.com/check"`, ""},
		{"a test library in a test part", "internal/testkit/x.go", doc + `import "example.com/check"`, ""},
		{"a confined library at home", "internal/engine/jetstream/x.go", doc + `import "example.com/engine/v2/server"`, ""},
		{"a confined library elsewhere", "internal/hub/x.go", doc + `import "example.com/engine/v2"`, "is only for internal/engine/jetstream"},
		{"a confined library as an oracle", "internal/hub/x_test.go", doc + `import "example.com/engine/v2"`, ""},
		{"the server from the client", "clients/go/x.go", doc + `import "` + root + `"`, "a module of its own"},
		{"the server from a test of the client", "clients/go/x_test.go", doc + `import "` + root + `/internal/wire"`, "a module of its own"},
		{"the client's own parts", "clients/go/x.go", doc + `import "` + root + `/clients/go/internal/sse"`, ""},
		{"the client's library", "clients/go/internal/sse/x.go", doc + `import "example.com/ws"`, ""},
		{"the server's library in the client", "clients/go/x.go", doc + `import "example.com/lib"`, `"In the Go client"`},
		{"the client from the command", "cmd/carillon/x.go", doc + `import "` + root + `/clients/go"`, ""},
		{"the client from a stage", "internal/gate/x.go", doc + `import "` + root + `/clients/go"`, "internal/gate must not import"},
		{"an example that looks inside", "examples/chat/x.go", doc + `import "` + root + `/internal/hub"`, "a user's view"},
		{"no package comment", "internal/hub/x.go", "package hub", "internal/hub: no file has a package comment"},
		{"which a test file does not replace", "internal/hub/x_test.go", "package hub", ""},
		{"files that nobody builds", "internal/hub/testdata/x.go", "package broken; import \"example.com/no\"", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tree := fstest.MapFS{
				"docs/dependencies.md":       {Data: []byte(dependencies)},
				tt.file:                      {Data: []byte(tt.src)},
				"clients/go/go.mod":          {Data: []byte("module x")},
				"examples/elsewhere/go.mod":  {Data: []byte("module y")},
				"examples/elsewhere/main.go": {Data: []byte("package main; import \"example.com/no\"")},
			}
			confined := map[string][]string{"example.com/engine/v2": {"internal/engine/jetstream"}}
			problems, err := archtest.Check(tree, archtest.Table, confined)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case tt.want == "" && len(problems) > 0:
				t.Errorf("refused: %q", problems)
			case tt.want != "" && (len(problems) != 1 || !strings.Contains(problems[0], tt.want)):
				t.Errorf("got %q, want one that says %q", problems, tt.want)
			}
		})
	}
}

const doc = "// Package x is here to be checked.\npackage x\n"

func TestCheckNeedsTheListOfDependencies(t *testing.T) {
	t.Parallel()
	if _, err := archtest.Check(fstest.MapFS{}, archtest.Table, nil); err == nil {
		t.Error("no error without docs/dependencies.md")
	}
}

func TestCheckReportsWhatDoesNotParse(t *testing.T) {
	t.Parallel()
	tree := fstest.MapFS{
		"docs/dependencies.md": {Data: []byte(dependencies)},
		"x.go":                 {Data: []byte("package")},
	}
	if _, err := archtest.Check(tree, archtest.Table, nil); err == nil || !strings.Contains(err.Error(), "x.go") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}
