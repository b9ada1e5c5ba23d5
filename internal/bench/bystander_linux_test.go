package bench

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// idlePublisher is a loop with one publisher that is connected, and the other end.
func idlePublisher(t *testing.T, stamped bool) (*loop, net.Conn) {
	t.Helper()
	clock, err := newClock()
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLoop(clock, new(atomic.Bool))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l.stamped = stamped
	l.pub = &schedule{pick: ownLane}
	l.conns = []conn{{
		fd: -1, kind: publisher, addr: netip.MustParseAddrPort(ln.Addr().String()),
		stream: &stream{run: "r", org: "o", eventType: "a.b"},
	}}
	if err := l.dialMore(l.clock.now()); err != nil {
		t.Fatal(err)
	}
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	return l, peer
}

// A bystander that does not get its processor at once still says when an answer came.
func TestWhatComesCameWhenTheKernelHadIt(t *testing.T) {
	l, peer := idlePublisher(t, true)
	c := &l.conns[0]
	var sent, at int64
	for range 50 { // the kernel may take a moment to begin with it
		sent = l.clock.now()
		if _, err := peer.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, 5000); n != 1 {
			t.Fatal(n, err)
		}
		there := l.clock.now()
		<-time.After(20 * time.Millisecond) // others have the processor
		n, now, err := l.receive(c, l.buf)
		if err != nil || string(l.buf[:n]) != "answer" {
			t.Fatalf("%q, %v", l.buf[:n], err)
		}
		const skew = int64(time.Millisecond) // between the two clocks
		if at = now; at >= sent-skew && at <= there+skew {
			return
		}
	}
	t.Errorf("it is said to have come %v after it was sent, and lay there for 20ms", time.Duration(at-sent))
}

// What a bystander sends late for want of a processor is no fault of the server; what
// waited for an answer is.
func TestWhatIsSentLateCountsFromWhenItWasSentUnlessNobodyWasIdle(t *testing.T) {
	l, _ := idlePublisher(t, false)
	s, c := l.pub, &l.conns[0]
	s.lenient = true
	begin := l.clock.now()
	s.begin(begin-int64(time.Second), 1000, 1<<20, 0) // a second late
	l.pump(l.clock.now())
	if s.sent != 1 || c.intended < begin {
		t.Fatalf("%d sent, the last was due at %v", s.sent, time.Duration(c.intended-begin))
	}
	if s.late.Max() < 900*time.Millisecond {
		t.Errorf("it says that it was sent %v late", s.late.Max())
	}
	s.busy, c.events = 0, 0
	s.rest(0, c) // it is answered, and the next has waited for that
	l.pump(l.clock.now())
	if s.sent != 2 || c.intended > begin {
		t.Errorf("%d sent, the last was due at %v", s.sent, time.Duration(c.intended-begin))
	}
}
