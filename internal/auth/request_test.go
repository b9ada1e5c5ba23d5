package auth_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/org"
)

func TestWhereACredentialMayBe(t *testing.T) {
	const none, bad, unauth = carillon.Code(""), carillon.CodeBadRequest, carillon.CodeUnauthenticated
	key, _ := org.NewKey("demo")
	a := newAuth(t)
	for _, tc := range []struct {
		name    string
		url     string
		header  http.Header
		ws      bool
		tickets bool
		want    auth.Credential
		code    carillon.Code
	}{
		{name: "nowhere", url: "/v1/sse?pattern=a"},
		{name: "in the header", header: http.Header{"Authorization": {"Bearer T"}}, want: auth.Credential{Text: "T", Where: auth.InHeader}},
		{name: "the scheme in any case", header: http.Header{"Authorization": {"bEARER   T"}}, want: auth.Credential{Text: "T", Where: auth.InHeader}},
		{name: "a key in the header", header: http.Header{"Authorization": {"Bearer " + key}}, want: auth.Credential{Text: key, Where: auth.InHeader}},
		{name: "in the query", url: "/?a=b&token=T", want: auth.Credential{Text: "T", Where: auth.InQuery}},
		{name: "in the query, escaped", url: "/?%74oken=%54", want: auth.Credential{Text: "T", Where: auth.InQuery}},
		{name: "in the subprotocol", ws: true, header: http.Header{"Sec-Websocket-Protocol": {"carillon.v1, bearer.T"}}, want: auth.Credential{Text: "T", Where: auth.InSubprotocol}},
		{name: "in a second header line, no space", ws: true, header: http.Header{"Sec-Websocket-Protocol": {"carillon.v1,x", "y,bearer.T"}}, want: auth.Credential{Text: "T", Where: auth.InSubprotocol}},
		{name: "the subprotocol of no WebSocket", header: http.Header{"Sec-Websocket-Protocol": {"carillon.v1, bearer.T"}}},
		{name: "the same everywhere", ws: true, url: "/?token=T&token=T", header: http.Header{"Authorization": {"Bearer T"}, "Sec-Websocket-Protocol": {"bearer.T, bearer.T"}}, want: auth.Credential{Text: "T", Where: auth.InHeader}},
		{name: "a ticket in the query", tickets: true, url: "/?ticket=T", want: auth.Credential{Text: "T", Where: auth.InTicket}},

		{name: "a cookie that no page sent", header: http.Header{"Cookie": {"carillon_token=T"}}},
		{name: "a cookie from a page of ours", header: http.Header{"Cookie": {"a=b; carillon_token=T"}, "Sec-Fetch-Site": {"same-origin"}}, want: auth.Credential{Text: "T", Where: auth.InCookie}},
		{name: "a cookie from our own origin", header: http.Header{"Cookie": {"carillon_token=T"}, "Origin": {"http://example.com"}}, want: auth.Credential{Text: "T", Where: auth.InCookie}},
		{name: "a cookie from an allowed origin", header: http.Header{"Cookie": {"carillon_token=T"}, "Origin": {"https://app.example"}, "Sec-Fetch-Site": {"cross-site"}}, want: auth.Credential{Text: "T", Where: auth.InCookie}},
		{name: "the same cookie twice", header: http.Header{"Cookie": {"carillon_token=T", "carillon_token=T"}, "Sec-Fetch-Site": {"same-origin"}}, want: auth.Credential{Text: "T", Where: auth.InCookie}},
		{name: "a cookie from another origin", header: http.Header{"Cookie": {"carillon_token=T"}, "Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"same-origin"}}},
		{name: "a cookie from null", header: http.Header{"Cookie": {"carillon_token=T"}, "Origin": {"null"}, "Sec-Fetch-Site": {"same-origin"}}},
		{name: "a cookie from the same site only", header: http.Header{"Cookie": {"carillon_token=T"}, "Sec-Fetch-Site": {"same-site"}}},
		{name: "a cookie that a typed address sent", header: http.Header{"Cookie": {"carillon_token=T"}, "Sec-Fetch-Site": {"none"}}},
		{name: "a cookie with two sites", header: http.Header{"Cookie": {"carillon_token=T"}, "Sec-Fetch-Site": {"same-origin", "cross-site"}}},
		{name: "a cookie beside the header does not count", header: http.Header{"Cookie": {"carillon_token=U"}, "Sec-Fetch-Site": {"same-origin"}, "Authorization": {"Bearer T"}}, want: auth.Credential{Text: "T", Where: auth.InHeader}},
		{name: "a cookie beside the query does not count", url: "/?token=T", header: http.Header{"Cookie": {"carillon_token=U"}, "Sec-Fetch-Site": {"same-origin"}}, want: auth.Credential{Text: "T", Where: auth.InQuery}},
		{name: "another cookie", header: http.Header{"Cookie": {"Carillon_token=T"}, "Sec-Fetch-Site": {"same-origin"}}},

		{name: "header and query differ", url: "/?token=U", header: http.Header{"Authorization": {"Bearer T"}}, code: bad},
		{name: "header and subprotocol differ", ws: true, header: http.Header{"Authorization": {"Bearer T"}, "Sec-Websocket-Protocol": {"bearer.U"}}, code: bad},
		{name: "subprotocol and query differ", ws: true, url: "/?token=T", header: http.Header{"Sec-Websocket-Protocol": {"bearer.U"}}, code: bad},
		{name: "two in the query", url: "/?token=T&token=U", code: bad},
		{name: "two in the subprotocol", ws: true, header: http.Header{"Sec-Websocket-Protocol": {"bearer.T, bearer.U"}}, code: bad},
		{name: "two headers", header: http.Header{"Authorization": {"Bearer T", "Bearer T"}}, code: bad},
		{name: "a ticket where there is none", url: "/?ticket=T", code: bad},
		{name: "ticket and token", tickets: true, url: "/?ticket=T&token=U", code: bad},
		{name: "ticket and header", tickets: true, url: "/?ticket=T", header: http.Header{"Authorization": {"Bearer U"}}, code: bad},
		{name: "two tickets", tickets: true, url: "/?ticket=T&ticket=U", code: bad},
		{name: "two cookies", header: http.Header{"Cookie": {"carillon_token=T; carillon_token=U"}, "Sec-Fetch-Site": {"same-origin"}}, code: bad},
		{name: "an empty ticket", tickets: true, url: "/?ticket=", code: unauth},
		{name: "an empty cookie", header: http.Header{"Cookie": {"carillon_token="}, "Sec-Fetch-Site": {"same-origin"}}, code: unauth},
		{name: "a key in a cookie", header: http.Header{"Cookie": {"carillon_token=" + key}, "Sec-Fetch-Site": {"same-origin"}}, code: unauth},
		{name: "a key as a ticket", tickets: true, url: "/?ticket=" + key, code: unauth},
		{name: "an unreadable query", url: "/?token=T;x", code: bad},
		{name: "Basic", header: http.Header{"Authorization": {"Basic dTpw"}}, code: unauth},
		{name: "no scheme", header: http.Header{"Authorization": {"T"}}, code: unauth},
		{name: "no token", header: http.Header{"Authorization": {"Bearer "}}, code: unauth},
		{name: "an empty header", header: http.Header{"Authorization": {""}}, code: unauth},
		{name: "two words", header: http.Header{"Authorization": {"Bearer T U"}}, code: unauth},
		{name: "two in one header", header: http.Header{"Authorization": {"Bearer T,Bearer"}}, code: unauth},
		{name: "an empty query", url: "/?token=", code: unauth},
		{name: "an empty subprotocol", ws: true, header: http.Header{"Sec-Websocket-Protocol": {"carillon.v1, bearer."}}, code: unauth},
		{name: "a key in the query", url: "/?token=" + key, code: unauth},
		{name: "a key in the subprotocol", ws: true, header: http.Header{"Sec-Websocket-Protocol": {"carillon.v1, bearer." + key}}, code: unauth},
		{name: "a key in header and query", url: "/?token=" + key, header: http.Header{"Authorization": {"Bearer " + key}}, code: unauth},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.url == "" {
				tc.url = "/"
			}
			r := httptest.NewRequest("GET", tc.url, nil)
			if tc.header != nil {
				r.Header = tc.header
			}
			var places auth.Places
			if tc.ws {
				places |= auth.Subprotocol
			}
			if tc.tickets {
				places |= auth.TicketQuery
			}
			got, err := a.FromRequest(r, places)
			if tc.code == none {
				if err != nil || got != tc.want || got.None() != (tc.want.Text == "") {
					t.Errorf("got %q %s, %v", got.Text, got, err)
				}
				return
			}
			e, ok := err.(*carillon.Error)
			if !ok || e.Code != tc.code || !got.None() {
				t.Fatalf("got %q %s, %v", got.Text, got, err)
			}
			if strings.Contains(e.Error(), key) {
				t.Errorf("the error tells the key: %v", e)
			}
		})
	}
}

func TestVerifyTakesKeysFromTheHeaderOnly(t *testing.T) {
	text, key := org.NewKey("demo")
	a := newAuth(t, key)
	for c, ok := range map[auth.Credential]bool{
		{Text: text, Where: auth.InHeader}:             true,
		{Text: text, Where: auth.InQuery}:              false,
		{Text: text, Where: auth.InSubprotocol}:        false,
		{Text: good(hs256), Where: auth.InHeader}:      true,
		{Text: good(hs256), Where: auth.InQuery}:       true,
		{Text: good(hs256), Where: auth.InSubprotocol}: true,
		{Text: text, Where: auth.InCookie}:             false,
		{Text: good(hs256), Where: auth.InCookie}:      true,
		{Text: good(hs256), Where: auth.InTicket}:      false,
		{}: false,
	} {
		p, err := a.Verify(t.Context(), c)
		if (err == nil) != ok {
			t.Errorf("%s: %+v, %v", c, p, err)
		}
		if err != nil && carillon.AsError(err).Code != carillon.CodeUnauthenticated {
			t.Errorf("%s: %v", c, err)
		}
	}
}

func TestCredentialsAreNeverPrinted(t *testing.T) {
	c := auth.Credential{Text: "hush-hush", Where: auth.InQuery}
	out := fmt.Sprintf("%v %+v %#v %s %q %d %x", c, c, c, c, c, c, c)
	j, err := json.Marshal(map[string]any{"c": c, "p": &c})
	if err != nil {
		t.Fatal(err)
	}
	if out += string(j); strings.Contains(out, "hush") || strings.Contains(out, "687573") {
		t.Error(out)
	}
}

func TestOrigins(t *testing.T) {
	o := auth.NewOrigins([]string{"https://app.example.com", "http://[::1]:3000", "null", "*"})
	for _, tc := range []struct {
		name, host string
		tls        bool
		origin     []string
		ok         bool
	}{
		{"no origin", "h.example", false, nil, true},
		{"its own", "h.example:8080", false, []string{"http://h.example:8080"}, true},
		{"its own behind a proxy that ends TLS", "h.example", false, []string{"https://h.example"}, true},
		{"its own over TLS", "h.example", true, []string{"https://h.example"}, true},
		{"its own in capitals", "H.Example", true, []string{"https://h.example"}, true},
		{"its own with the scheme's port", "h.example:443", true, []string{"https://h.example"}, true},
		{"an insecure page to a secure host", "h.example", true, []string{"http://h.example"}, false},
		{"another port", "h.example:8080", false, []string{"http://h.example:8081"}, false},
		{"the port of the other scheme", "h.example:443", false, []string{"http://h.example"}, false},
		{"no host at all", "", false, []string{"http://"}, false},
		{"a strange scheme on its host", "h.example", false, []string{"ftp://h.example"}, false},
		{"allowed", "h.example", true, []string{"https://app.example.com"}, true},
		{"allowed, an address", "h.example", true, []string{"http://[::1]:3000"}, true},
		{"in capitals", "h.example", true, []string{"https://App.example.com"}, false},
		{"as a prefix", "h.example", true, []string{"https://app.example.com.evil.example"}, false},
		{"as a suffix", "h.example", true, []string{"https://evilapp.example.com"}, false},
		{"another scheme", "h.example", true, []string{"http://app.example.com"}, false},
		{"with a path", "h.example", true, []string{"https://app.example.com/"}, false},
		{"as user of another", "h.example", false, []string{"https://h.example@evil.example"}, false},
		{"null, even listed", "h.example", true, []string{"null"}, false},
		{"* means nothing", "h.example", true, []string{"https://x.example"}, false},
		{"empty", "h.example", true, []string{""}, false},
		{"two", "h.example", true, []string{"https://app.example.com", "https://app.example.com"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = tc.host
			if tc.tls {
				r.TLS = &tls.ConnectionState{}
			}
			if tc.origin != nil {
				r.Header["Origin"] = tc.origin
			}
			err := o.Check(r)
			if (err == nil) != tc.ok {
				t.Errorf("error is %v", err)
			}
			if err != nil && carillon.AsError(err).Code != carillon.CodeForbidden {
				t.Errorf("error is %v", err)
			}
		})
	}
	var zero auth.Origins
	r := httptest.NewRequest("GET", "/", nil)
	if err := zero.Check(r); err != nil {
		t.Error(err)
	}
}

func TestCORS(t *testing.T) {
	o := auth.NewOrigins([]string{"https://app.example.com"})
	h := o.CORS(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"x"`)
		_, _ = io.WriteString(w, "served")
	}))
	do := func(method, origin string, more ...string) *http.Response {
		r := httptest.NewRequest(method, "http://h.example/v1/events", nil)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		for i := 0; i < len(more); i += 2 {
			r.Header.Set(more[i], more[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		res := w.Result()
		if got := res.Header.Values("Vary"); len(got) != 1 || got[0] != "Authorization, Cookie, Origin" {
			t.Errorf("%s from %q: Vary is %q", method, origin, got)
		}
		if with := res.Header.Get("Access-Control-Allow-Credentials"); with == "true" != (res.Header.Get("Access-Control-Allow-Origin") == "https://app.example.com") {
			t.Errorf("%s from %q: cookies are let in: %q", method, origin, with)
		}
		return res
	}
	body := func(res *http.Response) string {
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}

	res := do("GET", "https://app.example.com")
	if res.StatusCode != 200 || body(res) != "served" || res.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" ||
		res.Header.Get("Access-Control-Expose-Headers") != "ETag, Retry-After" {
		t.Errorf("allowed: %d %v", res.StatusCode, res.Header)
	}
	res = do("GET", "")
	if res.StatusCode != 200 || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("no page: %d %v", res.StatusCode, res.Header)
	}
	res = do("OPTIONS", "https://app.example.com", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization")
	if res.StatusCode != 204 || body(res) != "" || res.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || res.Header.Get("Access-Control-Max-Age") == "" {
		t.Errorf("preflight: %d %v", res.StatusCode, res.Header)
	}
	for _, name := range []string{"Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Carillon-Connection", "If-None-Match"} {
		if !strings.Contains(res.Header.Get("Access-Control-Allow-Headers"), name) {
			t.Errorf("preflight does not allow %s", name)
		}
	}
	if !strings.Contains(res.Header.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("preflight: %v", res.Header)
	}
	if res = do("OPTIONS", "https://app.example.com"); body(res) != "served" {
		t.Error("OPTIONS that is no preflight is the handler's")
	}
	for _, method := range []string{"GET", "POST", "OPTIONS"} {
		res = do(method, "https://evil.example", "Access-Control-Request-Method", "POST")
		var p struct {
			Type, Title, Code, Detail string
			Status                    int
		}
		text := body(res)
		if err := json.Unmarshal([]byte(text), &p); err != nil || res.StatusCode != 403 || p.Status != 403 || p.Code != "forbidden" || p.Title != "Forbidden" || p.Type != "about:blank" || p.Detail == "" {
			t.Errorf("%s from elsewhere: %d %s %v", method, res.StatusCode, text, err)
		}
		if res.Header.Get("Content-Type") != "application/problem+json" || res.Header.Get("Access-Control-Allow-Origin") != "" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s from elsewhere: %v", method, res.Header)
		}
	}
}
