//go:build go1.25

package carillon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	carillon "github.com/carillon-rt/carillon/clients/go"
)

// fake is a small server that speaks the protocol as far as this client needs
// it, over connections in memory, so that it can run in a synctest bubble. It
// is a fake: one organization, one log, events that any pattern "skip" does not
// match by an exact type. Tests script what a good server does not do.
type fake struct {
	t        *testing.T
	listener *pipeListener
	server   *http.Server
	http     *http.Client
	ended    sync.WaitGroup // connections

	// Set before use. Each may answer by itself and return true.
	idle      time.Duration
	deaf      bool // it reads the subscribe and nothing after it
	handshake func(n int, w http.ResponseWriter, r *http.Request) bool
	script    func(n int, c *fakeConn) bool
	publishes func(n int, w http.ResponseWriter, body []json.RawMessage) bool

	mu       sync.Mutex // guards what follows
	log      []carillon.Event
	oldest   int // index of the oldest event kept
	keys     map[string]string
	changed  chan struct{} // closed and replaced when log grows
	conns    []*fakeConn
	requests []seenRequest
}

// seenRequest is a request other than a WebSocket.
type seenRequest struct {
	at     time.Time
	method string
	url    string
	auth   string
	body   string
}

// bubble runs a test against a fake in virtual time.
func bubble(t *testing.T, test func(t *testing.T, f *fake)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{
			t: t, listener: &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})},
			idle: 25 * time.Second, keys: map[string]string{}, changed: make(chan struct{}),
		}
		f.server = &http.Server{Handler: f, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = f.server.Serve(f.listener)
		}()
		transport := &http.Transport{DialContext: f.listener.dial}
		f.http = &http.Client{Transport: transport}
		t.Cleanup(func() { // after those of the test
			transport.CloseIdleConnections()
			_ = f.server.Close()
			for _, c := range f.connections() {
				c.kill()
			}
			f.ended.Wait()
			<-served
		})
		test(t, f)
	})
}

func (f *fake) client(o carillon.Options) *carillon.Client {
	f.t.Helper()
	o.URL, o.HTTPClient = "http://fake.example", f.http
	if o.Token == "" && o.TokenFunc == nil {
		o.APIKey = "ck_fake"
	}
	c, err := carillon.New(o)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// id is the id of the event at index i, and the cursor after it; cursor -1 is
// before everything.
func fakeID(i int) string { return fmt.Sprintf("%026d", i+1) }

func (f *fake) index(cursor string) (i int, ok bool) {
	if len(cursor) != 26 {
		return 0, false
	}
	if _, err := fmt.Sscanf(cursor, "%d", &i); err != nil {
		return 0, false
	}
	return i - 1, true
}

// publish appends events of these types and returns their ids.
func (f *fake) publish(types ...string) (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, typ := range types {
		ids = append(ids, f.append(carillon.Event{Type: typ, Data: json.RawMessage(`{"n":1}`)}))
	}
	return ids
}

func (f *fake) append(e carillon.Event) string {
	e.ID, e.Time = fakeID(len(f.log)), time.Now()
	f.log = append(f.log, e)
	close(f.changed)
	f.changed = make(chan struct{})
	return e.ID
}

func (f *fake) expire(oldest int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.oldest = oldest
}

func (f *fake) end() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.log) - 1
}

// connections are all that were ever accepted.
func (f *fake) connections() []*fakeConn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.conns)
}

// last is the newest connection.
func (f *fake) last() *fakeConn {
	synctest.Wait()
	conns := f.connections()
	return conns[len(conns)-1]
}

func (f *fake) seen() []seenRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/ws" {
		f.serveWS(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	f.requests = append(f.requests, seenRequest{time.Now(), r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), string(body)})
	n := len(f.requests)
	f.mu.Unlock()
	if f.handshake != nil && f.handshake(n, w, r) {
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/v1/events" {
		writeProblem(w, 404, "not_found", "no such path")
		return
	}
	var drafts []json.RawMessage
	if err := json.Unmarshal(body, &drafts); err != nil {
		writeProblem(w, 400, "bad_request", err.Error())
		return
	}
	if f.publishes != nil && f.publishes(n, w, drafts) {
		return
	}
	f.store(w, drafts)
}

// store is POST /v1/events.
func (f *fake) store(w http.ResponseWriter, drafts []json.RawMessage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	receipts := []carillon.Receipt{}
	for _, raw := range drafts {
		var d struct {
			Type string          `json:"type"`
			ID   string          `json:"id"`
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(raw, &d); err != nil {
			writeProblem(w, 400, "bad_request", err.Error())
			return
		}
		if id, ok := f.keys[d.ID]; ok && d.ID != "" {
			receipts = append(receipts, carillon.Receipt{ID: id, Duplicate: true})
			continue
		}
		id := f.append(carillon.Event{Type: d.Type, Data: d.Data})
		f.keys[d.ID] = id
		receipts = append(receipts, carillon.Receipt{ID: id})
	}
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(map[string]any{"events": receipts})
}

func writeProblem(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail})
}

// fakeConn is one WebSocket.
type fakeConn struct {
	f       *fake
	ws      *websocket.Conn
	auth    string
	after   string // of the handshake
	began   time.Time
	frames  chan map[string]any // what the client sent; closed at the end
	closing chan fakeClose
	ctx     context.Context
	kill    context.CancelFunc // cuts the connection

	mu       sync.Mutex // guards what follows
	received []map[string]any
	closed   error // what the client's end was
}

type fakeClose struct {
	code         int
	goaway       string
	retryAfterMS int
	later        time.Duration // than goaway
}

// close makes the connection's serve end with a close code.
func (c *fakeConn) close(code int) { c.closing <- fakeClose{code: code} }

// sent are the frames of a type that the client sent.
func (c *fakeConn) sent(typ string) (out []map[string]any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.received {
		if f["type"] == typ {
			out = append(out, f)
		}
	}
	return out
}

func (f *fake) serveWS(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	c := &fakeConn{
		f: f, auth: r.Header.Get("Authorization"), after: r.URL.Query().Get("after"), began: time.Now(),
		frames: make(chan map[string]any, 64), closing: make(chan fakeClose, 1),
	}
	c.ctx, c.kill = context.WithCancel(context.WithoutCancel(r.Context()))
	f.conns = append(f.conns, c)
	n := len(f.conns)
	f.ended.Add(1)
	f.mu.Unlock()
	defer f.ended.Done()
	defer c.kill()

	if f.handshake != nil && f.handshake(n, w, r) {
		return
	}
	if c.auth == "" {
		writeProblem(w, 401, "unauthenticated", "no credential")
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"carillon.v1"}})
	if err != nil {
		return
	}
	if ws.Subprotocol() != "carillon.v1" {
		f.t.Errorf("the client offered %q", r.Header.Get("Sec-WebSocket-Protocol"))
	}
	c.ws = ws
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(c.frames)
		for {
			_, data, err := ws.Read(c.ctx)
			if err != nil {
				c.mu.Lock()
				c.closed = err
				c.mu.Unlock()
				return
			}
			var frame map[string]any
			if err := json.Unmarshal(data, &frame); err != nil {
				f.t.Errorf("the client sent %q", data)
			}
			c.mu.Lock()
			c.received = append(c.received, frame)
			c.mu.Unlock()
			c.frames <- frame
			if f.deaf {
				<-c.ctx.Done()
				return
			}
		}
	}()
	if f.script == nil || !f.script(n, c) {
		c.serve()
	}
	c.kill()
	<-read
	_ = ws.CloseNow()
}

func (c *fakeConn) send(frame map[string]any) bool {
	b, err := json.Marshal(frame)
	if err != nil {
		c.f.t.Error(err)
	}
	ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, b) == nil
}

func (c *fakeConn) welcome(cursor string) {
	c.send(map[string]any{"type": "welcome", "connection_id": "c1", "org": "demo", "user": nil, "cursor": cursor, "max_idle_ms": c.f.idle.Milliseconds()})
}

// hear waits for a frame of a type.
func (c *fakeConn) hear(typ string) map[string]any {
	for frame := range c.frames {
		if frame["type"] == typ {
			return frame
		}
	}
	return map[string]any{}
}

func (c *fakeConn) event(i int) {
	c.f.mu.Lock()
	e := c.f.log[i]
	c.f.mu.Unlock()
	b, _ := json.Marshal(e)
	var frame map[string]any
	_ = json.Unmarshal(b, &frame)
	c.send(frame)
}

func (c *fakeConn) subscribed(frame map[string]any, cursor string, more map[string]any) {
	answer := map[string]any{"type": "subscribed", "ref": frame["ref"], "patterns": frame["patterns"], "cursor": cursor}
	maps.Copy(answer, more)
	c.send(answer)
}

// serve is what a good server does.
func (c *fakeConn) serve() {
	f := c.f
	at := f.end()
	var gap map[string]any
	if i, ok := f.index(c.after); ok {
		at = i
		if i < f.oldest-1 {
			at = f.oldest - 1
			gap = map[string]any{"reason": "expired", "cursor": fakeID(at)}
		}
	} else if c.after == "earliest" {
		at = f.oldest - 1
	} else if c.after != "now" && c.after != "" && c.after[0] != '-' {
		gap = map[string]any{"reason": "reset", "cursor": fakeID(at)}
	}
	c.welcome(fakeID(at))
	sub := c.hear("subscribe")
	if gap != nil {
		c.subscribed(sub, fakeID(at), map[string]any{"gap": gap})
	} else {
		c.subscribed(sub, fakeID(at), nil)
	}
	end, caughtUp := f.end(), false
	idle := time.NewTimer(f.idle)
	defer idle.Stop()
	for {
		f.mu.Lock()
		changed, n := f.changed, len(f.log)
		f.mu.Unlock()
		for at < n-1 {
			at++
			f.mu.Lock()
			skip := f.log[at].Type == "skip"
			f.mu.Unlock()
			if !skip {
				c.event(at)
				idle.Reset(f.idle)
			}
			if at == end {
				break
			}
		}
		if at >= end && !caughtUp {
			caughtUp = true
			c.send(map[string]any{"type": "caught_up", "cursor": fakeID(at)})
			idle.Reset(f.idle)
			continue
		}
		select {
		case frame, ok := <-c.frames:
			if !ok {
				return
			}
			switch frame["type"] {
			case "ping":
				c.send(map[string]any{"type": "pong"})
				idle.Reset(f.idle)
			case "refresh":
				c.send(map[string]any{"type": "refreshed", "expires_in": 3600})
				idle.Reset(f.idle)
			}
		case <-changed:
		case <-idle.C:
			c.send(map[string]any{"type": "heartbeat", "cursor": fakeID(at)})
			idle.Reset(f.idle)
		case how := <-c.closing:
			if how.goaway != "" {
				c.send(map[string]any{"type": "goaway", "reason": how.goaway, "retry_after_ms": how.retryAfterMS})
				time.Sleep(how.later)
			}
			if how.code != 0 {
				_ = c.ws.Close(websocket.StatusCode(how.code), "because")
			}
			return
		case <-c.ctx.Done():
			return
		}
	}
}

// pipeListener is a network of one address, in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "fake", Net: "pipe"} }

// next is the id of the next event, or the error.
func next(t *testing.T, sub *carillon.Subscription) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	event, err := sub.Next(ctx)
	if err != nil {
		return "error: " + err.Error()
	}
	return event.ID
}

func wantNext(t *testing.T, sub *carillon.Subscription, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if got := next(t, sub); got != id {
			t.Fatalf("next is %q, want %q", got, id)
		}
	}
}

// quiet checks that nothing comes for a while.
func quiet(t *testing.T, sub *carillon.Subscription, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if event, err := sub.Next(ctx); err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Fatalf("got %v, %v where nothing should come", event.ID, err)
	}
}
