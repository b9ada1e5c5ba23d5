package server_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/server"
)

// behindProxies trusts the proxies on this machine, which tell the client's
// address in X-Forwarded-For.
func behindProxies(c *config.Config) { c.Proxy.Trusted = []string{"127.0.0.0/8"} }

// speakingProxy makes them begin each connection with a PROXY header.
func speakingProxy(c *config.Config) { behindProxies(c); c.Proxy.Protocol = true }

// say opens a connection to the public port and says something.
func say(t *testing.T, s *server.Server, text string) net.Conn {
	t.Helper()
	_, addr, _ := strings.Cut(s.PublicURL(), "://")
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// ends waits until the other side closes.
func ends(t *testing.T, conn net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on after %q", b)
	}
}

var handshakesHit = hit{
	set: func(c *config.Config) { speakingProxy(c); c.Limits.Handshakes = 1 },
	meet: func(t *testing.T, n *limitedNode) {
		say(t, n.Server, "PROXY ")
		ends(t, say(t, n.Server, ""))
	},
	times: 1,
}

var proxyHeaderHit = hit{
	set: func(c *config.Config) { speakingProxy(c); c.Limits.ProxyHeaderBytes = 256 },
	meet: func(t *testing.T, n *limitedNode) {
		ends(t, say(t, n.Server, "\r\n\r\n\x00\r\nQUIT\n\x21\x11"+string(binary.BigEndian.AppendUint16(nil, 241))))
	},
	times: 1,
}

var requestsInFlightHit = hit{
	set: func(c *config.Config) { c.Limits.RequestsInFlight = 1 },
	meet: func(t *testing.T, n *limitedNode) {
		say(t, n.Server, "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token(t, "alice")+"\r\nContent-Length: 20000\r\n\r\n{")
		n.until(t, func() bool { // the first, which no loop keeps, is answered as soon as it is read
			status, body := n.get(t, http.MethodPost, "/v1/events", `{"type":"a","data":1}`)
			if status == 503 && !strings.Contains(body, `"code":"unavailable"`) {
				t.Errorf("%d, %s", status, body)
			}
			return status == 503
		})
		n.ask(t, http.MethodPost, "/v1/frames", `{"type":"ping"}`, 503, "unavailable")
		n.ask(t, http.MethodGet, "/v1/poll?wait=0", "", 200, "") // it is a connection
		n.socket(t)
	},
}

// What a loop has in hand counts among the requests in flight, and no longer than that.
func TestPublishesInHandAreCounted(t *testing.T) {
	cfg := settings("")
	cfg.Limits.RequestsInFlight = runtime.GOMAXPROCS(0) // as many as loops: no more are at work at the same time
	s, c := start(t, cfg), client(t)
	publish := func() int {
		status, _ := do(t, c, http.MethodPost, s.PublicURL()+"/v1/events", `{"type":"a","data":1}`, "Authorization", "Bearer "+token(t, "alice"))
		return status
	}
	for refused := false; !refused && !t.Failed(); {
		var all sync.WaitGroup
		statuses := make(chan int, 8*cfg.Limits.RequestsInFlight)
		for range cap(statuses) {
			all.Go(func() { statuses <- publish() })
		}
		all.Wait()
		close(statuses)
		taken := false
		for status := range statuses {
			taken, refused = taken || status == 202, refused || status == 503
		}
		if !taken {
			t.Error("not one of them was taken")
		}
		if status := publish(); status != 202 { // nobody else is there
			t.Errorf("one alone: %d", status)
		}
	}
}

// memoryHit runs a node with less memory than any has.
func memoryHit() hit {
	var before int64
	return hit{
		set: func(*config.Config) { before = debug.SetMemoryLimit(1 << 20) },
		meet: func(t *testing.T, n *limitedNode) {
			debug.SetMemoryLimit(before) // the node has read it
			n.publish(t, `{"type":"a","data":1}`, 503, "unavailable")
			n.frame(t, `{"type":"publish","event":{"type":"a","data":1}}`, "unavailable")
			n.ask(t, http.MethodGet, "/v1/poll?wait=0", "", 503, "unavailable")
			if _, err := dial(t.Context(), n.PublicURL(), token(t, "alice"), ""); err == nil || !strings.Contains(err.Error(), "503") {
				t.Errorf("a WebSocket: %v", err)
			}
			if status, body := n.get(t, http.MethodGet, "/v1/sse?pattern=a", ""); status != 200 || !strings.Contains(body, "event: carillon.goaway\n") {
				t.Errorf("a stream: %d, %s", status, body)
			}
			n.ask(t, http.MethodGet, "/v1/events", "", 200, "")
		},
		times: 5,
	}
}

var connectionsPerAddressHit = hit{
	set: func(c *config.Config) { behindProxies(c); c.Limits.ConnectionsPerAddress = 1 },
	meet: func(t *testing.T, n *limitedNode) {
		n.socket(t)
		n.ask(t, http.MethodGet, "/v1/poll?wait=0", "", 429, "quota_exceeded")
		n.ask(t, http.MethodGet, "/v1/sse?pattern=a", "", 429, "quota_exceeded")
		n.ask(t, http.MethodGet, "/v1/poll?wait=0", "", 429, "quota_exceeded", "Forwarded", "for=192.0.2.7")
		stream := say(t, n.Server, "GET /v1/sse?pattern=a HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\nAuthorization: Bearer "+token(t, "alice")+"\r\n\r\n")
		if line, _ := bufio.NewReader(stream).ReadString('\n'); line != "HTTP/1.1 200 OK\r\n" {
			t.Errorf("from another address: %q", line)
		}
		// What a client writes before what its proxy writes does not count.
		n.ask(t, http.MethodGet, "/v1/poll?wait=0", "", 429, "quota_exceeded", "X-Forwarded-For", "198.51.100.1, 192.0.2.7")
		n.ask(t, http.MethodGet, "/v1/poll?wait=0", "", 200, "", "X-Forwarded-For", "192.0.2.7, 198.51.100.1")
		_ = stream.Close()
		n.until(t, func() bool { // its place becomes free when the node has seen the end
			status, _ := n.get(t, http.MethodGet, "/v1/poll?wait=0", "", "X-Forwarded-For", "192.0.2.7")
			return status == 200
		})
	},
}

var connectionsPerUserHit = hit{
	set: func(c *config.Config) { c.Limits.ConnectionsPerUser = 1 },
	meet: func(t *testing.T, n *limitedNode) {
		first := n.socket(t)
		n.ask(t, http.MethodGet, "/v1/sse?pattern=a", "", 429, "quota_exceeded")
		second, err := dial(t.Context(), n.PublicURL(), token(t, "alice"), "")
		if err != nil {
			t.Fatal(err)
		}
		await(t, second, "error")
		for err == nil {
			_, err = next(t.Context(), second)
		}
		if code := websocket.CloseStatus(err); code != 4101 {
			t.Errorf("one connection too many is closed with %v, want 4101", err)
		}
		n.ask(t, http.MethodGet, "/v1/poll?wait=0", "", 200, "") // it does not stay
		other, err := dial(t.Context(), n.PublicURL(), token(t, "bob"), "")
		if err != nil {
			t.Fatal(err)
		}
		await(t, other, "caught_up")
		_ = first.CloseNow()
		n.until(t, func() bool {
			again, err := dial(t.Context(), n.PublicURL(), token(t, "alice"), "")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = again.CloseNow() }()
			f, err := next(t.Context(), again)
			if err != nil {
				t.Fatal(err)
			}
			return f.Type == "welcome"
		})
	},
}

// Whoever is slow is cut and counted, on every way to be slow.
func TestWhoIsSlowIsCutAndCounted(t *testing.T) {
	short := config.Duration(100 * time.Millisecond)
	auth := "Authorization: Bearer " + token(t, "alice") + "\r\n"
	for _, tt := range []struct {
		name, said, limit string
		set               func(c *config.Config)
	}{
		{"a PROXY header", "PROXY TCP4", "handshake_timeout", speakingProxy},
		{"a TLS handshake", "\x16\x03\x01\x02", "handshake_timeout", func(c *config.Config) { overTLS(t, c) }},
		{"a header behind a PROXY header", "PROXY UNKNOWN\r\nGET /", "header_timeout", speakingProxy},
		{"nothing", "", "header_timeout", nil},
		{"a WebSocket", "GET /v1/ws HTTP/1.1\r\nHost: x\r\n", "header_timeout", nil},
		{"a stream", "GET /v1/sse?pattern=a HTTP/1.1\r\nHost: x\r\n", "header_timeout", nil},
		{"a publish", "POST /v1/events HTTP/1.1\r\nHost: x\r\n", "header_timeout", nil},
		{"HTTP/2", "PRI * HTTP", "header_timeout", nil},
		{"a publish's body", "POST /v1/events HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Length: 9\r\n\r\n{", "body_timeout", nil},
		{"a stream's body", "POST /v1/sse HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Length: 9\r\n\r\n{", "body_timeout", nil},
		{"a poll's body", "POST /v1/poll HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Length: 9\r\n\r\n{", "body_timeout", nil},
		{"frames", "POST /v1/frames HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Length: 9\r\n\r\n{", "body_timeout", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := settings("")
			cfg.Connection.HandshakeTimeout, cfg.Connection.HeaderTimeout, cfg.Connection.BodyTimeout = short, short, short
			if tt.set != nil {
				tt.set(cfg)
			}
			n := &limitedNode{Server: start(t, cfg), client: client(t)}
			ends(t, say(t, n.Server, tt.said))
			n.until(t, func() bool { return n.limits(t)[tt.limit] > 0 })
			for limit, got := range n.limits(t) {
				if got != 0 && (limit != tt.limit || got != 1) {
					t.Errorf("%s was met %d times", limit, got)
				}
			}
		})
	}
}

// A message in pieces is not waited for longer than it may take, however alive its
// client is.
func TestAMessageInPiecesIsNotWaitedForWithoutEnd(t *testing.T) {
	for _, secure := range []bool{false, true} {
		cfg := settings("")
		cfg.Connection.MessageTimeout = config.Duration(100 * time.Millisecond)
		c := client(t)
		if secure {
			c = tlsClient(t, overTLS(t, cfg), false)
		}
		n := &limitedNode{Server: start(t, cfg), client: c}
		conn, _, err := websocket.Dial(t.Context(), n.PublicURL()+"/v1/ws?token="+token(t, "alice"), &websocket.DialOptions{HTTPClient: c})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.CloseNow()
		w, err := conn.Writer(t.Context(), websocket.MessageText)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat("x", 64<<10)); err != nil { // more than is kept back
			t.Fatal(err)
		}
		closed := make(chan error, 1)
		go func() {
			_, err := next(t.Context(), conn)
			for err == nil {
				_, err = next(t.Context(), conn)
			}
			closed <- err
		}()
		for err == nil {
			err = conn.Ping(t.Context())
		}
		if err := <-closed; websocket.CloseStatus(err) != 1008 {
			t.Errorf("over TLS: %t: closed with %v, want 1008", secure, err)
		}
		if got := n.limits(t); got["message_timeout"] != 1 {
			t.Errorf("over TLS: %t: met %v", secure, got)
		}
	}
}

// Connections whose client does not read are on the metrics page, and so is what
// is kept for them; it is small, as the rest waits in the log.
func TestWhoDoesNotReadIsSeenByTheOperator(t *testing.T) {
	for _, secure := range []bool{false, true} {
		cfg := settings("")
		cfg.Connection.SendBuffer = 64 << 10
		c := client(t)
		if secure {
			c = tlsClient(t, overTLS(t, cfg), false)
		}
		n := &limitedNode{Server: start(t, cfg), client: c}
		kept := func() (full, bytes int) {
			_, page := do(t, c, http.MethodGet, n.OpsURL()+"/metrics", "")
			for line := range strings.Lines(page) {
				var v float64
				if k, _ := fmt.Sscanf(line, "carillon_sockets_full %g", &v); k == 1 {
					full = int(v)
				}
				if k, _ := fmt.Sscanf(line, "carillon_sockets_kept_bytes %g", &v); k == 1 {
					bytes = int(v)
				}
			}
			return full, bytes
		}
		conn, _, err := websocket.Dial(t.Context(), n.PublicURL()+"/v1/ws?token="+token(t, "alice"), &websocket.DialOptions{HTTPClient: c})
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(`{"type":"subscribe","pattern":"a"}`)); err != nil {
			t.Fatal(err)
		}
		await(t, conn, "caught_up")
		n.until(t, func() bool {
			n.publish(t, array(50, 100_000), 202, "")
			full, bytes := kept()
			return full == 1 && bytes > 0
		})
		if _, bytes := kept(); bytes > 1<<20 {
			t.Errorf("over TLS: %t: %d bytes are kept", secure, bytes)
		}
		_ = conn.CloseNow()
		n.until(t, func() bool {
			full, bytes := kept()
			return full == 0 && bytes == 0
		})
	}
}

// A client's address is what trusted proxies say, on whichever way they say it,
// and never what it says itself.
func TestAnAddressIsBelievedFromTrustedProxiesOnly(t *testing.T) {
	for _, tt := range []struct {
		name, before, header string
		set                  func(c *config.Config)
		own                  bool // the address is that of the connection
	}{
		{"a proxy's header", "", "X-Forwarded-For: 192.0.2.7\r\n", behindProxies, false},
		{"a proxy's first bytes", "PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n", "", speakingProxy, false},
		{"a client behind a proxy that writes a header", "PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n", "X-Forwarded-For: 192.0.2.8\r\n", speakingProxy, false},
		{"a client's header", "", "X-Forwarded-For: 192.0.2.7\r\n", nil, true},
		{"a client's other header", "", "Forwarded: for=192.0.2.7\r\n", behindProxies, true},
		{"a header that is not looked at", "", "X-Forwarded-For: 192.0.2.7\r\n", func(c *config.Config) { behindProxies(c); c.Proxy.Header = "none" }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := settings("")
			cfg.Limits.ConnectionsPerAddress = 1
			if tt.set != nil {
				tt.set(cfg)
			}
			s := start(t, cfg)
			request := func(before, header string) string {
				return before + "GET /v1/sse?pattern=a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token(t, "alice") + "\r\n" + header + "\r\n"
			}
			status := func(text string) string {
				t.Helper()
				line, err := bufio.NewReader(say(t, s, text)).ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				return strings.TrimSpace(line)
			}
			if got := status(request(tt.before, tt.header)); got != "HTTP/1.1 200 OK" {
				t.Fatalf("the first: %s", got)
			}
			// Another one of this machine itself shares its place, or does not.
			before := ""
			if cfg.Proxy.Protocol {
				before = "PROXY UNKNOWN\r\n"
			}
			want := "HTTP/1.1 200 OK"
			if tt.own {
				want = "HTTP/1.1 429 Too Many Requests"
			}
			if got := status(request(before, "")); got != want {
				t.Errorf("this machine's own: %s, want %s", got, want)
			}
			if tt.own {
				return
			}
			again := strings.Replace(tt.before, " 1 2\r\n", " 3 4\r\n", 1)
			if got := status(request(again, tt.header)); got != "HTTP/1.1 429 Too Many Requests" {
				t.Errorf("the same address again: %s", got)
			}
		})
	}
	t.Run("a PROXY header of a stranger", func(t *testing.T) {
		cfg := settings("")
		cfg.Proxy.Trusted, cfg.Proxy.Protocol = []string{"192.0.2.0/24"}, true
		line, err := bufio.NewReader(say(t, start(t, cfg), "PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 400 ") {
			t.Errorf("it is answered %q, %v", line, err)
		}
	})
}
