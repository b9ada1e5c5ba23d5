package listen_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/listen"
)

// childOfTest makes the test program the child that ports are passed to.
const childOfTest = "CARILLON_TEST_CHILD"

// child says what it has inherited, answers one connection on each port, and says
// what a child of its own would see.
func child() {
	if os.Getenv("LISTEN_PID") == "mine" {
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // a service manager sets it after the fork
	}
	in, err := listen.Inherit(listen.Env{Get: os.Getenv, Unset: os.Unsetenv, PID: os.Getpid()})
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	for _, name := range in.Names() {
		l := in.Take(name)
		fmt.Println("port", name, l.Addr().Network())
		conn, err := l.Accept()
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		_, _ = io.WriteString(conn, "hello from "+name)
		_ = conn.Close()
		_ = l.Close()
	}
	fmt.Println("left", in.Names(), slices.ContainsFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "LISTEN_") }))
}

// run starts the child with files and variables, and returns what it says.
func run(t *testing.T, files []*os.File, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(slices.Clone(os.Environ()), append(env, childOfTest+"=1")...)
	cmd.ExtraFiles = files
	return cmd
}

func tcpFile(t *testing.T) (*os.File, net.Addr) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	f, err := l.File()
	must(t, err)
	must(t, l.Close())
	t.Cleanup(func() { _ = f.Close() })
	return f, l.Addr()
}

func TestAChildTakesItsPortsOver(t *testing.T) {
	tcp, addr := tcpFile(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	defer l.Close()
	local, err := l.File()
	must(t, err)
	defer local.Close()

	cmd := run(t, []*os.File{tcp, local}, "LISTEN_PID=mine", "LISTEN_FDS=2", "LISTEN_FDNAMES=public:ops")
	out := new(strings.Builder)
	cmd.Stdout = out
	must(t, cmd.Start())
	public, ops := call(t, addr, ""), call(t, l.Addr(), "")
	for conn, want := range map[net.Conn]string{public: "hello from public", ops: "hello from ops"} {
		if b, err := io.ReadAll(conn); string(b) != want {
			t.Errorf("%v: %q, %v", conn.RemoteAddr(), b, err)
		}
	}
	must(t, cmd.Wait())
	if got, want := out.String(), "port ops unix\nport public tcp\nleft [] false\n"; got != want {
		t.Errorf("the child says %q, want %q", got, want)
	}
}

func TestPortsOfAnotherProcessAreLeftAlone(t *testing.T) {
	tcp, _ := tcpFile(t)
	out, err := run(t, []*os.File{tcp}, "LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=public").Output()
	must(t, err)
	if got, want := string(out), "left [] false\n"; got != want {
		t.Errorf("the child says %q, want %q", got, want)
	}
}

func TestWhatIsNoPortIsRefused(t *testing.T) {
	tcp, _ := tcpFile(t)
	plain, err := os.Create(filepath.Join(t.TempDir(), "f"))
	must(t, err)
	defer plain.Close()
	for _, tt := range []struct {
		name  string
		files []*os.File
		env   []string
		want  string
	}{
		{"a file", []*os.File{plain}, []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=public"}, "error: listen: the inherited socket public is not a stream that listens"},
		{"nothing", nil, []string{"LISTEN_FDS=1"}, "error: listen: the inherited socket 3 is not"},
		{"no number", nil, []string{"LISTEN_FDS=x"}, `error: listen: LISTEN_FDS is "x"; it is a number from 0 to 64`},
		{"too many", nil, []string{"LISTEN_FDS=65"}, `error: listen: LISTEN_FDS is "65"`},
		{"two of one name", []*os.File{tcp, tcp}, []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=a:a"}, "error: listen: two inherited sockets are named a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := run(t, tt.files, append(tt.env, "LISTEN_PID=mine")...).Output()
			must(t, err)
			if !strings.HasPrefix(string(out), tt.want) {
				t.Errorf("the child says %q, want %q", out, tt.want)
			}
		})
	}
}
