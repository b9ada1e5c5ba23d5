package hook_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whatever comes, the answer is one of the protocol's and never a 500, and only what
// was signed is stored.
func FuzzReceive(f *testing.F) {
	r := newRig(f, nil, github, "{name: stripe, kind: stripe}", "{name: slack, kind: slack, order_by: event.channel}", "{name: std, kind: standard}",
		"{name: own, kind: generic, generic: {header: X-Own, content: '{timestamp}.{body}', timestamp_header: X-Time, id_field: id, event_field: type}}")
	names := []string{"gh", "stripe", "slack", "std", "own"}
	f.Add(uint8(0), "X-Hub-Signature-256: sha256=00\nX-GitHub-Event: push\nX-GitHub-Delivery: 1", opened, false)
	f.Add(uint8(1), "Stripe-Signature: t=1,v1=00,v1=11,v0=22", `{"id":"evt_1","type":"a"}`, true)
	f.Add(uint8(2), "X-Slack-Signature: v0=00\nX-Slack-Request-Timestamp: 1", `{"type":"url_verification","challenge":"x"}`, true)
	f.Add(uint8(3), "webhook-id: a\nwebhook-timestamp: 1\nwebhook-signature: v1,AAAA v1a,BBBB", `{"type":"user.created"}`, false)
	f.Add(uint8(4), "X-Own: 00\nX-Time: 1\nContent-Encoding: gzip", `[]`, false)
	f.Add(uint8(0), "Content-Type: multipart/form-data; boundary=x", "--x\r\n\r\n{}\r\n--x--", true)
	f.Fuzz(func(t *testing.T, which uint8, headers, body string, sign bool) {
		name := names[int(which)%len(names)]
		q := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/hooks/acme/"+name, strings.NewReader(body))
		q.SetPathValue("org", "acme")
		q.SetPathValue("source", name)
		if sign && name != "own" && name != "std" {
			mine := *r // whose helpers are this test's
			mine.t = t
			q.Header = mine.signed(name, "guid", "push", body, secretText).Header
		}
		for line := range strings.SplitSeq(headers, "\n") {
			if key, value, ok := strings.Cut(line, ": "); ok {
				q.Header.Add(key, value)
			}
		}
		w := httptest.NewRecorder()
		r.receiver.ServeHTTP(w, q)
		switch w.Code {
		case 200, 400, 401, 413, 415:
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w.Code == 200 && !sign {
			t.Error("taken without a signature")
		}
	})
}
