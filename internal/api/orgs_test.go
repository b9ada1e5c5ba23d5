package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/api"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/org"
)

// management is the API of organizations on a store in memory.
type management struct {
	*httptest.Server
	t      *testing.T
	dir    *org.Directory
	purged []carillon.OrgID
	broken bool // purging fails
}

func newManagement(t *testing.T) *management {
	t.Helper()
	dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: "fixed"}}, Defaults: org.Limits{Connections: 9}})
	if err != nil {
		t.Fatal(err)
	}
	e := memory.New(memory.Config{})
	m := &management{t: t, dir: dir}
	m.Server = httptest.NewServer(api.NewManagement(api.Management{
		Orgs: dir, Store: org.NewStore(e.KV(), dir), Kept: org.Retention{Age: time.Hour, Events: 100},
		Purge: func(_ context.Context, id carillon.OrgID) error {
			if m.broken {
				return errors.New("the disk is away")
			}
			m.purged = append(m.purged, id)
			return nil
		},
	}))
	t.Cleanup(func() {
		m.Close()
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// ask sends a request; header is pairs of name and value.
func (m *management) ask(method, path, body string, header ...string) (int, http.Header, map[string]any) {
	m.t.Helper()
	r, err := http.NewRequestWithContext(m.t.Context(), method, m.URL+path, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := m.Client().Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var v map[string]any
	if res.StatusCode != http.StatusNoContent {
		if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
			m.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return res.StatusCode, res.Header, v
}

func (m *management) want(status int, method, path, body string, header ...string) map[string]any {
	m.t.Helper()
	got, _, v := m.ask(method, path, body, header...)
	if got != status {
		m.t.Fatalf("%s %s %s: %d %v, want %d", method, path, body, got, v, status)
	}
	return v
}

func TestAnOrganizationIsMadeChangedAndRemoved(t *testing.T) {
	m := newManagement(t)
	status, header, v := m.ask("POST", "/v1/orgs", `{"id":"acme","limits":{"publish_per_second":5}}`)
	if status != 201 || header.Get("Location") != "/v1/orgs/acme" || header.Get("ETag") == "" || v["id"] != "acme" {
		t.Fatalf("%d %v %v", status, header, v)
	}
	first := header.Get("ETag")
	effective := v["effective"].(map[string]any)["limits"].(map[string]any)
	if effective["publish_per_second"] != 5.0 || effective["connections"] != 9.0 {
		t.Errorf("with the node's defaults: %v", effective)
	}
	if kept := v["effective"].(map[string]any)["retention"].(map[string]any); kept["age_seconds"] != 3600.0 || kept["events"] != 100.0 || kept["bytes"] != 0.0 {
		t.Errorf("with what is kept of everybody: %v", kept)
	}
	v = m.want(200, "PATCH", "/v1/orgs/acme", `{"disabled":true,"limits":{"publish_per_second":null}}`, "If-Match", first)
	if v["disabled"] != true || v["limits"] != nil {
		t.Errorf("changed: %v", v)
	}
	v = m.want(409, "PATCH", "/v1/orgs/acme", `{"disabled":false}`, "If-Match", first)
	if v["code"] != "conflict" {
		t.Errorf("a change of what was read before another's change: %v", v)
	}
	if o, _ := m.dir.Lookup("acme"); !o.Disabled {
		t.Errorf("%+v", o)
	}
	m.want(204, "DELETE", "/v1/orgs/acme", "")
	if len(m.purged) != 1 || m.purged[0] != "acme" {
		t.Errorf("purged: %v", m.purged)
	}
	m.want(404, "GET", "/v1/orgs/acme", "")
	m.want(404, "DELETE", "/v1/orgs/acme", "")
}

func TestAnOrganizationWhoseEventsStayIsNotRemovedButNobodyMayUseIt(t *testing.T) {
	m := newManagement(t)
	m.want(201, "POST", "/v1/orgs", `{"id":"acme"}`)
	m.broken = true
	m.want(503, "DELETE", "/v1/orgs/acme", "")
	if v := m.want(200, "GET", "/v1/orgs/acme", ""); v["disabled"] != true {
		t.Errorf("%v", v)
	}
	m.broken = false
	m.want(204, "DELETE", "/v1/orgs/acme", "")
}

func TestAnAPIKeyIsShownOnce(t *testing.T) {
	m := newManagement(t)
	m.want(201, "POST", "/v1/orgs", `{"id":"acme"}`)
	made := m.want(201, "POST", "/v1/orgs/acme/keys", "")
	text, _ := made["key"].(string)
	id, secret, ok := org.SplitKey(text)
	if !ok || id != made["id"] {
		t.Fatalf("%v", made)
	}
	if k, known := m.dir.Key(id); !known || !k.Proves(secret) || k.Org != "acme" {
		t.Errorf("%+v", k)
	}
	v := m.want(200, "GET", "/v1/orgs/acme", "")
	if keys := v["keys"].([]any); len(keys) != 1 || keys[0].(map[string]any)["id"] != id || keys[0].(map[string]any)["key"] != nil {
		t.Errorf("%v", v["keys"])
	}
	m.want(204, "DELETE", "/v1/orgs/acme/keys/"+id, "")
	m.want(404, "DELETE", "/v1/orgs/acme/keys/"+id, "")
	if _, known := m.dir.Key(id); known {
		t.Error("a removed key is known")
	}
}

func TestOrganizationsAreListedInPages(t *testing.T) {
	m := newManagement(t)
	for _, id := range []string{"c", "a", "b"} {
		m.want(201, "POST", "/v1/orgs", `{"id":"`+id+`"}`)
	}
	var all []string
	after := ""
	for more := true; more; {
		v := m.want(200, "GET", "/v1/orgs?limit=3&after="+after, "")
		for _, o := range v["orgs"].([]any) {
			after = o.(map[string]any)["id"].(string)
			all = append(all, after)
		}
		more = v["more"].(bool)
	}
	if got := strings.Join(all, " "); got != "a b c fixed" {
		t.Errorf("%s", got)
	}
}

func TestTheManagementRefusesWithTheReason(t *testing.T) {
	m := newManagement(t)
	m.want(201, "POST", "/v1/orgs", `{"id":"acme"}`)
	for _, tc := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "/v1/orgs", `{"id":"acme"}`, 409, "exists already"},
		{"POST", "/v1/orgs", `{"id":"fixed"}`, 409, "in the node's config"},
		{"POST", "/v1/orgs", `{}`, 400, `"id" is missing`},
		{"POST", "/v1/orgs", `[]`, 400, "an organization is an object"},
		{"POST", "/v1/orgs", `{"id":"No"}`, 400, "only a–z"},
		{"POST", "/v1/orgs", `{"id":"b","limit":{}}`, 400, `unknown field "limit"`},
		{"POST", "/v1/orgs", `{"id":"b","limits":{"connections":-1}}`, 400, "limits.connections is -1"},
		{"POST", "/v1/orgs", `{"id":"` + strings.Repeat("b", org.MaxSettings) + `"}`, 413, "larger than"},
		{"PATCH", "/v1/orgs/fixed", `{"disabled":true}`, 409, "in the node's config"},
		{"PATCH", "/v1/orgs/acme", `{"disabled":1}`, 400, "disabled is a number"},
		{"PATCH", "/v1/orgs/nobody", `{}`, 404, "no organization"},
		{"DELETE", "/v1/orgs/fixed", "", 409, "in the node's config"},
		{"POST", "/v1/orgs/nobody/keys", "", 404, "no organization"},
		{"GET", "/v1/orgs/No", "", 400, "only a–z"},
		{"GET", "/v1/orgs?limit=0", "", 400, "from 1 to 1000"},
		{"GET", "/v1/orgs?page=2", "", 400, "not known here"},
		{"PUT", "/v1/orgs/acme", `{}`, 405, "DELETE, GET, PATCH"},
		{"GET", "/v1/organizations", "", 404, "/v1/orgs"},
	} {
		v := m.want(tc.status, tc.method, tc.path, tc.body)
		if detail, _ := v["detail"].(string); !strings.Contains(detail, tc.says) {
			t.Errorf("%s %s %s: %q, want %q", tc.method, tc.path, tc.body, detail, tc.says)
		}
	}
	m.want(415, "PATCH", "/v1/orgs/acme", `{}`, "Content-Type", "text/plain")
	m.want(400, "PATCH", "/v1/orgs/acme", `{}`, "If-Match", "yesterday")
	if len(m.purged) != 0 {
		t.Errorf("purged: %v", m.purged)
	}
}
