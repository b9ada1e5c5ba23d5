package loop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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

	all   *Sockets // whose deadlines hold
	slots slots
	again []*Link // with bytes left over from the last turn
	spare []*Link

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

// NewLoop makes a loop; End releases it. Its connections are held to the deadlines of
// all, and are none of them.
func NewLoop(all *Sockets) (*Loop, error) {
	l := &Loop{epfd: -1, all: all, buf: make([]byte, readBytes)}
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
	for i, k := range again {
		k.queued = false
		if k.fd >= 0 {
			k.readable()
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
		if k := l.slots.get(slot, gen); k != nil {
			k.serve(ev.Events)
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
	for k := range l.slots.all {
		k.end()
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
