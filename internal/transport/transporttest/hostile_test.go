package transporttest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

// flood is a client that sends the same for ever.
type flood struct {
	name string
	conn net.Conn
	sent atomic.Int64
}

// run sends until the connection is closed on this side.
func (f *flood) run(t *testing.T, first, more []byte) {
	_, err := f.conn.Write(first)
	for err == nil {
		_, err = f.conn.Write(more)
		f.sent.Add(1)
	}
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("%s: it was cut: %v", f.name, err)
	}
}

// Whoever is slow, silent, endless or loud is on the same shard as clients that
// are none of it, and they get their events meanwhile.
func TestHostileClientsHurtNobodyElse(t *testing.T) {
	t.Parallel()
	const rounds, each = 4, 50
	n := transporttest.New(t, transporttest.Config{Hub: hub.Config{Shards: 1}, ControlFrames: math.MaxInt32})
	text := func(s string) []byte { return masked(ws.NewTextFrame([]byte(s))) }
	piece := func(op ws.OpCode, payload []byte) []byte { return masked(ws.NewFrame(op, false, payload)) }
	write := func(conn net.Conn, b []byte) {
		t.Helper()
		if _, err := conn.Write(b); err != nil {
			t.Error(err)
		}
	}
	var all sync.WaitGroup
	defer all.Wait()

	// They send what they can, and take all there is for it.
	var floods []*flood
	for name, says := range map[string]struct{ first, then []byte }{
		"pings":          {nil, masked(ws.NewPingFrame([]byte("x")))},
		"tiny messages":  {nil, text(`{"type":"ping"}`)},
		"tiny fragments": {piece(ws.OpText, nil), piece(ws.OpContinuation, nil)},
	} {
		f := &flood{name: name, conn: raw(t, n)}
		floods = append(floods, f)
		defer f.conn.Close()
		all.Go(func() { f.run(t, says.first, bytes.Repeat(says.then, 1000)) })
		all.Go(func() { _, _ = io.Copy(io.Discard, f.conn) })
	}
	// They take nothing, and have much to take.
	for range 3 {
		conn := raw(t, n)
		defer conn.Close()
		write(conn, text(`{"type":"subscribe","pattern":">"}`))
		all.Go(func() {
			for long := text(fmt.Sprintf(`{"type":"ping","ref":%q}`, bytes.Repeat([]byte("r"), 200))); ; {
				if _, err := conn.Write(long); err != nil {
					return
				}
			}
		})
	}
	// They begin, and do not go on.
	for _, b := range [][]byte{
		piece(ws.OpText, make([]byte, 1_000_000)),
		text(`{"type":"ping"}`)[:7],
		{0x81},
	} {
		conn := raw(t, n)
		defer conn.Close()
		write(conn, b)
	}
	drip, drops := raw(t, n), text(fmt.Sprintf(`{"type":"ping","ref":%q}`, bytes.Repeat([]byte("r"), rounds)))
	defer drip.Close()

	type good struct {
		client
		name string
	}
	var clients []good
	for _, door := range transporttest.Doors {
		if door.Stream {
			clients = append(clients, good{open(t, n, door, ask{Token: n.Token(t, "acme", "bob"), Patterns: []string{"a"}}), door.Name})
		}
	}
	begun := map[string]int64{}
	for i := range rounds {
		write(drip, drops[i:i+1])
		ids := n.Publish(t, "acme", "a", i*each+1, (i+1)*each)
		for _, c := range clients {
			for _, id := range ids {
				if m := next(t, c); m.ID != id {
					t.Fatalf("%s: got the event %s with %s, want %s", c.name, m.ID, m.Payload, id)
				}
			}
		}
		if i == 0 {
			for _, f := range floods {
				begun[f.name] = f.sent.Load()
			}
		}
	}
	for _, f := range floods { // they were at it all the time
		for f.sent.Load() == begun[f.name] {
			if n.Core.Count() == 0 {
				t.Fatal("the node is gone")
			}
		}
		_ = f.conn.Close()
	}
}
