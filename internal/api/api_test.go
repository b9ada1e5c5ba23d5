package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/answer"
	"github.com/carillon-rt/carillon/internal/api"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/gate"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/wire"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

// rig is the API on a log in memory.
type rig struct {
	http.Handler
	t      testing.TB
	engine *memory.Engine
	ids    *wire.Keyring
	key    string // an API key of acme
}

func newRig(t testing.TB, change func(*api.Config)) *rig {
	t.Helper()
	r := &rig{t: t, engine: memory.New(memory.Config{Partitions: 1}), ids: wire.NewKeyring(secret)}
	t.Cleanup(func() { _ = r.engine.Close(context.Background()) })
	text, key := org.NewKey("acme")
	r.key = text
	dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{
		{ID: "acme", Keys: []org.Key{key}}, {ID: "other"}, {ID: "small", Limits: org.Limits{PublishPerSecond: 1}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := auth.New(auth.Config{Issuers: []auth.Issuer{{Secrets: [][]byte{secret}, Any: true}}, Orgs: dir})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now() // stands still, so that rates do not depend on the machine
	cfg := api.Config{
		Auth: a,
		Gate: gate.New(gate.Config{
			Open: r.engine.Open, Signals: r.engine.Signals, Orgs: dir, Source: func(_ carillon.OrgID, name string) bool { return name == "gh" }, EventBytes: 5000,
			Now: func() time.Time { return now },
		}),
		History: hub.NewHistory(hub.HistoryConfig{Open: r.engine.Open, Head: r.engine.Head}),
		IDs:     r.ids,
		Origins: auth.NewOrigins([]string{"https://app.example.com"}),
	}
	if change != nil {
		change(&cfg)
	}
	r.Handler = api.New(cfg)
	return r
}

func (r *rig) token(org, user string, role carillon.Role, p *carillon.Permissions) string {
	r.t.Helper()
	s, err := auth.Sign(secret, auth.Claims{User: user, Org: org, Role: role, Permissions: p, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// ask sends a request; headers are name, value, and a body makes it a POST.
func (r *rig) ask(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequestWithContext(r.t.Context(), method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

func (r *rig) publisher() []string {
	return []string{"Authorization", "Bearer " + r.token("acme", "alice", carillon.RolePublisher, nil)}
}

type published struct {
	Events []struct {
		ID        string
		Duplicate bool
	}
}

func decode[T any](t testing.TB, w *httptest.ResponseRecorder, status int) (v T) {
	t.Helper()
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
	dec := json.NewDecoder(w.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

const event = `{"type":"order.paid","data":{"n":1}}`

func TestOneEventIsPublishedAndRead(t *testing.T) {
	r := newRig(t, nil)
	w := r.ask("POST", "/v1/events", `{"type":"order.paid","data":{ "n" : 1.50 },"subject":"o-1","time":"2025-07-09T12:30:00.5+02:00","to":{"user":"alice"}}`, r.publisher()...)
	got := decode[published](t, w, 202)
	if len(got.Events) != 1 || got.Events[0].Duplicate || !wire.ShapedLikeID(got.Events[0].ID) {
		t.Fatalf("%+v", got)
	}
	w = r.ask("GET", "/v1/events", "", r.publisher()...)
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	id := got.Events[0].ID
	want := `{"events":[{"type":"event","id":"` + id + `","event_type":"order.paid","timestamp":"2025-07-09T10:30:00.500Z","payload":{"n":1.50},"subject":"o-1","direct":true,"from":"alice"}],"cursor":"` + id + `","more":false}`
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Error(diff)
	}
	const vary = "Authorization, Cookie, Origin"
	for _, tc := range []struct {
		answer *httptest.ResponseRecorder
		vary   string
	}{
		{w, vary + ", Accept, Accept-Encoding"},
		{r.ask("POST", "/v1/events", event, r.publisher()...), vary},
		{r.ask("GET", "/v1/events", ""), vary},
	} {
		if h := tc.answer.Header(); h.Get("Cache-Control") != "no-store" || len(h["Vary"]) != 1 || h.Get("Vary") != tc.vary {
			t.Errorf("%d: %v", tc.answer.Code, h)
		}
	}
}

func TestAnArrayIsPublishedWhole(t *testing.T) {
	r := newRig(t, nil)
	got := decode[published](t, r.ask("POST", "/v1/events", `[`+event+`,`+event+`]`, r.publisher()...), 202)
	if len(got.Events) != 2 || got.Events[0].ID == got.Events[1].ID {
		t.Errorf("%+v", got)
	}
	r.refuse(r.ask("POST", "/v1/events", `[`+event+`,{"type":"a..b","data":1}]`, r.publisher()...), 400, "bad_request", "event 1: ")
	if n := len(r.events("")); n != 2 {
		t.Errorf("%d events are stored", n)
	}
}

func TestAnEphemeralEventIsAnsweredWithoutAnID(t *testing.T) {
	r := newRig(t, nil)
	w := r.ask("POST", "/v1/events", `[{"type":"a","data":1,"ephemeral":true},{"type":"a","data":2,"ephemeral":true}]`, r.publisher()...)
	if got, want := w.Body.String(), `{"events":[{"duplicate":false},{"duplicate":false}]}`; w.Code != 202 || got != want {
		t.Errorf("%d %s, want %s", w.Code, got, want)
	}
	if n := len(r.events("")); n != 0 {
		t.Errorf("%d events are in history", n)
	}
}

func TestIdempotencyKeys(t *testing.T) {
	r := newRig(t, nil)
	post := func(body, key string) published {
		t.Helper()
		return decode[published](t, r.ask("POST", "/v1/events", body, append(r.publisher(), "Idempotency-Key", key)...), 202)
	}
	first, again := post(event, "k"), post(event, "k")
	if first.Events[0].Duplicate || !again.Events[0].Duplicate || first.Events[0].ID != again.Events[0].ID {
		t.Errorf("first %v, again %v", first, again)
	}
	// An array keys event n as <key>/<n>, n from 0.
	array := post(`[`+event+`,`+event+`]`, "k")
	if array.Events[0].Duplicate || array.Events[1].Duplicate {
		t.Errorf("%v", array)
	}
	own := decode[published](t, r.ask("POST", "/v1/events", `{"type":"a","data":1,"id":"k/1"}`, r.publisher()...), 202)
	if !own.Events[0].Duplicate || own.Events[0].ID != array.Events[1].ID {
		t.Errorf("own %v, array %v", own, array)
	}
	longer := post(`[`+event+`,`+event+`,`+event+`]`, "k")
	if !longer.Events[0].Duplicate || !longer.Events[1].Duplicate || longer.Events[2].Duplicate {
		t.Errorf("%v", longer)
	}
}

// refuse checks an answer that is an error.
func (r *rig) refuse(w *httptest.ResponseRecorder, status int, code, says string) {
	r.t.Helper()
	var p struct {
		Type, Title, Code, Detail string
		Status                    int
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		r.t.Fatalf("%d %q: %v", w.Code, w.Body, err)
	}
	if w.Code != status || p.Status != status || p.Code != code || p.Title == "" || p.Type != "about:blank" || !strings.Contains(p.Detail, says) {
		r.t.Errorf("%d %s\nwant %d %s with %q", w.Code, w.Body, status, code, says)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/problem+json" {
		r.t.Errorf("Content-Type %q", ct)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		r.t.Error("a cache may store it")
	}
}

func TestPublishRefuses(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.RequestBytes, c.BatchEvents = 10_000, 3 })
	publisher := "Bearer " + r.token("acme", "alice", carillon.RolePublisher, nil)
	member := "Bearer " + r.token("acme", "bob", carillon.RoleMember, nil)
	small := "Bearer " + r.token("small", "bob", carillon.RolePublisher, nil)
	as := func(who string, more ...string) []string { return append([]string{"Authorization", who}, more...) }
	for _, tc := range []struct {
		name, body string
		headers    []string
		status     int
		code, says string
	}{
		{"no credential", event, nil, 401, "unauthenticated", "needs a token"},
		{"a bad token", event, as("Bearer abc.def.ghi"), 401, "unauthenticated", "not valid"},
		{"two credentials", event, as(publisher, "Authorization", member), 400, "bad_request", "Authorization headers"},
		{"another origin", event, as(publisher, "Origin", "https://evil.example.com"), 403, "forbidden", "origin"},
		{"a member", event, as(member), 403, "forbidden", `"order.paid"`},
		{"a reserved type", `{"type":"chat.message","data":1}`, as("Bearer " + r.key), 403, "forbidden", `"chat"`},
		{"a source's type", `{"type":"gh.push","data":1}`, as(publisher), 403, "forbidden", `"gh"`},
		{"not JSON", `type=a`, as(publisher), 400, "bad_request", "byte 0"},
		{"no body", ``, as(publisher), 400, "bad_request", "the text ends"},
		{"an unknown field", `{"type":"a","data":1,"ttl":5}`, as(publisher), 400, "bad_request", `"ttl"`},
		{"a repeated key", `{"type":"a","data":{"x":1,"x":2}}`, as(publisher), 400, "bad_request", `"x" is there twice`},
		{"not UTF-8", "{\"type\":\"a\",\"data\":\"\xff\"}", as(publisher), 400, "bad_request", "UTF-8"},
		{"a bad type", `{"type":"a.*","data":1}`, as(publisher), 400, "bad_request", "wildcards are for patterns"},
		{"a bad time", `{"type":"a","data":1,"time":"yesterday"}`, as(publisher), 400, "bad_request", "RFC 3339"},
		{"a room nobody knows", `{"type":"a","data":1,"to":{"room":"ops"}}`, as(publisher), 404, "not_found", `"ops"`},
		{"ephemeral with an id", `{"type":"a","data":1,"ephemeral":true,"id":"x"}`, as(publisher), 400, "bad_request", "has no id"},
		{"ephemeral with a key", `{"type":"a","data":1,"ephemeral":true}`, as(publisher, "Idempotency-Key", "x"), 400, "bad_request", "leave out its id or the Idempotency-Key"},
		{"ephemeral ones and others", `[{"type":"a","data":1,"ephemeral":true},` + event + `]`, as(publisher), 400, "bad_request", "event 1: some events here are ephemeral"},
		{"a large event", `{"type":"a","data":"` + strings.Repeat("x", 5000) + `"}`, as(publisher), 413, "too_large", "at most 5000"},
		{"too many events", `[` + event + `,` + event + `,` + event + `,` + event + `]`, as(publisher), 413, "too_large", "more than 3 events"},
		{"an empty array", `[]`, as(publisher), 400, "bad_request", "1–3 events"},
		{"a large body", strings.Repeat(" ", 10_001), as(publisher), 413, "too_large", "larger than 10000 bytes"},
		{"a form", event, as(publisher, "Content-Type", "application/x-www-form-urlencoded"), 415, "unsupported_media_type", "application/json"},
		{"another charset", event, as(publisher, "Content-Type", "application/json; charset=latin1"), 415, "unsupported_media_type", "UTF-8"},
		{"a CloudEvent that is none", event, as(publisher, "Content-Type", "application/cloudevents+json"), 400, "bad_request", "no specversion"},
		{"an array where one CloudEvent goes", `[]`, as(publisher, "Content-Type", "application/cloudevents+json"), 400, "bad_request", "a CloudEvent, an object"},
		{"too many CloudEvents", `[` + cloudEvent + `,` + cloudEvent + `,` + cloudEvent + `,` + cloudEvent + `]`, as(publisher, "Content-Type", "application/cloudevents-batch+json"), 413, "too_large", "more than 3 events"},
		{"CloudEvents in another format", event, as(publisher, "Content-Type", "application/cloudevents+avro"), 415, "unsupported_media_type", "CloudEvents are JSON here"},
		{"a CloudEvent with base64", `{"specversion":"1.0","id":"1","source":"s","type":"a","data_base64":""}`, as(publisher, "Content-Type", "application/cloudevents+json"), 415, "unsupported_media_type", "data_base64"},
		{"binary mode with one header", event, as(publisher, "Ce-Type", "a"), 400, "bad_request", "no specversion"},
		{"binary mode with XML", `<a/>`, as(publisher, "Content-Type", "text/xml", "Ce-Type", "a", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "s"), 415, "unsupported_media_type", "text/xml"},
		{"a CloudEvent with a key of another kind", cloudEvent, as(publisher, "Content-Type", "application/cloudevents+json", "Idempotency-Key", "k"), 400, "bad_request", "one of the two"},
		{"a CloudEvent of a member", cloudEvent, as(member, "Content-Type", "application/cloudevents+json"), 403, "forbidden", `"order.paid"`},
		{"a CloudEvent whose type is none of ours", `{"specversion":"1.0","id":"1","source":"s","type":"a/b"}`, as(publisher, "Content-Type", "application/cloudevents+json"), 400, "bad_request", `"a/b"`},
		{"a CloudEvent that keeps much", `{"specversion":"1.0","id":"1","source":"s","type":"a","ext":"` + strings.Repeat("x", 8000) + `"}`, as(publisher, "Content-Type", "application/cloudevents+json"), 413, "too_large", "8000 bytes"},
		{"a CloudEvent that is large with what it keeps", `{"specversion":"1.0","id":"1","source":"s","type":"a","ext":"` + strings.Repeat("x", 4000) + `","data":"` + strings.Repeat("x", 1000) + `"}`, as(publisher, "Content-Type", "application/cloudevents+json"), 413, "too_large", "at most 5000"},
		{"a compressed body", event, as(publisher, "Content-Encoding", "gzip"), 415, "unsupported_media_type", "Content-Encoding"},
		{"both keys", `{"type":"a","data":1,"id":"own"}`, as(publisher, "Idempotency-Key", "k"), 400, "bad_request", "one of the two"},
		{"both keys in an array", `[` + event + `,{"type":"a","data":1,"id":"own"}]`, as(publisher, "Idempotency-Key", "k"), 400, "bad_request", "one of the two"},
		{"an empty key", event, as(publisher, "Idempotency-Key", ""), 400, "bad_request", "Idempotency-Key"},
		{"two keys", event, as(publisher, "Idempotency-Key", "a", "Idempotency-Key", "b"), 400, "bad_request", "send one"},
		{"a long key", event, as(publisher, "Idempotency-Key", strings.Repeat("k", 256)), 400, "bad_request", "1–255"},
		{"a long key for an array", `[` + event + `]`, as(publisher, "Idempotency-Key", strings.Repeat("k", 254)), 400, "bad_request", "1–253"},
		{"more than may ever come at once", `[` + event + `,` + event + `]`, as(small), 413, "too_large", "1 at once"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := *r
			r.t = t
			r.refuse(r.ask("POST", "/v1/events", tc.body, tc.headers...), tc.status, tc.code, tc.says)
			if n := len(r.events("")); n != 0 {
				t.Errorf("%d events were stored all the same", n)
			}
		})
	}
	w := r.ask("POST", "/v1/events?async=1", event, as(publisher)...)
	r.refuse(w, 400, "bad_request", `"async" is not known`)
}

func TestRefusalsSayWhatHelps(t *testing.T) {
	r := newRig(t, nil)
	if w := r.ask("POST", "/v1/events", event); w.Header().Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("%v", w.Header())
	}
	small := []string{"Authorization", "Bearer " + r.token("small", "bob", carillon.RolePublisher, nil)}
	decode[published](t, r.ask("POST", "/v1/events", event, small...), 202)
	w := r.ask("POST", "/v1/events", event, small...)
	r.refuse(w, 429, "rate_limited", "later")
	if w.Header().Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
	r.engine.Fail(carillon.Unavailable(2*time.Second, nil, "the log is away"))
	w = r.ask("POST", "/v1/events", event, r.publisher()...)
	r.refuse(w, 503, "unavailable", "the log is away")
	if w.Header().Get("Retry-After") != "2" {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
}

func TestPathsAndMethods(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"/v1/", "/v1/event", "/v1/events/", "/v1/events/1", "/"} {
		r.refuse(r.ask("GET", path, ""), 404, "not_found", "/v1/events")
	}
	for _, method := range []string{"PUT", "DELETE", "PATCH", "OPTIONS", "BREW"} {
		w := r.ask(method, "/v1/events", "")
		r.refuse(w, 405, "method_not_allowed", method)
		if allow := w.Header().Get("Allow"); allow != "GET, HEAD, POST" {
			t.Errorf("%s: Allow %q", method, allow)
		}
	}
	w := r.ask("OPTIONS", "/v1/events", "", "Origin", "https://app.example.com", "Access-Control-Request-Method", "POST")
	if w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != "https://app.example.com" {
		t.Errorf("a preflight: %d %v", w.Code, w.Header())
	}
}

func TestContentTypesTaken(t *testing.T) {
	r := newRig(t, nil)
	for _, ct := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"} {
		decode[published](t, r.ask("POST", "/v1/events", event, append(r.publisher(), "Content-Type", ct)...), 202)
	}
	decode[published](t, r.ask("POST", "/v1/events?token="+r.token("acme", "a", carillon.RoleAdmin, nil), event), 202)
	decode[published](t, r.ask("POST", "/v1/events", event, "Authorization", "Bearer "+r.key), 202)
}

type page struct {
	Events []struct {
		Type, ID, Subject, From string
		EventType               string `json:"event_type"`
		Timestamp               time.Time
		Payload                 json.RawMessage
		Direct                  bool
		CE                      json.RawMessage
	}
	Cursor string
	More   bool
	Gap    *struct{ Reason, Cursor string }
}

func (p page) types() string {
	var out []string
	for _, e := range p.Events {
		out = append(out, e.EventType)
	}
	return strings.Join(out, " ")
}

// events reads history as the key of acme.
func (r *rig) events(query string) []string {
	r.t.Helper()
	p := decode[page](r.t, r.ask("GET", "/v1/events"+query, "", "Authorization", "Bearer "+r.key), 200)
	return strings.Fields(p.types())
}

func TestHistoryIsReadInPages(t *testing.T) {
	r := newRig(t, nil)
	post := func(typ, subject string) string {
		t.Helper()
		body := fmt.Sprintf(`{"type":%q,"subject":%q,"data":1}`, typ, subject)
		return decode[published](t, r.ask("POST", "/v1/events", body, r.publisher()...), 202).Events[0].ID
	}
	a, _, c, d := post("a.x", "s1"), post("a.y", "s2"), post("b.x", "s1"), post("b.y", "s2")
	get := func(query string) page {
		t.Helper()
		return decode[page](t, r.ask("GET", "/v1/events?"+query, "", r.publisher()...), 200)
	}
	foreign := r.ids.Org("other").String(carillon.Position{Seq: 1, Check: 1})
	for _, tc := range []struct {
		query, want, cursor string
		more                bool
		gap                 string
	}{
		{"", "a.x a.y b.x b.y", d, false, ""},
		{"pattern=a.*", "a.x a.y", d, false, ""},
		{"pattern=a.*&pattern=*.x", "a.x a.y b.x", d, false, ""},
		{"pattern=b.**", "b.x b.y", d, false, ""},
		{"subject=s2", "a.y b.y", d, false, ""},
		{"after=" + a, "a.y b.x b.y", d, false, ""},
		{"after=now", "", d, false, ""},
		{"after=earliest&limit=3&order=asc", "a.x a.y b.x", c, true, ""},
		{"after=-10m", "a.x a.y b.x b.y", d, false, ""},
		{"order=desc", "b.y b.x a.y a.x", a, false, ""},
		{"order=desc&limit=2", "b.y b.x", c, true, ""},
		{"order=desc&before=" + c, "a.y a.x", a, false, ""},
		{"after=" + foreign, "", d, false, "reset"},
	} {
		got := get(tc.query)
		gap := ""
		if got.Gap != nil {
			gap = got.Gap.Reason
			if got.Gap.Cursor != d {
				t.Errorf("%s: the gap goes on from %q", tc.query, got.Gap.Cursor)
			}
		}
		if got.types() != tc.want || got.Cursor != tc.cursor || got.More != tc.more || gap != tc.gap {
			t.Errorf("%s: %q more %v gap %q cursor right %v; want %q %v %q", tc.query, got.types(), got.More, gap, got.Cursor == tc.cursor, tc.want, tc.more, tc.gap)
		}
	}
	other := decode[page](t, r.ask("GET", "/v1/events", "", "Authorization", "Bearer "+r.token("other", "alice", carillon.RoleAdmin, nil)), 200)
	if len(other.Events) != 0 {
		t.Errorf("another organization reads %q", other.types())
	}
	if w := r.ask("HEAD", "/v1/events", "", r.publisher()...); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}
}

func TestHistoryRefuses(t *testing.T) {
	r := newRig(t, nil)
	limited := "Bearer " + r.token("acme", "bob", carillon.RoleMember, &carillon.Permissions{Subscribe: []carillon.Pattern{"a.*"}})
	for _, tc := range []struct {
		query      string
		status     int
		code, says string
	}{
		{"pattern=a.*&pattern=a.>", 403, "forbidden", `"a.>"`},
		{"pattern=a*", 400, "bad_request", "whole segments"},
		{"pattern=", 400, "bad_request", "pattern is empty"},
		{"room=ops", 404, "not_found", `"ops"`},
		{"room=o%20p", 400, "bad_request", "room"},
		{"limit=0", 400, "bad_request", "limit"},
		{"limit=1001", 400, "bad_request", "1–1000"},
		{"limit=many", 400, "bad_request", "whole number"},
		{"limit=1&limit=2", 400, "bad_request", `"limit" is there 2 times`},
		{"order=up", 400, "bad_request", "asc"},
		{"after=soon", 400, "bad_request", "cursor"},
		{"before=now", 400, "bad_request", "desc"},
		{"order=desc&after=now", 400, "bad_request", "'before'"},
		{"cursor=now", 400, "bad_request", `"cursor" is not known here; there are pattern, room, subject, after, before, order, limit`},
		{"subject=" + strings.Repeat("x", 256), 400, "bad_request", "255"},
		{"pattern=%zz", 400, "bad_request", "not readable"},
	} {
		r.refuse(r.ask("GET", "/v1/events?"+tc.query, "", "Authorization", limited), tc.status, tc.code, tc.says)
	}
	r.refuse(r.ask("GET", "/v1/events", ""), 401, "unauthenticated", "token")
	r.refuse(r.ask("GET", "/v1/events", "", append(r.publisher(), "Accept", "text/html")...), 415, "unsupported_media_type", "application/cloudevents+json")
}

func TestTheConnectionSurvivesABodyThatIsTooLarge(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.RequestBytes = 10_000 })
	srv := httptest.NewServer(r)
	defer srv.Close()
	reused := false
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	post := func(body io.Reader) int {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/v1/events", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+r.key)
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	large := bytes.Repeat([]byte(" "), 20_000)
	if status := post(bytes.NewReader(large)); status != 413 { // with Content-Length
		t.Errorf("status %d", status)
	}
	if status := post(io.MultiReader(bytes.NewReader(large))); status != 413 || !reused { // without
		t.Errorf("status %d, the connection was used again: %v", status, reused)
	}
	if status := post(strings.NewReader(event)); status != 202 || !reused {
		t.Errorf("status %d, the connection was used again: %v", status, reused)
	}
}

// BenchmarkHistoryHTTP is a page of 1,000 events of about 300 bytes through the
// handler, without a socket, from the log on disk: token, log, JSON, encoding.
func BenchmarkHistoryHTTP(b *testing.B) {
	log, err := jetstream.Open(b.Context(), jetstream.Config{Dir: b.TempDir(), Durability: jetstream.Relaxed})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = log.Close(context.Background()) }()
	r := newRig(b, func(c *api.Config) {
		c.History = hub.NewHistory(hub.HistoryConfig{Open: log.Open, Head: log.Head})
	})
	batch := make([]engine.Append, 1000)
	for i := range batch {
		batch[i].Event = &carillon.Event{
			Type: "workflow.step.completed", Subject: "wf-8f14e45f", Time: time.Now(),
			Data: fmt.Appendf(nil, `{"workflow":"wf-8f14e45f","step":"resize-images","attempt":%d,"duration_ms":1834.25,"worker":"worker-eu-west-1a-17","tags":["images","batch"]}`, i),
		}
	}
	if _, err := engine.AppendWait(b.Context(), log.Open("acme"), batch); err != nil {
		b.Fatal(err)
	}
	for name, header := range map[string][2]string{
		"plain": {}, "gzip": {"Accept-Encoding", "gzip"}, "zstd": {"Accept-Encoding", "zstd"}, "cloudevents": {"Accept", answer.CloudEvents},
	} {
		b.Run(name, func(b *testing.B) {
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				w := r.ask("GET", "/v1/events?limit=1000", "", "Authorization", "Bearer "+r.key, header[0], header[1])
				if w.Code != 200 || header[0] != "Accept-Encoding" && strings.Count(w.Body.String(), `"worker":`) != 1000 {
					b.Fatal(w.Code, w.Body)
				}
				n = w.Body.Len()
			}
			b.ReportMetric(float64(n), "B/answer")
		})
	}
}

// BenchmarkPublishHTTP is one event through the handler, without a socket: token,
// body, gate, log in memory, answer.
func BenchmarkPublishHTTP(b *testing.B) {
	for name, bodySize := range map[string]int{"1": 1, "100": 100} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, nil)
			body := event
			if bodySize > 1 {
				body = "[" + strings.Repeat(event+",", bodySize-1) + event + "]"
			}
			token := "Bearer " + r.token("acme", "alice", carillon.RolePublisher, nil)
			b.ReportAllocs()
			for b.Loop() {
				req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/v1/events", strings.NewReader(body))
				req.Header["Authorization"] = []string{token}
				w := httptest.NewRecorder()
				r.ServeHTTP(w, req)
				if w.Code != 202 {
					b.Fatal(w.Code, w.Body)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*bodySize), "ns/event")
		})
	}
}
