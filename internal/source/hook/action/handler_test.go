package action_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

// answer of a handler: its status and text, and its header.
type answer struct {
	status int
	text   string
	header http.Header
}

func ask(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Body.String(), w.Header()}
}

func post(path, body string, header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func handler(t *testing.T, hooks string, cfg action.HandlerConfig) *action.Handler {
	t.Helper()
	if cfg.Runner == nil {
		cfg.Runner = runner(t, action.Config{TempDir: temporary(t)})
	}
	return action.NewHandler(mustLoad(t, hooks), cfg)
}

const oneOfEach = `
- id: quick
  execute-command: "true"
  response-message: taken
  response-headers: [{name: X-One, value: 1}, {name: Content-Type, value: application/json}]
- {id: code, execute-command: "true", response-message: made, success-http-response-code: 201}
- {id: odd-code, execute-command: "true", response-message: made, success-http-response-code: 799}
- {id: early-code, execute-command: "true", response-message: made, success-http-response-code: 101}
- {id: posts, execute-command: "true", http-methods: [" post", Put], response-message: ok}
- {id: output, execute-command: echo, pass-arguments-to-command: [{source: string, name: "<b>hi"}], include-command-output-in-response: true}
- {id: output-code, execute-command: echo, include-command-output-in-response: true, success-http-response-code: 202}
- {id: fails, execute-command: "false", include-command-output-in-response: true, response-headers: [{name: X-One, value: 1}]}
- id: fails-aloud
  execute-command: sh
  pass-arguments-to-command: [{source: string, name: -c}, {source: string, name: "echo why; exit 3"}]
  include-command-output-in-response: true
  include-command-output-in-response-on-error: true
- {id: fails-behind, execute-command: no-such-command, response-message: taken}
- {id: never, execute-command: "true", trigger-rule: {}, response-headers: [{name: X-One, value: 1}]}
- {id: never-code, execute-command: "true", trigger-rule: {}, trigger-rule-mismatch-http-response-code: 418}
- {id: never-odd-code, execute-command: "true", trigger-rule: {}, trigger-rule-mismatch-http-response-code: 600}
- {id: broken, execute-command: "true", trigger-rule: {match: {type: regex, regex: "(", parameter: {source: string, name: a}}}}
- id: signed
  execute-command: "true"
  response-message: signed
  trigger-rule: {match: {type: payload-hmac-sha256, secret: hush, parameter: {source: header, name: X-Sig}}}
- id: signed-code
  execute-command: "true"
  trigger-rule: {match: {type: payload-hmac-sha256, secret: hush, parameter: {source: header, name: X-Sig}}}
  trigger-rule-mismatch-http-response-code: 400
- id: soft
  execute-command: "true"
  response-message: soft
  trigger-signature-soft-failures: true
  trigger-rule:
    or:
    - match: {type: payload-hmac-sha256, secret: old, parameter: {source: header, name: X-Sig}}
    - match: {type: payload-hmac-sha256, secret: hush, parameter: {source: header, name: X-Sig}}
- id: hard
  execute-command: "true"
  response-message: hard
  trigger-rule:
    or:
    - match: {type: payload-hmac-sha256, secret: old, parameter: {source: header, name: X-Sig}}
    - match: {type: payload-hmac-sha256, secret: hush, parameter: {source: header, name: X-Sig}}
- {id: github, execute-command: "true", response-message: gh, trigger-rule: {match: {type: github, secrets: [hush]}}}
- {id: team/deploy, execute-command: "true", response-message: slash}
`

func TestEachRequestGetsItsAnswer(t *testing.T) {
	const body = `{"a":1}`
	sig := mac(sha256.New, "hush", body)
	verify := func(_ string, secrets []string, h http.Header, _ []byte, _ time.Time) bool {
		return h.Get("X-Token") == secrets[0]
	}
	compat := handler(t, oneOfEach, action.HandlerConfig{Verify: verify})
	strict := handler(t, oneOfEach, action.HandlerConfig{Verify: verify, Strict: true})
	const mismatch, rules = "Hook rules were not satisfied.", "Error occurred while evaluating hook rules."
	const unsigned, failed = "The signature is missing or wrong.", "Error occurred while executing the hook's command. Please check your logs for more details."
	for _, c := range []struct {
		what       string
		request    *http.Request
		status     int
		text       string
		strict     int // 0: the same
		strictText string
	}{
		{"an unknown hook", post("/hooks/none", body), 404, "Hook not found.", 0, ""},
		{"no hook", post("/hooks/", body), 404, "Hook not found.", 0, ""},
		{"another path", post("/other/quick", body), 404, "Hook not found.", 0, ""},
		{"an id in another case", post("/hooks/Quick", body), 404, "Hook not found.", 0, ""},
		{"an id with a slash", post("/hooks/team/deploy", body), 200, "slash", 0, ""},
		{"a method of the list", post("/hooks/posts", body), 200, "ok", 0, ""},
		{"another method", httptest.NewRequest(http.MethodGet, "/hooks/posts", nil), 405, "", 0, ""},
		{"any method", httptest.NewRequest(http.MethodDelete, "/hooks/code", nil), 201, "made", 0, ""},
		{"triggered", post("/hooks/quick", body), 200, "taken", 0, ""},
		{"triggered, with a code", post("/hooks/code", body), 201, "made", 0, ""},
		{"with a code that is none", post("/hooks/odd-code", body), 200, "made", 0, ""},
		{"with a code that is no answer", post("/hooks/early-code", body), 200, "made", 0, ""},
		{"with output", post("/hooks/output", body), 200, "<b>hi\n", 0, ""},
		{"with output and a code", post("/hooks/output-code", body), 202, "\n", 0, ""},
		{"with a failure", post("/hooks/fails", body), 500, failed, 0, ""},
		{"with a failure and its output", post("/hooks/fails-aloud", body), 500, "why\n", 0, ""},
		{"with a failure that is not waited for", post("/hooks/fails-behind", body), 200, "taken", 0, ""},
		{"not wanted", post("/hooks/never", body), 200, mismatch, 403, mismatch},
		{"not wanted, with a code", post("/hooks/never-code", body), 418, mismatch, 0, ""},
		{"not wanted, with a code that is none", post("/hooks/never-odd-code", body), 200, mismatch, 0, ""},
		{"a rule that cannot be judged", post("/hooks/broken", body), 500, rules, 0, ""},
		{"a good signature", post("/hooks/signed", body, "X-Sig", sig), 200, "signed", 0, ""},
		{"a wrong signature", post("/hooks/signed", body, "X-Sig", "00"), 500, rules, 401, unsigned},
		{"no signature", post("/hooks/signed", body), 200, mismatch, 401, unsigned},
		{"a wrong signature, with a code for what is not wanted", post("/hooks/signed-code", body, "X-Sig", "00"), 500, rules, 401, unsigned},
		{"no signature, with that code", post("/hooks/signed-code", body), 400, mismatch, 0, ""},
		{"the second of two secrets, softly", post("/hooks/soft", body, "X-Sig", sig), 200, "soft", 0, ""},
		{"neither of two secrets, softly", post("/hooks/soft", body, "X-Sig", "00"), 200, mismatch, 401, unsigned},
		{"the second of two secrets", post("/hooks/hard", body, "X-Sig", sig), 500, rules, 401, unsigned},
		{"the signature of a provider", post("/hooks/github", body, "X-Token", "hush"), 200, "gh", 0, ""},
		{"a wrong signature of a provider", post("/hooks/github", body, "X-Token", "x"), 200, mismatch, 401, unsigned},
	} {
		again := c.request.Clone(t.Context())
		if c.request.ContentLength > 0 {
			again.Body = io.NopCloser(strings.NewReader(body))
		}
		got := ask(compat, c.request)
		if got.status != c.status || got.text != c.text || got.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %+v, want %d %q", c.what, got, c.status, c.text)
		}
		if c.strict == 0 {
			c.strict, c.strictText = c.status, c.text
		}
		if got := ask(strict, again); got.status != c.strict || got.text != c.strictText {
			t.Errorf("%s, strictly: %+v, want %d %q", c.what, got, c.strict, c.strictText)
		}
	}
}

func TestWhatBecomesOfRequestsIsCounted(t *testing.T) {
	h := handler(t, oneOfEach, action.HandlerConfig{Strict: true, MaxBody: 16})
	for _, r := range []*http.Request{
		post("/hooks/output", "{}"), post("/hooks/output", "{}"), post("/hooks/fails", "{}"), post("/hooks/never", "{}"), post("/hooks/never-code", "{}"),
		post("/hooks/signed", "{}"), post("/hooks/signed", "{}", "X-Sig", "00"), post("/hooks/broken", "{}"), post("/hooks/none", "{}"),
		post("/hooks/output", strings.Repeat(" ", 17)), httptest.NewRequest(http.MethodGet, "/hooks/posts", nil),
	} {
		ask(h, r)
	}
	want := map[action.HookStatus]uint64{
		{Hook: "output", Status: action.StatusRan}: 2, {Hook: "fails", Status: action.StatusFailed}: 1, {Hook: "never", Status: action.StatusUnwanted}: 1,
		{Hook: "never-code", Status: action.StatusUnwanted}: 1, {Hook: "signed", Status: action.StatusUnsigned}: 2, {Hook: "broken", Status: action.StatusRule}: 1,
		{Hook: "output", Status: action.StatusBody}: 1, {Hook: "posts", Status: action.StatusMethod}: 1,
	}
	if diff := cmp.Diff(want, h.Requests()); diff != "" {
		t.Error(diff)
	}
}

func TestHeadersOfAHookAreOnWhatItTriggers(t *testing.T) {
	h := handler(t, oneOfEach, action.HandlerConfig{})
	for path, want := range map[string]string{"quick": "1", "fails": "1", "never": "", "none": ""} {
		if got := ask(h, post("/hooks/"+path, "{}")); got.header.Get("X-One") != want {
			t.Errorf("%s: %v", path, got.header)
		}
	}
	for path, want := range map[string]string{"quick": "application/json", "output": "text/plain; charset=utf-8"} {
		if got := ask(h, post("/hooks/"+path, "{}")); got.header.Get("Content-Type") != want {
			t.Errorf("%s: %v", path, got.header)
		}
	}
	if got := ask(h, httptest.NewRequest(http.MethodGet, "/hooks/posts", nil)); got.header.Get("Allow") != "POST, PUT" {
		t.Errorf("%v", got.header)
	}
}

func TestTheServersMethodsAreForHooksThatNameNone(t *testing.T) {
	h := handler(t, oneOfEach, action.HandlerConfig{Methods: []string{"POST"}})
	for _, c := range []struct {
		method, path string
		want         int
	}{{"GET", "quick", 405}, {"POST", "quick", 200}, {"PUT", "posts", 200}} {
		if got := ask(h, httptest.NewRequest(c.method, "/hooks/"+c.path, nil)); got.status != c.want {
			t.Errorf("%s %s: %+v", c.method, c.path, got)
		}
	}
}

func TestACommandGetsWhatItsHookPassesOn(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	script := file(t, "script.sh", `#!/bin/sh
for a in "$0" "$@"; do printf '<%s>' "$a"; done
printf ' %s %s %s' "$OWN" "$HOOK_ref" "${HOOK_none-unset}"
printf ' %s %s' "$(cat "$BLOB")" "$(cat "$HOOK_TEXT")"
cat
`)
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	hook := fmt.Sprintf(`
- id: a
  execute-command: script.sh
  command-working-directory: %s
  incoming-payload-content-type: application/json
  pass-payload-to-stdin: true
  include-command-output-in-response: true
  parse-parameters-as-json: [{source: payload, name: inner}]
  pass-arguments-to-command:
  - {source: payload, name: inner.x}
  - {source: payload, name: none}
  - {source: string, name: 1}
  pass-environment-to-command:
  - {source: payload, name: ref, envname: OWN}
  - {source: payload, name: ref}
  - {source: payload, name: none}
  pass-file-to-command:
  - {source: payload, name: blob, envname: BLOB, base64decode: true}
  - {source: payload, name: text}
  - {source: payload, name: none}
`, filepath.Dir(script))
	h := handler(t, hook, action.HandlerConfig{})
	body := `{"inner":"{\"x\":\"; rm ` + out + `\"}","ref":"main","blob":"aGk=","text":"words"}`
	got := ask(h, post("/hooks/a", body, "Content-Type", "text/plain"))
	want := "<script.sh><; rm " + out + "><><1> main main unset hi words" + body
	// A script is run by its interpreter, which is given its whole path.
	want = strings.Replace(want, "<script.sh>", "<"+script+">", 1)
	if got.status != 200 || got.text != want {
		t.Errorf("%+v\nwant %s", got, want)
	}
	broken := strings.Replace(body, "aGk=", "!", 1)
	if got := ask(h, post("/hooks/a", broken)); got.status != 500 {
		t.Errorf("a file that is not base64: %+v", got)
	}
	if left, err := os.ReadDir(filepath.Dir(script)); len(left) != 1 || err != nil {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

func TestAFileOfAMultipartBodyIsReadIfTheHookSaysIt(t *testing.T) {
	h := handler(t, `
- id: a
  execute-command: echo
  include-command-output-in-response: true
  parse-parameters-as-json: [{source: payload, name: doc}]
  pass-arguments-to-command: [{source: payload, name: doc.k}, {source: payload, name: other}]
`, action.HandlerConfig{})
	part := func(name string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"; filename=\"f\"\r\n\r\n{\"k\":1.0}\r\n"
	}
	got := ask(h, post("/hooks/a", part("doc")+part("other")+"--b--\r\n", "Content-Type", "multipart/form-data; boundary=b"))
	if got.text != "1.0 \n" {
		t.Errorf("%+v", got)
	}
}

func TestABodyThatIsTooLargeOrTooSlowIsRefused(t *testing.T) {
	cfg := action.HandlerConfig{MaxBody: 10, ReadTimeout: 20 * time.Millisecond, Runner: runner(t, action.Config{})}
	h := handler(t, "- {id: a, execute-command: 'true', response-message: ok}", cfg)
	if got := ask(h, post("/hooks/a", "0123456789")); got.status != 200 {
		t.Errorf("at the limit: %+v", got)
	}
	if got := ask(h, post("/hooks/a", "0123456789x")); got.status != 413 {
		t.Errorf("declared: %+v", got)
	}
	chunked := post("/hooks/a", "")
	chunked.Body, chunked.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("x", 1000))), -1
	if got := ask(h, chunked); got.status != 413 {
		t.Errorf("not declared: %+v", got)
	}
	s := httptest.NewServer(h)
	defer s.Close()
	for _, c := range []struct{ what, send, want string }{
		{"slow", "POST /hooks/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", "HTTP/1.1 408 "},
		{"cut", "POST /hooks/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "HTTP/1.1 400 "},
		{"in time, then another one", "POST /hooks/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 200 "},
	} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, c.send)
		got := make([]byte, len(c.want))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v; want %q", c.what, got, err, c.want)
		}
		conn.Close()
	}
}

func TestOverTheLimitTheAnswerSaysWhenToComeBack(t *testing.T) {
	at := listen(t)
	ran := make(chan action.Ran, 4)
	r := runner(t, action.Config{Total: 1, PerHook: 1, Queue: 1, Timeout: long})
	h := handler(t, fmt.Sprintf("- {id: a, execute-command: %q, pass-arguments-to-command: [{source: string, name: child-wait}, {source: string, name: %q}], response-message: ok, response-headers: [{name: X-One, value: 1}]}", self()[0], at.address),
		action.HandlerConfig{Runner: r, Done: func(x action.Ran) { ran <- x }})
	for i, want := range []int{200, 200, 503} {
		got := ask(h, post("/hooks/a", "{}"))
		if got.status != want || (got.header.Get("Retry-After") != "") != (want == 503) || (got.header.Get("X-One") != "") != (want == 200) {
			t.Errorf("%d: %+v", i, got)
		}
	}
	if got := r.Stats(); got.Running != 1 || got.Waiting != 1 || got.Full != 1 {
		t.Errorf("%+v; want one that runs, one that waits, and one that had no room", got)
	}
	at.next(t).Close()
	first := <-ran
	at.next(t).Close()
	second := <-ran
	if got := h.Requests(); got[action.HookStatus{Hook: "a", Status: action.StatusBusy}] != 1 {
		t.Errorf("%v; want one that was too many", got)
	}
	for _, x := range []action.Ran{first, second} {
		if x.Hook != "a" || x.Err != nil || !x.Result.Ran || x.Remote == "" || x.Request == "" || x.Request == first.Request && x.Request == second.Request {
			t.Errorf("%+v", x)
		}
	}
}

func TestACommandGoesOnWhenItsClientHasGone(t *testing.T) {
	at := listen(t)
	ran := make(chan action.Ran, 1)
	h := handler(t, fmt.Sprintf("- {id: a, execute-command: %q, pass-arguments-to-command: [{source: string, name: child-wait}, {source: string, name: %q}], include-command-output-in-response: true}", self()[0], at.address),
		action.HandlerConfig{Runner: runner(t, action.Config{Timeout: long}), Done: func(x action.Ran) { ran <- x }})
	s := httptest.NewServer(h)
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "POST /hooks/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	up := at.next(t)
	conn.Close()
	up.Close()
	if x := <-ran; x.Err != nil || x.Result.Exit != 0 {
		t.Errorf("%+v", x)
	}
}

func TestAnAnswerSaysThatItsOutputIsCut(t *testing.T) {
	h := handler(t, "- {id: a, execute-command: cat, pass-payload-to-stdin: true, include-command-output-in-response: true}",
		action.HandlerConfig{Runner: runner(t, action.Config{OutputBytes: 4})})
	if got := ask(h, post("/hooks/a", "0123456789")); got.text != "0123\n[truncated]\n" {
		t.Errorf("%+v", got)
	}
}

func TestAHookMayTakeLongerOrLessThanOthers(t *testing.T) {
	ran := make(chan action.Ran, 1)
	h := handler(t, "- {id: a, execute-command: sleep, pass-arguments-to-command: [{source: string, name: 3600}], command-timeout: 10ms}",
		action.HandlerConfig{Done: func(x action.Ran) { ran <- x }})
	ask(h, post("/hooks/a", ""))
	if x := <-ran; x.Err == nil || !strings.Contains(x.Err.Error(), "after 10ms") {
		t.Errorf("%+v", x)
	}
}

func TestWhatIsLoadedAgainTakesThePlaceOfWhatWas(t *testing.T) {
	h := handler(t, "- {id: old, execute-command: 'true', response-message: old}", action.HandlerConfig{Prefix: "/x/"})
	h.Replace(mustLoad(t, "- {id: new, execute-command: 'true', response-message: new}"))
	if got := ask(h, post("/x/old", "")); got.status != 404 {
		t.Errorf("%+v", got)
	}
	if got := ask(h, post("/x/new", "")); got.text != "new" {
		t.Errorf("%+v", got)
	}
}

func TestARuleSeesTheClientBehindTheProxy(t *testing.T) {
	h := handler(t, "- {id: a, execute-command: 'true', response-message: ok, trigger-rule: {match: {type: ip-whitelist, ip-range: 203.0.113.9}}}",
		action.HandlerConfig{Strict: true, Remote: func(r *http.Request) string { return r.Header.Get("X-Test-Client") }})
	if got := ask(h, post("/hooks/a", "", "X-Test-Client", "203.0.113.9:1")); got.status != 200 {
		t.Errorf("%+v", got)
	}
	if got := ask(h, post("/hooks/a", "", "X-Test-Client", "203.0.113.8:1")); got.status != 403 {
		t.Errorf("%+v", got)
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	var log bytes.Buffer
	h := handler(t, oneOfEach, action.HandlerConfig{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	const body = `{"token":"private"}`
	for _, path := range []string{"signed", "soft", "fails", "output", "broken", "none"} {
		ask(h, post("/hooks/"+path, body, "X-Sig", "guess"))
	}
	ask(h, post("/hooks/signed", `{"token":private`, "X-Sig", "guess"))
	for _, secret := range []string{"hush", "guess", "private", mac(sha256.New, "hush", body)} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s is in the log:\n%s", secret, log.String())
		}
	}
	for _, want := range []string{"signature does not match", "status=1", "hook=fails", "cannot be judged"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, log.String())
		}
	}
}
