package front

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carillon-rt/carillon/internal/admission"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/loop"
)

// patience is how long a test waits for something that should come at once.
const patience = 30 * time.Second

// port is a Front and the net/http server behind it, on a real socket.
type port struct {
	*Front

	t       *testing.T
	loops   []*loop.Loop
	sockets loop.Sockets
	addr    string

	mu       sync.Mutex // guards what follows
	answered []int
}

// serve opens a port with these doors; net/http answers "net/http ", the path and the
// body.
func serve(t *testing.T, cfg Config, doors map[string]http.HandlerFunc) *port {
	t.Helper()
	p := &port{t: t}
	for range 2 {
		l, err := loop.NewLoop(&p.sockets)
		if err != nil {
			t.Fatal(err)
		}
		p.loops = append(p.loops, l)
	}
	engine := memory.New(memory.Config{})
	h := hub.New(hub.Config{Engine: engine, Shards: len(p.loops), Poller: func(shard int) hub.Poller { return p.loops[shard] }})
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = raw.Addr().String()
	cfg.Loops, cfg.Shards = p.loops, h.Shards()
	cfg.Doors = map[string]http.Handler{}
	for path, f := range doors {
		cfg.Doors[path] = f
	}
	cfg.Answered = func(_ string, status int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.answered = append(p.answered, status)
	}
	var ok bool
	p.sockets.Prepare(raw)
	if p.Front, ok = New(raw, cfg); !ok {
		t.Fatal("the loops do not accept")
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, "net/http "+r.URL.Path+string(body)) // the client checks it
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(p.Front) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		for _, l := range p.loops {
			if err := l.Close(ctx); err != nil {
				t.Error(err)
			}
		}
		h.Stop()
		if n := p.pending.Load(); n != 0 {
			t.Errorf("%d connections are pending at the end", n)
		}
	})
	return p
}

// client is a connection to it.
type client struct {
	net.Conn

	t *testing.T
	r *bufio.Reader
}

func (p *port) dial() *client {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &client{conn, p.t, bufio.NewReader(conn)}
}

func (c *client) say(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

func get(path string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(lines, "") + "\r\n"
}

// hears reads one answer.
func (c *client) hears(status int, body string) *http.Response {
	c.t.Helper()
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != status || string(b) != body {
		c.t.Fatalf("%d %q %v, wanted %d %q", r.StatusCode, b, err, status, body)
	}
	return r
}

// ends waits for the end of the connection.
func (c *client) ends() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); len(b) > 0 || errors.Is(err, net.ErrClosed) {
		c.t.Fatalf("%q, %v instead of the end", b, err)
	}
}

// says is a door that answers with the query.
func says(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, r.URL.RawQuery) // the client checks it
}

var doors = map[string]http.HandlerFunc{"/v1/poll": says}

func TestTheLoopAnswersOneRequestAfterTheOther(t *testing.T) {
	p := serve(t, Config{}, doors)
	c := p.dial()
	c.say(get("/v1/poll?1"))
	r := c.hears(200, "1")
	if r.Header.Get("Content-Type") != "text/plain" || r.Header.Get("Date") == "" || r.Close {
		t.Errorf("its header is %v", r.Header)
	}
	c.say(get("/v1/poll?2") + get("/v1/poll?3") + get("/v1/poll?4", "Connection: close\r\n"))
	c.hears(200, "2")
	c.hears(200, "3")
	if r := c.hears(200, "4"); !r.Close {
		t.Error("the last answer does not say that it is the last")
	}
	c.ends()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.answered) != 4 {
		t.Errorf("%v were counted", p.answered)
	}
}

func TestARequestInPiecesIsAnsweredWhenItIsWhole(t *testing.T) {
	p := serve(t, Config{}, doors)
	c := p.dial()
	all := get("/v1/poll?1") + get("/v1/poll?2")
	for i := range len(all) {
		c.say(all[i : i+1])
	}
	c.hears(200, "1")
	c.hears(200, "2")
}

func TestWhatTheLoopDoesNotUnderstandGoesToNetHTTPWhole(t *testing.T) {
	p := serve(t, Config{}, map[string]http.HandlerFunc{"/v1/poll": says, "/v1/ws": func(w http.ResponseWriter, _ *http.Request) { Of(w).Pass() }})
	for _, c := range []struct{ name, head, body string }{
		{"another path", get("/else"), "net/http /else"},
		{"another method", "POST /v1/poll HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "net/http /v1/pollabc"},
		{"what a door passes on", get("/v1/ws"), "net/http /v1/ws"},
		{"a folded line", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nTe: trailers\r\n\r\n", "net/http /v1/poll"},
		{"a long head", get("/v1/poll", "A: "+strings.Repeat("x", MaxHeaderBytes)+"\r\n"), "net/http /v1/poll"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := p.dial()
			conn.say(get("/v1/poll?first"))
			conn.hears(200, "first")
			conn.say(c.head + get("/v1/poll"))
			conn.hears(200, c.body)
			conn.hears(200, "net/http /v1/poll") // it stays there
		})
	}
}

func TestWhatComesInPiecesAndIsForNetHTTPArrivesWhole(t *testing.T) {
	p := serve(t, Config{}, doors)
	c := p.dial()
	for _, piece := range []string{"GET /v1/", "po", "ll?x HTTP/1.1\r\nHo", "st: x\r\nExpec", "t: 100-continue\r\n", "\r\n"} {
		c.say(piece)
		<-time.After(time.Millisecond) // so that they are pieces; nothing depends on it
	}
	c.hears(200, "net/http /v1/poll")
}

func TestADoorTakesTheConnectionWithWhatFollows(t *testing.T) {
	p := serve(t, Config{}, map[string]http.HandlerFunc{"/v1/ws": func(w http.ResponseWriter, _ *http.Request) {
		x := Of(w)
		e := &echo{at: x.Shard(), out: []byte("HTTP/1.1 101 Switching Protocols\r\n\r\n")}
		from, before := x.Take(http.StatusSwitchingProtocols)
		e.Inherit(from, before, e)
		e.Ready()
	}})
	c := p.dial()
	c.say(get("/v1/ws") + "more")
	want := "HTTP/1.1 101 Switching Protocols\r\n\r\nmore"
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c.r, b); err != nil || string(b) != want {
		t.Fatalf("%q, %v", b, err)
	}
	c.say("and more")
	if _, err := io.ReadFull(c.r, b[:8]); err != nil || string(b[:8]) != "and more" {
		t.Fatalf("%q, %v", b[:8], err)
	}
}

// echo sends back what it gets.
type echo struct {
	loop.Link

	at  *hub.Shard
	out []byte
}

func (e *echo) Pull(dst [][]byte) ([][]byte, bool) {
	if e.out != nil {
		dst, e.out = append(dst, e.out), nil
	}
	return dst, false
}

func (e *echo) Input(b []byte) int {
	e.out = append(e.out, b...)
	e.Ready()
	return len(b)
}

func (e *echo) Alarm(time.Time) {}
func (e *echo) Now() time.Time  { return e.at.Now() }
func (e *echo) Gone()           {}

func TestAnAnswerMayComeLater(t *testing.T) {
	answers := make(chan *Answer, 1)
	shards := make(chan *hub.Shard, 1)
	p := serve(t, Config{}, map[string]http.HandlerFunc{"/v1/poll": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Before", "too")
		shards <- Of(w).Shard()
		answers <- Of(w).Later(nil)
	}})
	c := p.dial()
	for range 3 {
		c.say(get("/v1/poll"))
		shard, answer := <-shards, <-answers
		c.say(get("/v1/poll")) // it waits for its turn
		shard.Post(hub.TaskFunc(func() {
			answer.WriteHeader(http.StatusNoContent)
			answer.Send()
		}))
		c.hears(204, "")
		shard, answer = <-shards, <-answers
		shard.Post(hub.TaskFunc(func() {
			answer.Header()["A"] = []string{"b\r\nc"}
			_, _ = answer.Write([]byte("now")) // it cannot fail
			answer.Send()
		}))
		if r := c.hears(200, "now"); r.Header.Get("A") != "b" || r.Header.Get("Before") != "too" {
			t.Errorf("a header with two lines became %q", r.Header)
		}
	}
}

func TestAClientThatGoesIsNotAnswered(t *testing.T) {
	gone := make(chan struct{})
	asked := make(chan struct{})
	var answer *Answer
	p := serve(t, Config{}, map[string]http.HandlerFunc{"/v1/poll": func(w http.ResponseWriter, _ *http.Request) {
		answer = Of(w).Later(func() {
			answer.Send() // nobody is there
			close(gone)
		})
		close(asked)
	}})
	c := p.dial()
	c.say(get("/v1/poll"))
	<-asked
	_ = c.Close()
	<-gone
}

func TestASlowHeadIsGivenUp(t *testing.T) {
	p := serve(t, Config{HeaderTimeout: 50 * time.Millisecond}, doors)
	for _, head := range []string{"", "GET /v1/po", get("/v1/poll?x") + "GET"} {
		c := p.dial()
		c.say(head)
		if strings.Contains(head, "x") {
			c.hears(200, "x")
		}
		c.ends()
	}
	if n := p.Late(); n != 3 {
		t.Errorf("%d were counted as late", n)
	}
}

func TestAnIdleConnectionIsClosedAndNotCounted(t *testing.T) {
	p := serve(t, Config{IdleTimeout: 50 * time.Millisecond}, doors)
	c := p.dial()
	c.say(get("/v1/poll?x"))
	c.hears(200, "x")
	c.ends()
	if n := p.Late(); n != 0 {
		t.Errorf("%d were counted as late", n)
	}
}

func TestMoreConnectionsThanMayWaitAreRefused(t *testing.T) {
	p := serve(t, Config{Pending: 2}, doors)
	first, second := p.dial(), p.dial()
	first.say("GET")
	second.say("GET")
	for p.pending.Load() != 2 {
		<-time.After(time.Millisecond)
	}
	p.dial().ends()
	if n := p.Refused(); n != 1 {
		t.Errorf("%d were counted as refused", n)
	}
	first.say(get("/v1/poll?x")[len("GET"):])
	first.hears(200, "x")
	third := p.dial() // there is room again
	third.say(get("/v1/poll?y"))
	third.hears(200, "y")
}

func TestAHandlerThatPanicsCostsOneConnection(t *testing.T) {
	p := serve(t, Config{}, map[string]http.HandlerFunc{"/v1/poll": says, "/v1/sse": func(http.ResponseWriter, *http.Request) { panic("a door") }})
	other := p.dial()
	c := p.dial()
	c.say(get("/v1/sse"))
	c.ends()
	other.say(get("/v1/poll?x"))
	other.hears(200, "x")
}

func TestADrainingPortAnswersOnceMore(t *testing.T) {
	p := serve(t, Config{}, doors)
	c := p.dial()
	c.say(get("/v1/poll?x"))
	c.hears(200, "x")
	p.Drain()
	c.say(get("/v1/poll?y"))
	if r := c.hears(200, "y"); !r.Close {
		t.Error("the answer does not say that it is the last")
	}
	c.ends()
}

func TestAClosedPortEndsWhoWaitsForNothing(t *testing.T) {
	p := serve(t, Config{}, doors)
	c := p.dial()
	c.say(get("/v1/poll?x"))
	c.hears(200, "x")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	c.ends()
	// The other loop may be about to close the port.
	if _, err := net.Dial("tcp", p.addr); !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a new one: %v", err)
	}
}

func TestAPortWithoutRoomIsTriedAgain(t *testing.T) {
	full := make(chan struct{}, 100)
	p := serve(t, Config{Logger: slog.New(told{Handler: slog.DiscardHandler, about: full})}, doors)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // fewer than are open: none can be made
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: p.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}})
	for range 3 { // it is tried more than once
		<-full
	}
	if err := errors.Join(err, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "client")
	conn, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &client{conn, t, bufio.NewReader(conn)}
	c.say(get("/v1/poll?y"))
	c.hears(200, "y")
}

// told is a log that says when something is written.
type told struct {
	slog.Handler

	about chan struct{}
}

func (told) Enabled(context.Context, slog.Level) bool { return true }

func (l told) Handle(context.Context, slog.Record) error {
	select {
	case l.about <- struct{}{}:
	default:
	}
	return nil
}

// gated is a port whose gate lets one through at once and the next a little later.
func gated(t *testing.T, queue int, doors map[string]http.HandlerFunc) (*port, *admission.Gate) {
	t.Helper()
	g := admission.New(admission.Config{PerSecond: 20, Burst: 1, Queue: queue, Wait: patience})
	return serve(t, Config{Admission: g}, doors), g
}

func TestARequestWaitsForItsTurnOnTheLoop(t *testing.T) {
	p, g := gated(t, 10, doors)
	var all []*client
	for range 4 {
		c := p.dial()
		c.say(get("/v1/poll?1") + get("/v1/poll?2"))
		all = append(all, c)
	}
	for _, c := range all {
		c.hears(200, "1")
		c.hears(200, "2") // it waits for a turn of its own
	}
	if s := g.Stats(); s.Admitted+s.Queued != 8 || s.Queued == 0 || s.Waiting != 0 || s.Fullest > 3 {
		t.Errorf("%+v", s) // in a window of 100 ms no more than the burst and two
	}
}

func TestWhatFollowsARequestThatWaitsIsNotLost(t *testing.T) {
	p, g := gated(t, 10, map[string]http.HandlerFunc{
		"/v1/poll": says,
		"/v1/sse":  func(w http.ResponseWriter, _ *http.Request) { Of(w).Pass() },
		"/v1/ws": func(w http.ResponseWriter, _ *http.Request) {
			x := Of(w)
			e := &echo{at: x.Shard()}
			from, before := x.Take(http.StatusSwitchingProtocols)
			e.Inherit(from, before, e)
		},
	})
	wait := func(c *client, head string) {
		other := p.dial() // takes the turn that there is
		other.say(get("/v1/poll?x"))
		before := g.Stats().Waiting
		c.say(head + "AB")
		for g.Stats().Waiting == before && g.Stats().Queued == 0 {
			<-time.After(time.Millisecond)
		}
		c.say("CD")
		other.hears(200, "x")
	}
	taken := p.dial()
	wait(taken, get("/v1/ws"))
	b := make([]byte, 4)
	if _, err := io.ReadFull(taken.r, b); err != nil || string(b) != "ABCD" {
		t.Errorf("%q, %v", b, err)
	}
	passed := p.dial()
	wait(passed, get("/v1/sse"))
	passed.hears(200, "net/http /v1/sse")
	passed.say(" /v1/poll HTTP/1.1\r\nHost: x\r\n\r\n") // a request of the method ABCD
	passed.hears(200, "net/http /v1/poll")
}

// net/http's handler asks the gate itself.
func TestARequestThatIsPassedOnIsNotCountedHere(t *testing.T) {
	p, g := gated(t, 10, map[string]http.HandlerFunc{
		"/v1/poll": says,
		"/v1/sse":  func(w http.ResponseWriter, _ *http.Request) { Of(w).Pass() },
	})
	at := p.dial()
	at.say(get("/v1/sse"))
	at.hears(200, "net/http /v1/sse")
	if s := g.Stats(); s.Admitted+s.Queued != 0 {
		t.Errorf("at once: %+v", s)
	}
	first, waits := p.dial(), p.dial()
	first.say(get("/v1/poll?x"))
	first.hears(200, "x")
	waits.say(get("/v1/sse"))
	waits.hears(200, "net/http /v1/sse")
	if s := g.Stats(); s.Admitted != 1 || s.Queued != 0 || s.Waiting != 0 {
		t.Errorf("after a wait: %+v", s)
	}
}

func TestARequestThatFindsNoRoomAtTheGateIsRefused(t *testing.T) {
	told := make(chan error, 2)
	p, _ := gated(t, 0, map[string]http.HandlerFunc{"/v1/poll": func(w http.ResponseWriter, _ *http.Request) { told <- Of(w).Refused() }})
	for _, refused := range []bool{false, true} {
		c := p.dial()
		c.say(get("/v1/poll"))
		c.hears(200, "")
		if err := <-told; (err != nil) != refused {
			t.Errorf("%v, wanted one: %t", err, refused)
		}
	}
}

func TestAClientThatGoesWhileItWaitsGivesUpItsTurn(t *testing.T) {
	g := admission.New(admission.Config{PerSecond: 1, Burst: 1, Queue: 1, Wait: patience})
	p := serve(t, Config{Admission: g}, doors)
	first := p.dial()
	first.say(get("/v1/poll?x"))
	first.hears(200, "x")
	second := p.dial()
	second.say(get("/v1/poll?y"))
	for g.Stats().Waiting == 0 {
		<-time.After(time.Millisecond)
	}
	_ = second.Close()
	for g.Stats().Waiting != 0 {
		<-time.After(time.Millisecond)
	}
	if s := g.Stats(); s.Admitted != 1 || s.Queued != 0 || p.pending.Load() != 0 {
		t.Errorf("%+v, %d are pending", s, p.pending.Load())
	}
}
