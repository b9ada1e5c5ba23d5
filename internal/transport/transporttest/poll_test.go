package transporttest_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

// line is a connection on which requests are written as they are given.
type line struct {
	net.Conn

	t  *testing.T
	in *bufio.Reader
}

func connect(t *testing.T, n *transporttest.Node) *line {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &line{conn, t, bufio.NewReader(conn)}
}

// ask writes a request with more lines of header.
func (l *line) ask(path string, header ...string) {
	l.t.Helper()
	if _, err := io.WriteString(l, "GET "+path+" HTTP/1.1\r\nHost: x\r\n"+strings.Join(append(header, ""), "\r\n")+"\r\n"); err != nil {
		l.t.Fatal(err)
	}
}

// answer reads one.
func (l *line) answer() (resp *http.Response, body string) {
	l.t.Helper()
	resp, err := http.ReadResponse(l.in, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return resp, string(b)
}

func covers(patterns ...carillon.Pattern) func(*auth.Claims) {
	return func(c *auth.Claims) { c.Permissions = &carillon.Permissions{Subscribe: patterns} }
}

// elsewhere is a line of a header that a loop passes on to net/http.
const elsewhere = "TE: trailers"

// A poll is answered alike on a loop, which has no request any more when the answer
// comes, and through net/http.
func TestAPollIsAnsweredAlikeOnALoopAndThroughHTTP(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{Origins: []string{"https://app.example"}})
	ids := n.PublishDrafts(t, "acme",
		carillon.Draft{Type: "orders.paid", Data: []byte(`1`)}, carillon.Draft{Type: "orders.paid", Data: []byte(`"` + strings.Repeat("long ", 1000) + `"`)})
	last := ids[1]
	bearer := "Authorization: Bearer " + n.Token(t, "acme", "alice")
	for name, r := range map[string]struct {
		path   string
		header []string
		status int
	}{
		"everything":                {"?after=earliest&pattern=orders.*", []string{bearer}, 200},
		"without a wait":            {"?after=earliest&pattern=orders.*&wait=0", []string{bearer}, 200},
		"compressed":                {"?after=earliest&pattern=orders.*", []string{bearer, "Accept-Encoding: gzip, zstd;q=0.5"}, 200},
		"compressed otherwise":      {"?after=earliest&pattern=orders.*", []string{bearer, "Accept-Encoding: br, zstd"}, 200},
		"of another origin":         {"?after=earliest&pattern=orders.*&limit=1", []string{bearer, "Origin: https://app.example"}, 200},
		"of a strange origin":       {"?after=earliest", []string{bearer, "Origin: https://evil.example"}, 403},
		"as CloudEvents":            {"?after=earliest&pattern=orders.*", []string{bearer, "Accept: application/cloudevents+json"}, 200},
		"as what there is not":      {"?after=earliest&pattern=orders.*", []string{bearer, "Accept: text/html"}, 415},
		"nothing new":               {"?pattern=orders.*&wait=0&after=" + last, []string{bearer, `If-None-Match: "` + last + `"`}, 304},
		"nothing new, a list":       {"?pattern=orders.*&wait=0&after=" + last, []string{bearer, `If-None-Match: "a"`, `If-None-Match: W/"` + last + `"`}, 304},
		"nothing new, but a wait":   {"?pattern=orders.*&wait=1&after=" + last, []string{bearer, `If-None-Match: "` + last + `"`}, 200},
		"something new":             {"?pattern=orders.*&wait=0&after=" + ids[0], []string{bearer, `If-None-Match: "` + ids[0] + `"`}, 200},
		"nobody":                    {"?wait=0", nil, 401},
		"a bad token":               {"?wait=0", []string{"Authorization: Bearer nonsense"}, 401},
		"a wait that is too long":   {"?wait=31", []string{bearer}, 400},
		"a gap":                     {"?wait=30&after=" + strings.Repeat("0", 26), []string{bearer}, 200},
		"from what is not readable": {"?after=nonsense", []string{bearer}, 400},
		"what is not covered":       {"?pattern=b", []string{"Authorization: Bearer " + n.Token(t, "acme", "alice", covers("a"))}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			ask := func(header ...string) (*http.Response, string) {
				l := connect(t, n)
				l.ask("/v1/poll"+r.path, header...)
				resp, body := l.answer()
				resp.Header.Del("Date")
				return resp, body
			}
			here, body := ask(r.header...)
			there, want := ask(append(slices.Clone(r.header), elsewhere)...)
			if here.StatusCode != r.status || there.StatusCode != r.status {
				t.Errorf("status %d, and %d through net/http, want %d", here.StatusCode, there.StatusCode, r.status)
			}
			if diff := cmp.Diff(there.Header, here.Header); diff != "" {
				t.Errorf("header: -net/http +loop\n%s", diff)
			}
			if body != want {
				t.Errorf("body is\n%s\nand through net/http\n%s", body, want)
			}
		})
	}
}

func TestAHeldPollKeepsNoGoroutine(t *testing.T) {
	const polls = 100
	n := transporttest.New(t, transporttest.Config{})
	if n.Portable() {
		t.Skip("there are no loops")
	}
	token := n.Token(t, "acme", "alice")
	lines := make([]*line, polls)
	held := func(i int) {
		before := n.Core.Stats().Polls
		lines[i].ask("/v1/poll?wait=30&pattern=a&token=" + token)
		for n.Core.Stats().Polls == before {
			runtime.Gosched()
		}
	}
	for i := range lines {
		lines[i] = connect(t, n)
	}
	held(0)
	before := runtime.NumGoroutine()
	for i := range polls - 1 {
		held(i + 1)
	}
	if now := runtime.NumGoroutine(); now >= before+polls/2 {
		t.Errorf("%d goroutines with one poll, %d with %d", before, now, polls)
	}
	n.Publish(t, "acme", "a", 1, 1)
	for _, l := range lines {
		if resp, body := l.answer(); resp.StatusCode != 200 || !strings.Contains(body, `"payload":1`) {
			t.Fatalf("%d: %s", resp.StatusCode, body)
		}
	}
}

// The polls of one connection go on with each other's feed, and so do those of a
// caller who comes on another one.
func TestPollsOfAConnectionGoOnWithTheFeed(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{Limits: session.Limits{PollLinger: time.Minute}})
	token := n.Token(t, "acme", "alice")
	cursor, next := "earliest", 1
	poll := func(l *line, header ...string) {
		t.Helper()
		l.ask("/v1/poll?wait=30&pattern=a&after="+cursor, append(header, "Authorization: Bearer "+token)...)
		n.Publish(t, "acme", "a", next, next)
		resp, body := l.answer()
		var a struct {
			Events []struct{ Payload int }
			Cursor string
		}
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if resp.StatusCode != 200 || len(a.Events) != 1 || a.Events[0].Payload != next {
			t.Fatalf("%d: %s, want the event %d", resp.StatusCode, body, next)
		}
		cursor = a.Cursor
		next++
	}
	l := connect(t, n)
	for range 20 {
		poll(l)
	}
	for range 20 {
		poll(connect(t, n))
		poll(connect(t, n), elsewhere)
	}
	if st := n.Core.Stats(); st.Polls != 60 || st.Attached != 59 || st.Lingering != 1 {
		t.Errorf("%d polls, %d of them on a feed that was there, %d feeds wait", st.Polls, st.Attached, st.Lingering)
	}
}

func TestRequestsBehindAPollWaitForItsAnswer(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	l := connect(t, n)
	bearer := "Authorization: Bearer " + n.Token(t, "acme", "alice")
	var all strings.Builder
	for _, path := range []string{"/v1/poll?wait=30&pattern=a", "/v1/poll?wait=0&pattern=a&after=earliest", "/v1/poll?wait=1&pattern=b", "/v1/nowhere"} {
		fmt.Fprintf(&all, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", path, bearer)
	}
	if _, err := io.WriteString(l, all.String()); err != nil {
		t.Fatal(err)
	}
	for n.Core.Stats().Polls == 0 {
		runtime.Gosched()
	}
	n.Publish(t, "acme", "a", 1, 1)
	for i, want := range []string{`"payload":1`, `"payload":1`, `"events":[]`, `404`} {
		if resp, body := l.answer(); !strings.Contains(body, want) {
			t.Fatalf("answer %d is %d: %s, want %s", i, resp.StatusCode, body, want)
		}
	}
}

func TestAPollWhoseClientGoesGivesItsPlaceBack(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{MaxConnections: 1})
	path := "/v1/poll?wait=30&pattern=a&token=" + n.Token(t, "acme", "alice")
	for i := range 3 {
		l := connect(t, n)
		l.ask(path)
		for n.Core.Stats().Polls == uint64(i) {
			runtime.Gosched()
		}
		other := connect(t, n)
		other.ask(path)
		if resp, body := other.answer(); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Fatalf("there is a place: %d, %s", resp.StatusCode, body)
		}
		l.Close()
		for n.Core.Reserve(netip.Addr{}) != nil {
			runtime.Gosched()
		}
		n.Core.Release(netip.Addr{})
	}
}

// What is found out only when a poll begins is refused as before.
func TestAPollThatIsRefusedLateHasItsHeader(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{
		Origins: []string{"https://app.example"},
		Allowed: func(*carillon.Principal) error {
			return carillon.Errorf(carillon.CodeForbidden, "this organization is disabled")
		},
	})
	ask := func(more ...string) http.Header {
		l := connect(t, n)
		l.ask("/v1/poll?wait=30", append(more, "Origin: https://app.example", "Authorization: Bearer "+n.Token(t, "acme", "alice"))...)
		resp, body := l.answer()
		if resp.StatusCode != 403 || !strings.Contains(body, "disabled") {
			t.Errorf("%d: %s", resp.StatusCode, body)
		}
		resp.Header.Del("Date")
		return resp.Header
	}
	if here, there := ask(), ask(elsewhere); !maps.EqualFunc(here, there, slices.Equal) {
		t.Errorf("header is %v, and through net/http %v", here, there)
	}
}
