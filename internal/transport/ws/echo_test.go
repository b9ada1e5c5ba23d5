package ws

import (
	"bytes"
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Where no loop has the connection, the echo is that of the portable reader.
func TestTheEchoNeedsNoLoops(t *testing.T) {
	e := memory.New(memory.Config{})
	all := hub.New(hub.Config{Engine: e, Shards: 1})
	if err := all.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var sockets loop.Sockets
	core := session.NewCore(session.Config{Hub: all, IDs: wire.NewKeyring(make([]byte, 32)), DeflateFrom: 1})
	srv := httptest.NewServer(Echo(Config{Core: core, Sockets: &sockets, FrameBytes: 3 << 20}))
	defer func() {
		srv.Close()
		if err := sockets.Close(context.Background()); err != nil || sockets.Stats().Open != 0 {
			t.Errorf("%v, %d are open", err, sockets.Stats().Open)
		}
		all.Stop()
		_ = e.Close(context.Background())
	}()
	for name, mode := range map[string]websocket.CompressionMode{"plain": websocket.CompressionDisabled, "compressed": websocket.CompressionNoContextTakeover} {
		t.Run(name, func(t *testing.T) {
			c, _, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{CompressionMode: mode})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			c.SetReadLimit(-1)
			for _, m := range []struct {
				kind websocket.MessageType
				data []byte
			}{
				{websocket.MessageText, []byte("")},
				{websocket.MessageText, []byte("é")},
				{websocket.MessageBinary, []byte{0xff}},
				{websocket.MessageText, bytes.Repeat([]byte("é"), 1<<20)},
			} {
				if err := c.Write(t.Context(), m.kind, m.data); err != nil {
					t.Fatal(err)
				}
				if kind, got, err := c.Read(t.Context()); err != nil || kind != m.kind || !bytes.Equal(got, m.data) {
					t.Errorf("%v with %d bytes, %v, want %v with %d", kind, len(got), err, m.kind, len(m.data))
				}
			}
			ctx := c.CloseRead(t.Context()) // takes the pong
			if err := c.Ping(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for want, send := range map[websocket.StatusCode]func(*websocket.Conn) error{
		1007: func(c *websocket.Conn) error { return c.Write(t.Context(), websocket.MessageText, []byte("\xff")) },
		1009: func(c *websocket.Conn) error {
			return c.Write(t.Context(), websocket.MessageText, []byte(strings.Repeat("a", 3<<20+1)))
		},
	} {
		c, _, err := websocket.Dial(t.Context(), srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = send(c) }() // of one that is too large the server takes only the beginning
		if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != want {
			t.Errorf("%v, want it closed with %d", err, want)
		}
		_ = c.CloseNow()
	}
	c, _, err := websocket.Dial(t.Context(), srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(4321, "bye"); err != nil {
		t.Errorf("the answer to a close: %v", err)
	}
}
