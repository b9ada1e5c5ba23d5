package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/config"
)

// TestHostileRequestsAreRefusedAndTheNodeGoesOn holds every path that takes
// something to the same answers.
func TestHostileRequestsAreRefusedAndTheNodeGoesOn(t *testing.T) {
	s, c := start(t, settings("")), client(t)
	bearer := "Bearer " + token(t, "alice")
	deep := strings.Repeat("[", 500_000)
	many := strings.Repeat("pattern=a&", 1001)
	const (
		ce    = "application/cloudevents+json"
		batch = "application/cloudevents-batch+json"
		least = `"specversion":"1.0","id":"1","source":"/s","type":"a"`
	)
	for _, tc := range []struct {
		name, path, contentType, body string
		status                        int
		says                          string
	}{
		{"nested", "/v1/events", "", `{"type":"a","data":` + deep, 400, "deeper than 128"},
		{"nested", "/v1/events", ce, `{` + least + `,"data":` + deep, 400, "deeper than 128"},
		{"nested", "/v1/events", batch, deep, 400, "event 0"},
		{"nested", "/v1/poll", "", `{"patterns":` + deep, 400, "depth"},
		{"nested", "/v1/poll", "", deep, 400, "not a JSON object"},
		{"nested", "/v1/sse", "", `{"patterns":` + deep, 400, "depth"},
		{"nested", "/v1/frames", "", deep, 400, "depth"},
		{"nested", "/v1/frames", "", `{"type":"publish","event":{"type":"a","data":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}}`, 200, "deeper than 128"},

		{"a key twice", "/v1/events", "", `{"type":"a","data":{"x":{"y":1,"y":1}}}`, 400, "twice"},
		{"a key twice", "/v1/events", ce, `{` + least + `,"type":"a"}`, 400, "twice"},
		{"a key twice", "/v1/poll", "", `{"wait":0,"wait":0}`, 400, "twice"},
		{"a key twice", "/v1/sse", "", `{"after":"now","after":"now"}`, 400, "twice"},
		{"a key twice", "/v1/frames", "", `{"type":"ping","ref":1,"ref":1}`, 200, "twice"},

		{"not UTF-8", "/v1/events", "", "{\"type\":\"a\",\"data\":\"\xff\"}", 400, "UTF-8"},
		{"not UTF-8", "/v1/events", ce, "{" + least + ",\"ext\":\"\xc0\xaf\"}", 400, "UTF-8"},
		{"not UTF-8", "/v1/poll", "", "{\"after\":\"\xff\"}", 400, "UTF-8"},
		{"not UTF-8", "/v1/sse", "", "{\"patterns\":[\"\xed\xa0\x80\"]}", 400, "UTF-8"},
		{"not UTF-8", "/v1/frames", "", "{\"type\":\"ping\",\"ref\":\"\xff\"}", 200, "UTF-8"},

		{"cut short", "/v1/events", "", `{"type":"a","data":`, 400, "ends"},
		{"cut short", "/v1/events", batch, `[{` + least, 400, "ends"},
		{"cut short", "/v1/poll", "", `{"patterns":["a"`, 400, "ends"},
		{"cut short", "/v1/sse", "", `{`, 400, "ends"},
		{"cut short", "/v1/frames", "", `[{"type":"ping"}`, 400, "JSON"},

		{"more than one value", "/v1/events", "", `{"type":"a","data":1} 2`, 400, "nothing more"},
		{"more than one value", "/v1/poll", "", `{} {}`, 400, "more after it"},
		{"more than one value", "/v1/sse", "", `{} {}`, 400, "more after it"},

		{"too large", "/v1/events", "", strings.Repeat(" ", 10_000_001), 413, "10000000 bytes"},
		{"too large", "/v1/poll", "", strings.Repeat(" ", 10_000_001), 413, "10000000 bytes"},
		{"too large", "/v1/sse", "", strings.Repeat(" ", 10_000_001), 413, "10000000 bytes"},
		{"too large", "/v1/frames", "", strings.Repeat(" ", 10_000_001), 413, "10000000 bytes"},

		{"many parameters", "/v1/events?" + many, "", "", 400, "1001 patterns"},
		{"many parameters", "/v1/poll?" + many, "", "", 429, "1001"},
		{"many parameters", "/v1/sse?" + many, "", "", 429, "1001"},
		{"an unreadable query", "/v1/events?pattern=%zz", "", "", 400, "percent-encode"},
		{"an unreadable query", "/v1/poll?pattern=%zz", "", "", 400, "percent-encode"},
		{"an unreadable query", "/v1/sse?pattern=%zz", "", "", 400, "percent-encode"},
		{"a semicolon", "/v1/events?pattern=a;limit=1", "", "", 400, "percent-encode"},
		{"a long parameter", "/v1/events?subject=" + strings.Repeat("x", 10_000), "", "", 400, "255"},
		{"a long unknown parameter", "/v1/poll?" + strings.Repeat("x", 10_000) + "=1", "", "", 400, "not known"},
	} {
		t.Run(tc.name+" "+tc.path[:min(len(tc.path), 20)]+" "+tc.contentType, func(t *testing.T) {
			method, header := http.MethodGet, []string{"Authorization", bearer}
			if tc.body != "" {
				method = http.MethodPost
			}
			if tc.contentType != "" {
				header = append(header, "Content-Type", tc.contentType)
			}
			status, body := do(t, c, method, s.PublicURL()+tc.path, tc.body, header...)
			if status != tc.status || !strings.Contains(body, tc.says) || !json.Valid([]byte(body)) {
				t.Errorf("%d %s\nwant %d with %q", status, body, tc.status, tc.says)
			}
			if len(body) > 1000 {
				t.Errorf("the answer has %d bytes", len(body))
			}
		})
	}
	for _, bomb := range []struct {
		name, path string
		header     []string
	}{
		{"a long URL", "/v1/events?" + strings.Repeat("x", 1<<20), nil},
		{"a long header", "/v1/events", []string{"Ce-Ext", strings.Repeat("x", 1<<20)}},
	} {
		status, body := do(t, c, http.MethodGet, s.PublicURL()+bomb.path, "", bomb.header...)
		if status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %d %s", bomb.name, status, body)
		}
	}
	if status, body := do(t, c, http.MethodPost, s.PublicURL()+"/v1/events", `{"type":"a","data":1}`, "Authorization", bearer); status != http.StatusAccepted {
		t.Errorf("afterwards: %d %s", status, body)
	}
}

func TestABodyThatNeverEndsIsGivenUp(t *testing.T) {
	cfg := settings("")
	cfg.Connection.BodyTimeout = config.Duration(100 * time.Millisecond)
	s := start(t, cfg)
	for _, path := range []string{"/v1/events", "/v1/poll", "/v1/sse", "/v1/frames"} {
		for name, head := range map[string]string{"said to be longer": "Content-Length: 1000\r\n\r\n{", "in chunks": "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"} {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.PublicURL(), "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s", path, token(t, "alice"), head)
			in := bufio.NewReader(conn)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("%s, %s: %v", path, name, err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "not in the time that the server allows") {
				t.Errorf("%s, %s: %d %s", path, name, resp.StatusCode, body)
			}
			if _, err := in.ReadByte(); err == nil {
				t.Errorf("%s, %s: the connection goes on", path, name)
			}
			_ = conn.Close()
		}
	}
	// A wait may be longer than a body may take.
	c := client(t)
	if status, body := do(t, c, http.MethodPost, s.PublicURL()+"/v1/poll", `{"wait":1}`, "Authorization", "Bearer "+token(t, "alice")); status != http.StatusOK || !strings.Contains(body, `"cursor"`) {
		t.Errorf("a long poll: %d %s", status, body)
	}
}
