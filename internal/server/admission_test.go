package server_test

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/server"
)

// knock asks for something at a door as often as it takes until the node has no
// time for it, and checks how the node says so.
type knock struct {
	name string
	ask  func(t *testing.T, s *server.Server, header http.Header) (refused bool)
}

var knocks = []knock{
	{"a WebSocket of a program", func(t *testing.T, s *server.Server, header http.Header) bool {
		t.Helper()
		c, resp, err := websocket.Dial(t.Context(), strings.Replace(s.PublicURL(), "http", "ws", 1)+"/v1/ws", &websocket.DialOptions{HTTPHeader: header})
		if err == nil {
			_ = c.CloseNow()
			return false
		}
		body, _ := io.ReadAll(resp.Body)
		unavailable(t, resp, string(body))
		return true
	}},
	{"a WebSocket of a page", func(t *testing.T, s *server.Server, header http.Header) bool {
		t.Helper()
		header.Set("Origin", s.PublicURL())
		c, _, err := websocket.Dial(t.Context(), strings.Replace(s.PublicURL(), "http", "ws", 1)+"/v1/ws", &websocket.DialOptions{
			HTTPHeader: header, Subprotocols: []string{"other", "carillon.v1"},
		})
		if err != nil {
			t.Fatalf("it is not accepted: %v", err)
		}
		defer c.CloseNow()
		f, err := next(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == "welcome" {
			return false
		}
		if f.Type != "error" || f.Code != "unavailable" || f.RetryAfterMS < 1000 || c.Subprotocol() != "carillon.v1" {
			t.Errorf("it is told %+v, in %q", f, c.Subprotocol())
		}
		if _, err = next(t.Context(), c); websocket.CloseStatus(err) != 4103 {
			t.Errorf("it is closed with %v, want 4103", err)
		}
		return true
	}},
	{"a stream", func(t *testing.T, s *server.Server, header http.Header) bool {
		t.Helper()
		resp := knockAt(t, s, "/v1/sse?pattern=a", header)
		defer resp.Body.Close()
		first := make([]byte, len("retry: "))
		if _, err := io.ReadFull(resp.Body, first); err != nil || resp.StatusCode != 200 || string(first) != "retry: " {
			t.Fatalf("%d: %s, %v", resp.StatusCode, first, err)
		}
		var rest strings.Builder
		for b := make([]byte, 512); ; {
			n, err := resp.Body.Read(b)
			rest.Write(b[:n])
			if strings.Contains(rest.String(), "event: carillon.welcome\n") {
				return false
			}
			if err != nil {
				break
			}
		}
		m := regexp.MustCompile(`^(\d+)\n\nevent: carillon.goaway\ndata: {"type":"goaway","reason":"overload","retry_after_ms":(\d+)}\n\n$`).FindStringSubmatch(rest.String())
		if m == nil || m[1] != m[2] {
			t.Fatalf("it ends with %q", rest.String())
		}
		if ms, _ := strconv.Atoi(m[1]); ms < 3000 {
			t.Errorf("it is told to come back after %d ms", ms)
		}
		return true
	}},
	{"a poll", func(t *testing.T, s *server.Server, header http.Header) bool {
		t.Helper()
		resp := knockAt(t, s, "/v1/poll?pattern=a&wait=0", header)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == 200 {
			return false
		}
		unavailable(t, resp, string(body))
		return true
	}},
}

func knockAt(t *testing.T, s *server.Server, path string, header http.Header) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.PublicURL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	resp, err := client(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func unavailable(t *testing.T, resp *http.Response, body string) {
	t.Helper()
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	if resp.StatusCode != 503 || seconds < 1 || !strings.Contains(body, `"code":"unavailable"`) {
		t.Errorf("it is answered %d, %s; Retry-After %q", resp.StatusCode, body, resp.Header.Get("Retry-After"))
	}
}

// Whatever it is that a node has too much of, and whoever reads the request, those
// who are sent away see the same.
func TestAnOverloadedNodeSendsClientsAwayAtEveryDoor(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(t *testing.T, c *config.Config)
		full func(t *testing.T, s *server.Server) // makes it so
	}{
		{name: "handshakes", set: func(_ *testing.T, c *config.Config) {
			// One in two seconds is told so at length.
			c.Handshakes = config.Handshakes{PerSecond: 1, Burst: 1, Concurrent: 1}
		}},
		{name: "memory", set: func(t *testing.T, _ *config.Config) {
			before := debug.SetMemoryLimit(1 << 20)
			t.Cleanup(func() { debug.SetMemoryLimit(before) })
		}},
		{name: "connections", set: func(_ *testing.T, c *config.Config) { c.Limits.ConnectionsPerNode = 1 }, full: func(t *testing.T, s *server.Server) {
			t.Helper()
			c, err := dial(t.Context(), s.PublicURL(), token(t, "alice"), "")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.CloseNow() })
			await(t, c, "welcome")
		}},
	} {
		for _, reader := range []string{"a loop", "net/http"} {
			t.Run(tt.name+" read by "+reader, func(t *testing.T) {
				cfg := settings("")
				tt.set(t, cfg)
				s := start(t, cfg)
				if tt.full != nil {
					tt.full(t, s)
				}
				for _, k := range knocks {
					t.Run(k.name, func(t *testing.T) {
						for {
							header := http.Header{"Authorization": {"Bearer " + token(t, "alice")}}
							if reader == "net/http" {
								header.Set("X-Name", "caf\xc3\xa9") // which the loops leave to it
							}
							if k.ask(t, s, header) {
								return
							}
						}
					})
				}
			})
		}
	}
}

// To explain a refusal takes nearly as much as a handshake: when too many pages
// come, the others get the short answer.
func TestNotEveryPageIsToldAtLength(t *testing.T) {
	cfg := settings("")
	cfg.Handshakes = config.Handshakes{PerSecond: 1, Burst: 1}
	s := start(t, cfg)
	short := 0
	for range 20 {
		header := http.Header{"Authorization": {"Bearer " + token(t, "alice")}, "Origin": {s.PublicURL()}}
		c, resp, err := websocket.Dial(t.Context(), strings.Replace(s.PublicURL(), "http", "ws", 1)+"/v1/ws", &websocket.DialOptions{HTTPHeader: header})
		if err == nil {
			_ = c.CloseNow()
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		unavailable(t, resp, string(body))
		short++
	}
	if short == 0 {
		t.Error("all are")
	}
}

// Those who wait for their turn get it, and nobody notices but by the time.
func TestAStormIsLetInAtTheRate(t *testing.T) {
	const clients, rate, burst = 60, 100, 10
	cfg := settings("")
	cfg.Handshakes = config.Handshakes{PerSecond: rate, Burst: burst, Concurrent: 4, Queue: clients, Wait: config.Duration(time.Minute)}
	s := start(t, cfg)
	begin := time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			c, err := dial(t.Context(), s.PublicURL(), token(t, "alice"), "")
			if err != nil {
				t.Error(err)
				return
			}
			defer c.CloseNow()
			if f, err := next(t.Context(), c); err != nil || f.Type != "welcome" {
				t.Errorf("%+v, %v", f, err)
			}
		})
	}
	wg.Wait()
	if took, least := time.Since(begin), (clients-burst)*time.Second/rate; took < least {
		t.Errorf("all were in after %v, at the rate it takes %v", took, least)
	}
	if at := handshakes(t, s.OpsURL()); at.admitted+at.queued != clients || at.queued < clients/2 || at.refused != 0 || at.fullest > burst+rate/10 {
		t.Errorf("%+v", at)
	}
}

// counted is what a node says of handshakes.
type counted struct{ admitted, queued, refused, fullest int }

func handshakes(t *testing.T, ops string) (n counted) {
	t.Helper()
	_, page := do(t, client(t), http.MethodGet, ops+"/metrics", "")
	for pattern, to := range map[string]*int{
		`total{outcome="admitted"}`: &n.admitted, `total{outcome="queued"}`: &n.queued, `total{outcome="refused"}`: &n.refused, "fullest": &n.fullest,
	} {
		m := regexp.MustCompile(`(?m)^carillon_handshakes_` + regexp.QuoteMeta(pattern) + ` (\S+)$`).FindStringSubmatch(page)
		if m == nil {
			t.Fatalf("there is no %s", pattern)
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		*to = int(v)
	}
	return n
}

func (c counted) String() string {
	return fmt.Sprintf("%d let through at once, %d from the queue, %d refused, %d in the fullest 100 ms", c.admitted, c.queued, c.refused, c.fullest)
}
