package loop_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carillon-rt/carillon/internal/loop"
)

// shard runs a loop as a shard does: what it is told, its sockets, and then it
// waits.
type shard struct {
	*loop.Loop

	mu    sync.Mutex // guards what follows
	tasks []func()
	quit  bool
}

func newShard(t *testing.T) *shard {
	t.Helper()
	s := &shard{Loop: newLoop(t)}
	var done sync.WaitGroup
	done.Go(s.run)
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.quit = true
		s.mu.Unlock()
		s.Wake()
		done.Wait()
	})
	return s
}

func newLoop(t *testing.T) *loop.Loop {
	t.Helper()
	l, err := loop.NewLoop(new(loop.Sockets))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.End)
	return l
}

func (s *shard) run() {
	for {
		s.mu.Lock()
		tasks, quit := s.tasks, s.quit
		s.tasks = nil
		s.mu.Unlock()
		if quit {
			return
		}
		for _, f := range tasks {
			f()
		}
		if s.Serve() {
			s.Wait(0)
		} else {
			s.Wait(-1)
		}
	}
}

func (s *shard) post(f func()) {
	s.mu.Lock()
	s.tasks = append(s.tasks, f)
	s.mu.Unlock()
	s.Wake()
}

// do runs f on the shard and waits for it.
func (s *shard) do(f func()) {
	done := make(chan struct{})
	s.post(func() { f(); close(done) })
	<-done
}

// until waits until f says so on the shard.
func (s *shard) until(f func() bool) {
	for yes := false; !yes; {
		s.do(func() { yes = f() })
	}
}

// talker is the owner of a link. Its fields are the shard's goroutine's.
type talker struct {
	loop.Link

	s     *shard
	fd    int
	gone  chan struct{}
	queue [][]byte
	last  bool
	got   []byte
	take  func(b []byte) int // nil: all
	heard int                // how often it was called, where that is counted
	alarm time.Time
	now   time.Time // of the last turn: no two are alike
}

func (k *talker) Pull(dst [][]byte) ([][]byte, bool) {
	dst = append(dst, k.queue...)
	k.queue = nil
	return dst, k.last
}

func (k *talker) Input(b []byte) int {
	n := len(b)
	if k.take != nil {
		n = k.take(b)
	}
	k.got = append(k.got, b[:n]...)
	return n
}

func (k *talker) Alarm(at time.Time) { k.alarm = at }

func (k *talker) Now() time.Time {
	k.now = k.now.Add(1)
	return k.now
}

func (k *talker) Gone() { close(k.gone) }

// talk adopts one side of a connection and gives it to the shard, with what was
// read from it before.
func (s *shard) talk(t *testing.T, conn net.Conn, sendBuffer int, before string) *talker {
	t.Helper()
	fd, ok := loop.Adopt(conn, sendBuffer)
	if !ok {
		t.Fatal("a TCP connection was not adopted")
	}
	k := &talker{s: s, fd: fd, gone: make(chan struct{}), now: time.Unix(0, 0)}
	s.do(func() { k.Open(s.Loop, fd, []byte(before), k) })
	return k
}

// say has the link write.
func (k *talker) say(last bool, bufs ...[]byte) {
	k.s.do(func() {
		k.queue, k.last = append(k.queue, bufs...), last
		k.Ready()
	})
}

// unread is how many bytes of the socket the peer has not taken.
func (k *talker) unread() int {
	n, _ := unix.IoctlGetInt(k.fd, unix.TIOCOUTQ)
	return n
}

// slowPair is a connection whose client has small segments and a small buffer, so
// that the server's kernel hears of every little that it takes.
func slowPair(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10))
		}), err)
	}}
	client, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return server.(*net.TCPConn), client.(*net.TCPConn)
}

// pieces are more buffers than one writev takes, of all sizes, some of them
// empty.
func pieces(n int) (bufs [][]byte, all []byte) {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	for range n {
		b := make([]byte, random.IntN(1200)/(1+random.IntN(40)))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		bufs, all = append(bufs, b), append(all, b...)
	}
	return bufs, all
}

func TestALoopWritesInOrderWhatASlowSocketTakesInPieces(t *testing.T) {
	s := newShard(t)
	ours, theirs := slowPair(t)
	k := s.talk(t, ours, 4<<10, "")
	bufs, want := pieces(3000)
	k.say(false, bufs...)
	s.do(func() {
		if !k.Blocked() || k.alarm.IsZero() {
			t.Error("the socket takes everything at once")
		}
	})
	if st := s.Stats(); st.Open != 1 || st.Full != 1 || st.Kept == 0 || st.Kept > int64(len(want)) {
		t.Errorf("while it is full: %+v", st)
	}
	more, rest := pieces(100) // is not lost although it comes meanwhile
	k.say(true, more...)
	got, err := io.ReadAll(theirs)
	if err != nil || !bytes.Equal(got, append(want, rest...)) {
		t.Fatalf("%d of %d bytes came, or others: %v", len(got), len(want)+len(rest), err)
	}
	if st := s.Stats(); st.Open != 1 || st.Full != 0 || st.Kept != 0 {
		t.Errorf("when all is out: %+v", st)
	}
	_ = theirs.Close()
	<-k.gone
}

func TestAPeerThatTakesNothingIsEndedByTheAlarm(t *testing.T) {
	s := newShard(t)
	ours, theirs := slowPair(t)
	k := s.talk(t, ours, 0, "")
	k.say(false, make([]byte, 4<<20))
	s.until(func() bool { // what its kernel takes counts too, until that is full
		k.Link.Alarm()
		return k.Over()
	})
	<-k.gone
	if st := s.Stats(); st != (loop.Stats{}) {
		t.Errorf("then: %+v", st)
	}
	if n, err := io.Copy(io.Discard, theirs); n >= 4<<20 {
		t.Errorf("everything came, %v", err)
	}
}

// A socket has room again only when the peer has taken a good deal. One that
// takes less is slow, not gone.
func TestAPeerThatTakesLittleIsNotEndedByTheAlarm(t *testing.T) {
	s := newShard(t)
	ours, theirs := slowPair(t)
	k := s.talk(t, ours, 0, "")
	k.say(true, make([]byte, 1<<20))
	s.until(func() bool { return !k.Moved() }) // it has taken what fits
	for range 10 {
		var before int
		s.do(func() { before, k.alarm = k.unread(), time.Time{} })
		for taken := false; !taken; {
			if _, err := theirs.Read(make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			s.do(func() { taken = k.unread() < before || !k.alarm.IsZero() })
		}
		s.do(func() {
			k.Link.Alarm()
			if k.Over() || k.alarm.IsZero() {
				t.Error("it was given up")
			}
		})
	}
	if _, err := io.Copy(io.Discard, theirs); err != nil {
		t.Error(err)
	}
	_ = theirs.Close()
	<-k.gone
}

func TestInputThatIsNotTakenIsOfferedAgain(t *testing.T) {
	s := newShard(t)
	ours, theirs := pair(t)
	_, want := pieces(2000)
	random := rand.New(rand.NewPCG(2, 2))
	k := &talker{}
	var offered int
	var quiet []byte // what was not taken in the last turn
	take := func(b []byte) int {
		if quiet != nil && !bytes.HasPrefix(b, quiet) {
			t.Error("what was not taken is not what comes first")
		}
		offered = max(offered, len(b))
		n := random.IntN(len(b) + 1)
		if quiet = nil; n < len(b) {
			quiet = slices.Clone(b[n:])
			if random.IntN(2) == 0 {
				k.Again() // in the next turn
			} else {
				go s.post(k.More) // some time
			}
		}
		return n
	}
	fd, ok := loop.Adopt(ours, 0)
	if !ok {
		t.Fatal("a TCP connection was not adopted")
	}
	*k = talker{s: s, fd: fd, gone: make(chan struct{}), take: take}
	before := "read with the handshake"
	s.do(func() { k.Open(s.Loop, fd, []byte(before), k) })
	ours, others := pair(t) // whose bytes are read in between
	s.talk(t, ours, 0, "")
	for b := range slices.Chunk(want, 1000) {
		if _, err := theirs.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := others.Write(make([]byte, 2000)); err != nil {
			t.Fatal(err)
		}
	}
	_ = theirs.CloseWrite() // which is not seen before all is taken
	<-k.gone
	s.do(func() {
		if !bytes.Equal(k.got, append([]byte(before), want...)) {
			t.Errorf("%d of %d bytes came, or others", len(k.got), len(before)+len(want))
		}
	})
	if offered > 64<<10 {
		t.Errorf("%d bytes were offered at once", offered)
	}
}

// A link that does not take anything has its peer wait, not its memory grow.
func TestWhatIsNotTakenStaysInTheKernel(t *testing.T) {
	s := newShard(t)
	ours, theirs := pair(t)
	k := s.talk(t, ours, 0, "")
	calls := 0
	s.do(func() { k.take = func([]byte) int { calls++; return 0 } })
	sent := make(chan error, 1)
	go func() {
		_, err := theirs.Write(make([]byte, 64<<20))
		sent <- err
	}()
	s.until(func() bool { return calls > 0 })
	for range 1000 { // turns
		s.do(func() {})
	}
	select {
	case err := <-sent:
		t.Errorf("everything was sent, %v", err)
	default:
	}
	if calls != 1 {
		t.Errorf("it was offered %d times", calls)
	}
	s.do(k.Abort)
	<-sent
	<-k.gone
}

func TestAConnectionEndsWithItsPeer(t *testing.T) {
	idle := func(*testing.T, *talker, *net.TCPConn) {}
	blocked := func(t *testing.T, k *talker, _ *net.TCPConn) {
		k.say(false, make([]byte, 32<<20))
		if k.s.Stats().Full != 1 {
			t.Error("the socket takes everything")
		}
	}
	paused := func(t *testing.T, k *talker, theirs *net.TCPConn) {
		offered := false
		k.s.do(func() { k.take = func([]byte) int { offered = true; return 0 } })
		if _, err := theirs.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		k.s.until(func() bool { return offered })
	}
	ended := func(_ *testing.T, k *talker, theirs *net.TCPConn) {
		k.say(true, []byte("bye"))
		_, _ = io.ReadAll(theirs)
	}
	halfClose := func(c *net.TCPConn) { _ = c.CloseWrite() }
	reset := func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }
	for name, row := range map[string]struct {
		state func(*testing.T, *talker, *net.TCPConn)
		end   func(*net.TCPConn)
	}{
		"idle, half-closed":          {idle, halfClose},
		"idle, reset":                {idle, reset},
		"blocked, half-closed":       {blocked, halfClose},
		"blocked, reset":             {blocked, reset},
		"not taking, reset":          {paused, reset},
		"after our end, half-closed": {ended, halfClose},
		"after our end, reset":       {ended, reset},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShard(t)
			ours, theirs := pair(t)
			k := s.talk(t, ours, 0, "")
			row.state(t, k, theirs)
			row.end(theirs)
			<-k.gone
			if st := s.Stats(); st != (loop.Stats{}) {
				t.Errorf("then: %+v", st)
			}
		})
	}
}

// After our end the peer may take its time for its own, but not for ever, and
// what it says is not listened to.
func TestAPeerThatGoesOnAfterOurEndIsEndedByTheAlarm(t *testing.T) {
	s := newShard(t)
	ours, theirs := pair(t)
	k := s.talk(t, ours, 0, "")
	s.do(func() {
		if !k.alarm.IsZero() {
			t.Error("there is an alarm already")
		}
	})
	k.say(true, []byte("bye"))
	if b, err := io.ReadAll(theirs); string(b) != "bye" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := theirs.Write(make([]byte, 64<<20)); err != nil { // more than the kernel holds, so it is read
		t.Error(err)
	}
	s.do(func() {
		if k.Over() || k.alarm.IsZero() || len(k.got) > 0 {
			t.Errorf("over %t, alarm %v, %d bytes were heard", k.Over(), k.alarm, len(k.got))
		}
		k.Link.Alarm()
	})
	<-k.gone
}

func TestALoopThatIsClosedEndsAllAndRefusesOthers(t *testing.T) {
	s := newShard(t)
	var all []*talker
	for range 3 {
		ours, theirs := pair(t)
		all = append(all, s.talk(t, ours, 0, ""))
		if len(all) == 2 {
			all[1].say(false, make([]byte, 32<<20)) // in the middle of something
		}
		defer theirs.Close()
	}
	if n := s.Stats().Open; n != 3 {
		t.Errorf("%d are open", n)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	hold, held := make(chan struct{}), make(chan struct{})
	s.post(func() { close(held); <-hold })
	<-held
	if err := s.Close(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("it waited longer than it may: %v", err)
	}
	close(hold)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		<-k.gone
	}
	ours, theirs := pair(t)
	<-s.talk(t, ours, 0, "x").gone
	if _, err := theirs.Read(make([]byte, 1)); err == nil {
		t.Error("a connection made after Close is open")
	}
	if st := s.Stats(); st != (loop.Stats{}) {
		t.Errorf("then: %+v", st)
	}
}

// An event that was taken out before its connection ended is not for the next one
// in the same slot.
func TestAnEventOfAnEndedConnectionReachesNobody(t *testing.T) {
	l := newLoop(t)
	adopt := func() (fd int, theirs *net.TCPConn) {
		ours, theirs := pair(t)
		fd, _ = loop.Adopt(ours, 0)
		return fd, theirs
	}
	heard := func(k *talker) {
		k.take = func(b []byte) int { k.heard++; return len(b) }
		k.gone = make(chan struct{})
	}
	var first, second, third talker
	for _, k := range []*talker{&first, &second, &third} {
		heard(k)
	}
	spare, _ := adopt()
	first.take = func(b []byte) int {
		first.heard++
		second.Abort()
		third.Open(l, spare, nil, &third)
		return len(b)
	}
	for _, k := range []*talker{&first, &second} {
		fd, theirs := adopt()
		k.Open(l, fd, nil, k)
		if _, err := theirs.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if l.Serve() {
		t.Error("there is more")
	}
	if first.heard != 1 || second.heard != 0 || third.heard != 0 || third.Over() {
		t.Errorf("heard: %d, %d, %d", first.heard, second.heard, third.heard)
	}
	first.Abort()
	third.Abort()
}

func TestAWakeIsForTheNextWaitWhateverComesBetween(t *testing.T) {
	l := newLoop(t)
	l.Wake()
	l.Serve() // which finds it
	l.Wait(-1)
	l.Wake()
	l.Wait(-1)
	l.Serve()
	l.Wake()
	l.Wait(time.Hour)
	l.Wait(time.Nanosecond)
	go l.Wake()
	l.Wait(-1)
}

func TestNoWakeIsLost(t *testing.T) {
	s := newShard(t)
	var done atomic.Int64
	var wg sync.WaitGroup
	const goroutines, times = 8, 1000
	for range goroutines {
		wg.Go(func() {
			for range times {
				s.do(func() { done.Add(1) })
			}
		})
	}
	wg.Wait()
	if done.Load() != goroutines*times {
		t.Errorf("%d were done", done.Load())
	}
}

func TestABusyLoopLetsWhoWaitsForTheNetworkRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	l := newLoop(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var read atomic.Int32
	var reader sync.WaitGroup
	reader.Go(func() {
		for b := make([]byte, 1); ; {
			if _, err := r.Read(b); err != nil {
				return
			}
			read.Add(1)
		}
	})
	defer reader.Wait()
	defer func() { _, _ = w.Close(), r.Close() }()
	turn := func() { l.Serve(); l.Wait(0) }
	turn() // the reader waits now
	for i := range int32(20) {
		if _, err := w.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		for range 4 { // in one it is found ready, in another it runs
			turn()
		}
		if got := read.Load(); got != i+1 {
			t.Fatalf("%d of %d were read while the loop was busy", got, i+1)
		}
	}
}

func TestALoopTakesTCPConnectionsOnly(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	if _, ok := loop.Adopt(ours, 0); ok {
		t.Error("a pipe was adopted")
	}
	_ = ours.Close()
	tcp, _ := pair(t)
	_ = tcp.Close()
	if _, ok := loop.Adopt(tcp, 0); ok {
		t.Error("a closed connection was adopted")
	}
}

func TestDescriptorsAreGivenBack(t *testing.T) {
	descriptors := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	use := func(t *testing.T) {
		s := newShard(t)
		for i := range 60 {
			ours, theirs := pair(t)
			k := s.talk(t, ours, 0, "x")
			switch i % 6 {
			case 0:
				_ = theirs.Close()
				<-k.gone
			case 1:
				k.say(true, []byte("bye"))
				_ = theirs.Close()
				<-k.gone
			case 2:
				k.say(false, make([]byte, 8<<20))
			case 3:
				s.do(k.Abort)
			case 4:
				fd, _ := loop.Adopt(theirs, 0)
				loop.Drop(fd)
			}
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		ours, _ := pair(t)
		<-s.talk(t, ours, 0, "").gone
	}
	t.Run("the first time", use) // the runtime's own are there then
	before := descriptors()
	t.Run("again", use)
	if after := descriptors(); after > before {
		t.Errorf("%d are open, before it were %d", after, before)
	}
}

func TestWhatAPortIsPreparedWithItsConnectionsInherit(t *testing.T) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	all := loop.Sockets{SendBuffer: 32 << 10, UnansweredTimeout: 45 * time.Second}
	all.Prepare(l)
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct {
		name              string
		level, opt, value int
	}{
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 32 << 10},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 45_000},
		{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, 64 << 10}, // the kernel doubles it for its own records
	} {
		var got int
		err := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), o.level, o.opt) })
		if err != nil || got != o.value {
			t.Errorf("%s is %d, wanted %d (%v)", o.name, got, o.value, err)
		}
	}
}
