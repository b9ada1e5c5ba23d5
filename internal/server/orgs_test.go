package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/server"
)

// closedNode starts a node that knows no organization yet, and returns it with a
// key of its operator.
func closedNode(t *testing.T, dir string) (s *server.Server, key string) {
	t.Helper()
	cfg := settings(dir)
	key, stored := org.NewKey("")
	cfg.Ops.Keys = []string{stored.Line()}
	s, err := server.New(cfg, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s, key
}

func orgToken(t *testing.T, id carillon.OrgID, user string) string {
	t.Helper()
	text, err := auth.Sign([]byte(secret), auth.Claims{User: user, Org: string(id), Role: carillon.RoleAdmin, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestOrganizationsComeAndGoWhileTheNodeRuns(t *testing.T) {
	dir := t.TempDir()
	s, operator := closedNode(t, dir)
	c := client(t)
	manage := func(method, path, body string, want int) string {
		t.Helper()
		status, text := do(t, c, method, s.OpsURL()+path, body, "Content-Type", "application/json", "Authorization", "Bearer "+operator)
		if status != want {
			t.Fatalf("%s %s: %d %s, want %d", method, path, status, text, want)
		}
		return text
	}
	publish := func(credential string, want int) {
		t.Helper()
		if status, text := do(t, c, http.MethodPost, s.PublicURL()+"/v1/events", `{"type":"a.b","data":1}`, "Authorization", "Bearer "+credential); status != want {
			t.Fatalf("publish: %d %s, want %d", status, text, want)
		}
	}
	open := func(credential string) *websocket.Conn {
		t.Helper()
		ws, err := dial(t.Context(), s.PublicURL(), credential, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ws.CloseNow() })
		await(t, ws, "caught_up")
		return ws
	}
	forbidden := func(ws *websocket.Conn) {
		t.Helper()
		for {
			f, err := next(t.Context(), ws)
			if err != nil {
				if code := websocket.CloseStatus(err); code != 4003 {
					t.Errorf("closed with %v, want 4003", err)
				}
				return
			}
			if f.Type == "error" && f.Code != "forbidden" {
				t.Errorf("%+v", f)
			}
		}
	}

	publish(orgToken(t, "acme", "alice"), 401)
	manage("POST", "/v1/orgs", `{"id":"acme"}`, 201)
	manage("POST", "/v1/orgs", `{"id":"other"}`, 201)
	publish(orgToken(t, "acme", "alice"), 202)
	var key struct{ ID, Key string }
	if err := json.Unmarshal([]byte(manage("POST", "/v1/orgs/acme/keys", "", 201)), &key); err != nil {
		t.Fatal(err)
	}
	publish(key.Key, 202)

	// A key that is removed ends what it has opened, and nothing else.
	byKey, alice, other := open(key.Key), open(orgToken(t, "acme", "alice")), open(orgToken(t, "other", "bob"))
	manage("DELETE", "/v1/orgs/acme/keys/"+key.ID, "", 204)
	forbidden(byKey)
	publish(key.Key, 401)
	publish(orgToken(t, "acme", "alice"), 202)
	await(t, alice, "event")

	// An organization that is disabled ends all of its own.
	manage("PATCH", "/v1/orgs/acme", `{"disabled":true}`, 200)
	forbidden(alice)
	publish(orgToken(t, "acme", "alice"), 401)
	publish(orgToken(t, "other", "bob"), 202)
	await(t, other, "event")

	// One that is removed takes its events along: who gets the name later starts
	// with nothing.
	manage("PATCH", "/v1/orgs/acme", `{"disabled":false}`, 200)
	publish(orgToken(t, "acme", "alice"), 202)
	manage("DELETE", "/v1/orgs/acme", "", 204)
	publish(orgToken(t, "acme", "alice"), 401)
	manage("POST", "/v1/orgs", `{"id":"acme","limits":{"publish_per_second":1000}}`, 201)
	if status, text := do(t, c, http.MethodGet, s.PublicURL()+"/v1/events", "", "Authorization", "Bearer "+orgToken(t, "acme", "alice")); status != 200 || !emptyPage(text) {
		t.Errorf("%d %s", status, text)
	}

	// They outlive the node.
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, _ = closedNode(t, dir)
	publish(orgToken(t, "acme", "alice"), 202)
	publish(orgToken(t, "other", "bob"), 202)
	publish(orgToken(t, "third", "carol"), 401)
}

func emptyPage(text string) bool {
	var page struct{ Events []any }
	return json.Unmarshal([]byte(text), &page) == nil && len(page.Events) == 0
}

func TestOrganizationsAreManagedWithTheOperatorsKeyOnly(t *testing.T) {
	keyed, operator := closedNode(t, "")
	keyless, err := server.New(settings(""), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := keyless.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := keyless.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	other, _ := org.NewKey("")
	c := client(t)
	for name, tc := range map[string]struct {
		node       *server.Server
		credential string
		want       int
	}{
		"its key":                     {keyed, operator, 200},
		"no key":                      {keyed, "", 401},
		"another key":                 {keyed, other, 401},
		"a token":                     {keyed, token(t, "alice"), 401},
		"its key, where it is none":   {keyless, operator, 403},
		"no key, where there is none": {keyless, "", 403},
	} {
		var header []string
		if tc.credential != "" {
			header = []string{"Authorization", "Bearer " + tc.credential}
		}
		if status, text := do(t, c, http.MethodGet, tc.node.OpsURL()+"/v1/orgs", "", header...); status != tc.want {
			t.Errorf("%s: %d %s, want %d", name, status, text, tc.want)
		}
		if status, _ := do(t, c, http.MethodGet, tc.node.OpsURL()+"/metrics", "", header...); status != 200 {
			t.Errorf("%s: on loopback the metrics are for everybody: %d", name, status)
		}
	}
}
