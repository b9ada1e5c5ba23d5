package bench

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	readBuffer = 2 << 20 // one per loop; larger than any message and any answer
	batch      = 128     // sockets per epoll_wait; the pace is looked at after each
	tick       = 10 * time.Millisecond
	timerSlot  = -1
)

// errStopped ends a loop that was told to stop.
var errStopped = errors.New("bench: stopped")

// clock is nanoseconds of CLOCK_MONOTONIC since the process began to measure; it
// costs no system call.
type clock struct {
	base time.Time
	mono int64 // CLOCK_MONOTONIC at base, for timerfd
}

func newClock() (*clock, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return nil, fmt.Errorf("bench: clock: %w", err)
	}
	return &clock{base: time.Now(), mono: ts.Nano()}, nil
}

// now is never 0, so that 0 can mean never.
func (c *clock) now() int64 { return int64(time.Since(c.base)) + 1 }

// everywhere is a time of this clock as other processes know it.
func (c *clock) everywhere(at int64) int64 { return c.mono + at }

type kind uint8

const (
	subscriber kind = iota // a client with one subscription, over any transport
	publisher              // raw HTTP/1.1, one request at a time
	bareReader             // reads frames of the floor server; no upgrade
	bareSender             // tells the floor server what to write
)

type state uint8

const (
	dialing state = iota
	upgrading
	subscribing
	open
	gone
)

// conn is one socket, owned by its loop.
type conn struct {
	fd    int // -1 until dialed
	addr  netip.AddrPort
	kind  kind
	state state
	armed bool   // EPOLLOUT is on
	in    []byte // the front of a message that is not all there
	out   []byte // what the socket did not take

	dialed, opened, first, last int64 // when; dialed first, of what may take several attempts; last the newest event

	head []byte // of its requests: a subscriber's without the request line, a publisher's up to the length

	// Subscriber.
	via      Transport
	path     string // and query, without where it stands
	cursor   []byte // where it stands; empty: nowhere yet
	caughtUp int
	chunks   *chunks       // nil: what comes is not chunked
	retry    time.Duration // when the server said to come back
	leaving  bool          // it was told to go
	receiver receiver

	slow   bool // one of those that nobody waits for, and that may be cut
	asleep bool // not in the epoll set: it does not read, or sips

	// Publisher.
	target   int  // of many streams: the one in flight
	timed    bool // a bareSender: its orders begin with when they were due
	events   int  // in the request in flight
	intended int64
	lane     int
	seq      uint64
	stream   *stream
	answered *marks // of its sequence, what was taken; nil: nobody asks
}

// loop owns sockets: one goroutine runs it, nothing else touches it while it runs.
type loop struct {
	clock    *clock
	size     int  // dials in flight at most
	blocking bool // wait in the kernel, on an own thread, for the least latency
	stamped  bool // what comes came when the kernel had it, not when this process got to it; set before dialing
	stop     *atomic.Bool

	epfd, timer int
	park        *os.File
	raw         syscall.RawConn
	events      []unix.EpollEvent
	ready       int // of events
	waitErr     error
	poll        func(uintptr) bool
	armed       int64

	buf     []byte
	control []byte // what the kernel says beside what it read
	scratch []byte // requests and chunked answers
	bare    []byte // a frame for the floor server
	msg     message

	conns   []conn
	next    int         // to dial
	later   []returning // to dial again
	flight  int
	opened  int // conns that are open
	checker checker
	prompt  uint64    // events at receivers that are not slow
	latency Histogram // of those, from intended to received
	dials   Histogram // from dial to subscribed
	pub     *schedule

	patient  bool // who is refused comes back when told; it is no fault
	refusals uint64
	cut      uint64 // slow readers that the server gave up on

	sips sips
}

// returning is a connection that comes back.
type returning struct {
	at int64
	i  int
}

func newLoop(c *clock, stop *atomic.Bool) (*loop, error) {
	l := &loop{clock: c, size: 512, stop: stop, epfd: -1, timer: -1}
	var err error
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("bench: epoll_create1: %w", err)
	}
	if err = unix.SetNonblock(l.epfd, true); err != nil {
		return nil, fmt.Errorf("bench: epoll: %w", err)
	}
	l.park = os.NewFile(uintptr(l.epfd), "epoll")
	if l.raw, err = l.park.SyscallConn(); err != nil {
		return nil, fmt.Errorf("bench: epoll: %w", err)
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("bench: timerfd: %w", err)
	}
	// Edge-triggered: an expiry is told once and need not be read away.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: timerSlot}
	if err = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, l.timer, &ev); err != nil {
		return nil, fmt.Errorf("bench: timerfd: %w", err)
	}
	l.events = make([]unix.EpollEvent, batch)
	l.buf = make([]byte, readBuffer)
	l.poll = func(fd uintptr) bool {
		l.ready, l.waitErr = unix.EpollWait(int(fd), l.events, 0)
		return l.ready > 0 || l.waitErr != nil && !errors.Is(l.waitErr, unix.EINTR)
	}
	return l, nil
}

// close resets every connection, so that a run leaves no TIME_WAIT behind.
func (l *loop) close() {
	for i := range l.conns {
		l.hangUp(&l.conns[i])
	}
	if l.timer >= 0 {
		_ = unix.Close(l.timer)
	}
	if l.park != nil {
		_ = l.park.Close()
	}
}

func (l *loop) hangUp(c *conn) {
	if c.state == gone || c.fd < 0 {
		return
	}
	if c.state == open {
		l.opened--
	} else {
		l.flight--
	}
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(c.fd)
	c.state, c.in, c.out, c.armed, c.asleep = gone, nil, nil, false, false
}

// run turns until done says so, the stop flag is raised or something is wrong
// with the machine. done is asked once per turn.
func (l *loop) run(done func(now int64) bool) error {
	for {
		now := l.clock.now()
		if err := l.dialMore(now); err != nil {
			return err
		}
		l.pump(now)
		l.sip(now)
		if done(now) {
			return nil
		}
		if l.stop.Load() {
			return errStopped
		}
		if err := l.wait(now); err != nil {
			return err
		}
		for i := range l.ready {
			ev := &l.events[i]
			if ev.Fd == timerSlot {
				l.armed = 0
				continue
			}
			now = l.ev(int(ev.Fd), ev.Events)
			l.pump(now)
		}
	}
}

func (l *loop) wait(now int64) error {
	at := now + int64(tick)
	if due := l.due(); due != 0 {
		at = min(at, max(due, now+1))
	}
	if l.armed <= now || at < l.armed {
		spec := unix.ItimerSpec{Value: unix.NsecToTimespec(l.clock.mono + at)}
		if err := unix.TimerfdSettime(l.timer, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
			return fmt.Errorf("bench: timerfd: %w", err)
		}
		l.armed = at
	}
	if l.blocking {
		for {
			if l.ready, l.waitErr = unix.EpollWait(l.epfd, l.events[:16], -1); !errors.Is(l.waitErr, unix.EINTR) {
				break
			}
		}
	} else if err := l.raw.Read(l.poll); err != nil {
		return fmt.Errorf("bench: epoll: %w", err)
	}
	if l.waitErr != nil {
		return fmt.Errorf("bench: epoll_wait: %w", l.waitErr)
	}
	return nil
}

func (l *loop) dialMore(now int64) error {
	for l.next < len(l.conns) && l.flight < l.size {
		if err := l.dial(l.next); err != nil {
			return err
		}
		l.next++
	}
	waiting := l.later[:0]
	for _, r := range l.later {
		if r.at > now || l.flight >= l.size {
			waiting = append(waiting, r)
			continue
		}
		if err := l.dial(r.i); err != nil {
			return err
		}
	}
	l.later = waiting
	return nil
}

// settled reports whether nobody is on the way to the server.
func (l *loop) settled() bool { return l.next == len(l.conns) && l.flight == 0 && len(l.later) == 0 }

// again ends a connection and lets it come back, to where it was.
func (l *loop) again(i int, c *conn, after time.Duration) {
	l.hangUp(c)
	l.later = append(l.later, returning{l.clock.now() + int64(after), i})
}

func (l *loop) dial(i int) error {
	c := &l.conns[i]
	family := unix.AF_INET
	if c.addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bench: socket %d: %w", i, err)
	}
	c.fd, c.dialed, c.state = fd, cmp.Or(c.dialed, l.clock.now()), dialing
	c.caughtUp, c.chunks, c.retry, c.leaving, c.receiver.n = 0, nil, 0, false, 0
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("bench: TCP_NODELAY: %w", err)
	}
	if err = bindSource(fd, i, c.addr); err != nil {
		return err
	}
	if l.stamped {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return fmt.Errorf("bench: SO_TIMESTAMPNS: %w", err)
		}
	}
	if c.slow { // now, as the other end remembers the largest window it saw
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, slowBuffer); err != nil {
			return fmt.Errorf("bench: SO_RCVBUF: %w", err)
		}
	}
	err = unix.Connect(fd, sockaddr(c.addr))
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("bench: connection %d: %w", i, err)
	}
	// On this machine it is connected by now though connect says it is in progress;
	// elsewhere the first write waits for it, and tells when it fails.
	l.flight++
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("bench: epoll: %w", err)
	}
	l.connected(i, c)
	return nil
}

// perSource is how many connections share a source address. connect(2) looks for
// a free port among half of 28,000; when they run short the search costs more
// than the connection.
const perSource = 3000

// bindSource gives a connection to this machine one of the addresses of 127/8.
func bindSource(fd, i int, to netip.AddrPort) error {
	if !to.Addr().Is4() || !to.Addr().IsLoopback() || i < perSource {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return fmt.Errorf("bench: IP_BIND_ADDRESS_NO_PORT: %w", err)
	}
	k := i/perSource + 1
	from := &unix.SockaddrInet4{Addr: [4]byte{127, 0, byte(k >> 8), byte(k)}}
	if err := unix.Bind(fd, from); err != nil {
		return fmt.Errorf("bench: bind to 127.0.%d.%d: %w", k>>8, k&0xff, err)
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func (l *loop) connected(i int, c *conn) {
	if c.kind == subscriber {
		c.state = upgrading
		l.ask(i, c)
		return
	}
	if c.kind == bareReader {
		c.state = subscribing // until the floor server has accepted it
		l.send(i, c, binary.BigEndian.AppendUint32(nil, uint32(c.receiver.id)))
		return
	}
	l.isOpen(i, c)
}

func (l *loop) isOpen(i int, c *conn) {
	if c.state == gone {
		return
	}
	c.state, c.opened = open, l.clock.now()
	l.flight--
	l.opened++
	if c.kind == publisher || c.kind == bareSender {
		l.pub.rest(i, c)
		return
	}
	l.dials.Record(c.opened - c.dialed)
	if c.slow && l.sips.on {
		l.doze(i, c)
	}
}

// send writes now what the socket takes and the rest when it takes more.
func (l *loop) send(i int, c *conn, b []byte) {
	if len(c.out) == 0 {
		n, err := unix.Write(c.fd, b)
		if err != nil && err != unix.EAGAIN && err != unix.EINTR {
			l.lost(i, c, "write: %v", err)
			return
		}
		b = b[max(n, 0):]
	}
	if len(b) > 0 {
		c.out = append(c.out, b...)
		l.arm(i, c, true)
	}
}

func (l *loop) arm(i int, c *conn, on bool) {
	if c.armed == on || c.asleep {
		return
	}
	c.armed = on
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
	if on {
		ev.Events |= unix.EPOLLOUT
	}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, c.fd, &ev); err != nil {
		l.lost(i, c, "epoll: %v", err)
	}
}

// lost ends a connection that should have stayed. One of a slow reader may be
// ended; it comes back.
func (l *loop) lost(i int, c *conn, format string, args ...any) {
	if c.state == gone {
		return
	}
	if c.slow && c.state == open {
		l.cut++
		l.again(i, c, 0)
		return
	}
	l.checker.Closed++
	l.checker.note("connection %d: %s", i, fmt.Sprintf(format, args...))
	if c.kind == publisher && c.events > 0 {
		l.pub.failed(c, "connection lost")
	}
	l.hangUp(c)
}

// comeBack is how long a client waits that was refused and not told how long.
const comeBack = time.Second

// refused ends a connection that the server did not want, or wants no more.
func (l *loop) refused(i int, c *conn, after time.Duration, format string, args ...any) {
	if !l.patient || c.kind != subscriber {
		l.lost(i, c, format, args...)
		return
	}
	if after == 0 {
		after = comeBack
	}
	l.refusals++
	l.again(i, c, after)
}

// ev handles what epoll said of one connection and returns the time.
func (l *loop) ev(i int, what uint32) (now int64) {
	c := &l.conns[i]
	if c.state == gone {
		return l.clock.now()
	}
	if what&unix.EPOLLOUT != 0 {
		l.writable(i, c)
	}
	if what&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 && c.state != gone {
		return l.readable(i, c)
	}
	return l.clock.now()
}

func (l *loop) writable(i int, c *conn) {
	n, err := unix.Write(c.fd, c.out)
	if err != nil && err != unix.EAGAIN && err != unix.EINTR {
		l.lost(i, c, "write: %v", err)
		return
	}
	if c.out = c.out[max(n, 0):]; len(c.out) == 0 {
		c.out = nil
		l.arm(i, c, false)
	}
}

func (l *loop) readable(i int, c *conn) (now int64) { return l.read(i, c, len(l.buf)) }

// read reads what is there, but no more than so many bytes, and takes what can be
// taken.
func (l *loop) read(i int, c *conn, limit int) (now int64) {
	kept := copy(l.buf, c.in)
	n, now, err := l.receive(c, l.buf[kept:min(kept+limit, len(l.buf))])
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return now
	case err != nil:
		l.lost(i, c, "read: %v", err)
		return now
	case n == 0:
		l.ended(i, c)
		return now
	}
	b := l.buf[:kept+n]
	if c.chunks != nil {
		if b = l.unchunk(i, c, b, kept); b == nil {
			return now
		}
	}
	taken := 0
	for c.state != gone {
		var size int
		switch {
		case c.kind == publisher:
			size = l.answer(i, c, b[taken:], now)
		case c.via == LongPoll:
			size = l.page(i, c, b[taken:], now)
		case c.state == upgrading && c.via == SSE:
			if size = l.streaming(i, c, b[taken:]); size > 0 && c.chunks != nil {
				if b = l.unchunk(i, c, b, taken+size); b == nil {
					return now
				}
			}
		case c.state == upgrading:
			size = l.upgraded(i, c, b[taken:])
		case c.via == SSE:
			size = l.block(i, c, b[taken:], now)
		default:
			size = l.frame(i, c, b[taken:], now)
		}
		if size == 0 {
			break
		}
		taken += size
	}
	if c.state == gone {
		return now
	}
	if c.chunks != nil && c.chunks.over {
		l.ended(i, c)
		return now
	}
	rest := b[taken:]
	switch {
	case len(rest) == 0:
		c.in = nil
	case len(rest) == len(l.buf):
		l.checker.Protocol++
		l.lost(i, c, "a message over %d bytes", len(l.buf))
	default:
		c.in = append(c.in[:0], rest...)
	}
	return now
}

// receive reads what is there, and says when it had come.
func (l *loop) receive(c *conn, p []byte) (n int, now int64, err error) {
	if !l.stamped {
		n, err = unix.Read(c.fd, p)
		return n, l.clock.now(), err
	}
	if l.control == nil {
		l.control = make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{}))))
	}
	n, controlled, _, _, err := unix.Recvmsg(c.fd, p, l.control, 0)
	now, wall := l.clock.now(), time.Now().UnixNano()
	if err != nil {
		return n, now, err
	}
	messages, err := unix.ParseSocketControlMessage(l.control[:controlled])
	if err != nil {
		return n, now, fmt.Errorf("bench: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			at := int64(binary.NativeEndian.Uint64(m.Data))*1e9 + int64(binary.NativeEndian.Uint64(m.Data[8:]))
			now -= max(wall-at, 0)
		}
	}
	return n, now, nil
}

// unchunk takes apart what stands in b from some place on. It is nil when that
// cannot be read; the connection then is over.
func (l *loop) unchunk(i int, c *conn, b []byte, from int) []byte {
	n, _, err := c.chunks.decode(b[from:])
	if err != nil {
		l.checker.Protocol++
		l.lost(i, c, "%v", err)
		return nil
	}
	return b[:from+n]
}

// ended is for a connection that the server ended without a word. It may end that
// of a publisher that has nothing to say for long.
func (l *loop) ended(i int, c *conn) {
	if c.kind == publisher && c.events == 0 {
		l.pub.idle = slices.DeleteFunc(l.pub.idle, func(k int) bool { return k == i })
		l.again(i, c, 0)
		return
	}
	if c.leaving {
		l.refused(i, c, c.retry, "the server ended it")
		return
	}
	l.lost(i, c, "the server ended it")
}
