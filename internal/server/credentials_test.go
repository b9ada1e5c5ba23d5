package server_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/server"
)

// signed is a token of alice in demo, made by a library that is not ours.
func signed(t *testing.T, method jwt.SigningMethod, key any, iss, kid string) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": "alice", "org": "demo", "role": "admin", "exp": time.Now().Add(time.Hour).Unix()}
	if iss != "" {
		claims["iss"] = iss
	}
	token := jwt.NewWithClaims(method, claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// issuer is one that publishes its keys.
type issuer struct {
	*httptest.Server

	key  ed25519.PrivateKey
	hold chan struct{} // nil: it answers at once
}

// set is its keys, of which the first is its own.
func (i *issuer) set(n int) string {
	var keys []string
	for range n {
		x := base64.RawURLEncoding.EncodeToString(i.key.Public().(ed25519.PublicKey))
		keys = append(keys, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q,"kid":"k%d"}`, x, len(keys)))
	}
	return `{"keys":[` + strings.Join(keys, ",") + `]}`
}

func newIssuer(keys int, hold chan struct{}) *issuer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	i := &issuer{key: key, hold: hold}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if i.hold != nil {
			<-i.hold
		}
		_, _ = w.Write([]byte(i.set(keys)))
	}))
	return i
}

func (i *issuer) settings() config.Issuer {
	return config.Issuer{Issuer: "pub", JWKSURL: i.URL, AllowPrivate: true, Orgs: []string{"*"}}
}

// jwksHit is how a limit of published keys is met, with an issuer that has so
// many, which answers at once, or when what hold points at is closed. meet gets a
// function that makes its tokens.
func jwksHit(keys int, hold *chan struct{}, set func(*config.Config), meet func(t *testing.T, n *limitedNode, bearer func(kid string) []string)) hit {
	var i *issuer
	return hit{
		set: func(c *config.Config) {
			var answer chan struct{}
			if hold != nil {
				answer = make(chan struct{})
				*hold = answer
			}
			i = newIssuer(keys, answer)
			c.Issuers = append(c.Issuers, i.settings())
			c.JWKS.MinInterval = config.Duration(time.Second)
			set(c)
		},
		meet: func(t *testing.T, n *limitedNode) {
			t.Cleanup(i.Close)
			meet(t, n, func(kid string) []string {
				return []string{"Authorization", "Bearer " + signed(t, jwt.SigningMethodEdDSA, i.key, "pub", kid)}
			})
		},
	}
}

var (
	ticketsHit = hit{
		set: func(c *config.Config) { c.Limits.Tickets = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			n.until(t, func() bool { // used tickets are counted from minute to minute: one may begin in between
				got, body := do(t, n.client, http.MethodGet, n.PublicURL()+"/v1/poll?wait=0&ticket="+ticket(t, n.client, n.Server), "")
				if got != 200 && got != 503 {
					t.Fatalf("%d, %s", got, body)
				}
				return got == 503
			})
		},
		times: 1,
	}
	jwksBytesHit = jwksHit(20, nil, func(c *config.Config) { c.Limits.JWKSBytes = 1024 }, func(t *testing.T, n *limitedNode, bearer func(string) []string) {
		n.ask(t, http.MethodGet, "/v1/events", "", 503, "unavailable", bearer("k0")...)
	})
	jwksKeysHit = jwksHit(3, nil, func(c *config.Config) { c.Limits.JWKSKeys = 2 }, func(t *testing.T, n *limitedNode, bearer func(string) []string) {
		n.ask(t, http.MethodGet, "/v1/events", "", 503, "unavailable", bearer("k0")...)
	})
	jwksUnknownHit = jwksHit(1, nil, func(c *config.Config) { c.Limits.JWKSUnknown = 1 }, func(t *testing.T, n *limitedNode, bearer func(string) []string) {
		n.ask(t, http.MethodGet, "/v1/events", "", 200, "", bearer("k0")...)
		n.until(t, func() bool { // two names that it does not have, when it may be asked
			for _, kid := range []string{"a", "b", "c"} {
				n.get(t, http.MethodGet, "/v1/events", "", bearer(kid)...)
			}
			return n.limits(t)["jwks_unknown"] > 0
		})
	})
	jwksHold       chan struct{} // made anew each time
	jwksWaitingHit = jwksHit(1, &jwksHold, func(c *config.Config) { c.Limits.JWKSWaiting = 1 }, func(t *testing.T, n *limitedNode, bearer func(string) []string) {
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if status, body := n.get(t, http.MethodGet, "/v1/events", "", bearer("k0")...); status != 200 && status != 503 {
					t.Errorf("%d, %s", status, body)
				}
			})
		}
		n.until(t, func() bool { return n.limits(t)["jwks_waiting"] > 0 })
		close(jwksHold)
		all.Wait()
	})
)

// ticket gets one for alice.
func ticket(t *testing.T, c *http.Client, s *server.Server) string {
	t.Helper()
	status, body := do(t, c, http.MethodPost, s.PublicURL()+"/v1/tickets", "", "Authorization", "Bearer "+token(t, "alice"))
	var a struct {
		Ticket    string
		ExpiresIn int `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(body), &a); err != nil || status != http.StatusCreated || a.Ticket == "" || a.ExpiresIn < 1 || a.ExpiresIn > 30 {
		t.Fatalf("%d, %s", status, body)
	}
	return a.Ticket
}

// doors are the requests that need a credential, but the WebSocket.
var doors = []struct{ method, path, body string }{
	{"GET", "/v1/events?x", ""},
	{"POST", "/v1/events?x", `{"type":"a","data":1}`},
	{"GET", "/v1/sse?x", ""},
	{"POST", "/v1/sse?x", `{"patterns":["a"]}`},
	{"GET", "/v1/poll?wait=0&x", ""},
	{"POST", "/v1/poll?x", `{"wait":0}`},
	{"POST", "/v1/frames?x", `{"type":"ping"}`},
	{"POST", "/v1/tickets?x", ""},
}

// at is a door's URL with one parameter more, or none.
func at(s *server.Server, path, parameter string) string {
	path = strings.TrimRight(strings.Replace(path, "x", parameter, 1), "?&")
	return s.PublicURL() + path
}

// status is that of a request's answer, which is not read to its end.
func status(t *testing.T, c *http.Client, method, url, body string, header ...string) int {
	t.Helper()
	resp := response(t, c, method, url, body, header...)
	return resp.StatusCode
}

func response(t *testing.T, c *http.Client, method, url, body string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // a stream has no end
	return resp
}

// handshake is what becomes of a WebSocket: the type of its first frame, the
// status that refused it, or the code that closed it.
func handshake(t *testing.T, s *server.Server, query, connect string, offered []string, header ...string) string {
	t.Helper()
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	url := strings.Replace(s.PublicURL(), "http", "ws", 1) + "/v1/ws?" + query
	c, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPHeader: h, Subprotocols: offered})
	if err != nil {
		if resp == nil {
			t.Fatal(err)
		}
		return fmt.Sprint(resp.StatusCode)
	}
	defer func() { _ = c.CloseNow() }()
	if connect != "" {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(connect)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := next(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if f.Type != "error" {
		return f.Type
	}
	for err == nil {
		_, err = next(t.Context(), c)
	}
	var closed websocket.CloseError
	if !errors.As(err, &closed) {
		t.Fatal(err)
	}
	return fmt.Sprint(int(closed.Code))
}

func TestEveryDoorTakesTheTokensOfEveryIssuer(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub := newIssuer(1, nil)
	defer pub.Close()
	file := filepath.Join(t.TempDir(), "keys.pem")
	var keys []byte
	for _, k := range []crypto.Signer{rsaKey, ecKey} {
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	if err := os.WriteFile(file, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("c.yaml", fmt.Appendf(nil, `
listen: 127.0.0.1:0
ops: {listen: 127.0.0.1:0}
engine: {kind: memory}
drain: {window: 0s}
orgs: [{id: demo}]
issuers:
- {secrets: [%s, %s], orgs: [demo]}
- {issuer: files, public_key_files: [%s], algorithms: [RS256, ES256], orgs: [demo]}
- {issuer: pub, jwks_url: %s, allow_private: true, algorithms: [EdDSA], orgs: [demo]}
`, secret, strings.Repeat("old", 12), file, pub.URL), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, c := start(t, cfg), client(t)
	for name, token := range map[string]string{
		"HS256":             signed(t, jwt.SigningMethodHS256, []byte(secret), "", ""),
		"HS256, old secret": signed(t, jwt.SigningMethodHS256, []byte(strings.Repeat("old", 12)), "", ""),
		"RS256":             signed(t, jwt.SigningMethodRS256, rsaKey, "files", ""),
		"ES256":             signed(t, jwt.SigningMethodES256, ecKey, "files", "any"),
		"EdDSA, published":  signed(t, jwt.SigningMethodEdDSA, pub.key, "pub", "k0"),
	} {
		for _, d := range doors {
			if got := status(t, c, d.method, at(s, d.path, ""), d.body, "Authorization", "Bearer "+token); got < 200 || got > 202 {
				t.Errorf("%s: %s %s: %d", name, d.method, d.path, got)
			}
		}
		if got := handshake(t, s, "", "", nil, "Authorization", "Bearer "+token); got != "welcome" {
			t.Errorf("%s: a WebSocket: %s", name, got)
		}
		if got := handshake(t, s, "", `{"type":"connect","token":"`+token+`"}`, nil); got != "welcome" {
			t.Errorf("%s: connect: %s", name, got)
		}
	}
	for name, token := range map[string]string{
		"another issuer's key": signed(t, jwt.SigningMethodRS256, rsaKey, "pub", ""),
		"no issuer":            signed(t, jwt.SigningMethodRS256, rsaKey, "", ""),
		"an unknown issuer":    signed(t, jwt.SigningMethodHS256, []byte(secret), "nobody", ""),
		"the file as a secret": signed(t, jwt.SigningMethodHS256, keys, "files", ""),
		"not signed":           signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", ""),
	} {
		for _, d := range doors {
			if got := status(t, c, d.method, at(s, d.path, ""), d.body, "Authorization", "Bearer "+token); got != 401 {
				t.Errorf("%s: %s %s: %d", name, d.method, d.path, got)
			}
		}
		if got := handshake(t, s, "", `{"type":"connect","token":"`+token+`"}`, nil); got != "4001" {
			t.Errorf("%s: connect: %s", name, got)
		}
	}
	_, page := do(t, c, http.MethodGet, s.OpsURL()+"/metrics", "")
	for _, want := range []string{`carillon_token_key_used_total{issuer="",key="secret 2"}`, `carillon_jwks_keys{issuer="pub"} 1`, `carillon_credentials_refused_total`} {
		if !strings.Contains(page, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
}

func TestWhereACredentialCountsAtEachDoor(t *testing.T) {
	cfg := settings("")
	cfg.Origins = []string{"https://app.example"}
	s, c := start(t, cfg), client(t)
	good := token(t, "alice")
	cookie := []string{"Cookie", "carillon_token=" + good}
	with := func(header ...string) []string { return append(header, cookie...) }
	receives := func(path string) bool {
		return strings.HasPrefix(path, "/v1/sse") || strings.HasPrefix(path, "/v1/poll")
	}
	for _, d := range doors {
		for _, tc := range []struct {
			name      string
			parameter string
			header    []string
			want      int // 200: whatever success is
		}{
			{"nothing", "", nil, 401},
			{"query", "token=" + good, nil, 200},
			{"query and header, the same", "token=" + good, []string{"Authorization", "Bearer " + good}, 200},
			{"query and header", "token=" + good, []string{"Authorization", "Bearer " + token(t, "bob")}, 400},
			{"cookie alone", "", cookie, 401},
			{"cookie, same-origin", "", with("Sec-Fetch-Site", "same-origin"), 200},
			{"cookie, same-site", "", with("Sec-Fetch-Site", "same-site"), 401},
			{"cookie, cross-site", "", with("Sec-Fetch-Site", "cross-site"), 401},
			{"cookie, own origin", "", with("Origin", s.PublicURL()), 200},
			{"cookie, allowed origin", "", with("Origin", "https://app.example", "Sec-Fetch-Site", "cross-site"), 200},
			{"cookie, other origin", "", with("Origin", "https://evil.example"), 403},
			{"cookie, null", "", with("Origin", "null", "Sec-Fetch-Site", "same-origin"), 403},
			{"a bad cookie beside a good header", "", []string{"Cookie", "carillon_token=x", "Sec-Fetch-Site", "same-origin", "Authorization", "Bearer " + good}, 200},
			{"a good cookie beside a bad header", "", with("Sec-Fetch-Site", "same-origin", "Authorization", "Bearer x"), 401},
			{"token and other origin", "", []string{"Authorization", "Bearer " + good, "Origin", "https://evil.example"}, 403},
			{"token and null", "", []string{"Authorization", "Bearer " + good, "Origin", "null"}, 403},
		} {
			got := status(t, c, d.method, at(s, d.path, tc.parameter), d.body, tc.header...)
			if got != tc.want && !(tc.want == 200 && got > 200 && got < 203) {
				t.Errorf("%s %s, %s: %d, want %d", d.method, d.path, tc.name, got, tc.want)
			}
		}
		one := ticket(t, c, s)
		for i, want := range []int{200, 401} {
			if !receives(d.path) {
				want = 400
			}
			if got := status(t, c, d.method, at(s, d.path, "ticket="+one), d.body); got != want {
				t.Errorf("%s %s, a ticket, time %d: %d, want %d", d.method, d.path, i+1, got, want)
			}
		}
	}

	one := ticket(t, c, s)
	for _, tc := range []struct {
		name, query, connect string
		offered, header      []string
		want                 string
	}{
		{"subprotocol", "", "", []string{"carillon.v1", "bearer." + good}, nil, "welcome"},
		{"query", "token=" + good, "", nil, nil, "welcome"},
		{"a ticket", "ticket=" + one, "", nil, nil, "welcome"},
		{"it again", "ticket=" + one, "", nil, nil, "401"},
		{"it again, from a page", "ticket=" + one, "", nil, []string{"Origin", "https://app.example"}, "4001"},
		{"ticket and token", "ticket=" + one + "&token=" + good, "", nil, nil, "400"},
		{"cookie, same-origin", "", "", nil, with("Sec-Fetch-Site", "same-origin"), "welcome"},
		{"cookie, allowed origin", "", "", nil, with("Origin", "https://app.example"), "welcome"},
		{"cookie, other origin", "", "", nil, with("Origin", "https://evil.example"), "403"},
		{"cookie, null", "", "", nil, with("Origin", "null"), "403"},
		{"cookie alone, then connect", "", `{"type":"connect","token":"` + good + `"}`, nil, cookie, "welcome"},
		{"a bad cookie from a page", "", "", nil, []string{"Cookie", "carillon_token=x", "Origin", "https://app.example"}, "4001"},
		{"connect with a ticket", "", `{"type":"connect","token":"` + ticket(t, c, s) + `"}`, nil, nil, "4001"},
	} {
		if got := handshake(t, s, tc.query, tc.connect, tc.offered, tc.header...); got != tc.want {
			t.Errorf("WebSocket, %s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// The next start is another node as far as tickets are concerned: it has the key
// and the store, and no memory.
func TestATicketIsGoodOnceOnWhicheverNode(t *testing.T) {
	cfg, c := settings(t.TempDir()), client(t)
	poll := func(s *server.Server, ticket string) int {
		t.Helper()
		return status(t, c, http.MethodGet, s.PublicURL()+"/v1/poll?wait=0&ticket="+ticket, "")
	}
	first, err := server.New(cfg, server.Options{Development: &server.Development{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	used, fresh := ticket(t, c, first), ticket(t, c, first)
	if got := poll(first, used); got != 200 {
		t.Errorf("the first time: %d", got)
	}
	if got := poll(first, used); got != 401 {
		t.Errorf("the second time: %d", got)
	}
	c.CloseIdleConnections()
	if err := first.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	second := start(t, cfg)
	if got := poll(second, used); got != 401 {
		t.Errorf("the third time, on the other: %d", got)
	}
	if got := poll(second, fresh); got != 200 {
		t.Errorf("one of the first node's on the other: %d", got)
	}
}

func TestATokenThatCannotBeJudgedIsToldToComeBack(t *testing.T) {
	pub := newIssuer(1, nil)
	cfg := settings("")
	cfg.Issuers = append(cfg.Issuers, pub.settings())
	pub.Close() // nobody answers
	s, c := start(t, cfg), client(t)
	token := signed(t, jwt.SigningMethodEdDSA, pub.key, "pub", "k0")
	for _, d := range doors {
		resp := response(t, c, d.method, at(s, d.path, ""), d.body, "Authorization", "Bearer "+token)
		if strings.HasPrefix(d.path, "/v1/sse") { // a native EventSource would give up for ever
			_, body := do(t, c, d.method, at(s, d.path, ""), d.body, "Authorization", "Bearer "+token)
			if resp.StatusCode != 200 || !strings.Contains(body, "retry: ") || !strings.Contains(body, `"reason":"unavailable"`) {
				t.Errorf("%s %s: %d, %s", d.method, d.path, resp.StatusCode, body)
			}
			continue
		}
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %d, Retry-After %q", d.method, d.path, resp.StatusCode, resp.Header.Get("Retry-After"))
		}
	}
	for _, origin := range [][]string{nil, {"Origin", s.PublicURL()}} {
		if got := handshake(t, s, "token="+token, "", nil, origin...); got != "503" {
			t.Errorf("a WebSocket, %v: %s", origin, got)
		}
	}
	if got := handshake(t, s, "", `{"type":"connect","token":"`+token+`"}`, nil); got != "4103" {
		t.Errorf("connect: %s", got)
	}
	for _, other := range doors { // those of the other issuer notice nothing
		if got := status(t, c, other.method, at(s, other.path, ""), other.body, "Authorization", "Bearer "+signed(t, jwt.SigningMethodHS256, []byte(secret), "", "")); got < 200 || got > 202 {
			t.Errorf("%s %s of another issuer: %d", other.method, other.path, got)
		}
	}
}

func TestPagesOfAllowedOriginsMayCallEveryDoor(t *testing.T) {
	cfg := settings("")
	cfg.Origins = []string{"https://app.example"}
	s, c := start(t, cfg), client(t)
	for _, d := range doors {
		url := at(s, d.path, "")
		resp := response(t, c, http.MethodOptions, url, "", "Origin", "https://app.example", "Access-Control-Request-Method", d.method, "Access-Control-Request-Headers", "authorization, content-type")
		h := resp.Header
		if resp.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Credentials") != "true" ||
			!strings.Contains(h.Get("Access-Control-Allow-Methods"), d.method) || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") {
			t.Errorf("%s: preflight of %s: %d %v", d.path, d.method, resp.StatusCode, h)
		}
		for _, origin := range []string{"https://evil.example", "null"} {
			resp := response(t, c, http.MethodOptions, url, "", "Origin", origin, "Access-Control-Request-Method", d.method)
			if resp.StatusCode != 403 || resp.Header.Get("Access-Control-Allow-Origin") != "" || resp.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s: preflight from %s: %d %v", d.path, origin, resp.StatusCode, resp.Header)
			}
		}
		for what, header := range map[string][]string{
			"an answer":  {"Authorization", "Bearer " + token(t, "alice"), "Origin", "https://app.example"},
			"a refusal":  {"Authorization", "Bearer x", "Origin", "https://app.example"},
			"no browser": {"Authorization", "Bearer " + token(t, "alice")},
		} {
			resp := response(t, c, d.method, url, d.body, header...)
			h := resp.Header
			if vary := strings.Join(h["Vary"], ", "); !strings.Contains(vary, "Authorization, Cookie, Origin") {
				t.Errorf("%s %s, %s: Vary is %q", d.method, d.path, what, vary)
			}
			if !strings.Contains(h.Get("Cache-Control"), "no-store") {
				t.Errorf("%s %s, %s: Cache-Control is %q", d.method, d.path, what, h.Get("Cache-Control"))
			}
			want := "https://app.example"
			if what == "no browser" {
				want = ""
			}
			if h.Get("Access-Control-Allow-Origin") != want || (h.Get("Access-Control-Allow-Credentials") == "true") != (want != "") {
				t.Errorf("%s %s, %s: %v", d.method, d.path, what, h)
			}
		}
	}
}

// locked is a buffer for a logger.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func TestNoSecretIsInTheLog(t *testing.T) {
	key, stored := org.NewKey("demo")
	pub := newIssuer(1, nil)
	defer pub.Close()
	const clear = "a-secret-in-the-url-of-an-issuer"
	cfg := settings("")
	cfg.Log.Level = "debug"
	cfg.Orgs = []config.Org{{ID: "demo", Keys: []string{stored.Line()}}}
	published := pub.settings()
	published.JWKSURL += "/?" + clear
	dead := config.Issuer{Issuer: "dead", JWKSURL: "https://127.0.0.1:1/" + clear, Orgs: []string{"*"}}
	cfg.Issuers = append(cfg.Issuers, published, dead)
	var out locked
	s, err := server.New(cfg, server.Options{Logger: slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := client(t)
	good := token(t, "alice")
	one := ticket(t, c, s)
	secrets := []string{
		secret, clear, key, good, one,
		good[:len(good)-2] + "AA", "not.a.token-at-all", "ck_unknown_" + strings.Repeat("hush", 10), key[:len(key)-4] + "aaaa",
		signed(t, jwt.SigningMethodEdDSA, pub.key, "pub", "k0"),
		signed(t, jwt.SigningMethodEdDSA, pub.key, "pub", "unknown-kid-0123456789"),
		signed(t, jwt.SigningMethodEdDSA, pub.key, "dead", "k0"),
	}
	for _, text := range secrets[2:] {
		for _, d := range doors {
			status(t, c, d.method, at(s, d.path, ""), d.body, "Authorization", "Bearer "+text)
			status(t, c, d.method, at(s, d.path, "token="+text), d.body)
			status(t, c, d.method, at(s, d.path, "ticket="+text), d.body)
			status(t, c, d.method, at(s, d.path, "token="+text+"%zz"), d.body)
			status(t, c, d.method, at(s, d.path, "unknown="+text), d.body)
			status(t, c, d.method, at(s, d.path, ""), d.body, "Cookie", "carillon_token="+text, "Sec-Fetch-Site", "same-origin")
			status(t, c, d.method, s.PublicURL()+"/v1/nothing?token="+text, d.body)
		}
		handshake(t, s, "", "", []string{"carillon.v1", "bearer." + text}, "Origin", s.PublicURL())
		handshake(t, s, "token="+text, "", nil, "Origin", s.PublicURL())
		handshake(t, s, "ticket="+text, "", nil, "Origin", s.PublicURL())
		handshake(t, s, "", `{"type":"connect","token":"`+text+`"}`, nil)
	}
	_, page := do(t, c, http.MethodGet, s.OpsURL()+"/metrics", "")
	c.CloseIdleConnections()
	if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	log := out.b.String()
	for _, want := range []string{"a credential was refused", "could not be fetched"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say that %s:\n%s", want, log)
		}
	}
	for _, text := range secrets {
		tail := text[strings.LastIndex(text, ".")+1:] // a token's signature
		if strings.HasPrefix(text, "ck_") {
			tail = text[strings.LastIndex(text, "_")+1:] // a key's secret
		}
		for _, part := range []string{text, tail, tail[:min(len(tail), 16)]} {
			if strings.Contains(log, part) {
				t.Errorf("the log has %q", part)
			}
			if strings.Contains(page, part) {
				t.Errorf("the metrics have %q", part)
			}
		}
	}
}
