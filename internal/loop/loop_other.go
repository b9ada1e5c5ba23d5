//go:build !linux

package loop

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// Loop is for Linux only: NewLoop fails, and nothing else is called.
type Loop struct{}

// NewLoop fails.
func NewLoop() (*Loop, error) { return nil, errors.ErrUnsupported }

// Wake is not called.
func (*Loop) Wake() {}

// Wait is not called.
func (*Loop) Wait(time.Duration) {}

// Serve is not called.
func (*Loop) Serve() bool { return false }

// Stats are none.
func (*Loop) Stats() Stats { return Stats{} }

// Close has nothing to close.
func (*Loop) Close(context.Context) error { return nil }

// End is not called.
func (*Loop) End() {}

// Add is not called.
func (*Loop) Add(*Conn, int, Handler) error { return errors.ErrUnsupported }

// Adopt takes nothing.
func Adopt(net.Conn, int) (fd int, ok bool) { return -1, false }

// Drop is not called.
func Drop(int) {}

// Acceptor is never asked.
type Acceptor interface {
	Accepted(fd int, peer netip.AddrPort)
	Full(err error)
}

// DupPort makes nothing.
func DupPort(net.Listener) (fd int, ok bool) { return -1, false }

// Prepare changes nothing.
func (*Sockets) Prepare(net.Listener) {}

// Listen is not called.
func (*Loop) Listen(int, Acceptor) error { return errors.ErrUnsupported }

// StopListening is not called.
func (*Loop) StopListening() {}

// Resume is not called.
func (*Loop) Resume(time.Time) time.Duration { return 0 }

// Conn is never added to a loop.
type Conn struct{}

// Listen is not called.
func (*Conn) Listen(bool) {}

// Again is not called.
func (*Conn) Again() {}

// Buffer is not called.
func (*Conn) Buffer() []byte { return nil }

// Buffers is not called.
func (*Conn) Buffers() [][]byte { return nil }

// Read is not called.
func (*Conn) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// Blocked is not called.
func (*Conn) Blocked() bool { return false }

// Moved is not called.
func (*Conn) Moved() bool { return false }

// Write is not called.
func (*Conn) Write([][]byte) error { return errors.ErrUnsupported }

// Move is not called.
func (*Conn) Move(*Conn, Handler) {}

// Leave is not called.
func (*Conn) Leave() (net.Conn, error) { return nil, errors.ErrUnsupported }

// Shut is not called.
func (*Conn) Shut() error { return errors.ErrUnsupported }

// Close is not called.
func (*Conn) Close() {}
