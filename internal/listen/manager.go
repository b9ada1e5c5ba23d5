package listen

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Manager is the service manager that has started the process, told over the
// socket of sd_notify(3). Nil is nobody: its methods do nothing.
type Manager struct {
	addr     *net.UnixAddr
	watchdog time.Duration
}

// Variables of the two protocols.
const (
	notifySocket   = "NOTIFY_SOCKET"
	watchdogMicros = "WATCHDOG_USEC"
	watchdogPID    = "WATCHDOG_PID"
)

// Env is what a process gets from whoever starts it.
type Env struct {
	Get   func(name string) string
	Unset func(name string) error
	PID   int
}

// NewManager finds the manager in the environment, and takes it out there, so that
// no child takes itself for this process. There may be none.
func NewManager(env Env) (*Manager, error) {
	name, micros, pid := env.Get(notifySocket), env.Get(watchdogMicros), env.Get(watchdogPID)
	for _, s := range []string{notifySocket, watchdogMicros, watchdogPID} {
		if err := env.Unset(s); err != nil {
			return nil, err
		}
	}
	if name == "" {
		return nil, nil
	}
	if name[0] != '/' && name[0] != '@' {
		return nil, fmt.Errorf("listen: %s is %q; it is the path of a Unix socket, or @ and an abstract name", notifySocket, name)
	}
	m := &Manager{addr: &net.UnixAddr{Name: name, Net: "unixgram"}}
	if micros != "" && (pid == "" || pid == strconv.Itoa(env.PID)) {
		n, err := strconv.ParseInt(micros, 10, 63)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("listen: %s is %q; it is a number of microseconds", watchdogMicros, micros)
		}
		m.watchdog = time.Duration(n) * time.Microsecond
	}
	return m, nil
}

// Ready says that the process does its work, at the start and after Reloading.
func (m *Manager) Ready(status string) error { return m.tell("READY=1", "STATUS="+status) }

// Reloading says that the settings are read again. Ready ends it.
func (m *Manager) Reloading() error {
	if m == nil {
		return nil
	}
	now, err := monotonic()
	if err != nil {
		return err
	}
	return m.tell("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Microseconds(), 10))
}

// Stopping says that the process ends.
func (m *Manager) Stopping(status string) error { return m.tell("STOPPING=1", "STATUS="+status) }

// Alive says that the process is not stuck. It is due well within each Watchdog.
func (m *Manager) Alive() error { return m.tell("WATCHDOG=1") }

// Watchdog is how long the manager waits for Alive before it ends the process; 0:
// it does not.
func (m *Manager) Watchdog() time.Duration {
	if m == nil {
		return 0
	}
	return m.watchdog
}

func (m *Manager) tell(lines ...string) error {
	if m == nil {
		return nil
	}
	conn, err := net.DialUnix(m.addr.Net, nil, m.addr)
	if err != nil {
		return fmt.Errorf("listen: tell the service manager: %w", err)
	}
	defer func() { _ = conn.Close() }()                    // the datagram has gone, or has not
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // if it fails so may the write
	if _, err := conn.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("listen: tell the service manager: %w", err)
	}
	return nil
}
