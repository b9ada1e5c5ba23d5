package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/testkit"
)

const (
	// childNATS is the variable that has a child keep its log on these servers, and
	// childHandshakes the one that limits the handshakes it lets through in a second.
	childNATS       = "CARILLON_TEST_CHILD_NATS"
	childHandshakes = "CARILLON_TEST_CHILD_HANDSHAKES"
	// rollingClients is the one that says how many there are.
	rollingClients = "CARILLON_TEST_ROLLING_CLIENTS"
)

// rolling gives a child the settings that it was started with for.
func rolling(cfg *config.Config) {
	url := os.Getenv(childNATS)
	if url == "" {
		return
	}
	rate, err := strconv.Atoi(os.Getenv(childHandshakes))
	if err != nil {
		panic(err)
	}
	cfg.Engine.NATS.URL, cfg.Engine.Partitions = url, 2
	cfg.Handshakes = config.Handshakes{PerSecond: rate, Concurrent: 64, Queue: 1_000_000, Wait: config.Duration(time.Minute)}
}

// lbNode is a node as a load balancer sees it.
type lbNode struct {
	name string

	mu          sync.Mutex // guards what follows
	public, ops string     // addresses
	up          bool
	cmd         *exec.Cmd
}

func (n *lbNode) start(t *testing.T, nats string, rate int) {
	t.Helper()
	cmd, public, ops := spawnNode(t, t.TempDir(), childNATS+"="+nats, childHandshakes+"="+strconv.Itoa(rate))
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cmd, n.public, n.ops = cmd, strings.TrimPrefix(public, "http://"), ops
}

func (n *lbNode) opsURL() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ops
}

func (n *lbNode) ready() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.up
}

// balancer is a plain TCP switch in front of nodes: it knows bytes, and asks now and
// then which of them are ready.
type balancer struct {
	net.Listener

	nodes []*lbNode
	next  atomic.Uint64
	lost  atomic.Uint64 // connections that no node took
	wg    sync.WaitGroup

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

func newBalancer(t *testing.T, nodes ...*lbNode) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{Listener: l, nodes: nodes, conns: map[net.Conn]struct{}{}}
	ctx, cancel := context.WithCancel(t.Context())
	for _, n := range nodes {
		b.wg.Go(func() { n.watch(ctx) })
	}
	b.wg.Go(b.run)
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		b.mu.Lock()
		for c := range b.conns {
			_ = c.Close()
		}
		b.mu.Unlock()
		b.wg.Wait()
	})
	return b
}

// watch asks for readiness until ctx ends.
func (n *lbNode) watch(ctx context.Context) {
	tr := new(http.Transport)
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: time.Second}
	for ctx.Err() == nil {
		up := false
		if r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.opsURL()+"/readyz", nil); err == nil {
			if resp, err := c.Do(r); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				up = resp.StatusCode == http.StatusOK
			}
		}
		n.mu.Lock()
		n.up = up
		n.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (b *balancer) run() {
	for {
		c, err := b.Accept()
		if err != nil {
			return
		}
		b.wg.Go(func() { b.connect(c) })
	}
}

// connect gives a connection to the next node that is ready and takes it.
func (b *balancer) connect(c net.Conn) {
	first := int(b.next.Add(1))
	for i := range b.nodes {
		n := b.nodes[(first+i)%len(b.nodes)]
		n.mu.Lock()
		addr, up := n.public, n.up
		n.mu.Unlock()
		if !up {
			continue
		}
		s, err := net.Dial("tcp", addr)
		if err != nil {
			continue
		}
		b.mu.Lock()
		b.conns[c], b.conns[s] = struct{}{}, struct{}{}
		b.mu.Unlock()
		b.wg.Go(func() { b.copy(s, c) })
		b.copy(c, s)
		return
	}
	b.lost.Add(1)
	_ = c.Close()
}

// copy moves bytes until one side ends, and ends both.
func (b *balancer) copy(to, from net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if _, failed := to.Write(buf[:n]); err != nil || failed != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, to)
	delete(b.conns, from)
}

// wanderer is a client that is sent from node to node.
type wanderer struct {
	cursor string
	next   int // event

	connected, told, refused *atomic.Int64 // of all: now; goaways; handshakes
}

// wander receives until it has n events, numbered from 0: each once, in order.
func (w *wanderer) wander(ctx context.Context, url, token string, n *atomic.Int64) (err error) {
	for w.cursor = "earliest"; ; {
		wait, err := w.stay(ctx, url, token, n)
		if err != nil || int64(w.next) == n.Load() {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %d events: %w", w.next, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// stay is one connection. It returns how long the client has to stay away.
func (w *wanderer) stay(ctx context.Context, url, token string, n *atomic.Int64) (wait time.Duration, err error) {
	const least = 100 * time.Millisecond // where nobody says
	again := least + rand.N(4*least)
	c, resp, err := websocket.Dial(ctx, url+"/v1/ws?after="+w.cursor, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
	if err != nil {
		w.refused.Add(1)
		if resp != nil {
			if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
				again += time.Duration(seconds) * time.Second
			}
		}
		return again, nil
	}
	defer c.CloseNow()
	if c.Write(ctx, websocket.MessageText, []byte(`{"type":"subscribe","pattern":">"}`)) != nil {
		return again, nil
	}
	w.connected.Add(1)
	defer w.connected.Add(-1)
	back := time.Now() // when it may come back
	for int64(w.next) != n.Load() {
		f, err := next(ctx, c)
		switch {
		case websocket.CloseStatus(err) == 4200:
			return time.Until(back), nil
		case err != nil:
			return again, nil
		case f.Type == "gap" || f.Type == "error" || f.Gap != nil:
			return 0, fmt.Errorf("after %d events: %+v", w.next, f)
		case f.Type == "goaway":
			w.told.Add(1)
			back = time.Now().Add(time.Duration(f.RetryAfterMS) * time.Millisecond)
		case f.Type == "event":
			if string(f.Payload) != strconv.Itoa(w.next) {
				return 0, fmt.Errorf("event %d comes as %s", w.next, f.Payload)
			}
			w.next++
			w.cursor = f.ID
		case f.Cursor != "":
			w.cursor = f.Cursor
		}
	}
	return 0, nil
}

// publishNumbers publishes 0, 1, 2, … until ctx ends, each until it is taken, and
// says how many they are.
func publishNumbers(ctx context.Context, url, token string, every time.Duration) (n int64, err error) {
	tr := new(http.Transport)
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	for ctx.Err() == nil {
		body := fmt.Sprintf(`{"type":"load.number","id":"n-%d","data":%d}`, n, n)
		r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, url+"/v1/events", strings.NewReader(body))
		if err != nil {
			return n, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := c.Do(r)
		if err != nil {
			retry(ctx)
			continue
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusAccepted:
			n++
			select {
			case <-ctx.Done():
			case <-time.After(every):
			}
		case http.StatusServiceUnavailable:
			retry(ctx)
		default:
			return n, fmt.Errorf("publish %d: %d, %s", n, resp.StatusCode, text)
		}
	}
	return n, nil
}

// Two nodes on one external log are restarted one after the other: nobody misses
// an event or gets one twice, and neither node lets more clients in than it is set
// to, though all of the other's come to it.
func TestARollingRestartLosesNothing(t *testing.T) {
	clients, rate, leave, every := 300, 100, 200, 50*time.Millisecond
	if n, err := strconv.Atoi(os.Getenv(rollingClients)); err == nil {
		clients, rate, leave, every = n, n/5, n/5, 200*time.Millisecond // so many events are much work for one machine
	}
	nats := testkit.NewCluster(t)
	nodes := []*lbNode{{name: "A"}, {name: "B"}}
	for _, n := range nodes {
		n.start(t, nats.URL, rate)
	}
	b := newBalancer(t, nodes...)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	until := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			if ctx.Err() != nil || t.Failed() {
				t.Fatalf("waiting for %s: %v", what, context.Cause(ctx))
			}
			<-time.After(10 * time.Millisecond) // to look again
		}
	}
	until("both nodes", func() bool { return nodes[0].ready() && nodes[1].ready() })

	addr := b.Addr().String()
	publishing, stop := context.WithCancel(ctx)
	defer stop()
	last := new(atomic.Int64) // how many events there are; unknown as yet
	last.Store(-1)
	published := make(chan error, 1)
	go func() {
		n, err := publishNumbers(publishing, "http://"+addr, token(t, "publisher"), every)
		last.Store(n)
		published <- err
	}()
	var connected, told, refused atomic.Int64
	failures := make(chan error, clients)
	begin := time.Now()
	for i := range clients {
		credential := token(t, fmt.Sprintf("user-%d", i))
		go func() {
			w := wanderer{connected: &connected, told: &told, refused: &refused}
			failures <- w.wander(ctx, "ws://"+addr, credential, last)
		}()
	}
	all := func() bool { return int(connected.Load()) == clients }
	until("everybody", all)
	t.Logf("%d clients are in after %v", clients, time.Since(begin))

	report := func(n *lbNode) {
		t.Helper()
		at := handshakes(t, n.opsURL())
		t.Logf("%s: %v", n.name, at)
		if most := rate/10 + rate/10; at.fullest > most { // the burst and a tenth of a second's
			t.Errorf("%s let %d in within 100 ms, at most %d are allowed", n.name, at.fullest, most)
		}
	}
	for _, n := range nodes {
		report(n)
		begin := time.Now()
		status, text := do(t, client(t), http.MethodPost, n.opsURL()+"/v1/drain", fmt.Sprintf(`{"window":"1s","rate":%d}`, leave))
		if status != http.StatusAccepted {
			t.Fatalf("%d, %s", status, text)
		}
		if err := n.cmd.Wait(); err != nil {
			t.Fatalf("%s ended with %v", n.name, err)
		}
		t.Logf("%s has ended after %v: %s", n.name, time.Since(begin), strings.TrimSpace(text))
		n.start(t, nats.URL, rate)
		until(n.name, n.ready)
		until("everybody", all)
		t.Logf("%s is ready again and all are in after %v", n.name, time.Since(begin))
	}
	<-time.After(2 * every) // some more events
	stop()
	if err := <-published; err != nil {
		t.Error(err)
	}
	// Those who wait for an event do not look whether there is another one: the end
	// is one more.
	status, text := do(t, client(t), http.MethodPost, "http://"+addr+"/v1/events", fmt.Sprintf(`{"type":"load.number","data":%d}`, last.Add(1)-1), "Authorization", "Bearer "+token(t, "publisher"))
	if status != http.StatusAccepted {
		t.Fatalf("%d, %s", status, text)
	}
	wrong := 0
	for range clients {
		if err := <-failures; err != nil {
			if wrong++; wrong <= 10 {
				t.Error(err)
			}
		}
	}
	for _, n := range nodes {
		report(n)
	}
	t.Logf("%d events for each of %d clients, %d of them wrong; %d were told to go, %d handshakes were refused, the switch lost %d",
		last.Load(), clients, wrong, told.Load(), refused.Load(), b.lost.Load())
	if told.Load() < int64(clients) {
		t.Errorf("only %d of %d were told to go", told.Load(), clients)
	}
	for _, n := range nodes {
		if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		_ = n.cmd.Wait() // it was killed
	}
}
