package loop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Loop owns sockets: one goroutine, its shard's, waits for all of them with
// epoll, reads and writes. Its methods are for that goroutine, except Wake and
// Close.
//
// It waits by parking on Go's own network poller, which watches the epoll
// descriptor: other goroutines and other sockets of the process run meanwhile.
type Loop struct {
	epfd int
	port *port    // nil: nothing is accepted
	wake *os.File // an eventfd
	file *os.File // epfd, as the network poller has it
	raw  syscall.RawConn

	events  [turnEvents]unix.EpollEvent
	served  int // of events
	ready   int // of events; those from served on wait for their turn
	poll    func(uintptr) bool
	waited  bool // they came with Wait
	yielded bool // Wait has been to the network poller
	yield   bool
	woken   bool // by a Wake that Serve met
	timed   bool // file has a deadline

	slots []*Conn
	gens  []uint32
	free  []uint32
	again []*Conn // with bytes left over from the last turn
	spare []*Conn

	iov  []unix.Iovec
	buf  []byte
	bufs [][]byte

	full atomic.Int64 // sockets that take no more now
	kept atomic.Int64 // bytes that they did not take

	mu      sync.Mutex // guards what follows
	open    int
	closing bool
	empty   chan struct{} // closed when closing and nothing is open; nil: nobody waits
}

// wakeSlot is the slot of wake in an event.
const wakeSlot = 1<<32 - 1

// NewLoop makes a loop; End releases it.
func NewLoop() (*Loop, error) {
	l := &Loop{epfd: -1, buf: make([]byte, readBytes)}
	var err error
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("loop: epoll_create1: %w", err)
	}
	if err = unix.SetNonblock(l.epfd, true); err == nil { // so that the network poller takes it
		l.file = os.NewFile(uintptr(l.epfd), "epoll")
		l.raw, err = l.file.SyscallConn()
	}
	wakefd := -1
	if err == nil {
		wakefd, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	}
	if err == nil {
		l.wake = os.NewFile(uintptr(wakefd), "wake")
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}
		setSlot(&ev, wakeSlot, 0)
		err = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, wakefd, &ev)
	}
	if err != nil {
		l.End()
		return nil, fmt.Errorf("loop: epoll: %w", err)
	}
	l.poll = func(fd uintptr) bool {
		if l.yield && !l.yielded {
			l.yielded = true
			l.Wake()
			return false
		}
		if l.served < l.ready {
			return true
		}
		l.served, l.ready, l.waited = 0, 0, true
		n, err := unix.EpollWait(int(fd), l.events[:], 0)
		l.ready = max(n, 0)
		return l.ready > 0 || err != nil && !errors.Is(err, unix.EINTR)
	}
	return l, nil
}

// setSlot puts a slot and its generation into the data of an event.
func setSlot(ev *unix.EpollEvent, slot, gen uint32) { ev.Fd, ev.Pad = int32(slot), int32(gen) }

// Wake ends the current Wait, or the next. It may be called from anywhere.
func (l *Loop) Wake() {
	one := [8]byte{1}
	_, _ = l.wake.Write(one[:]) // the loop may have ended
}

// Wait returns when a socket is ready, after Wake, or when d has passed; with 0
// when whoever else was ready has had a turn, with a negative d never by time.
func (l *Loop) Wait(d time.Duration) {
	woken := l.woken
	l.woken = false
	if woken && d != 0 {
		return
	}
	l.yield, l.yielded = d == 0, false
	switch {
	case d > 0:
		l.timed = true
		_ = l.file.SetReadDeadline(time.Now().Add(d)) // the network poller has it
	case l.timed:
		l.timed = false
		_ = l.file.SetReadDeadline(time.Time{}) // as above
	}
	if err := l.raw.Read(l.poll); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		runtime.Gosched() // the loop has ended
	}
}

// Serve serves the sockets that are ready, within the bounds of a turn. It
// reports whether there may be more.
func (l *Loop) Serve() (more bool) {
	if l.served == l.ready {
		n, _ := unix.EpollWait(l.epfd, l.events[:], 0) // an error is as good as nothing
		l.served, l.ready, l.waited = 0, max(n, 0), false
	}
	end := time.Now().Add(turnTime)
	l.endIfClosing()
	again := l.again
	l.again, l.spare = l.spare[:0], nil
	for i, c := range again {
		c.queued = false
		if c.fd >= 0 {
			c.handler.Readable()
		}
		again[i] = nil
	}
	l.spare = again[:0]
	for n := 0; l.served < l.ready; n++ {
		if n > 0 && n%8 == 0 && !time.Now().Before(end) {
			return true // the others come next; that they may be stale by then does no harm
		}
		ev := &l.events[l.served]
		l.served++
		slot, gen := uint32(ev.Fd), uint32(ev.Pad)
		if slot == wakeSlot { // edge-triggered: it need not be read
			l.woken = l.woken || !l.waited
			continue
		}
		if slot == acceptSlot {
			more = l.accept() || more
			continue
		}
		if c := l.slots[slot]; c != nil && l.gens[slot] == gen {
			c.serve(ev.Events)
		}
	}
	return more || l.ready == turnEvents || len(l.again) > 0
}

// Stats counts the loop's sockets. It may be called from anywhere.
func (l *Loop) Stats() Stats {
	l.mu.Lock()
	open := l.open
	l.mu.Unlock()
	return Stats{Open: open, Full: int(l.full.Load()), Kept: l.kept.Load()}
}

// Close ends all connections without ceremony and waits until they are gone, or
// for ctx. From then on new ones are refused. It may be called from anywhere
// while the loop runs.
func (l *Loop) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closing = true
	if l.open == 0 {
		l.mu.Unlock()
		return nil
	}
	if l.empty == nil {
		l.empty = make(chan struct{})
	}
	empty := l.empty
	l.mu.Unlock()
	l.Wake()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Loop) endIfClosing() {
	l.mu.Lock()
	closing := l.closing && l.open > 0
	l.mu.Unlock()
	if !closing {
		return
	}
	for _, c := range l.slots {
		if c != nil {
			c.handler.Broken()
		}
	}
}

// End releases the loop's own descriptors. Nothing waits any more.
func (l *Loop) End() {
	l.StopListening()
	if l.wake != nil {
		_ = l.wake.Close()
	}
	if l.file != nil {
		_ = l.file.Close()
	} else if l.epfd >= 0 {
		_ = unix.Close(l.epfd)
	}
}

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
