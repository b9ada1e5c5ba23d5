package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/internal/server"
)

// TestAnIdleConnectionHasNoGoroutine holds the ledger of ARCHITECTURE.md to a real
// node: thousands of WebSockets and streams that have subscribed need no more
// goroutines than none.
func TestAnIdleConnectionHasNoGoroutine(t *testing.T) {
	const connections = 5000
	const own = 100 // which the embedded engine begins by itself when it first needs them
	s := start(t, settings(t.TempDir()))
	bearer := token(t, "alice")
	before := runtime.NumGoroutine()
	for i := range connections {
		idle(t, s, bearer, i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for runtime.NumGoroutine() > before+own { // who answered the last request is still at it
		if !retry(ctx) {
			var all bytes.Buffer
			_ = pprof.Lookup("goroutine").WriteTo(&all, 1) // a buffer takes everything
			t.Fatalf("%d goroutines without connections, %d with %d:\n%s", before, runtime.NumGoroutine(), connections, all.String())
		}
	}
}

// idle opens a WebSocket or a stream, subscribes, and has no goroutine itself.
func idle(t *testing.T, s *server.Server, bearer string, i int) {
	t.Helper()
	request := "GET /v1/sse?pattern=a&token=%s HTTP/1.1\r\nHost: x\r\n\r\n"
	if i%2 == 0 {
		request = "GET /v1/ws?token=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	}
	conn := say(t, s, fmt.Sprintf(request, bearer))
	if i%2 == 0 {
		subscribe, err := ws.CompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(`{"type":"subscribe","pattern":"a"}`))))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(subscribe); err != nil {
			t.Fatal(err)
		}
	}
	reads(t, conn, "caught_up")
}

// reads reads until it has read some text.
func reads(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	var got strings.Builder
	for buf := make([]byte, 4096); !strings.Contains(got.String(), text); {
		n, err := conn.Read(buf)
		if got.Write(buf[:n]); err != nil && err != io.EOF {
			t.Fatalf("%v after %q", err, got.String())
		} else if err != nil {
			t.Fatalf("it ends after %q", got.String())
		}
	}
}
