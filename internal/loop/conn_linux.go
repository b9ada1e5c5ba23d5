package loop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
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

// Conn is a socket of a loop. The zero value is one not added yet.
type Conn struct {
	loop    *Loop
	handler Handler
	rest    *rest // nil: the socket has taken everything
	fd      int32 // -1: none any more
	slot    uint32
	armed   uint32 // events
	queued  bool   // it is in loop.again
}

// rest is what a socket did not take.
type rest struct {
	bufs   [][]byte // they may begin in the middle of a buffer
	bytes  int      // of them
	behind int      // bytes of the socket that the peer had not taken when it was last looked at
}

// Add takes a descriptor that came from Adopt in. When it cannot, the descriptor
// is closed and c is not part of the loop.
func (l *Loop) Add(c *Conn, fd int, h Handler) error {
	c.loop, c.handler, c.fd = l, h, -1
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
	if n := len(l.free); n > 0 {
		c.slot, l.free = l.free[n-1], l.free[:n-1]
	} else {
		c.slot = uint32(len(l.slots))
		l.slots, l.gens = append(l.slots, nil), append(l.gens, 0)
	}
	l.slots[c.slot], c.fd = c, int32(fd)
	ev := unix.EpollEvent{Events: unix.EPOLLIN}
	setSlot(&ev, c.slot, l.gens[c.slot])
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		c.Close()
		return fmt.Errorf("loop: epoll_ctl: %w", err)
	}
	c.armed = unix.EPOLLIN
	return nil
}

func (c *Conn) serve(events uint32) {
	if events&unix.EPOLLOUT != 0 && c.armed&unix.EPOLLOUT != 0 {
		c.flush()
	}
	switch {
	case c.fd < 0:
	case c.armed&unix.EPOLLIN != 0 && events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0:
		c.handler.Readable()
	case events&(unix.EPOLLHUP|unix.EPOLLERR) != 0:
		c.handler.Broken()
	}
}

// arm has the loop look for these events only.
func (c *Conn) arm(events uint32) {
	if c.armed == events || c.fd < 0 {
		return
	}
	c.armed = events
	ev := unix.EpollEvent{Events: events}
	setSlot(&ev, c.slot, c.loop.gens[c.slot])
	_ = unix.EpollCtl(c.loop.epfd, unix.EPOLL_CTL_MOD, int(c.fd), &ev) // it is in there
}

// Listen has Readable called, or not any more. Bytes wait in the kernel
// meanwhile.
func (c *Conn) Listen(on bool) {
	if on {
		c.arm(c.armed | unix.EPOLLIN)
	} else {
		c.arm(c.armed &^ unix.EPOLLIN)
	}
}

// Again has Readable called in the loop's next turn, whatever the socket has.
func (c *Conn) Again() {
	if !c.queued {
		c.queued = true
		c.loop.again = append(c.loop.again, c)
	}
}

// Buffer is memory for one Read, the loop's: it is good until the next.
func (c *Conn) Buffer() []byte { return c.loop.buf }

// Buffers is an empty list for one Write, the loop's: it is good until the next.
func (c *Conn) Buffers() [][]byte { return c.loop.bufs[:0] }

// Read reads what is there into b, without waiting: 0 and no error when there is
// nothing now, io.EOF at the peer's end.
func (c *Conn) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(c.fd), b)
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

// Blocked reports whether something is kept that the socket did not take.
func (c *Conn) Blocked() bool { return c.rest != nil }

// Write writes bufs, without waiting. What the socket does not take is kept and
// written when it does, then Writable is called; the bytes must stay as they are
// until then. Nothing may be written while something is kept. bufs may be what
// Buffers gave.
func (c *Conn) Write(bufs [][]byte) error {
	c.loop.keep(bufs)
	left, err := c.loop.writev(int(c.fd), bufs)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		c.rest = &rest{bufs: append([][]byte(nil), left...), behind: c.behind()}
		for _, b := range left {
			c.rest.bytes += len(b)
		}
		c.loop.full.Add(1)
		c.loop.kept.Add(int64(c.rest.bytes))
		c.arm(c.armed | unix.EPOLLOUT)
	}
	clear(bufs)
	return nil
}

// behind is how many bytes of the socket the peer has not taken.
func (c *Conn) behind() int {
	n, _ := unix.IoctlGetInt(int(c.fd), unix.TIOCOUTQ) // an error is as good as nothing
	return n
}

// Moved reports whether the peer has taken something of what is in the socket
// since the socket last took something, or since Moved was last called. It is for
// a connection that is blocked: a slow peer takes for long without there being
// room for more.
func (c *Conn) Moved() bool {
	before := c.rest.behind
	c.rest.behind = c.behind()
	return c.rest.behind < before
}

// keep remembers the memory of a list for the next.
func (l *Loop) keep(bufs [][]byte) {
	if cap(bufs) > cap(l.bufs) && cap(bufs) <= 4*maxIOV {
		l.bufs = bufs[:0]
	}
}

// flush goes on with what was kept.
func (c *Conn) flush() {
	r := c.rest
	left, err := c.loop.writev(int(c.fd), r.bufs)
	if err != nil {
		c.handler.Broken()
		return
	}
	bytes := 0
	for _, b := range left {
		bytes += len(b)
	}
	moved := r.bytes - bytes
	c.loop.kept.Add(int64(-moved))
	if len(left) == 0 {
		c.rest = nil
		c.loop.full.Add(-1)
		c.arm(c.armed &^ unix.EPOLLOUT)
		c.handler.Writable()
		return
	}
	clear(r.bufs[:len(r.bufs)-len(left)])
	r.bufs, r.bytes = left, bytes
	if moved > 0 {
		r.behind = c.behind()
		c.handler.Progress()
	}
}

// writev writes until the socket takes no more, and returns what is left.
func (l *Loop) writev(fd int, bufs [][]byte) ([][]byte, error) {
	for len(bufs) > 0 {
		n, asked, err := l.gather(fd, bufs)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return bufs, nil
		case err != nil:
			return nil, err
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

// gather writes as many of bufs as one call takes, asked bytes, and says how many of
// them the socket took. What lies one behind the other in memory is one piece of the
// call: the kernel's work for a piece is more than that for its bytes.
func (l *Loop) gather(fd int, bufs [][]byte) (n, asked int, err error) {
	iov := l.iov[:0]
	end := uintptr(0) // where the last piece ends
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		begin := uintptr(unsafe.Pointer(&b[0]))
		if begin == end {
			last := &iov[len(iov)-1]
			last.SetLen(int(last.Len) + len(b))
		} else {
			if len(iov) == maxIOV {
				break
			}
			v := unix.Iovec{Base: &b[0]}
			v.SetLen(len(b))
			iov = append(iov, v)
		}
		end = begin + uintptr(len(b))
		asked += len(b)
	}
	l.iov = iov[:0]
	if len(iov) == 0 {
		return 0, 0, nil
	}
	var wrote uintptr
	var errno unix.Errno
	if len(iov) == 1 {
		wrote, _, errno = unix.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(iov[0].Base)), uintptr(iov[0].Len))
	} else {
		wrote, _, errno = unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	}
	runtime.KeepAlive(bufs)
	clear(iov)
	if errno != 0 {
		return 0, 0, errno
	}
	return int(wrote), asked, nil
}

// Shut ends our direction.
func (c *Conn) Shut() error { return unix.Shutdown(int(c.fd), unix.SHUT_WR) }

// Close closes the socket and takes it out of the loop. The handler hears
// nothing more. It may be called more than once.
func (c *Conn) Close() {
	if c.fd < 0 {
		return
	}
	_ = unix.Close(int(c.fd)) // it leaves the epoll set by that
	c.gone()
}

// gone frees c's place in the loop.
func (c *Conn) gone() {
	l := c.loop
	if c.rest != nil {
		l.full.Add(-1)
		l.kept.Add(int64(-c.rest.bytes))
	}
	c.fd, c.rest = -1, nil
	l.slots[c.slot] = nil
	l.gens[c.slot]++
	l.free = append(l.free, c.slot)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.closing && l.open == 0 && l.empty != nil {
		close(l.empty)
		l.empty = nil
	}
}
