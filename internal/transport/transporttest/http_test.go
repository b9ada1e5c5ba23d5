package transporttest_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

// get makes one request and reads the answer to its end.
func get(t *testing.T, n *transporttest.Node, method, path, token, body string, header ...string) (*http.Response, string) {
	t.Helper()
	resp := do(t, n, method, path, token, body, header...)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp, string(b)
}

func do(t *testing.T, n *transporttest.Node, method, path, token, body string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, n.URL(path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestAStreamBeginsSoThatItCanResume(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	id := n.Publish(t, "acme", "orders.paid", 1, 1)[0]
	resp := do(t, n, "GET", "/v1/sse?pattern=orders.*&named=true&after=earliest", n.Token(t, "acme", "alice"), "", "Last-Event-ID", id)
	defer resp.Body.Close()
	for name, value := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-store, no-transform", "X-Accel-Buffering": "no",
		"Vary": "Authorization, Cookie, Origin", "Content-Length": "",
	} {
		if got := resp.Header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	in := bufio.NewReader(resp.Body)
	line := func() string {
		s, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(s, "\n")
	}
	for i, prefix := range []string{"retry: ", "id: " + id, "", "event: carillon.welcome", `data: {"type":"welcome"`, "", "event: carillon.subscribed"} {
		if got := line(); !strings.HasPrefix(got, prefix) || prefix == "" && got != "" {
			t.Fatalf("line %d: %q, want %q", i, got, prefix)
		}
	}
	second := n.Publish(t, "acme", "orders.paid", 2, 2)[0]
	for got := line(); got != "id: "+second; got = line() {
		if strings.Contains(got, `"event_type"`) {
			t.Fatalf("%q came first: the header did not win over the query", got)
		}
	}
	if got := line(); got != "event: orders.paid" {
		t.Errorf("named: %q", got)
	}
}

func TestAStreamTakesALongListOverPOST(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	patterns := make([]string, 900)
	for i := range patterns {
		patterns[i] = fmt.Sprintf("%s.n%d", strings.Repeat("x", 100), i)
	}
	body, _ := json.Marshal(map[string]any{"patterns": patterns, "after": "now", "rooms": []string{}})
	resp := do(t, n, "POST", "/v1/sse", n.Token(t, "acme", "alice"), string(body))
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	until(t, in, "event: carillon.caught_up")
	id := n.Publish(t, "acme", patterns[899], 1, 1)[0]
	until(t, in, "id: "+id)
}

// until reads lines up to one.
func until(t *testing.T, in *bufio.Reader, want string) {
	t.Helper()
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("waiting for %q: %v", want, err)
		}
		if strings.TrimSuffix(line, "\n") == want {
			return
		}
	}
}

func TestAPlainPollCanBeConditional(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	token := n.Token(t, "acme", "alice")
	resp, body := get(t, n, "GET", "/v1/poll?pattern=orders.*&wait=0", token, "")
	var a struct{ Cursor string }
	if err := json.Unmarshal([]byte(body), &a); err != nil || a.Cursor == "" {
		t.Fatalf("%s: %v", body, err)
	}
	tag := resp.Header.Get("ETag")
	if tag != `"`+a.Cursor+`"` {
		t.Fatalf("ETag %s, cursor %s", tag, a.Cursor)
	}
	again := "/v1/poll?pattern=orders.*&wait=0&cursor=" + a.Cursor
	for _, match := range []string{tag, `"x", W/` + tag, "*"} {
		if resp, body = get(t, n, "GET", again, token, "", "If-None-Match", match); resp.StatusCode != http.StatusNotModified || body != "" {
			t.Errorf("If-None-Match %s: %d %s", match, resp.StatusCode, body)
		}
	}
	if resp, _ = get(t, n, "GET", again, token, "", "If-None-Match", `"x"`); resp.StatusCode != http.StatusOK {
		t.Errorf("another tag: %d", resp.StatusCode)
	}
	id := n.Publish(t, "acme", "orders.paid", 1, 1)[0]
	resp, body = get(t, n, "GET", again, token, "", "If-None-Match", tag)
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, id) {
		t.Errorf("with something new: %d %s", resp.StatusCode, body)
	}
	_, body = get(t, n, "POST", "/v1/poll", token, `{"patterns":["orders.*"],"after":"earliest","wait":0,"limit":1}`)
	if !strings.Contains(body, id) {
		t.Errorf("POST: %s", body)
	}
}

func TestALongPollWaitsForTheFirstEvent(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	token := n.Token(t, "acme", "alice")
	type answer struct {
		resp *http.Response
		body string
	}
	answers := make(chan answer, 1)
	go func() {
		resp, body := get(t, n, "GET", "/v1/poll?pattern=orders.*&cursor=earliest", token, "")
		answers <- answer{resp, body}
	}()
	id := n.Publish(t, "acme", "orders.paid", 1, 1)[0]
	a := <-answers
	if a.resp.StatusCode != 200 || !strings.Contains(a.body, id) || a.resp.Header.Get("ETag") != "" {
		t.Errorf("got %d %s", a.resp.StatusCode, a.body)
	}
}

// frames posts frames and returns their answers.
func frames(t *testing.T, n *transporttest.Node, token, connection, body string) []message {
	t.Helper()
	header := []string{}
	if connection != "" {
		header = append(header, "X-Carillon-Connection", connection)
	}
	resp, b := get(t, n, "POST", "/v1/frames", token, body, header...)
	var all []message
	if err := json.Unmarshal([]byte(b), &all); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%d %s: %v", resp.StatusCode, b, err)
	}
	return all
}

func TestFramesActOnAStream(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	token := n.Token(t, "acme", "alice")
	resp := do(t, n, "GET", "/v1/sse", token, "")
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	until(t, in, "event: carillon.welcome")
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var welcome message
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &welcome); err != nil {
		t.Fatal(err)
	}
	until(t, in, "event: carillon.caught_up")
	got := frames(t, n, token, welcome.ConnectionID, `[
		{"type":"subscribe","pattern":"orders.*","ref":"a"},
		{"type":"nonsense","ref":7},
		{"type":"publish","event":{"type":"orders.paid","data":1},"ref":"c"},
		{"type":"ping","ref":"d"},
		{"type":"connect","token":"x"},
		{"type":"unsubscribe","pattern":"other.*"},
		{"type":"refresh","token":"`+n.Token(t, "acme", "alice")+`"}]`)
	var types []string
	for _, m := range got {
		types = append(types, m.Type+m.Code+string(m.Ref))
	}
	if s := strings.Join(types, " "); s != `subscribed"a" errorbad_request7 published"c" pong"d" errorbad_request errornot_found refreshed` {
		t.Errorf("answers: %s", s)
	}
	until(t, in, "event: carillon.subscribed")
	until(t, in, "event: carillon.caught_up")
	id := n.Publish(t, "acme", "orders.paid", 2, 2)[0]
	until(t, in, "id: "+id)
	for name, other := range map[string]string{"another user": n.Token(t, "acme", "bob"), "another org": n.Token(t, "umbrella", "alice")} {
		if resp, body := get(t, n, "POST", "/v1/frames", other, `{"type":"ping"}`, "X-Carillon-Connection", welcome.ConnectionID); resp.StatusCode != 404 {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
	}
}

func TestFramesWithoutAConnection(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	token := n.Token(t, "acme", "alice")
	for name, body := range map[string]string{
		"array": `[{"type":"publish","event":{"type":"orders.paid","data":1},"ref":1},{"type":"subscribe","pattern":"a","ref":2},{"type":"ping","ref":3},{"type":"connect","token":"x","ref":4},{"type":"publish","events":[{"type":"room.x","data":1}],"ref":5},[]]`,
		"lines": `{"type":"publish","event":{"type":"orders.paid","data":1},"ref":1}` + "\n" + `{"type":"subscribe","pattern":"a","ref":2}` + "\r\n\n" +
			`{"type":"ping","ref":3}` + "\n" + `{"type":"connect","token":"x","ref":4}` + "\n" + `{"type":"publish","events":[{"type":"room.x","data":1}],"ref":5}` + "\nnonsense",
	} {
		var types []string
		for _, m := range frames(t, n, token, "", body) {
			types = append(types, m.Type+m.Code+string(m.Ref))
		}
		if s := strings.Join(types, " "); s != "published1 errorbad_request2 pong3 errorbad_request4 errorforbidden5 errorbad_request" && s != "published1 errorbad_request2 pong3 errorbad_request4 errorbad_request5 errorbad_request" {
			t.Errorf("%s: %s", name, s)
		}
	}
	if got := frames(t, n, token, "", `{"type":"ping"}`); len(got) != 1 || got[0].Type != "pong" {
		t.Errorf("one frame: %+v", got)
	}
}

// A frame that is answered late does not lose its ref.
func TestFramesWaitForTheLog(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{Limits: session.Limits{MaxIdle: time.Minute}})
	n.Engine.Hold()
	answers := make(chan []message, 1)
	token := n.Token(t, "acme", "alice")
	go func() {
		answers <- frames(t, n, token, "", `[{"type":"publish","event":{"type":"a","data":1},"ref":1},{"type":"ping","ref":2}]`)
	}()
	for n.Engine.Stats().QueueDepth == 0 && len(answers) == 0 {
		if err := n.Engine.Healthy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n.Engine.Release()
	if got := <-answers; len(got) != 2 || got[0].Type != "published" || string(got[0].Ref) != "1" || got[1].Type != "pong" {
		t.Errorf("got %+v", got)
	}
}
