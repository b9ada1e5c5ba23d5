package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/server"
	"github.com/carillon-rt/carillon/internal/testkit"
)

const secret = "0123456789abcdef0123456789abcdef"

func TestMain(m *testing.M) {
	testkit.Main()
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	goleak.VerifyTestMain(m)
}

// settings are those of a small node on this machine.
func settings(dir string) *config.Config {
	cfg := config.Default()
	cfg.Listen, cfg.Ops.Listen, cfg.Data = "127.0.0.1:0", "127.0.0.1:0", dir
	if dir == "" {
		cfg.Engine.Kind = config.KindMemory
	}
	cfg.Engine.Retention.Bytes = 256 << 20
	cfg.Issuers = []config.Issuer{{Secrets: []config.Secret{secret}, Orgs: []string{"*"}}}
	cfg.Drain.Window = 0
	return cfg
}

func token(tb testing.TB, user string) string {
	tb.Helper()
	text, err := auth.Sign([]byte(secret), auth.Claims{User: user, Org: "demo", Role: carillon.RoleAdmin, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// start starts a node and stops it at the end of the test.
func start(t *testing.T, cfg *config.Config) *server.Server {
	t.Helper()
	return startWith(t, cfg, server.Options{Development: &server.Development{Org: "demo", User: "dev", Token: token(t, "dev")}})
}

func startWith(t *testing.T, cfg *config.Config, opt server.Options) *server.Server {
	t.Helper()
	s, err := server.New(cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

// client makes connections of its own, which end with the test.
func client(t *testing.T) *http.Client {
	t.Helper()
	tr := new(http.Transport)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// do sends a request and returns the status and body of the answer.
func do(t *testing.T, c *http.Client, method, url, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// frame is what a test reads of a frame.
type frame struct {
	Type, ID, Cursor, Reason, Message, Code string
	Payload                                 json.RawMessage
	Backfill                                bool
	Gap                                     *struct{ Reason string }
	RetryAfterMS                            int    `json:"retry_after_ms"`
	EventType                               string `json:"event_type"`
}

// dial opens a WebSocket and subscribes to everything after a cursor.
func dial(ctx context.Context, url, token, after string) (*websocket.Conn, error) {
	url = strings.Replace(url, "http", "ws", 1) + "/v1/ws"
	if after != "" {
		url += "?after=" + after
	}
	c, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err != nil {
		return nil, err
	}
	c.SetReadLimit(1 << 20)
	return c, c.Write(ctx, websocket.MessageText, []byte(`{"type":"subscribe","pattern":">"}`))
}

func next(ctx context.Context, c *websocket.Conn) (f frame, err error) {
	_, text, err := c.Read(ctx)
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(text, &f)
}

// await reads until a frame of the type comes.
func await(t *testing.T, c *websocket.Conn, kind string) frame {
	t.Helper()
	for {
		f, err := next(t.Context(), c)
		if err != nil {
			t.Fatalf("waiting for %s: %v", kind, err)
		}
		if f.Type == kind {
			return f
		}
	}
}

func TestNodeStartsServesAndStops(t *testing.T) {
	for _, kind := range []string{config.KindMemory, config.KindJetStream} {
		t.Run(kind, func(t *testing.T) {
			dir := ""
			if kind == config.KindJetStream {
				dir = t.TempDir()
			}
			s, c := start(t, settings(dir)), client(t)
			ws, err := dial(t.Context(), s.PublicURL(), token(t, "alice"), "")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = ws.CloseNow() }()
			await(t, ws, "caught_up")
			status, body := do(t, c, http.MethodPost, s.PublicURL()+"/v1/events", `{"type":"a.b","data":{"n":1}}`,
				"Authorization", "Bearer "+token(t, "bob"), "Content-Type", "application/json")
			var answer struct{ Events []struct{ ID string } }
			if err := json.Unmarshal([]byte(body), &answer); status != http.StatusAccepted || err != nil || len(answer.Events) != 1 {
				t.Fatalf("%d: %s", status, body)
			}
			if f := await(t, ws, "event"); f.ID != answer.Events[0].ID || string(f.Payload) != `{"n":1}` {
				t.Errorf("got %+v, published %s", f, body)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for { // a request is counted when its handler returns, and the WebSocket lives before
				status, body := do(t, c, http.MethodGet, s.OpsURL()+"/metrics", "")
				if status == http.StatusOK && strings.Contains(body, "carillon_publish_events_total 1\n") && strings.Contains(body, "ws_connections_active 1\n") &&
					strings.Contains(body, `carillon_http_requests_total{code="101",route="/v1/ws"} 1`) {
					break
				}
				if !retry(ctx) {
					t.Fatalf("metrics: %d\n%s", status, body)
				}
			}
			status, body = do(t, c, http.MethodGet, s.PublicURL()+"/", "")
			if status != http.StatusNotFound || !strings.Contains(body, `"code":"not_found"`) {
				t.Errorf("an unknown path: %d, %s", status, body)
			}
		})
	}
}

func TestIdsOutliveARestart(t *testing.T) {
	dir := t.TempDir()
	read := func(publish bool) string {
		s, c := start(t, settings(dir)), client(t)
		if publish {
			if status, body := do(t, c, http.MethodPost, s.PublicURL()+"/v1/events", `{"type":"a.b","data":1}`, "Authorization", "Bearer "+token(t, "bob")); status != http.StatusAccepted {
				t.Fatalf("%d: %s", status, body)
			}
		}
		_, body := do(t, c, http.MethodGet, s.PublicURL()+"/v1/events", "", "Authorization", "Bearer "+token(t, "bob"))
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		return body
	}
	first := read(true)
	if second := read(false); first != second || !strings.Contains(first, `"payload":1`) {
		t.Errorf("before: %s\nafter: %s", first, second)
	}
}

func TestHTTP2WithPriorKnowledge(t *testing.T) {
	s := start(t, settings(""))
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p}
	defer tr.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.PublicURL()+"/v1/sse?pattern=%3E", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token(t, "alice"))
	resp, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || resp.ProtoMajor != 2 || !strings.HasPrefix(line, "retry: ") {
		t.Errorf("%s: %q, %v", resp.Proto, line, err)
	}
}

func TestOpsAnswersOnlyThoseWhoMayBeThere(t *testing.T) {
	cfg := settings("")
	cfg.Ops.Hosts = []string{"ops.example.com"}
	s, c := start(t, cfg), client(t)
	port := s.OpsURL()[strings.LastIndex(s.OpsURL(), ":"):]
	for _, tc := range []struct {
		header []string
		want   int
	}{
		{nil, 200},
		{[]string{"Host", "localhost" + port}, 200},
		{[]string{"Host", "[::1]" + port}, 200},
		{[]string{"Host", "OPS.example.com"}, 200},
		{[]string{"Host", "evil.example"}, 403},
		{[]string{"Host", "localhost.evil.example" + port}, 403},
		{[]string{"Host", "127.0.0.1.evil.example" + port}, 403},
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Sec-Fetch-Site", "same-origin"}, 200},
		{[]string{"Origin", s.OpsURL()}, 200},
		{[]string{"Origin", "http://evil.example"}, 403},
		{[]string{"Origin", "null"}, 403},
		{[]string{"Origin", s.PublicURL()}, 403},
	} {
		for _, path := range []string{"/", "/healthz", "/metrics", "/debug/pprof/", "/dev/config.json", "/status.json"} {
			if status, body := do(t, c, http.MethodGet, s.OpsURL()+path, "", tc.header...); status != tc.want {
				t.Errorf("%s with %q: %d, not %d: %.200s", path, tc.header, status, tc.want, body)
			}
		}
	}
}

func TestOpsMustBeOnLoopback(t *testing.T) {
	for _, addr := range []string{":8081", "0.0.0.0:8081", "[::]:8081", "192.0.2.1:8081", "ops.example.com:8081"} {
		cfg := settings("")
		cfg.Ops.Listen = addr
		if _, err := server.New(cfg, server.Options{}); err == nil || !strings.Contains(err.Error(), "ops.listen") || !strings.Contains(err.Error(), "127.0.0.1:8081") {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestLivePageMayBeAClient(t *testing.T) {
	s, c := start(t, settings("")), client(t)
	status, body := do(t, c, http.MethodGet, s.OpsURL()+"/dev/config.json", "")
	var live struct{ URL, Token string }
	if err := json.Unmarshal([]byte(body), &live); status != 200 || err != nil || live.URL != s.PublicURL() {
		t.Fatalf("%d: %s", status, body)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, live.URL+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", s.OpsURL())
	r.Header.Set("Authorization", "Bearer "+live.Token)
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Access-Control-Allow-Origin"); resp.StatusCode != http.StatusOK || got != s.OpsURL() {
		t.Errorf("%d, allowed origin %q", resp.StatusCode, got)
	}
	if status, _ := do(t, c, http.MethodGet, live.URL+"/v1/events", "", "Origin", "http://evil.example", "Authorization", "Bearer "+live.Token); status != 403 {
		t.Errorf("another origin: %d", status)
	}
}

// ready asks /readyz.
func ready(t *testing.T, c *http.Client, s *server.Server) (int, string) {
	t.Helper()
	status, body := do(t, c, http.MethodGet, s.OpsURL()+"/readyz", "")
	var answer struct{ Status string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("%d: %s", status, body)
	}
	return status, answer.Status
}

func TestStopSendsClientsAwayInOrder(t *testing.T) {
	cfg := settings(t.TempDir())
	cfg.Drain.Window = config.Duration(2 * time.Second)
	s, c := start(t, cfg), client(t)
	if status, state := ready(t, c, s); status != 200 || state != "ready" {
		t.Fatalf("%d %s", status, state)
	}
	const clients = 20
	var conns []*websocket.Conn
	for range clients {
		ws, err := dial(t.Context(), s.PublicURL(), token(t, "alice"), "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ws.CloseNow() }()
		await(t, ws, "caught_up")
		conns = append(conns, ws)
	}
	begin := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(context.WithoutCancel(t.Context())) }()

	// Everybody is told at once, and closed some time within the window.
	first, last := time.Hour, time.Duration(0)
	closes := make(chan time.Duration, clients)
	for i, ws := range conns {
		if f := await(t, ws, "goaway"); f.Reason != "drain" {
			t.Errorf("goaway: %+v", f)
		}
		if i == 0 { // now the node is draining, and says so
			if status, state := ready(t, c, s); status != 503 || state != "draining" {
				t.Errorf("readyz while it drains: %d %s", status, state)
			}
			if _, err := dial(t.Context(), s.PublicURL(), token(t, "alice"), ""); err == nil {
				t.Error("a draining node takes a new client")
			}
			status, body := do(t, c, http.MethodPost, s.PublicURL()+"/v1/events", `{"type":"a.b","data":1}`, "Authorization", "Bearer "+token(t, "bob"))
			if status != http.StatusAccepted {
				t.Errorf("a publish that came in time: %d, %s", status, body)
			}
		}
		go func() {
			for {
				_, err := next(context.WithoutCancel(t.Context()), ws)
				if err == nil {
					continue
				}
				if websocket.CloseStatus(err) != 4200 {
					t.Errorf("closed with %v", err)
				}
				closes <- time.Since(begin)
				return
			}
		}()
	}
	for range conns {
		d := <-closes
		first, last = min(first, d), max(last, d)
	}
	if last-first < 300*time.Millisecond || last > 4*time.Second {
		t.Errorf("closed between %v and %v after the stop", first, last)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	for _, url := range []string{s.PublicURL(), s.OpsURL()} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := c.Do(r); err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s still answers", url)
		}
	}
}

func TestDeadlineCutsWhoDoesNotLeave(t *testing.T) {
	cfg := settings("")
	cfg.Drain.Window = config.Duration(time.Hour)
	cfg.Drain.Deadline = config.Duration(time.Second)
	s := start(t, cfg)
	ws, err := dial(t.Context(), s.PublicURL(), token(t, "alice"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	await(t, ws, "caught_up")
	begin := time.Now()
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

func TestSecondNodeOnOneStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, settings(dir))
	s, err := server.New(settings(dir), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Start(t.Context())
	var used *server.StoreInUseError
	if !errors.As(err, &used) || used.Dir != dir {
		t.Errorf("a second node: %v", err)
	}
}

func TestBusyPortIsNamed(t *testing.T) {
	s := start(t, settings(""))
	for _, tc := range []struct {
		setting string
		set     func(*config.Config)
	}{
		{"listen", func(c *config.Config) { c.Listen = strings.TrimPrefix(s.PublicURL(), "http://") }},
		{"ops.listen", func(c *config.Config) { c.Ops.Listen = strings.TrimPrefix(s.OpsURL(), "http://") }},
	} {
		cfg := settings("")
		tc.set(cfg)
		other, err := server.New(cfg, server.Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = other.Start(t.Context())
		var busy *server.ListenError
		if !errors.As(err, &busy) || busy.Setting != tc.setting || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("%s: %v", tc.setting, err)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	var log bytes.Buffer
	s, err := server.New(settings(""), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = s.Run(ctx, func() error {
		fmt.Fprint(&log, s.PublicURL())
		cancel()
		return nil
	})
	if err != nil || !strings.HasPrefix(log.String(), "http://127.0.0.1:") {
		t.Errorf("%q, %v", log.String(), err)
	}
	broken := errors.New("broken")
	if s, err = server.New(settings(""), server.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
}
