package listen

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Variables of sd_listen_fds(3).
const (
	listenPID   = "LISTEN_PID"
	listenFDs   = "LISTEN_FDS"
	listenNames = "LISTEN_FDNAMES"
)

const (
	firstFD = 3  // after the three of every process
	maxFDs  = 64 // more are no ports of this program
)

// Inherited are ports that a service manager has opened, by name, until somebody
// takes them. Nil is none.
type Inherited map[string]net.Listener

// Inherit takes over the ports that were passed to this process (socket
// activation), and takes their variables out of the environment, so that no child
// takes them for its own. There may be none.
func Inherit(env Env) (Inherited, error) {
	pid, count, names := env.Get(listenPID), env.Get(listenFDs), env.Get(listenNames)
	for _, s := range []string{listenPID, listenFDs, listenNames} {
		if err := env.Unset(s); err != nil {
			return nil, err
		}
	}
	in := Inherited{}
	if count == "" || pid != strconv.Itoa(env.PID) {
		return in, nil // they are for another process
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxFDs {
		return nil, fmt.Errorf("listen: %s is %q; it is a number from 0 to %d", listenFDs, count, maxFDs)
	}
	given := strings.Split(names, ":")
	for i := range n {
		name := strconv.Itoa(firstFD + i)
		if names != "" && i < len(given) {
			name = given[i]
		}
		if err := in.take(firstFD+i, name); err != nil {
			in.Close()
			return nil, err
		}
	}
	return in, nil
}

func (in Inherited) take(fd int, name string) error {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // the listener has its own copy, closed in children
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("listen: the inherited socket %s is not a stream that listens: %w", name, err)
	}
	if in[name] != nil {
		_ = l.Close() // it is refused
		return fmt.Errorf("listen: two inherited sockets are named %s; one is served", name)
	}
	in[name] = l
	return nil
}

// Names are those of the ports that nobody has taken yet, in alphabetical order.
func (in Inherited) Names() []string { return slices.Sorted(maps.Keys(in)) }

// Take gives a port to whoever serves it, or nil if there is none of that name.
func (in Inherited) Take(name string) net.Listener {
	l := in[name]
	delete(in, name)
	return l
}

// Close closes those that nobody has taken.
func (in Inherited) Close() {
	for _, l := range in {
		_ = l.Close() // nobody has used it
	}
	clear(in)
}
