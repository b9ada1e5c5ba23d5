package server_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/server"
)

// running is a node that runs until something ends it.
type running struct {
	*server.Server

	key   string // its operator's
	end   context.CancelFunc
	ended chan error
}

func run(t *testing.T, cfg *config.Config) *running {
	t.Helper()
	key, stored := org.NewKey("")
	cfg.Ops.Keys = []string{stored.Line()}
	s, err := server.New(cfg, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := &running{s, key, cancel, make(chan error, 1)}
	ready := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { n.ended <- s.Run(ctx, func() error { close(ready); return nil }) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	select {
	case <-ready:
	case err := <-n.ended:
		t.Fatal(err)
	}
	return n
}

func (n *running) drain(t *testing.T, c *http.Client, body string, header ...string) (int, string) {
	t.Helper()
	return do(t, c, http.MethodPost, n.OpsURL()+"/v1/drain", body, append([]string{"Content-Type", "application/json", "Authorization", "Bearer " + n.key}, header...)...)
}

func TestANodeDrainsWhenItsOperatorAsks(t *testing.T) {
	const clients, rate = 30, 20
	cfg := settings("")
	cfg.Orgs = []config.Org{{ID: "demo"}}
	n, c := run(t, cfg), client(t)
	var all []*websocket.Conn
	for range clients {
		ws, err := dial(t.Context(), n.PublicURL(), token(t, "alice"), "")
		if err != nil {
			t.Fatal(err)
		}
		defer ws.CloseNow()
		await(t, ws, "caught_up")
		all = append(all, ws)
	}
	begin := time.Now()
	status, text := n.drain(t, c, `{"rate":20}`)
	if want := `{"status":"draining","connections":30,"window":"0s","rate":20,"deadline":"32s"}` + "\n"; status != http.StatusAccepted || text != want {
		t.Fatalf("%d, %s", status, text)
	}
	if status, text := do(t, c, http.MethodGet, n.OpsURL()+"/readyz", ""); status != 503 || !strings.Contains(text, `"draining"`) {
		t.Errorf("it is ready: %d, %s", status, text)
	}
	if status, text := n.drain(t, c, `{"rate":1000}`); status != http.StatusAccepted || !strings.Contains(text, `"rate":20,`) {
		t.Errorf("the second one to ask is answered %d, %s", status, text)
	}
	var mu sync.Mutex
	var times []time.Duration
	var wg sync.WaitGroup
	for _, ws := range all {
		wg.Go(func() {
			f, err := next(t.Context(), ws)
			if err != nil || f.Type != "goaway" || f.Reason != "drain" {
				t.Errorf("%+v, %v", f, err)
			}
			if _, err = next(t.Context(), ws); websocket.CloseStatus(err) != 4200 {
				t.Errorf("it is closed with %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Since(begin))
		})
	}
	wg.Wait()
	if last, least := slices.Max(times), (clients-1)*time.Second/rate; last < least {
		t.Errorf("the last was closed after %v, at the rate it is %v", last, least)
	}
	if err := <-n.ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestWhoMayDrainANode(t *testing.T) {
	cfg := settings("")
	cfg.Orgs = []config.Org{{ID: "demo"}}
	n, c := run(t, cfg), client(t)
	for _, tt := range []struct {
		name, body string
		header     []string
		status     int
	}{
		{"nobody", "", []string{"Authorization", ""}, 401},
		{"an admin of an organization", "", []string{"Authorization", "Bearer " + token(t, "alice")}, 401},
		{"a page", "", []string{"Origin", "https://evil.example"}, 403},
		{"a page without a name", "", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"by another name", "", []string{"Host", "evil.example"}, 403},
		{"a form", "a=b", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		{"no JSON", "now", nil, 400},
		{"no window", `{"window":"soon"}`, nil, 400},
		{"too long", `{"window":"2d"}`, nil, 400},
		{"a number of what", `{"window":10}`, nil, 400},
		{"no rate", `{"rate":-1}`, nil, 400},
		{"something else", `{"hurry":true}`, nil, 400},
		{"much", strings.Repeat(" ", 5000), nil, 413},
	} {
		if status, text := n.drain(t, c, tt.body, tt.header...); status != tt.status {
			t.Errorf("%s: %d, %s; want %d", tt.name, status, text, tt.status)
		}
	}
	if status, _ := do(t, c, http.MethodGet, n.OpsURL()+"/v1/drain", "", "Authorization", "Bearer "+n.key); status == 202 {
		t.Error("it is asked for by GET")
	}
	if status, text := do(t, c, http.MethodPost, n.PublicURL()+"/v1/drain", "", "Authorization", "Bearer "+n.key); status != 404 {
		t.Errorf("on the public port: %d, %s", status, text)
	}
	if status, _ := do(t, c, http.MethodGet, n.OpsURL()+"/readyz", ""); status != 200 {
		t.Error("somebody could")
	}
	if status, text := n.drain(t, c, ""); status != 202 {
		t.Errorf("the operator cannot: %d, %s", status, text)
	}
	if err := <-n.ended; err != nil {
		t.Error(err)
	}
}

// A drain may take hours. A signal, as that of who stops the machine, ends it.
func TestASignalEndsADrainThatWasAskedFor(t *testing.T) {
	cfg := settings("")
	cfg.Orgs = []config.Org{{ID: "demo"}}
	n, c := run(t, cfg), client(t)
	ws, err := dial(t.Context(), n.PublicURL(), token(t, "alice"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	await(t, ws, "caught_up")
	if status, text := n.drain(t, c, `{"window":"10h"}`); status != 202 || !strings.Contains(text, `"deadline":"10h0m30s"`) {
		t.Fatalf("%d, %s", status, text)
	}
	await(t, ws, "goaway")
	n.end()
	if err := <-n.ended; err != nil {
		t.Error(err)
	}
	if _, err := next(t.Context(), ws); err == nil {
		t.Error("its client stays")
	}
}

func TestWithoutAKeyOfTheOperatorNobodyDrains(t *testing.T) {
	s := startWith(t, settings(""), server.Options{})
	if status, text := do(t, client(t), http.MethodPost, s.OpsURL()+"/v1/drain", ""); status != 403 || !strings.Contains(text, "a node is drained with a key of the operator") {
		t.Errorf("%d, %s", status, text)
	}
}

// Connections end with their lifetime over real sockets, and come back.
func TestAConnectionIsToldThatItsLifetimeEnds(t *testing.T) {
	cfg := settings("")
	cfg.Connection.MaxLifetime = config.Duration(2 * time.Second)
	s := start(t, cfg)
	ws, err := dial(t.Context(), s.PublicURL(), token(t, "alice"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if f := await(t, ws, "goaway"); f.Reason != "lifetime" || f.RetryAfterMS > 200 {
		t.Errorf("%+v", f)
	}
	var closed websocket.CloseError
	if _, err := next(t.Context(), ws); !errors.As(err, &closed) || closed.Code != 4202 || closed.Reason != "lifetime" {
		t.Errorf("it is closed with %v", err)
	}
	stream := knockAt(t, s, "/v1/sse?pattern=a", http.Header{"Authorization": {"Bearer " + token(t, "alice")}})
	defer stream.Body.Close()
	var text strings.Builder
	for b := make([]byte, 512); err == nil || text.Len() == 0; {
		var n int
		n, err = stream.Body.Read(b)
		text.Write(b[:n])
	}
	if _, last, _ := strings.Cut(text.String(), "event: carillon.goaway\n"); !strings.HasPrefix(last, `data: {"type":"goaway","reason":"lifetime",`) || strings.Count(last, "\n\n") != 1 {
		t.Errorf("the stream is %s", text.String())
	}
}
