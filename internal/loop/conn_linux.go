package loop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Adopt takes a TCP connection out of Go's hands: a descriptor of it that no
// runtime watches. The connection itself is closed then. It reports false, and
// has done nothing, for any other connection. sendBuffer is as in Sockets.
func Adopt(conn net.Conn, sendBuffer int) (fd int, ok bool) {
	if c, is := conn.(interface{ Bare() net.Conn }); is {
		conn = c.Bare()
	}
	tcp, is := conn.(*net.TCPConn)
	if !is {
		return -1, false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, false
	}
	fd = -1
	if raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }) != nil || err != nil {
		return -1, false
	}
	bound(fd, sendBuffer)
	_ = tcp.Close() // the duplicate keeps the connection
	return fd, true
}

// Drop closes a descriptor that came from Adopt and goes nowhere.
func Drop(fd int) { _ = unix.Close(fd) }

// add takes a descriptor that came from Adopt in. When it cannot, the descriptor
// is closed and k is not part of the loop.
func (l *Loop) add(k *Link, fd int) error {
	k.loop, k.fd = l, -1
	l.mu.Lock()
	refused := l.closing
	if !refused {
		l.open++
	}
	l.mu.Unlock()
	if refused {
		Drop(fd)
		return net.ErrClosed
	}
	k.slot, k.fd = l.slots.add(k), int32(fd)
	ev := unix.EpollEvent{Events: unix.EPOLLIN}
	setSlot(&ev, k.slot, l.slots.gen(k.slot))
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		k.close()
		return fmt.Errorf("loop: epoll_ctl: %w", err)
	}
	k.armed = unix.EPOLLIN
	return nil
}

// serve does what the events of its socket ask for.
func (k *Link) serve(events uint32) {
	if events&unix.EPOLLOUT != 0 && k.armed&unix.EPOLLOUT != 0 {
		k.flush()
	}
	switch {
	case k.fd < 0:
	case k.armed&unix.EPOLLIN != 0 && events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0:
		k.readable()
	case events&(unix.EPOLLHUP|unix.EPOLLERR) != 0:
		k.end()
	}
}

// arm has the loop look for these events only.
func (k *Link) arm(events uint16) {
	if k.armed == events || k.fd < 0 {
		return
	}
	k.armed = events
	ev := unix.EpollEvent{Events: uint32(events)}
	setSlot(&ev, k.slot, k.loop.slots.gen(k.slot))
	_ = unix.EpollCtl(k.loop.epfd, unix.EPOLL_CTL_MOD, int(k.fd), &ev) // it is in there
}

// listen has what comes read, or not any more. Bytes wait in the kernel meanwhile.
func (k *Link) listen(on bool) {
	if on {
		k.arm(k.armed | unix.EPOLLIN)
	} else {
		k.arm(k.armed &^ unix.EPOLLIN)
	}
}

// Again goes on with the input in the loop's next turn, whatever the socket has.
func (k *Link) Again() {
	if !k.queued {
		k.queued = true
		k.loop.again = append(k.loop.again, k)
	}
}

// read reads what is there into b, without waiting: 0 and no error when there is
// nothing now, io.EOF at the peer's end.
func (k *Link) read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(k.fd), b)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		case !errors.Is(err, unix.EINTR):
			return 0, err
		}
	}
}

// write writes bufs, without waiting. What the socket does not take is kept and
// written when it does, then writable is called; the bytes must stay as they are
// until then. Nothing may be written while something is kept. bufs may be the
// loop's.
func (k *Link) write(bufs [][]byte) error {
	k.loop.keep(bufs)
	left, err := k.loop.writev(int(k.fd), bufs)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		p := k.need()
		p.rest, p.bytes, p.behind = append([][]byte(nil), left...), 0, k.behind()
		for _, b := range left {
			p.bytes += len(b)
		}
		k.loop.full.Add(1)
		k.loop.kept.Add(int64(p.bytes))
		k.arm(k.armed | unix.EPOLLOUT)
	}
	clear(bufs)
	return nil
}

// behind is how many bytes of the socket the peer has not taken.
func (k *Link) behind() int {
	n, _ := unix.IoctlGetInt(int(k.fd), unix.TIOCOUTQ) // an error is as good as nothing
	return n
}

// Moved reports whether the peer has taken something of what is in the socket
// since the socket last took something, or since Moved was last called. It is for
// a connection that is blocked: a slow peer takes for long without there being
// room for more.
func (k *Link) Moved() bool {
	p := k.pending
	before := p.behind
	p.behind = k.behind()
	return p.behind < before
}

// keep remembers the memory of a list for the next.
func (l *Loop) keep(bufs [][]byte) {
	if cap(bufs) > cap(l.bufs) && cap(bufs) <= 4*maxIOV {
		l.bufs = bufs[:0]
	}
}

// flush goes on with what was kept.
func (k *Link) flush() {
	p := k.pending
	left, err := k.loop.writev(int(k.fd), p.rest)
	if err != nil {
		k.end()
		return
	}
	bytes := 0
	for _, b := range left {
		bytes += len(b)
	}
	moved := p.bytes - bytes
	k.loop.kept.Add(int64(-moved))
	if len(left) == 0 {
		p.rest = nil
		k.tidy()
		k.loop.full.Add(-1)
		k.arm(k.armed &^ unix.EPOLLOUT)
		k.writable()
		return
	}
	clear(p.rest[:len(p.rest)-len(left)])
	p.rest, p.bytes = left, bytes
	if moved > 0 {
		p.behind = k.behind()
		k.await()
	}
}

// writev writes until the socket takes no more, and returns what is left.
func (l *Loop) writev(fd int, bufs [][]byte) ([][]byte, error) {
	for len(bufs) > 0 {
		var n int
		var err error
		if len(bufs) == 1 {
			n, err = unix.Write(fd, bufs[0])
		} else {
			n, err = l.gather(fd, bufs[:min(len(bufs), maxIOV)])
		}
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return bufs, nil
		case err != nil:
			return nil, err
		}
		asked := 0
		for _, b := range bufs[:min(len(bufs), maxIOV)] {
			asked += len(b)
		}
		short := n < asked
		for n > 0 && n >= len(bufs[0]) {
			n -= len(bufs[0])
			bufs = bufs[1:]
		}
		for len(bufs) > 0 && len(bufs[0]) == 0 {
			bufs = bufs[1:]
		}
		if n > 0 {
			bufs[0] = bufs[0][n:]
		}
		if short {
			return bufs, nil // more would be EAGAIN
		}
	}
	return nil, nil
}

func (l *Loop) gather(fd int, bufs [][]byte) (int, error) {
	l.iov = l.iov[:0]
	for _, b := range bufs {
		if len(b) > 0 {
			v := unix.Iovec{Base: &b[0]}
			v.SetLen(len(b))
			l.iov = append(l.iov, v)
		}
	}
	if len(l.iov) == 0 {
		return 0, nil
	}
	n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&l.iov[0])), uintptr(len(l.iov)))
	clear(l.iov)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// shutdown ends our direction.
func (k *Link) shutdown() error { return unix.Shutdown(int(k.fd), unix.SHUT_WR) }

// close closes the socket and takes it out of the loop. It may be called more than
// once.
func (k *Link) close() {
	if k.fd < 0 {
		return
	}
	_ = unix.Close(int(k.fd)) // it leaves the epoll set by that
	k.gone()
}

// gone frees k's place in the loop.
func (k *Link) gone() {
	l := k.loop
	if k.Blocked() {
		l.full.Add(-1)
		l.kept.Add(int64(-k.pending.bytes))
	}
	k.fd, k.pending = -1, nil
	l.slots.remove(k.slot)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.closing && l.open == 0 && l.empty != nil {
		close(l.empty)
		l.empty = nil
	}
}
