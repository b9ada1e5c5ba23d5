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
type Loop struct {
	all  *Sockets
	buf  []byte
	bufs [][]byte
}

// NewLoop fails.
func NewLoop(*Sockets) (*Loop, error) { return nil, errors.ErrUnsupported }

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

func (*Loop) add(*Link, int) error { return errors.ErrUnsupported }

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

// Again is not called.
func (*Link) Again() {}

func (*Link) listen(bool) {}

func (*Link) read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// Moved is not called.
func (*Link) Moved() bool { return false }

func (*Link) write([][]byte) error { return errors.ErrUnsupported }

func (*Link) move(*Link) {}

func (*Link) release() (net.Conn, error) { return nil, errors.ErrUnsupported }

func (*Link) shutdown() error { return errors.ErrUnsupported }

func (*Link) close() {}
