package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"carillon": main})
}

// TestScripts runs the program as a person types it: testdata/script has what is
// typed and what is seen.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"dotenv": dotenv,
			"get":    get,
			"await":  await,
			"again":  again,
		},
	})
}

// patience is how long a script waits for something; much longer than it takes.
const patience = 30 * time.Second

// until tries again and again.
func until(ts *testscript.TestScript, what string, try func() bool) {
	for end := time.Now().Add(patience); !try(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s did not happen in %v", what, patience)
		}
	}
}

// dotenv FILE [PREFIX]: wait for a file of KEY=value lines and set them, with the
// prefix before each name.
func dotenv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: dotenv FILE [PREFIX]")
	}
	var text []byte
	until(ts, args[0]+" being there", func() bool {
		var err error
		text, err = os.ReadFile(ts.MkAbs(args[0]))
		return err == nil
	})
	prefix := strings.Join(args[1:], "")
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		ts.Setenv(prefix+name, value)
	}
}

// await FILE TEXT: wait until the file has the text.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE TEXT")
	}
	until(ts, args[1]+" in "+args[0], func() bool {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && bytes.Contains(text, []byte(args[1]))
	})
}

// again TEXT PROGRAM…: run a program until it writes the text on stdout.
func again(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: again TEXT PROGRAM...")
	}
	until(ts, args[0]+" from "+strings.Join(args[1:], " "), func() bool {
		ts.Check(ts.Exec(args[1], args[2:]...))
		return strings.Contains(ts.ReadFile("stdout"), args[0])
	})
}

// get URL [HEADER]: write the answer to stdout; with ! its status is an error.
func get(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: get URL [HEADER]")
	}
	r, err := http.NewRequest(http.MethodGet, args[0], nil)
	ts.Check(err)
	for _, h := range args[1:] {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := c.Do(r)
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
	if (resp.StatusCode >= http.StatusBadRequest) != neg {
		ts.Fatalf("GET %s: %s", args[0], resp.Status)
	}
}

// typed runs a command line.
func typed(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, &IO{Out: &o, Err: &e, In: strings.NewReader("")})
	return code, o.String(), e.String()
}

// subcommands are all below n, as words, but those for the program itself.
func subcommands(n *kong.Node) (all [][]string) {
	for _, c := range n.Children {
		if c.Hidden {
			continue
		}
		all = append(all, []string{c.Name})
		for _, below := range subcommands(c) {
			all = append(all, append([]string{c.Name}, below...))
		}
	}
	return all
}

func TestEveryHelpFitsAScreen(t *testing.T) {
	commands := subcommands(kong.Must(new(CLI)).Model.Node)
	if len(commands) < 10 {
		t.Errorf("there are only %q", commands)
	}
	for _, command := range append(commands, nil) {
		code, out, errOut := typed(t, append(command, "--help")...)
		if lines := strings.Count(out, "\n"); code != exitOK || errOut != "" || lines > 45 ||
			!strings.HasPrefix(out, "Usage: carillon"+strings.Join(append([]string{""}, command...), " ")) {
			t.Errorf("%q: exit %d, %d lines, %q\n%s", command, code, lines, errOut, out)
		}
	}
	if code, out, _ := typed(t); code != exitOK || !strings.Contains(out, "dev") {
		t.Errorf("nothing typed: exit %d, %s", code, out)
	}
}

func TestUsageErrorsSayWhereHelpIs(t *testing.T) {
	t.Setenv("CARILLON_CONFIG", "")
	t.Setenv("CARILLON_ORG", "")
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"devv"}, []string{"carillon: unexpected argument devv, did you mean \"dev\"?", "carillon --help"}},
		{[]string{"dev", "--durabilty", "strict"}, []string{"carillon: unknown flag --durabilty, did you mean \"--durability\"?", "carillon dev --help"}},
		{[]string{"dev", "--durability", "none"}, []string{`carillon: --durability must be one of "strict","relaxed" but got "none"`, "carillon dev --help"}},
		{[]string{"keys"}, []string{"carillon: a command is missing", "new", "carillon keys --help"}},
		{[]string{"serve"}, []string{"missing flags: --config=FILE", "carillon serve --help"}},
		{[]string{"config", "check"}, []string{"carillon: <file> is missing", "carillon config check --help"}},
		{[]string{"config"}, []string{"carillon: a command is missing; it is one of check, print, example", "carillon config --help"}},
		{[]string{"tail", "--limit", "x"}, []string{`carillon: --limit: it is a whole number, not "x"`, "carillon tail --help"}},
		{[]string{"bench", "fanout", "--rate", "x"}, []string{`carillon: --rate: it is a number, not "x"`, "carillon bench fanout --help"}},
	} {
		code, out, errOut := typed(t, tc.args...)
		if code != exitUsage || out != "" {
			t.Errorf("%q: exit %d, %q", tc.args, code, out)
		}
		for _, want := range tc.want {
			if !strings.Contains(errOut, want) {
				t.Errorf("%q: %q is not in:\n%s", tc.args, want, errOut)
			}
		}
	}
}

func TestErrorsComeWithHints(t *testing.T) {
	var e bytes.Buffer
	if code := fail(&IO{Err: &e}, hint(errors.New("it broke\nin two"), "mend it")); code != exitError || e.String() != "carillon: it broke\n  in two\ncarillon: hint: mend it\n" {
		t.Errorf("exit %d, %q", code, e.String())
	}
}
