package loop_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon/internal/loop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// owner hands out what it is given, on a goroutine of its own.
type owner struct {
	tasks chan func() // never closed
	quit  chan struct{}
	done  sync.WaitGroup

	queue [][]byte // owned by its goroutine
	last  bool
	pulls int
	ready func()
}

func newOwner(t *testing.T) *owner {
	o := &owner{tasks: make(chan func(), 100), quit: make(chan struct{})}
	o.done.Go(func() {
		for {
			select {
			case f := <-o.tasks:
				f()
			case <-o.quit:
				return
			}
		}
	})
	t.Cleanup(func() { close(o.quit); o.done.Wait() })
	return o
}

func (o *owner) Post(f func()) {
	select {
	case o.tasks <- f:
	case <-o.quit:
	}
}

// Due takes the turn at once.
func (o *owner) Due() { o.ready() }

func (o *owner) Pull(dst [][]byte) ([][]byte, bool) {
	o.pulls++
	dst = append(dst, o.queue...)
	o.queue = o.queue[:0]
	return dst, o.last
}

// wait runs f on the owner's goroutine and waits for it.
func (o *owner) wait(f func()) {
	done := make(chan struct{})
	o.Post(func() { f(); close(done) })
	<-done
}

// pair is a connection, both sides of it.
func pair(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
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

// hidden is a connection without what only TCP has.
type hidden struct{ net.Conn }

func (h hidden) CloseWrite() error { return h.Conn.(*net.TCPConn).CloseWrite() }

// serve makes a socket whose reader drains; gone is closed behind it.
func serve(all *loop.Sockets, conn net.Conn, o *owner) (k *loop.Socket, gone chan struct{}) {
	k, gone = new(loop.Socket), make(chan struct{})
	o.ready = k.Ready
	all.Init(k, conn, o)
	all.Go(k, k.Drain, func() { close(gone) })
	return k, gone
}

func each(t *testing.T, f func(t *testing.T, wrap func(net.Conn) net.Conn)) {
	t.Run("TCP", func(t *testing.T) { f(t, func(c net.Conn) net.Conn { return c }) })
	t.Run("another connection", func(t *testing.T) { f(t, func(c net.Conn) net.Conn { return hidden{c} }) })
}

func TestEverythingQueuedIsWrittenInOrderAndTheLastEnds(t *testing.T) {
	each(t, func(t *testing.T, wrap func(net.Conn) net.Conn) {
		ours, theirs := pair(t)
		o := newOwner(t)
		k, gone := serve(new(loop.Sockets), wrap(ours), o)
		var want []byte
		for i := range 300 {
			b := bytes.Repeat([]byte{byte(i)}, i*7%5000)
			want = append(want, b...)
			o.Post(func() { o.queue = append(o.queue, b); k.Ready() })
		}
		o.Post(func() { o.last = true; k.Ready() })
		got, err := io.ReadAll(theirs)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes came, %v; want %d", len(got), err, len(want))
		}
		if err := theirs.Close(); err != nil {
			t.Fatal(err)
		}
		<-gone
		o.wait(func() {
			if !k.Over() {
				t.Error("it is not over")
			}
		})
	})
}

// around is a connection around another one, for those who ask who the peer is.
type around struct {
	net.Conn
	bare net.Conn
}

func (a around) Bare() net.Conn { return a.bare }

func TestWhatIsOnlyAroundAConnectionIsLeftOut(t *testing.T) {
	ours, theirs := pair(t)
	o := newOwner(t)
	k, gone := serve(new(loop.Sockets), around{nil, ours}, o) // every use of it would panic
	o.Post(func() { o.queue, o.last = append(o.queue, []byte("bye")), true; k.Ready() })
	if b, err := io.ReadAll(theirs); string(b) != "bye" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	_ = theirs.Close()
	<-gone
}

func TestAnIdlePortHasOneGoroutine(t *testing.T) {
	ours, theirs := pair(t)
	o := newOwner(t)
	before := runtime.NumGoroutine()
	k, gone := serve(new(loop.Sockets), ours, o)
	o.wait(func() { o.queue = append(o.queue, []byte("hello")); k.Ready() })
	if _, err := io.ReadFull(theirs, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	idle := func() (yes bool) { // it has asked again, and got nothing
		o.wait(func() { yes = o.pulls == 2 })
		return yes
	}
	for !idle() {
	}
	for runtime.NumGoroutine() > before+1 {
		runtime.Gosched()
	}
	_ = theirs.Close()
	<-gone
}

// The deadline counts from the last byte that went out.
func TestASlowReaderThatTakesSomethingIsWaitedFor(t *testing.T) {
	t.Run("TCP", func(t *testing.T) {
		ours, theirs := pair(t)
		o := newOwner(t)
		const timeout = time.Second
		k, gone := serve(&loop.Sockets{WriteTimeout: timeout, SendBuffer: 64 << 10}, ours, o)
		const total = 12 << 20
		start := time.Now()
		o.Post(func() {
			for range 64 {
				o.queue = append(o.queue, make([]byte, total/64))
			}
			o.last = true
			k.Ready()
		})
		// Longer than the deadline altogether, with pauses shorter than it.
		pause := time.NewTicker(timeout / 20)
		defer pause.Stop()
		n := 0
		for ; time.Since(start) < 2*timeout; <-pause.C {
			m, err := theirs.Read(make([]byte, 256<<10))
			if n += m; err != nil {
				t.Fatalf("after %d bytes: %v", n, err)
			}
		}
		rest, err := io.Copy(io.Discard, theirs)
		if err != nil || n+int(rest) != total {
			t.Fatalf("%d bytes came, %v", n+int(rest), err)
		}
		_ = theirs.Close()
		<-gone
	})
	t.Run("another connection", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			o := newOwner(t)
			k, gone := serve(new(loop.Sockets), ours, o)
			const total = 100 << 10
			o.Post(func() { o.queue = append(o.queue, make([]byte, 10), make([]byte, total-10)); k.Ready() })
			for n := 0; n < total; n += 4 << 10 {
				time.Sleep(loop.DefaultWriteTimeout - time.Millisecond) //nolint:forbidigo // in a bubble: no time passes
				if _, err := io.ReadFull(theirs, make([]byte, 4<<10)); err != nil {
					t.Fatalf("after %d bytes: %v", n, err)
				}
			}
			_ = theirs.Close()
			<-gone
		})
	})
}

func TestAReaderThatTakesNothingIsCut(t *testing.T) {
	each(t, func(t *testing.T, wrap func(net.Conn) net.Conn) {
		ours, _ := pair(t)
		o := newOwner(t)
		all := &loop.Sockets{WriteTimeout: 50 * time.Millisecond}
		k, gone := serve(all, wrap(ours), o)
		o.Post(func() {
			o.queue = append(o.queue, make([]byte, 32<<20))
			k.Ready()
		})
		<-gone
		<-k.Ended()
		for over := false; !over; {
			o.wait(func() { over = k.Over() })
		}
		if err := all.Close(t.Context()); err != nil || all.Stats().Open != 0 { // it is counted until gone has returned
			t.Errorf("%d are counted, %v", all.Stats().Open, err)
		}
	})
}

// Whoever does not end their side is not waited for longer than Linger.
func TestAPeerThatDoesNotEndIsNotWaitedForLong(t *testing.T) {
	ours, theirs := pair(t)
	o := newOwner(t)
	k, gone := serve(&loop.Sockets{Linger: 50 * time.Millisecond}, ours, o)
	o.Post(func() { o.queue, o.last = append(o.queue, []byte("bye")), true; k.Ready() })
	if b, err := io.ReadAll(theirs); string(b) != "bye" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	<-gone
}

func TestCloseEndsAllAndWhatComesLater(t *testing.T) {
	o := newOwner(t)
	all := new(loop.Sockets)
	var gone []chan struct{}
	for range 3 {
		ours, _ := pair(t)
		_, g := serve(all, ours, o)
		gone = append(gone, g)
	}
	if all.Stats().Open != 3 {
		t.Errorf("%d are open", all.Stats().Open)
	}
	if err := all.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, g := range gone {
		<-g
	}
	ours, theirs := pair(t)
	_, late := serve(all, ours, o)
	<-late
	if _, err := theirs.Read(make([]byte, 1)); err == nil {
		t.Error("a connection made after Close is open")
	}
	if err := all.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestCloseWaitsNoLongerThanItMay(t *testing.T) {
	o := newOwner(t)
	all := new(loop.Sockets)
	ours, _ := pair(t)
	k, hold := new(loop.Socket), make(chan struct{})
	o.ready = k.Ready
	all.Init(k, ours, o)
	all.Go(k, func() { <-hold }, func() {})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := all.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(hold)
	if err := all.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// A port may write on a goroutine that somebody chose.
func TestAPortWritesWhereItIsTold(t *testing.T) {
	o := newOwner(t)
	w := &writer{ended: make(chan error, 1)}
	var p loop.Port
	work := make(chan func(), 1)
	o.ready = p.Ready
	p.Init(o, w, func(f func()) { work <- f })
	o.Post(func() { o.queue = append(o.queue, []byte("a"), []byte("b")); p.Ready(); p.Ready() })
	f := <-work
	o.wait(func() { o.queue = append(o.queue, []byte("c")); p.Ready() }) // while it writes
	f()
	(<-work)()
	o.Post(func() { o.last = true; p.Ready() })
	(<-work)()
	if err := <-w.ended; err != nil || w.String() != "abc" {
		t.Errorf("%q, %v", w.String(), err)
	}
}

func TestAPortThatFailedAsksForNothing(t *testing.T) {
	o := newOwner(t)
	w := &writer{ended: make(chan error, 1), err: os.ErrDeadlineExceeded}
	var p loop.Port
	o.ready = p.Ready
	p.Init(o, w, nil)
	o.Post(func() { o.queue = append(o.queue, []byte("x")); p.Ready() })
	if err := <-w.ended; err == nil {
		t.Error("an error ended it in an orderly way")
	}
	for over := false; !over; {
		o.wait(func() { over = p.Over() })
	}
	o.wait(func() { p.Ready() })
	if o.wait(func() {}); o.pulls != 1 {
		t.Errorf("%d pulls", o.pulls)
	}
}

type writer struct {
	bytes.Buffer
	err   error
	ended chan error
}

func (w *writer) WriteAll(bufs [][]byte) error {
	for _, b := range bufs {
		w.Write(b)
	}
	return w.err
}

func (w *writer) Finish() { w.ended <- nil }
func (w *writer) Abort()  { w.ended <- errors.New("aborted") }
