package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/server"
)

// A page that a browser on the operator's machine has open changes nothing: not
// with a form, not with a script, not with a name that points here.
func TestNoForeignPageManagesOrganizations(t *testing.T) {
	s, c := start(t, settings("")), client(t)
	status, text := do(t, c, http.MethodPost, s.OpsURL()+"/v1/orgs", `{"id":"acme"}`, "Content-Type", "application/json", "Origin", s.OpsURL(), "Sec-Fetch-Site", "same-origin")
	if status != http.StatusCreated {
		t.Fatalf("%d: %s", status, text)
	}
	for _, page := range [][]string{
		{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"},
		{"Origin", "https://evil.example"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Origin", "null"},
		{"Origin", s.PublicURL(), "Sec-Fetch-Site", "same-site"},
		{"Origin", "http://evil.example", "Host", "evil.example"},
		{"Host", "evil.example"},
	} {
		for _, ask := range []struct{ method, path, body string }{
			{"POST", "/v1/orgs", `{"id":"evil"}`},
			{"POST", "/v1/orgs/acme/keys", ""}, // it has no body, and so no Content-Type that a browser would ask about
			{"PATCH", "/v1/orgs/acme", `{"disabled":true}`},
			{"DELETE", "/v1/orgs/acme", ""},
			{"GET", "/v1/orgs", ""},
			{"OPTIONS", "/v1/orgs", ""},
		} {
			status, text := do(t, c, ask.method, s.OpsURL()+ask.path, ask.body, append(page, "Content-Type", "application/json")...)
			if status != http.StatusForbidden || strings.Contains(text, "acme") {
				t.Errorf("%s %s of a page with %q: %d, %s", ask.method, ask.path, page, status, text)
			}
		}
	}
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"} { // those of a form
		if status, text := do(t, c, http.MethodPost, s.OpsURL()+"/v1/orgs", `{"id":"evil"}`, "Content-Type", kind); status != http.StatusUnsupportedMediaType {
			t.Errorf("a form of %q: %d, %s", kind, status, text)
		}
	}
	if _, text := do(t, c, http.MethodGet, s.OpsURL()+"/v1/orgs", ""); strings.Contains(text, "evil") || !strings.Contains(text, `"id":"acme","keys":[]`) {
		t.Errorf("afterwards there are %s", text)
	}
}

// Nothing of the operations port is behind the public one, whatever the request
// is made to look like.
func TestThePublicPortHasNothingOfTheOperations(t *testing.T) {
	s, c := start(t, settings("")), client(t)
	admin := "Bearer " + token(t, "alice")
	for _, path := range []string{
		"/", "/healthz", "/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap", "/status.json", "/dev/config.json", "/app.js",
		"/v1/orgs", "/v1/orgs/demo", "/v1/orgs/demo/keys", "/v1/../metrics", "/v1/..%2fmetrics", "//metrics", "/admin/",
	} {
		for _, header := range [][]string{nil, {"Host", strings.TrimPrefix(s.OpsURL(), "http://")}, {"X-Forwarded-For", "127.0.0.1"}, {"X-Original-Url", "/metrics"}} {
			if status, text := do(t, c, http.MethodGet, s.PublicURL()+path, "", append(header, "Authorization", admin)...); status != http.StatusNotFound || strings.Contains(text, "carillon_") {
				t.Errorf("%s with %q: %d, %.200s", path, header, status, text)
			}
		}
	}
}

// Who may not come in does not learn which organizations there are.
func TestARefusalDoesNotTellWhichOrganizationsThereAre(t *testing.T) {
	cfg := settings("")
	cfg.Orgs = []config.Org{{ID: "demo"}, {ID: "hush"}, {ID: "off", Disabled: true}}
	cfg.Issuers[0].Orgs = []string{"demo", "off"}
	s, err := server.New(cfg, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(context.WithoutCancel(t.Context())) })
	c := client(t)
	answers := map[string][]string{}
	for _, id := range []carillon.OrgID{"hush", "off", "nowhere"} {
		status, text := do(t, c, http.MethodGet, s.PublicURL()+"/v1/events", "", "Authorization", "Bearer "+orgToken(t, id, "alice"))
		if status != http.StatusUnauthorized {
			t.Errorf("%s: %d, %s", id, status, text)
		}
		answers[text] = append(answers[text], string(id))
	}
	if len(answers) != 1 {
		t.Errorf("the answers differ: %v", answers)
	}
}
