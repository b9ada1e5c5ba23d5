package listen_test

import (
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/listen"
)

// env is an environment of these variables.
func env(vars map[string]string) listen.Env {
	return listen.Env{
		PID: 42,
		Get: func(name string) string { return vars[name] }, Unset: func(name string) error { delete(vars, name); return nil },
	}
}

// told opens a service manager's socket.
func told(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	return conn
}

func message(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 1000)
	n, err := conn.Read(b)
	must(t, err)
	return string(b[:n])
}

func TestTheServiceManagerIsToldWhatHappens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn := told(t, path)
	vars := map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42", "OTHER": "x"}
	m, err := listen.NewManager(env(vars))
	must(t, err)
	if !maps.Equal(vars, map[string]string{"OTHER": "x"}) {
		t.Errorf("children would see %v", vars)
	}
	if d := m.Watchdog(); d != 30*time.Second {
		t.Errorf("the watchdog waits %v", d)
	}
	must(t, m.Ready("serving"))
	must(t, m.Reloading())
	must(t, m.Ready("again"))
	must(t, m.Alive())
	must(t, m.Stopping("bye"))
	for _, want := range []string{
		`^READY=1\nSTATUS=serving$`, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]+$`, `^READY=1\nSTATUS=again$`, `^WATCHDOG=1$`, `^STOPPING=1\nSTATUS=bye$`,
	} {
		if got := message(t, conn); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("it was told %q, want %s", got, want)
		}
	}
}

func TestAnAbstractSocketIsToldToo(t *testing.T) {
	name := "@carillon-test-" + strings.ReplaceAll(t.TempDir(), "/", "-")
	conn := told(t, name)
	m, err := listen.NewManager(env(map[string]string{"NOTIFY_SOCKET": name}))
	must(t, err)
	must(t, m.Alive())
	if got := message(t, conn); got != "WATCHDOG=1" {
		t.Errorf("it was told %q", got)
	}
}

func TestWithoutAServiceManagerNobodyIsTold(t *testing.T) {
	m, err := listen.NewManager(env(map[string]string{"WATCHDOG_USEC": "1"}))
	must(t, err)
	if m != nil || m.Watchdog() != 0 {
		t.Errorf("there is %+v", m)
	}
	for _, err := range []error{m.Ready(""), m.Reloading(), m.Alive(), m.Stopping("")} {
		must(t, err)
	}
}

func TestTheWatchdogOfAnotherProcessIsNotOurs(t *testing.T) {
	m, err := listen.NewManager(env(map[string]string{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "7"}))
	must(t, err)
	if m.Watchdog() != 0 {
		t.Errorf("it waits %v", m.Watchdog())
	}
	m, err = listen.NewManager(env(map[string]string{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000"}))
	must(t, err)
	if m.Watchdog() != time.Millisecond {
		t.Errorf("without a process it waits %v", m.Watchdog())
	}
}

func TestAServiceManagerThatIsNotThereIsAnError(t *testing.T) {
	m, err := listen.NewManager(env(map[string]string{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "none")}))
	must(t, err)
	if err := m.Ready("x"); err == nil || !strings.Contains(err.Error(), "tell the service manager") {
		t.Errorf("got %v", err)
	}
	for name, value := range map[string]string{"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "soon"} {
		vars := map[string]string{"NOTIFY_SOCKET": "/x", name: value}
		if _, err := listen.NewManager(env(vars)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}
