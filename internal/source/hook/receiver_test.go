package hook_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

const (
	github = "{name: gh, kind: github, subject: repository.full_name}"
	opened = `{"action":"opened","number":1.0,"repository":{"full_name":"a/b"}}`
)

func TestADeliveryBecomesAnEvent(t *testing.T) {
	r := newRig(t, nil, github)
	a := r.deliver("gh", "guid-1", "pull_request", opened)
	if a.body != `{"id":"d1"}`+"\n" || a.header.Get("Carillon-Delivery") != "d1" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("answered %q with %v", a.body, a.header)
	}
	e := r.published(1)[0]
	if e.Type != "gh.pull_request.opened" || e.Source != "gh" || e.Delivery != "guid-1" || e.Subject != "a/b" || string(e.Data) != opened || !e.To.Whole() {
		t.Errorf("the event is %+v with %s", e.Event, e.Data)
	}
	d := r.deliveries()[0]
	if d.State != ledger.Published || d.Delivery != "guid-1" || d.Event != "pull_request.opened" || d.Type != e.Type || d.Published != e.Pos ||
		d.Size != int64(len(opened)) || d.Signature != ledger.Signed || d.Secret == "" || d.Attempts != 1 || d.Remote != "127.0.0.1" {
		t.Errorf("recorded as %+v", d)
	}
}

// Whatever is wrong, the answer is the protocol's, never a 500, and nothing comes of
// the request.
func TestWhatIsRefusedAndHow(t *testing.T) {
	r := newRig(t, nil, github, "{name: near, kind: github, allow: [192.0.2.0/24]}", "{name: small, kind: github, body_bytes: 10}", "{name: slack, kind: slack}")
	good := func() *http.Request { return r.signed("gh", "guid", "push", opened, secretText) }
	with := func(q *http.Request, change func(*http.Request)) *http.Request { change(q); return q }
	signature := good().Header.Get("X-Hub-Signature-256")
	set := func(name string, values ...string) *http.Request {
		return with(good(), func(q *http.Request) { q.Header[http.CanonicalHeaderKey(name)] = values })
	}
	for _, tc := range []struct {
		name   string
		q      *http.Request
		status int
		reason string // in the audit; "": it is not there
	}{
		{"an unknown organization", r.request("POST", "/hooks/nobody/gh", opened), 404, ""},
		{"a disabled organization", r.request("POST", "/hooks/off/gh", opened), 404, ""},
		{"another organization's source", r.request("POST", "/hooks/other/gh", opened), 404, ""},
		{"an unknown source", r.request("POST", "/hooks/acme/nope", opened), 404, ""},
		{"a name that cannot be one", r.request("POST", "/hooks/ACME/gh", opened), 404, ""},
		{"another method", r.request("PUT", "/hooks/acme/gh", opened), 405, "method"},
		{"no method of its own", r.request("GET", "/hooks/acme/gh", ""), 405, "method"},
		{"another address", r.signed("near", "guid", "push", opened, secretText), 403, "address"},
		{"a large body", r.signed("small", "guid", "push", opened, secretText), 413, "too_large"},
		{"a large body of no declared size", with(r.signed("small", "guid", "push", opened, secretText), func(q *http.Request) { q.ContentLength = -1 }), 413, "too_large"},
		{"a compressed body", set("Content-Encoding", "gzip"), 415, "encoding"},
		{"no signature", set("X-Hub-Signature-256"), 401, "signature_missing"},
		{"another secret", r.signed("gh", "guid", "push", opened, "another"), 401, "signature_mismatch"},
		{"a changed byte", with(good(), func(q *http.Request) { q.Body = body(strings.Replace(opened, "a/b", "a/c", 1)) }), 401, "signature_mismatch"},
		{"a shorter body", with(good(), func(q *http.Request) { q.Body, q.ContentLength = body(opened[:10]), 10 }), 401, "signature_mismatch"},
		{"a truncated signature", set("X-Hub-Signature-256", signature[:len(signature)-2]), 401, "signature_malformed"},
		{"the signature twice", set("X-Hub-Signature-256", signature, signature), 401, "signature_malformed"},
		{"two signatures in one", set("X-Hub-Signature-256", signature+","+signature), 401, "signature_malformed"},
		{"a signature of another algorithm", set("X-Hub-Signature-256", "sha1="+signature[7:47]), 401, "signature_malformed"},
		{"a signature in base64", set("X-Hub-Signature-256", "sha256=dWEBB+oOslCfwhEhzOmYS4o3VwttdYbCLEb0N5yLBD4="), 401, "signature_malformed"},
		{"no delivery id", set("X-GitHub-Delivery"), 401, "headers"},
		{"an old timestamp", with(r.signed("slack", "", "", `{}`, secretText), func(q *http.Request) {
			q.Header.Set("X-Slack-Request-Timestamp", fmt.Sprint(time.Now().Add(-6*time.Minute).Unix()))
		}), 401, "timestamp_stale"},
		{"a timestamp to come", with(r.signed("slack", "", "", `{}`, secretText), func(q *http.Request) {
			q.Header.Set("X-Slack-Request-Timestamp", fmt.Sprint(time.Now().Add(6*time.Minute).Unix()))
		}), 401, "timestamp_future"},
		{"a timestamp that is none", with(r.signed("slack", "", "", `{}`, secretText), func(q *http.Request) { q.Header.Set("X-Slack-Request-Timestamp", "NaN") }), 401, "timestamp_malformed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(r.deliveries())
			a := r.send(tc.q)
			if a.status != tc.status {
				t.Fatalf("answered %d %s; want %d", a.status, a.body, tc.status)
			}
			a.problem(t)
			if tc.status == 401 && a.body != `{"type":"about:blank","title":"Unauthorized","status":401,"code":"unauthenticated","detail":"the signature of this webhook is missing, wrong or too old"}` {
				t.Errorf("the answer tells a forger more than it should: %s", a.body)
			}
			if tc.status == 405 && a.header.Get("Allow") != "POST" {
				t.Errorf("Allow is %q", a.header.Get("Allow"))
			}
			if slack := strings.HasSuffix(tc.q.URL.Path, "/slack"); slack != (a.header.Get("X-Slack-No-Retry") == "1") {
				t.Errorf("X-Slack-No-Retry is %q", a.header.Get("X-Slack-No-Retry"))
			}
			if tc.reason == "" {
				return
			}
			eventually(t, "it is recorded", func() bool { return len(r.deliveries()) == before+1 })
			if d := r.deliveries()[0]; d.State != ledger.Refused || d.Signature != tc.reason || d.Status != tc.status {
				t.Errorf("recorded as %s, %q with %d; want refused, %q", d.State, d.Signature, d.Status, tc.reason)
			}
		})
	}
	r.published(0)
}

func body(s string) *readCloser { return &readCloser{strings.NewReader(s)} }

type readCloser struct{ *strings.Reader }

func (*readCloser) Close() error { return nil }

func TestADeliveryThatComesAgainIsPublishedOnce(t *testing.T) {
	r := newRig(t, nil, github)
	r.deliver("gh", "guid-1", "push", opened)
	r.settled() // one that comes at once is found out behind the log, where nobody waits
	if a := r.deliver("gh", "guid-1", "push", opened); a.body != `{"id":"d1","duplicate":true}`+"\n" {
		t.Errorf("the second time: %s", a.body)
	}
	r.deliver("gh", "guid-2", "push", opened) // another one with the same body
	r.deliver("gh", "guid-1", "push", `{"another":"body"}`)
	r.published(3)
	r.restart()
	r.settled()
	if a := r.deliver("gh", "guid-1", "push", opened); !strings.Contains(a.body, `"duplicate":true`) {
		t.Errorf("after a restart: %s", a.body)
	}
	r.published(3)
}

func TestTheSameDeliveryOnManyConnectionsAtOnceIsPublishedOnce(t *testing.T) {
	r := newRig(t, nil, github)
	for i := range 20 {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if a := r.send(r.signed("gh", fmt.Sprint("guid-", i), "push", opened, secretText)); a.status != 200 {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		all.Wait()
	}
	r.published(20)
}

func TestSlackIsAnsweredAsItWants(t *testing.T) {
	r := newRig(t, nil, "{name: slack, kind: slack}")
	challenge := `{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV"}`
	forged := r.signed("slack", "", "", challenge, "another")
	if a := r.send(forged); a.status != 401 || strings.Contains(a.body, "3eZ") {
		t.Errorf("a challenge that nobody signed: %d %s", a.status, a.body)
	}
	a := r.send(r.signed("slack", "", "", challenge, secretText))
	if a.status != 200 || a.body != "3eZbrw1aBm2rZgRNFdxV" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("a challenge: %d %s %v", a.status, a.body, a.header)
	}
	command := r.signed("slack", "", "", "command=%2Fdeploy&text=prod&team_id=T1", secretText)
	command.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if a := r.send(command); a.status != 200 || a.body != "" {
		t.Errorf("a command: %d %q; Slack would show that", a.status, a.body)
	}
	if e := r.published(1)[0]; e.Type != "slack.command" || string(e.Data) != `{"command":"/deploy","text":"prod","team_id":"T1"}` {
		t.Errorf("the command became %s %s", e.Type, e.Data)
	}
}

// A large body is stored apart, byte for byte; its event says so.
func TestALargeBodyIsStoredApart(t *testing.T) {
	r := newRig(t, nil, "{name: gh, kind: github, body_bytes: 26214400}")
	large := `{"action":"big","data":"` + strings.Repeat("0123456789abcdef", 400_000) + `"}`
	r.deliver("gh", "guid-1", "push", large)
	eventually(t, "it is settled", func() bool { return len(r.deliveries()) == 1 })
	if d := r.deliveries()[0]; d.State != ledger.Published {
		t.Fatalf("it is %s: %s", d.State, d.Error)
	}
	e := r.published(1)[0]
	if want := fmt.Sprintf(`{"truncated":true,"size":%d}`, len(large)); string(e.Data) != want || e.Type != "gh.push.big" {
		t.Errorf("the event is %s with %.100s; want %s", e.Type, e.Data, want)
	}
	received, err := hook.Load(t.Context(), r.engine.Intake(acme), r.deliveries()[0].Pos.Seq)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(received.Body, []byte(large)) {
		t.Errorf("%d bytes were kept of %d, or others", len(received.Body), len(large))
	}
}

func TestABodyThatComesTooSlowlyIsGivenUp(t *testing.T) {
	r := newRig(t, func(c *hook.Config) { c.BodyTimeout = 50 * time.Millisecond }, github)
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	good := r.signed("gh", "guid-1", "push", opened, secretText)
	_, _ = fmt.Fprintf(conn, "POST /hooks/acme/gh HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n", len(opened))
	for name, values := range good.Header {
		_, _ = fmt.Fprintf(conn, "%s: %s\r\n", name, values[0])
	}
	_, _ = fmt.Fprintf(conn, "\r\n{")
	answered := make([]byte, 64)
	if n, err := conn.Read(answered); err != nil || !strings.HasPrefix(string(answered[:n]), "HTTP/1.1 400 ") {
		t.Errorf("answered %q, %v", answered[:n], err)
	}
	if n := r.receiver.Stats().BodyBytes; n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

func TestBodiesInHandHaveALimit(t *testing.T) {
	r := newRig(t, func(c *hook.Config) { c.InFlightBytes = int64(len(opened)) - 1 }, github, "{name: stripe, kind: stripe}")
	for _, size := range []int64{int64(len(opened)), -1} {
		q := r.signed("gh", "guid-1", "push", opened, secretText)
		q.ContentLength = size
		a := r.send(q)
		if a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("%d %v; want 503 and when to come again", a.status, a.header)
		}
	}
	s := r.receiver.Stats()
	if s.Limits["hook_bytes_in_flight"] != 2 || s.BodyBytes != 0 {
		t.Errorf("%d hits and %d bytes held; want 2 and none", s.Limits["hook_bytes_in_flight"], s.BodyBytes)
	}
}

func TestWhileTheLogIsAway(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, func(c *hook.Config) { c.SpoolDir, c.SpoolBytes = dir, 3000 }, github, "{name: stripe, kind: stripe}")
	r.log.away.Store(true)
	stripe := `{"id":"evt_1","object":"event","type":"invoice.paid","data":{}}`
	if a := r.send(r.signed("stripe", "", "", stripe, secretText)); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("a sender who comes again: %d %v; want 503 and when", a.status, a.header)
	}
	// GitHub never sends again: it is kept here.
	if a := r.deliver("gh", "guid-1", "push", opened); a.body != "{}\n" {
		t.Errorf("answered %s: there is no id yet", a.body)
	}
	r.deliver("gh", "guid-1", "push", opened)
	r.deliver("gh", "guid-2", "push", opened)
	taken := 3
	for ; taken < 50; taken++ {
		if a := r.send(r.signed("gh", fmt.Sprint("more-", taken), "push", opened, secretText)); a.status == 503 {
			break
		}
	}
	if taken == 50 {
		t.Error("the disk took everything")
	}
	if s := r.receiver.Stats(); s.Spooled != int64(taken) || s.SpooledBytes == 0 || s.SpooledBytes > 3000 {
		t.Errorf("%d deliveries, %d bytes lie on the disk; want %d", s.Spooled, s.SpooledBytes, taken)
	}
	r.restart() // they are still there
	r.log.away.Store(false)
	r.published(taken - 1) // guid-1 came twice
	for _, d := range r.deliveries(ledger.Published) {
		if !d.Spooled {
			t.Errorf("%s was not on the disk", d.Delivery)
		}
	}
	eventually(t, "nothing lies on the disk", func() bool { s := r.receiver.Stats(); return s.Spooled == 0 && s.SpooledBytes == 0 })
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("there is still something: %v, %v", left, err)
	}
}

// What cannot be read on the disk is put aside, counted, and in nobody's way, also after a
// restart.
func TestADamagedDeliveryOnTheDiskIsPutAside(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, func(c *hook.Config) { c.SpoolDir, c.SpoolBytes = dir, 1<<20 }, github)
	r.log.away.Store(true)
	r.deliver("gh", "guid-1", "push", opened)
	r.deliver("gh", "guid-2", "push", opened)
	r.stop()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v; want two files", files, err)
	}
	torn := filepath.Join(dir, files[0].Name())
	if err := os.Truncate(torn, 100); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.log.away.Store(false)
	r.published(1)
	aside := func(s hook.ReceiverStats) bool {
		return s.SpoolDamaged == 1 && s.Spooled == 0 && s.SpooledBytes == 100
	}
	eventually(t, "one is put aside", func() bool { return aside(r.receiver.Stats()) })
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != filepath.Base(torn)+".damaged" {
		t.Errorf("there are %v, %v", left, err)
	}
	r.restart()
	if s := r.receiver.Stats(); !aside(s) {
		t.Errorf("after a restart %d are damaged, %d wait, of %d bytes", s.SpoolDamaged, s.Spooled, s.SpooledBytes)
	}
}

func TestRefusalsThatAreTooManyAreOnlyCounted(t *testing.T) {
	r := newRig(t, func(c *hook.Config) { c.Refusals = 1 }, github)
	for range 30 {
		r.send(r.request("POST", "/hooks/acme/gh", opened))
	}
	if n := len(r.deliveries(ledger.Refused)); n < 10 || n > 12 {
		t.Errorf("%d are recorded; want ten seconds' worth of one a second", n)
	}
	if n := r.receiver.Stats().SignatureFailures[hook.SourceStatus{Source: "gh", Status: "signature_missing"}]; n != 30 {
		t.Errorf("%d are counted; want 30", n)
	}
}
