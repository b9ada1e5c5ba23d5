package action_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

// long is a time that no test waits for.
const long = time.Hour

// runner makes one that is closed with the test, at once.
func runner(t *testing.T, cfg action.Config) *action.Runner {
	t.Helper()
	r := action.NewRunner(cfg)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return r
}

// temporary is a directory for files of commands, that must be empty in the end.
func temporary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("files are left behind: %v, %v", left, err)
		}
	})
	return dir
}

func TestArgumentsArriveAsTheyAreWritten(t *testing.T) {
	r := runner(t, action.Config{})
	args := []string{"", "a b", "$HOME", "`id`", "*", "'\"", "; exit 1", "ä\n"}
	res, err := r.Run(t.Context(), &action.Command{Argv: append(self("child-args"), args...)})
	if want := "[" + strings.Join(args, "][") + "]"; string(res.Output) != want || err != nil || res.Exit != 0 || !res.Ran || res.Took <= 0 {
		t.Errorf("%q, %v, %+v; want %q", res.Output, err, res, want)
	}
}

func TestACommandGetsAFewVariablesOfTheServer(t *testing.T) {
	t.Setenv("HOOK_TEST_SECRET", "hush")
	t.Setenv("HOOK_TEST_CHOSEN", "chosen")
	t.Setenv("LANG", "C")
	names := func(cfg action.Config, own ...string) []string {
		res, err := runner(t, cfg).Run(t.Context(), &action.Command{Argv: self("child-env"), Env: own})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(res.Output))
	}
	got := names(action.Config{Env: []string{"HOOK_TEST_CHOSEN", "HOOK_TEST_NONE"}}, "OWN=1", "LANG=de")
	want := []string{"HOME=" + os.Getenv("HOME"), "HOOK_TEST_CHOSEN=chosen", "LANG=de", "OWN=1", "PATH=" + os.Getenv("PATH")}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := names(action.Config{InheritEnvironment: true}, "LANG=de"); !slices.Contains(got, "HOOK_TEST_SECRET=hush") || !slices.Contains(got, "LANG=de") {
		t.Errorf("inherited: %q", got)
	}
	for _, name := range []string{"PATH", "HOME", "LANG"} {
		t.Setenv(name, "")
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(action.Config{}); len(got) > 0 {
		t.Errorf("where the server has none of them: %q", got)
	}
}

func TestACommandIsLookedUpInItsDirectoryOrInPATH(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "hello.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\npwd; echo \"$0\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "plain"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runner(t, action.Config{})
	t.Chdir(filepath.Dir(dir))
	relative := filepath.Base(dir)
	for _, c := range []struct {
		what, command, dir, err string
	}{
		{"there", "hello.sh", dir, ""},
		{"there, in a directory that is relative", "hello.sh", relative, ""},
		{"there, with its whole path", script, dir, ""},
		{"in PATH", "pwd", "", ""},
		{"in PATH, but a directory is named", "pwd", dir, "no such file"},
		{"nowhere", "no-such-command", "", "not found"},
		{"not a program", "plain", dir, "permission denied"},
		{"with its arguments", "ls -l", "", "arguments are given apart"},
		{"empty", "", "", "name a program"},
		{"in a directory that is none", "/bin/pwd", filepath.Join(dir, "none"), "no such file"},
	} {
		res, err := r.Run(t.Context(), &action.Command{Argv: []string{c.command}, Dir: c.dir})
		switch {
		case c.err == "" && (err != nil || c.dir != "" && !strings.HasPrefix(string(res.Output), dir+"\n")):
			t.Errorf("%s: %q, %v", c.what, res.Output, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "action: ") || res.Ran || res.Exit != -1):
			t.Errorf("%s: %v, %+v; want %q", c.what, err, res, c.err)
		}
	}
}

func TestACommandGetsTheBodyOnStandardInput(t *testing.T) {
	r := runner(t, action.Config{OutputBytes: 1 << 20})
	body := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	res, err := r.Run(t.Context(), &action.Command{Argv: []string{"cat"}, Stdin: body})
	if err != nil || !bytes.Equal(res.Output, body) {
		t.Errorf("%d bytes, %v", len(res.Output), err)
	}
	for what, c := range map[string]*action.Command{
		"none":               {Argv: []string{"cat"}},
		"an empty one":       {Argv: []string{"cat"}, Stdin: []byte{}},
		"one that is unread": {Argv: []string{"true"}, Stdin: body},
	} {
		if res, err := r.Run(t.Context(), c); err != nil || len(res.Output) > 0 {
			t.Errorf("%s: %q, %v", what, res.Output, err)
		}
	}
}

func TestAFileIsThereForItsCommandOnly(t *testing.T) {
	r := runner(t, action.Config{TempDir: temporary(t)})
	for _, dir := range []string{"", temporary(t)} {
		res, err := r.Run(t.Context(), &action.Command{
			Argv: self("child-file", "BODY"), Dir: dir,
			Files: []action.File{{Env: "BODY", Data: []byte("text")}, {Env: "OTHER"}},
		})
		if err != nil || !strings.HasPrefix(string(res.Output), "text <nil> 600 /") || !strings.Contains(string(res.Output), dir) {
			t.Errorf("%q, %v", res.Output, err)
		}
	}
	if _, err := r.Run(t.Context(), &action.Command{Argv: []string{"no-such"}, Files: []action.File{{Env: "BODY"}}}); err == nil {
		t.Error("no error") // and no file: temporary looks
	}
	if _, err := r.Run(t.Context(), &action.Command{Argv: []string{"/bin/true"}, Dir: "/nowhere", Files: []action.File{{Env: "BODY"}}}); err == nil {
		t.Error("no error, although the file has no place")
	}
}

func TestTheStatusOfACommandIsReported(t *testing.T) {
	r := runner(t, action.Config{})
	var exit *action.ExitError
	res, err := r.Run(t.Context(), &action.Command{Argv: self("child-exit")})
	if !errors.As(err, &exit) || exit.Code != 7 || res.Exit != 7 || !strings.Contains(err.Error(), "status 7") {
		t.Errorf("%v, %+v", err, res)
	}
	res, err = r.Run(t.Context(), &action.Command{Argv: []string{"sh", "-c", "kill -9 $$"}})
	if !errors.As(err, &exit) || exit.Signal != "killed" || res.Exit != -1 || !strings.Contains(err.Error(), "killed") {
		t.Errorf("%v, %+v", err, res)
	}
	if res, err := r.Run(t.Context(), &action.Command{Argv: self("child-errors")}); string(res.Output) != "out err " || err != nil {
		t.Errorf("%q, %v", res.Output, err)
	}
}

func TestOutputIsCutAtItsLimitAndTheCommandGoesOn(t *testing.T) {
	r := runner(t, action.Config{OutputBytes: 10})
	for _, c := range []struct {
		body, want string
		cut        bool
	}{
		{"0123456789", "0123456789", false},
		{"0123456789x", "0123456789", true},
		{"0123456789" + strings.Repeat("x", 1<<20), "0123456789", true},
	} {
		res, err := r.Run(t.Context(), &action.Command{Argv: []string{"cat"}, Stdin: []byte(c.body)})
		if string(res.Output) != c.want || res.Truncated != c.cut || err != nil {
			t.Errorf("of %d bytes: %q, %t, %v", len(c.body), res.Output, res.Truncated, err)
		}
	}
}

func TestWhatACommandCannotTakeIsAnErrorThatSaysSo(t *testing.T) {
	r := runner(t, action.Config{})
	most := strings.Repeat("x", action.MaxString)
	if _, err := r.Run(t.Context(), &action.Command{Argv: []string{"true", most}, Env: []string{"A=" + most[2:]}}); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	for _, c := range []struct {
		what, want string
		command    action.Command
	}{
		{"an argument that is too long", "argument 1 has 131072 bytes", action.Command{Argv: []string{"true", most + "x"}}},
		{"a variable that is too long", "the variable A has 131072 bytes", action.Command{Argv: []string{"true"}, Env: []string{"A=" + most[1:]}}},
		{"a zero byte in an argument", "zero byte", action.Command{Argv: []string{"true", "a\x00"}}},
		{"a zero byte in a variable", "zero byte", action.Command{Argv: []string{"true"}, Env: []string{"A=\x00"}}},
		{"a variable without a name", "name of a variable", action.Command{Argv: []string{"true"}, Env: []string{"=a"}}},
		{"a file without a name", "name of a variable", action.Command{Argv: []string{"true"}, Files: []action.File{{}}}},
		{"a file with a name that is none", "name of a variable", action.Command{Argv: []string{"true"}, Files: []action.File{{Env: "A=B"}}}},
		{"too much of all", "arguments and variables have", action.Command{Argv: append([]string{"true"}, slices.Repeat([]string{most}, 9)...)}},
		{"no command", "name a program", action.Command{}},
	} {
		res, err := r.Run(t.Context(), &c.command)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "xxxx") || res.Ran {
			t.Errorf("%s: %.200v, want %q", c.what, err, c.want)
		}
	}
}

func TestACommandThatTakesTooLongIsAskedToEndThenKilled(t *testing.T) {
	at := listen(t)
	r := runner(t, action.Config{Grace: 20 * time.Millisecond, Timeout: long})
	// Its time must not be over before it is up: it is stopped when it has said so.
	for _, c := range []struct {
		what, child, output string
		exit                int
		grace               time.Duration
	}{
		{"one that obeys", "child-polite", "bye", 3, long},
		{"one that does not", "child-stubborn", "", -1, time.Millisecond},
		{"one with a family that does not", "child-family", "", -1, time.Millisecond},
	} {
		r := runner(t, action.Config{Grace: c.grace})
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan struct{})
		var res action.Result
		var err error
		go func() {
			defer close(done)
			res, err = r.Run(ctx, &action.Command{Argv: self(c.child, at.address), Timeout: long})
		}()
		up := at.next(t)
		family := up
		if c.child == "child-family" {
			family = at.next(t)
		}
		cancel(errors.New("enough"))
		<-done
		awaitEnd(up)
		awaitEnd(family)
		if err == nil || err.Error() != "action: it was stopped: enough" || string(res.Output) != c.output || res.Exit != c.exit || !res.Ran {
			t.Errorf("%s: %+v, %v", c.what, res, err)
		}
	}
	_, err := r.Run(t.Context(), &action.Command{Argv: []string{"sleep", "3600"}, Timeout: 10 * time.Millisecond})
	if !errors.Is(err, action.ErrTimeout) || !strings.Contains(err.Error(), "10ms") {
		t.Errorf("by its own time: %v", err)
	}
	short := runner(t, action.Config{Timeout: 10 * time.Millisecond})
	if _, err := short.Run(t.Context(), &action.Command{Argv: []string{"sleep", "3600"}}); !errors.Is(err, action.ErrTimeout) {
		t.Errorf("by the runner's time: %v", err)
	}
}

func TestWhatACommandLeavesBehindIsKilledAndDoesNotHoldItsOutput(t *testing.T) {
	at := listen(t)
	r := runner(t, action.Config{Timeout: long})
	done := make(chan struct{})
	var res action.Result
	var err error
	go func() {
		defer close(done)
		res, err = r.Run(t.Context(), &action.Command{Argv: self("child-parent", at.address)})
	}()
	parent, kid := at.next(t), at.next(t)
	parent.Close()
	<-done
	awaitEnd(kid)
	if string(res.Output) != "left" || err != nil || res.Exit != 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestOneThatLeftTheGroupDoesNotHoldTheRunner(t *testing.T) {
	r := runner(t, action.Config{Timeout: long})
	res, err := r.Run(t.Context(), &action.Command{Argv: []string{"sh", "-c", "setsid sleep 3600 & echo $!; exit 4"}})
	var exit *action.ExitError
	if !errors.As(err, &exit) || exit.Code != 4 {
		t.Errorf("%+v, %v", res, err)
	}
	var pid int
	if _, err := fmt.Sscan(string(res.Output), &pid); err == nil {
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	}
}

func TestNoMoreRunsOrWaitsThanMay(t *testing.T) {
	at := listen(t)
	r := runner(t, action.Config{Total: 3, PerHook: 2, Queue: 3, PerQueue: 2, Timeout: long})
	results := make(chan error, 8)
	run := func(of string) {
		go func() {
			_, err := r.Run(t.Context(), &action.Command{Of: of, Argv: self("child-wait", at.address)})
			results <- err
		}()
	}
	refused := func(of, what string) {
		t.Helper()
		_, err := r.Run(t.Context(), &action.Command{Of: of, Argv: []string{"true"}})
		var e *carillon.Error
		if !errors.As(err, &e) || e.Code != carillon.CodeUnavailable || e.RetryAfter <= 0 {
			t.Errorf("%s: %v, want that it is refused", what, err)
		}
	}
	run("a")
	run("a")
	first, second := at.next(t), at.next(t)
	run("a") // wait
	run("a")
	action.AwaitWaiting(r, 2)
	refused("a", "a fifth of a hook")
	run("b")
	other := at.next(t)
	run("b")
	action.AwaitWaiting(r, 3)
	refused("c", "what has no place in the queue")

	other.Close() // one of b ends, and the next of b runs: a has as many as it may
	if err := <-results; err != nil {
		t.Error(err)
	}
	other = at.next(t)
	action.AwaitWaiting(r, 2)
	first.Close()
	second.Close()
	first, second = at.next(t), at.next(t)
	first.Close()
	second.Close()
	other.Close()
	for range 5 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Run(t.Context(), &action.Command{Of: "c", Argv: []string{"true"}}); err != nil {
		t.Errorf("with all places free: %v", err)
	}
}

func TestOneThatWaitsGivesUpWithItsContext(t *testing.T) {
	at := listen(t)
	r := runner(t, action.Config{Total: 1, PerHook: 1, Timeout: long})
	done := make(chan error, 2)
	go func() {
		_, err := r.Run(t.Context(), &action.Command{Argv: self("child-wait", at.address)})
		done <- err
	}()
	up := at.next(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		res, err := r.Run(ctx, &action.Command{Argv: []string{"true"}})
		if res.Ran {
			t.Error("it ran")
		}
		done <- err
	}()
	action.AwaitWaiting(r, 1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	action.AwaitWaiting(r, 0)
	up.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNobodyIsLeftWhenTheRunnerIsClosed(t *testing.T) {
	at := listen(t)
	r := action.NewRunner(action.Config{Total: 2, PerHook: 2, Timeout: long, Grace: time.Millisecond})
	done := make(chan error, 3)
	run := func() {
		go func() {
			_, err := r.Run(t.Context(), &action.Command{Argv: self("child-stubborn", at.address)})
			done <- err
		}()
	}
	run()
	run()
	a, b := at.next(t), at.next(t)
	run()
	action.AwaitWaiting(r, 1)
	ctx, cancel := context.WithCancel(t.Context())
	closed := make(chan error, 2)
	go func() { closed <- r.Close(ctx) }()
	action.AwaitShut(r)
	if _, err := r.Run(t.Context(), &action.Command{Argv: []string{"true"}}); carillon.AsError(err).Code != carillon.CodeUnavailable {
		t.Errorf("while it closes: %v", err)
	}
	cancel()
	awaitEnd(a)
	awaitEnd(b)
	for range 3 {
		if err := <-done; !errors.Is(err, action.ErrStopped) {
			t.Error(err)
		}
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := r.Close(ctx); err != nil {
		t.Errorf("once more: %v", err)
	}
}

func TestClosingWaitsForWhatRuns(t *testing.T) {
	at := listen(t)
	r := action.NewRunner(action.Config{Timeout: long})
	done := make(chan error, 1)
	go func() {
		_, err := r.Run(t.Context(), &action.Command{Argv: self("child-wait", at.address)})
		done <- err
	}()
	up := at.next(t)
	closed := make(chan error, 1)
	go func() { closed <- r.Close(t.Context()) }()
	action.AwaitShut(r)
	up.Close()
	if err := errors.Join(<-done, <-closed); err != nil {
		t.Error(err)
	}
}
