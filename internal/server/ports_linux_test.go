package server_test

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// listening are the TCP ports that this process listens on.
func listening(t *testing.T) map[string]bool {
	t.Helper()
	own, ports := map[string]bool{}, map[string]bool{}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil { // the glob's own is gone
			own[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(table)
		if os.IsNotExist(err) {
			continue // this machine has no IPv6
		}
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			const local, state, inode, listens = 1, 3, 9, "0A"
			if f := strings.Fields(lines.Text()); f[state] == listens && own[f[inode]] {
				ports[f[local]] = true
			}
		}
		f.Close()
	}
	return ports
}

// The log within the node has no port, and nothing else has one either.
func TestANodeListensOnItsTwoPortsOnly(t *testing.T) {
	before := listening(t)
	start(t, settings(t.TempDir()))
	var more []string
	for port := range listening(t) {
		if !before[port] {
			more = append(more, port)
		}
	}
	if len(more) != 2 {
		t.Errorf("it listens on %v", more)
	}
}
