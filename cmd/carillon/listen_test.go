package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

// transcript is what a program wrote.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *transcript) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(b)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in %v", what, patience)
		}
	}
}

// program is the command line, running.
type program struct {
	*exec.Cmd

	out, err transcript
}

// start runs the program, with variables beside those of the test.
func start(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience) // nothing here takes so long
	t.Cleanup(cancel)
	p := &program{Cmd: exec.CommandContext(ctx, "carillon", args...)}
	p.Env = append(os.Environ(), env...)
	p.Stdout, p.Stderr = &p.out, &p.err
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Kill() // it may be over
		_ = p.Wait()
		if t.Failed() {
			t.Logf("carillon %s\n%s%s", strings.Join(args, " "), &p.out, &p.err)
		}
	})
	return p
}

// interrupt ends it as Ctrl-C does, which is no error.
func (p *program) interrupt(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, &p.err)
	}
}

// node is a running `carillon dev`.
type node struct {
	env  map[string]string
	sent int
	id   string // what the provider calls the next webhook; "": how many there were
}

func startNode(t *testing.T, env []string, args ...string) *node {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dev.env")
	start(t, env, append([]string{"dev", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--env-file", file}, args...)...)
	n := &node{env: map[string]string{}}
	eventually(t, "the node", func() bool {
		text, err := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			n.env[name] = value
		}
		return err == nil
	})
	return n
}

// listen is `carillon listen` to the node, at url if it is not the node's own address.
func (n *node) listen(t *testing.T, url, forward, state string, args ...string) *program {
	t.Helper()
	if url == "" {
		url = n.env["CARILLON_URL"]
	}
	return start(t, nil, append([]string{"listen", "--url", url, "--key", n.env["CARILLON_API_KEY"], "--forward", forward, "--state", state}, args...)...)
}

// send delivers a webhook that is not quite as anybody would write it, and waits until
// it is an event.
// pad is text of a size in bytes, with letters that are no ASCII in it, which does not
// pack well.
func pad(seed, size int) string {
	random := rand.New(rand.NewPCG(uint64(seed), 0)) //nolint:gosec // it is no secret
	var b strings.Builder
	for b.Len() < size {
		b.WriteRune('ü' + rune(random.IntN(60)))
		b.WriteByte('a' + byte(random.IntN(26)))
	}
	return b.String()
}

func (n *node) send(t *testing.T, size int) {
	t.Helper()
	n.sent++
	id := either(n.id, fmt.Sprint(n.sent))
	body := fmt.Appendf(nil, "{ \"action\":\"opened\",  \"number\": %d.0, \"pad\":%q, \"escaped\":\"\\u00fc\" }\r\n", n.sent, pad(n.sent, size))
	p, err := provider.New(provider.Config{Kind: provider.KindGitHub})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, n.env["CARILLON_URL"]+"/hooks/demo/gh?trace=a%20b&n=1", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Sign(r.Header, body, id, "issues", provider.Secret{Key: []byte(n.env["CARILLON_HOOK_SECRET"])}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json; charset=utf-8", "Accept": "*/*", "X-Odd": "a,  b",
		"X-Body": string(bytes.TrimSpace(body[:40])), "Authorization": "Bearer secret", "Te": "trailers",
	} {
		r.Header.Set(name, value)
	}
	r.Header["User-Agent"] = nil // and no Accept-Encoding: what did not come is not made up
	res, err := (&http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, _ := io.ReadAll(res.Body); res.StatusCode != 200 {
		t.Fatalf("webhook %d: %s %s", n.sent, res.Status, answer)
	}
	remote := Remote{URL: n.env["CARILLON_URL"], Key: n.env["CARILLON_API_KEY"]}
	api, err := remote.hooks()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event", func() bool {
		_, d, err := api.delivery(t.Context(), res.Header.Get("Carillon-Delivery"))
		return err == nil && d.State == statePublished
	})
}

// webhook is a request that somebody's server got.
type webhook struct {
	id     string
	header http.Header
	body   []byte
	query  string
	length int64
	host   string
}

// local is somebody's server.
type local struct {
	*httptest.Server

	mu    sync.Mutex
	came  []webhook
	taken []string // ids that were answered with 204, in order
}

// serveLocal answers the n-th request, from 1, as answer says: with a status, or, 0,
// not at all.
func serveLocal(t *testing.T, l net.Listener, answer func(n int, id string) int) *local {
	t.Helper()
	s := &local{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender was killed
		}
		one := webhook{id: r.Header.Get("X-Github-Delivery"), header: r.Header, body: body, query: r.URL.RawQuery, length: r.ContentLength, host: r.Host}
		s.mu.Lock()
		s.came = append(s.came, one)
		n := len(s.came)
		s.mu.Unlock()
		status := answer(n, one.id)
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		if status == 204 {
			s.mu.Lock()
			s.taken = append(s.taken, one.id)
			s.mu.Unlock()
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	if l != nil {
		_ = s.Listener.Close()
		s.Listener = l
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func takes(int, string) int { return 204 }

// ids are those of webhooks from one to another.
func ids(from, to int) (list []string) {
	for i := from; i <= to; i++ {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

func (s *local) awaitTaken(t *testing.T, want []string) {
	t.Helper()
	got := func() []string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Clone(s.taken)
	}
	eventually(t, fmt.Sprintf("%d webhooks", len(want)), func() bool { return len(got()) >= len(want) })
	if have := got(); !slices.Equal(have, want) {
		t.Fatalf("taken were %q, not %q", have, want)
	}
}

// check holds what came against what was sent.
func (s *local) check(t *testing.T, n *node) {
	t.Helper()
	p, err := provider.New(provider.Config{Kind: provider.KindGitHub})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.came {
		claim, refusal := p.Look(one.header, time.Now())
		if refusal != nil {
			t.Fatalf("webhook %s: %v", one.id, refusal)
		}
		if _, refusal = claim.Verify(one.body, []provider.Secret{{Key: []byte(n.env["CARILLON_HOOK_SECRET"])}}); refusal != nil {
			t.Errorf("webhook %s: %v", one.id, refusal)
		}
		if one.header.Get("Carillon-Delivery") == "" || one.query != "own=1&trace=a%20b&n=1" || one.length != int64(len(one.body)) || one.host != s.Listener.Addr().String() {
			t.Errorf("webhook %s: %+v", one.id, one)
		}
		h := one.header.Clone()
		for _, made := range []string{"Carillon-Delivery", "Content-Length", "X-Hub-Signature-256", "X-Github-Delivery"} {
			h.Del(made)
		}
		want := http.Header{
			"Accept": {"*/*"}, "Content-Type": {"application/json; charset=utf-8"},
			"X-Github-Event": {"issues"}, "X-Odd": {"a,  b"}, "X-Body": {string(bytes.TrimSpace(one.body[:40]))},
		}
		if !maps.EqualFunc(h, want, slices.Equal) {
			t.Errorf("webhook %s came with\n%v\nnot\n%v", one.id, h, want)
		}
	}
}

func reserve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestListenBringsEveryWebhookInOrderAsItCame(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	n.send(t, 0)
	n.send(t, 900_000) // which is no whole event, and two entries of the log
	addr := reserve(t)
	state := filepath.Join(t.TempDir(), "state.json")
	p := n.listen(t, "", "http://"+addr+"/webhooks?own=1", state, "--since", "earliest")
	eventually(t, "nobody at the address", func() bool { return strings.Contains(p.out.String(), "→ connection refused; again in 500ms") })
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	failed := []int{500, 302, 0}
	s := serveLocal(t, l, func(_ int, id string) int {
		if id == "2" && len(failed) > 0 { // requests come one after the other
			status := failed[0]
			failed = failed[1:]
			return status
		}
		return 204
	})
	for range 5 {
		n.send(t, 10)
	}
	s.awaitTaken(t, ids(1, 7))
	s.check(t, n)
	p.interrupt(t)
	for _, want := range []string{
		"gh  issues.opened  900.1 kB → 500  ", "gh  issues.opened  900.1 kB → 302  ", "→ connection closed without an answer; again in 2s", "→ 204  ",
	} {
		if !strings.Contains(p.out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, &p.out)
		}
	}
	if info, err := os.Stat(state); err != nil || info.Mode() != 0o600 {
		t.Errorf("state: %v, %v", info, err)
	}
}

func TestListenGoesOnBehindTheLastThatWasTaken(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	state := filepath.Join(t.TempDir(), "deep", "state.json")
	hold, held := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := serveLocal(t, nil, func(_ int, id string) int {
		if id == "6" {
			once.Do(func() { close(held); <-hold })
		}
		return 204
	})
	forward := s.URL + "/?own=1"

	// It begins with now. Ctrl-C is the end between two of them.
	n.send(t, 0)
	p := n.listen(t, "", forward, state)
	eventually(t, "listening", func() bool { return strings.Contains(p.err.String(), "listening in demo to gh.>, for "+forward) })
	n.send(t, 0)
	n.send(t, 0)
	s.awaitTaken(t, ids(2, 3))
	p.interrupt(t)

	// What came meanwhile follows, although --since names another place. Then it is
	// killed while the sixth is not answered.
	n.send(t, 0)
	n.send(t, 0)
	p = n.listen(t, "", forward, state, "--since", "earliest")
	s.awaitTaken(t, ids(2, 5))
	n.send(t, 0)
	<-held
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait() // it was killed
	if !strings.Contains(p.err.String(), "not at --since") {
		t.Errorf("it does not say that --since is not used:\n%s", &p.err)
	}
	close(hold)
	s.awaitTaken(t, ids(2, 6)) // as its own program sees it

	// The sixth had no 2xx for all that listen knows: it comes again, and only it.
	n.send(t, 0)
	p = n.listen(t, "", forward, state)
	s.awaitTaken(t, append(ids(2, 6), "6", "7"))
	p.interrupt(t)

	// And nothing that was taken does.
	p = n.listen(t, "", forward, state)
	n.send(t, 0)
	s.awaitTaken(t, append(ids(2, 6), "6", "7", "8"))
	s.check(t, n)
	p.interrupt(t)
}

func TestListenWaitsForTheAnswerToWhatIsUnderWayWhenItIsInterrupted(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	state := filepath.Join(t.TempDir(), "state.json")
	hold, held := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := serveLocal(t, nil, func(int, string) int {
		once.Do(func() { close(held); <-hold })
		return 204
	})
	n.send(t, 0)
	p := n.listen(t, "", s.URL, state, "--since", "earliest")
	<-held
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	n.send(t, 0)
	close(hold)
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	p = n.listen(t, "", s.URL, state)
	s.awaitTaken(t, ids(1, 2))
	p.interrupt(t)
}

// cable is a connection to a node that can be cut.
type cable struct {
	l    net.Listener
	to   string
	mu   sync.Mutex
	down bool
	all  []net.Conn
}

func layCable(t *testing.T, url string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{l: l, to: strings.TrimPrefix(url, "http://")}
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", c.to)
			if err != nil || !c.plug(in, out) {
				_ = in.Close()
				continue
			}
			ended.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
			ended.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		c.cut()
		ended.Wait()
	})
	return c
}

func (c *cable) plug(in, out net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, in, out)
	if c.down {
		_ = out.Close()
	}
	return !c.down
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = true
	for _, conn := range c.all {
		_ = conn.Close()
	}
	c.all = nil
}

func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = false
}

func TestACutLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	c := layCable(t, n.env["CARILLON_URL"])
	s := serveLocal(t, nil, func(n int, _ string) int {
		if n == 5 {
			c.cut() // while one is under way
			return 503
		}
		return 204
	})
	for range 6 {
		n.send(t, 0)
	}
	p := n.listen(t, "http://"+c.l.Addr().String(), s.URL+"?own=1", filepath.Join(t.TempDir(), "state.json"), "--since", "earliest")
	eventually(t, "the cut", func() bool {
		return strings.Contains(p.err.String(), "; back in ") || strings.Contains(p.err.String(), "; again in ")
	})
	n.send(t, 0)
	n.send(t, 0)
	c.mend()
	s.awaitTaken(t, ids(1, 8))
	n.send(t, 0)
	s.awaitTaken(t, ids(1, 9))
	s.check(t, n)
	p.interrupt(t)
}

func TestListenGivesUpOnlyWhenItIsTold(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	for range 3 {
		n.send(t, 0)
	}
	for _, tc := range []struct {
		name  string
		args  []string
		asked []string // in order
		ends  string   // on stderr; "": it does not end
	}{
		{"skips at once", []string{"--skip-failed"}, []string{"1", "2", "3"}, ""},
		{"skips after two", []string{"--skip-failed", "--max-failures", "2"}, []string{"1", "2", "2", "3"}, ""},
		{"ends after two", []string{"--max-failures", "2"}, []string{"1", "2", "2"}, "carillon: 2 was answered with 400, 2 times\ncarillon: hint: the next listen begins with it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := serveLocal(t, nil, func(_ int, id string) int {
				if id == "2" {
					return 400
				}
				return 204
			})
			p := n.listen(t, "", s.URL, filepath.Join(t.TempDir(), "state.json"), append(tc.args, "--since", "earliest")...)
			if tc.ends != "" {
				if err := p.Wait(); err == nil || !strings.Contains(p.err.String(), tc.ends) {
					t.Errorf("%v\n%s", err, &p.err)
				}
			} else {
				s.awaitTaken(t, []string{"1", "3"})
				p.interrupt(t)
				if !strings.Contains(p.out.String(), " ms; skipped\n") {
					t.Errorf("what is skipped is not said:\n%s", &p.out)
				}
			}
			var asked []string
			for _, one := range s.came {
				asked = append(asked, one.id)
			}
			if !slices.Equal(asked, tc.asked) {
				t.Errorf("asked for %q, not %q", asked, tc.asked)
			}
		})
	}
}

func TestWhatIsGoneIsSaidAndSkipped(t *testing.T) {
	t.Parallel()
	n := startNode(t, []string{"CARILLON_HOOKS_RETENTION_BYTES=1MiB"}, "--engine", "memory")
	for range 4 {
		n.send(t, 600_000)
	}
	s := serveLocal(t, nil, takes)
	p := n.listen(t, "", s.URL, filepath.Join(t.TempDir(), "state.json"), "--since", "earliest")
	eventually(t, "the last one", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Contains(s.taken, "4")
	})
	p.interrupt(t)
	if want := "gh  issues.opened  1: it is not kept any more; skipped\n"; !strings.Contains(p.out.String(), want) || slices.Contains(s.taken, "1") {
		t.Errorf("%q is not in:\n%s", want, &p.out)
	}
}

func TestTwoBodiesWithOneIdAreNotMixedUp(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	n.id = "same"
	s := serveLocal(t, nil, takes)
	listen := func() *program {
		return n.listen(t, "", s.URL, filepath.Join(t.TempDir(), "state.json"), "--since", "earliest")
	}
	live := listen()
	n.send(t, 0)
	n.send(t, 0)
	s.awaitTaken(t, []string{"same", "same"})
	live.interrupt(t)
	late := listen()
	s.awaitTaken(t, []string{"same", "same", "same", "same"})
	late.interrupt(t)
	for i, one := range s.came {
		if want := fmt.Sprintf("\"number\": %d.0,", i%2+1); !strings.Contains(string(one.body), want) {
			t.Errorf("webhook %d: %q has no %q", i, one.body, want)
		}
	}
}

func TestARetriedWebhookComesAgain(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	s := serveLocal(t, nil, takes)
	p := n.listen(t, "", s.URL+"?own=1", filepath.Join(t.TempDir(), "state.json"), "--since", "earliest", "--json", "--print-bodies")
	n.send(t, 0)
	s.awaitTaken(t, ids(1, 1))
	retry := start(t, nil, "hooks", "retry", "1", "--url", n.env["CARILLON_URL"], "--key", n.env["CARILLON_API_KEY"])
	if err := retry.Wait(); err != nil || retry.out.String() != "1 will be processed again\n" {
		t.Fatalf("%v %s%s", err, &retry.out, &retry.err)
	}
	s.awaitTaken(t, []string{"1", "1"})
	s.check(t, n)
	p.interrupt(t)
	if text := p.out.String(); strings.Count(text, `"status":204`) != 2 || strings.Count(text, `"body":"eyA`) != 2 {
		t.Error(text)
	}
}
