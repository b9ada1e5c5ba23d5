package loop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	acceptsPerTurn = 32                     // connections accepted before other work gets its turn
	acceptPause    = 100 * time.Millisecond // after the system had no room for one more
	acceptSlot     = 1<<32 - 2              // the slot of the port in an event
)

// Acceptor is who takes a port's connections.
type Acceptor interface {
	// Accepted is called on the loop's goroutine with a descriptor, which is
	// the acceptor's from then on, and the peer's address.
	Accepted(fd int, peer netip.AddrPort)

	// Full says that the system has no room for one more connection, and that
	// the loop tries again after a while.
	Full(err error)
}

// port is a listening socket as a loop has it.
type port struct {
	fd    int
	to    Acceptor
	pause time.Time // nothing is accepted before
}

// DupPort makes another descriptor of a listening TCP socket, for Listen. It
// reports false for any other listener.
func DupPort(l net.Listener) (fd int, ok bool) {
	fd = -1
	ok = control(l, func(old uintptr) {
		var err error
		if fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); err != nil {
			fd = -1
		}
	})
	return fd, ok && fd >= 0
}

func control(l net.Listener, f func(fd uintptr)) bool {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	return err == nil && raw.Control(f) == nil
}

// Prepare sets on a TCP port what its connections inherit, whoever accepts them.
// Of any other listener it changes nothing.
func (s *Sockets) Prepare(l net.Listener) {
	control(l, func(fd uintptr) {
		bound(int(fd), s.SendBuffer)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // as for every connection of Go's
		if s.UnansweredTimeout > 0 {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(s.UnansweredTimeout.Milliseconds())) // or the kernel tries on for a quarter of an hour
		}
	})
}

// bound keeps the kernel from hiding much of what a slow peer has not taken.
func bound(fd, sendBuffer int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, or(sendBuffer, DefaultSendBuffer)) // a bound on memory, nothing that has to be
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, sendLowat)                // as above
}

// Listen has the loop accept the connections of a port, together with the other
// loops that have a descriptor of it. fd came from DupPort; it is the loop's own.
// It is called before the loop first waits.
func (l *Loop) Listen(fd int, to Acceptor) error {
	l.port = &port{fd: fd, to: to}
	return l.watchPort()
}

func (l *Loop) watchPort() error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE}
	setSlot(&ev, acceptSlot, 0)
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, l.port.fd, &ev); err != nil {
		return fmt.Errorf("loop: epoll_ctl: %w", err)
	}
	return nil
}

// StopListening ends Listen. On the loop's goroutine.
func (l *Loop) StopListening() {
	if l.port == nil {
		return
	}
	_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, l.port.fd, nil) // the port lives on elsewhere
	_ = unix.Close(l.port.fd)
	l.port = nil
}

// accept takes what waits at the port. It reports whether there may be more.
func (l *Loop) accept() (more bool) {
	for range acceptsPerTurn {
		p := l.port
		if p == nil {
			return false
		}
		fd, peer, err := unix.Accept4(p.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			p.to.Accepted(fd, addrPort(peer))
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		case errors.Is(err, unix.EAGAIN):
			return false
		default: // EMFILE, ENFILE, ENOBUFS, ENOMEM
			_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, p.fd, nil) // or it would ask again and again
			p.pause = time.Now().Add(acceptPause)
			p.to.Full(err)
			return false
		}
	}
	return true
}

// Resume goes on with a port that had no room, once it has waited long enough. It
// is called now and then, and at once says how long not.
func (l *Loop) Resume(now time.Time) (wait time.Duration) {
	switch p := l.port; {
	case p == nil || p.pause.IsZero():
		return 0
	case now.Before(p.pause):
		return p.pause.Sub(now)
	default:
		p.pause = time.Time{}
		if err := l.watchPort(); err != nil {
			p.pause = now.Add(acceptPause)
			return acceptPause
		}
		return 0
	}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// move makes to the place of k's socket, in the same loop; k is not part of it any
// more. Nothing may be kept of what was written.
func (k *Link) move(to *Link) {
	to.loop, to.fd, to.slot, to.armed = k.loop, k.fd, k.slot, k.armed
	to.loop.slots.set(to.slot, to)
	k.fd = -1
}

// release takes the socket out of the loop, as a connection of Go's. k is not part
// of the loop any more.
func (k *Link) release() (net.Conn, error) {
	l, fd := k.loop, int(k.fd)
	_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, fd, nil) // it is in there
	k.gone()
	f := os.NewFile(uintptr(fd), "tcp")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("loop: %w", err)
	}
	return conn, nil
}
