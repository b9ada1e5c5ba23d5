package action_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

// TestMain is the tests, or a command that they run: this program, with the name of
// what it is to do as first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "child-") {
		syscall.Exit(child(os.Args[1], os.Args[2:])) // at once: the race detector would wait a second
	}
	goleak.VerifyTestMain(m)
}

func child(what string, args []string) int {
	switch what {
	case "child-args":
		for _, a := range args {
			fmt.Printf("[%s]", a)
		}
	case "child-env":
		for _, v := range os.Environ() {
			fmt.Println(v)
		}
	case "child-file": // the file that a variable has the path of
		name := os.Getenv(args[0])
		text, err := os.ReadFile(name)
		info, _ := os.Stat(name)
		fmt.Printf("%s %v %o %s", text, err, info.Mode().Perm(), name)
	case "child-echo":
		_, _ = io.Copy(os.Stdout, os.Stdin)
	case "child-errors":
		fmt.Fprint(os.Stdout, "out ")
		fmt.Fprint(os.Stderr, "err ")
	case "child-stubborn": // says that it is there, and neither obeys nor ends before the test does
		signal.Ignore(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, report(args[0], "up"))
	case "child-polite": // ends when it is asked to
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGTERM)
		report(args[0], "up")
		<-asked
		fmt.Print("bye")
		return 3
	case "child-wait": // ends when its connection does
		c := report(args[0], "up")
		_, _ = io.Copy(io.Discard, c)
	case "child-parent": // leaves a child behind that holds its output, when its connection ends
		c := report(args[0], "up")
		kid := exec.Command(os.Args[0], "child-stubborn", args[0])
		kid.Stdout, kid.Stderr = os.Stdout, os.Stderr
		if err := kid.Start(); err != nil {
			fmt.Print(err)
			return 1
		}
		_, _ = io.Copy(io.Discard, c)
		fmt.Print("left")
	case "child-family": // as parent, and stays
		kid := exec.Command(os.Args[0], "child-stubborn", args[0])
		if err := kid.Start(); err != nil {
			fmt.Print(err)
			return 1
		}
		return child("child-stubborn", args)
	case "child-exit":
		return 7
	}
	return 0
}

// report connects to a test and says something. The connection ends with the
// process, which is how the test sees that.
func report(address, text string) net.Conn {
	c, err := net.Dial("tcp", address)
	if err != nil {
		os.Exit(9)
	}
	fmt.Fprint(c, text)
	return c
}

// reports are connections of children: each says that it is up, and then is silent
// until it ends.
type reports struct {
	listener net.Listener
	address  string
}

func listen(t *testing.T) *reports {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &reports{l, l.Addr().String()}
}

// next is the next child that is up.
func (r *reports) next(t *testing.T) net.Conn {
	t.Helper()
	c, err := r.listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.ReadFull(c, make([]byte, len("up"))); err != nil {
		t.Fatal(err)
	}
	return c
}

// awaitEnd returns when the child is dead.
func awaitEnd(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// self is this program as a command.
func self(args ...string) []string { return append([]string{os.Args[0]}, args...) }

func parseRule(t testing.TB, text string) *action.Rule {
	t.Helper()
	var r action.Rule
	if err := yaml.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

func request(body, contentType string) *action.Request {
	return &action.Request{
		ID: "d1", Method: http.MethodPost, Remote: "192.0.2.7:4711", Header: http.Header{"Content-Type": {contentType}},
		Body: []byte(body),
	}
}
