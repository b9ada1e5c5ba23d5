package ws

import (
	"context"
	"testing"
	"unsafe"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/wire"
)

type nobody struct{}

func (nobody) Ready() {}

// onShard runs f with a connection without a socket, on its shard.
func onShard(t *testing.T, h *handler, f func(c *looped)) {
	t.Helper()
	e := memory.New(memory.Config{})
	all := hub.New(hub.Config{Engine: e, Shards: 1})
	if err := all.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		all.Stop()
		_ = e.Close(context.Background())
	}()
	h.Core = session.NewCore(session.Config{Hub: all, IDs: wire.NewKeyring(make([]byte, 32))})
	done := make(chan struct{})
	shard := all.Shard()
	shard.Post(hub.TaskFunc(func() {
		defer close(done)
		c := &looped{handler: h}
		c.session = h.Core.NewOn(shard, session.Options{Principal: &carillon.Principal{Org: "acme", User: "alice"}, Conn: nobody{}})
		defer c.session.Gone()
		f(c)
	}))
	<-done
}

const masked = "\x80\x00\x00\x00\x00" // an empty payload

func TestAConnectionKeepsNothingOfWhatIsWhole(t *testing.T) {
	onShard(t, newHandler(Config{}), func(c *looped) {
		const message = "\x81\x82\x00\x00\x00\x00{}"
		for _, b := range []string{"\x8a" + masked, message, message + message, "\x01" + masked + "\x80" + masked} {
			for cut := range len(b) {
				if n := c.Input([]byte(b[:cut])); n != cut {
					t.Fatalf("%d of %d bytes were taken", n, cut)
				}
				if n := c.Input([]byte(b[cut:])); n != len(b)-cut {
					t.Fatalf("%d of %d bytes were taken", n, len(b)-cut)
				}
				if c.begun != nil {
					t.Fatalf("of %q, cut after %d bytes, something is kept", b, cut)
				}
				c.count = 0
			}
		}
		if c.deaf {
			t.Error("the connection was closed")
		}
	})
	if size := unsafe.Sizeof(looped{}); size > 80 {
		t.Errorf("a connection is %d bytes, which take a piece of 96", size)
	}
}

func TestFramesThatAreNoMessageAreCountedHoweverTheyCome(t *testing.T) {
	for _, most := range []int{10, 70_000} { // also more than an idle connection can note
		for _, at := range []int{1, 3} {
			h := newHandler(Config{ControlFrames: most})
			onShard(t, h, func(c *looped) {
				ping := []byte("\x8a" + masked)
				sent := 0
				for ; !c.deaf && sent <= 2*most; sent++ {
					c.Input(ping[:at])
					c.Input(ping[at:])
				}
				if sent <= most { // more, should a minute begin meanwhile
					t.Errorf("closed after %d, want %d", sent, most+1)
				}
				if !c.deaf {
					t.Errorf("still open after %d", sent)
				}
			})
		}
	}
}
