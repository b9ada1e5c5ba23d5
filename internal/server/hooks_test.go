package server_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/server"
	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/testkit"
)

// hookSecret is what the sources of the tests sign with.
const hookSecret = "it is no secret here"

// withSources adds sources to the organization demo, as YAML.
func withSources(tb testing.TB, cfg *config.Config, texts ...string) {
	tb.Helper()
	demo := config.Org{ID: "demo"}
	for _, text := range texts {
		s, err := config.SourceOf(text)
		if err != nil {
			tb.Fatal(err)
		}
		demo.Sources = append(demo.Sources, s)
	}
	cfg.Orgs = append(cfg.Orgs, demo)
}

func githubSource(more string) string {
	return fmt.Sprintf("{name: gh, kind: github, secrets: [%q]%s}", hookSecret, more)
}

// hookHeader is what GitHub sends with a body.
func hookHeader(id, event, body string) []string {
	mac := hmac.New(sha256.New, []byte(hookSecret))
	mac.Write([]byte(body))
	return []string{
		"X-GitHub-Delivery", id, "X-GitHub-Event", event, "Content-Type", "application/json",
		"X-Hub-Signature-256", "sha256=" + hex.EncodeToString(mac.Sum(nil)),
	}
}

// memberToken is of somebody who manages nothing.
func memberToken(tb testing.TB) string {
	tb.Helper()
	text, err := auth.Sign([]byte(secret), auth.Claims{User: "bob", Org: "demo", Role: carillon.RoleMember, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// writeText makes a file.
func writeText(tb testing.TB, name, text string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func (n *limitedNode) hook(t *testing.T, id, body string, status int, code string) {
	t.Helper()
	n.ask(t, http.MethodPost, "/hooks/demo/gh", body, status, code, append(hookHeader(id, "push", body), "Authorization", "none")...)
}

var hookSourcesHit = hit{
	set: func(c *config.Config) { c.Limits.HookSources = 1 },
	meet: func(t *testing.T, n *limitedNode) {
		n.ask(t, http.MethodPut, "/v1/hooks/sources/a", `{"kind":"github"}`, 200, "")
		n.ask(t, http.MethodPut, "/v1/hooks/sources/b", `{"kind":"github"}`, 429, "quota_exceeded")
		n.ask(t, http.MethodPut, "/v1/hooks/sources/a", `{"kind":"stripe"}`, 200, "") // it is there already
	},
	times: 1,
}

var hookBytesHit = hit{
	set: func(c *config.Config) { setSource(c, ""); c.Limits.HookBytesInFlight = 4 },
	meet: func(t *testing.T, n *limitedNode) {
		n.hook(t, "1", `{"a":1}`, 503, "unavailable")
	},
	times: 1, small: true,
}

var hookSpoolHit = hit{
	set: func(c *config.Config) {
		setSource(c, "")
		c.Engine.Kind = config.KindJetStream // what is in memory is gone with it
		c.Hooks.AnswerWithin = 1             // nanosecond: the log is never in time
		c.Limits.HookSpoolBytes = 1
	},
	meet: func(t *testing.T, n *limitedNode) {
		n.hook(t, "1", `{"a":1}`, 503, "unavailable")
	},
	times: 1, small: true,
}

var hookRefusalsHit = hit{
	set: func(c *config.Config) { setSource(c, ""); c.Limits.HookRefusalsPerSecond = 1 },
	meet: func(t *testing.T, n *limitedNode) {
		for range 30 { // ten at once are recorded
			n.ask(t, http.MethodPost, "/hooks/demo/gh", "{}", 401, "unauthenticated", "Authorization", "none")
		}
	},
}

var hookMemoryHit = hit{
	set: func(c *config.Config) {
		setSource(c, ", order_by: key, actions: [{command: [sleep, \"0.3\"]}]")
		c.Limits.HookDeliveriesInMemory = 1
	},
	meet: func(t *testing.T, n *limitedNode) {
		for i := range 4 {
			n.hook(t, fmt.Sprint(i), `{"key":"k"}`, 200, "")
		}
		n.until(t, func() bool { return n.limits(t)["hook_deliveries_in_memory"] > 0 })
	},
	small: true,
}

// setSource gives demo the source gh; what it could fail at is no concern of a limit.
func setSource(c *config.Config, more string) {
	s, err := config.SourceOf(githubSource(more))
	if err != nil {
		panic(err)
	}
	c.Orgs = append(c.Orgs, config.Org{ID: "demo", Sources: []config.Source{s}})
}

func TestAWebhookBecomesAnEventOfABrowser(t *testing.T) {
	cfg := settings("")
	withSources(t, cfg, githubSource(", subject: repository.full_name"))
	s, c := start(t, cfg), client(t)
	ws, err := dial(t.Context(), s.PublicURL(), token(t, "alice"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	await(t, ws, "caught_up")
	body := `{"action":"opened","repository":{"full_name":"a/b"}}`
	status, answer := do(t, c, http.MethodPost, s.PublicURL()+"/hooks/demo/gh", body, hookHeader("guid-1", "pull_request", body)...)
	if status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	f := await(t, ws, "event")
	if f.EventType != "gh.pull_request.opened" || string(f.Payload) != body {
		t.Errorf("the event is %s %s", f.EventType, f.Payload)
	}
	status, page := do(t, c, http.MethodGet, s.PublicURL()+"/v1/hooks/deliveries/guid-1", "", "Authorization", "Bearer "+token(t, "alice"))
	var d struct {
		State   string
		Body    []byte
		Headers http.Header
		History []struct{ What string }
	}
	if err := json.Unmarshal([]byte(page), &d); err != nil || status != 200 || string(d.Body) != body || d.Headers.Get("X-GitHub-Event") != "pull_request" {
		t.Errorf("%d %s: %v", status, page, err)
	}
}

func TestADuplicateNamesTheDeliveryItRepeats(t *testing.T) {
	cfg := settings("")
	withSources(t, cfg, githubSource(""))
	s, c := start(t, cfg), client(t)
	var answers [2]struct {
		ID        string
		Duplicate bool
	}
	for i := range answers {
		status, body := do(t, c, http.MethodPost, s.PublicURL()+"/hooks/demo/gh", `{}`, hookHeader("guid-1", "push", `{}`)...)
		if err := json.Unmarshal([]byte(body), &answers[i]); err != nil || status != 200 {
			t.Fatalf("%d %s: %v", status, body, err)
		}
	}
	admin := []string{"Authorization", "Bearer " + token(t, "alice")}
	var page struct {
		Deliveries []struct {
			ID          string
			DuplicateOf string `json:"duplicate_of"`
		}
	}
	for len(page.Deliveries) == 0 {
		if t.Context().Err() != nil {
			t.FailNow()
		}
		_, list := do(t, c, http.MethodGet, s.PublicURL()+"/v1/hooks/deliveries?state=duplicate", "", admin...)
		if err := json.Unmarshal([]byte(list), &page); err != nil {
			t.Fatal(err)
		}
	}
	if of := page.Deliveries[0].DuplicateOf; len(page.Deliveries) != 1 || of != answers[0].ID {
		t.Fatalf("%+v repeats not %s", page.Deliveries, answers[0].ID)
	}
	for _, one := range []string{page.Deliveries[0].ID, page.Deliveries[0].DuplicateOf} {
		if status, body := do(t, c, http.MethodGet, s.PublicURL()+"/v1/hooks/deliveries/"+one, "", admin...); status != 200 {
			t.Errorf("%s: %d %s", one, status, body)
		}
	}
}

func TestWhatIsWrongWithASourceOfTheSettingsSaysWhere(t *testing.T) {
	for name, tc := range map[string]struct {
		sources string
		path    string
		line    int
		message string
	}{
		"a kind that there is not":  {"[{name: a, kind: github, secrets: [0123456789abcdef]}, {name: b, kind: gitlab}]", "orgs[0].sources[1]", 3, "gitlab"},
		"a name that there is":      {"[{name: a, kind: github, secrets: [0123456789abcdef]}, {name: a, kind: stripe, secrets: [0123456789abcdef]}]", "orgs[0].sources[1]", 3, `has the source "a" already`},
		"a field that there is not": {"[{name: a, kind: github, secrets: [0123456789abcdef], colour: red}]", "orgs[0].sources[0]", 3, "colour"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := config.Parse("carillon.yaml", []byte("orgs:\n  - id: demo\n    sources: "+tc.sources+"\n"), nil)
			if err != nil {
				t.Fatal(err)
			}
			var wrong *config.Error
			if err := server.Check(cfg); !errors.As(err, &wrong) || len(wrong.Problems) != 1 {
				t.Fatalf("it is %v; want one problem", err)
			}
			if p := wrong.Problems[0]; p.Path != tc.path || p.Line != tc.line || !strings.Contains(p.Message, tc.message) {
				t.Errorf("it is %+v; want %s of line %d: %s", p, tc.path, tc.line, tc.message)
			}
		})
	}
	cfg, err := config.Parse("carillon.yaml", []byte("orgs:\n  - {id: a, sources: [{name: gh, kind: github, secrets: [0123456789abcdef]}]}\n  - {id: b, sources: [{name: gh, kind: github, secrets: [0123456789abcdef]}]}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Check(cfg); err != nil {
		t.Errorf("two organizations have a source of one name: %v", err)
	}
}

func TestTheWebhooksOfAnOrganizationThatIsDisabledAreNotFound(t *testing.T) {
	cfg := settings("")
	withSources(t, cfg, githubSource(""))
	cfg.Orgs[len(cfg.Orgs)-1].Disabled = true
	s, c := start(t, cfg), client(t)
	if status, body := do(t, c, http.MethodPost, s.PublicURL()+"/hooks/demo/gh", `{}`, hookHeader("1", "push", `{}`)...); status != 404 {
		t.Errorf("%d %s; want 404", status, body)
	}
}

// A source's secret changes while it is used: whoever signs with one that is valid is
// let in, at every moment.
func TestASecretIsRotatedInMidTraffic(t *testing.T) {
	s, c := start(t, settings("")), client(t)
	admin := []string{"Authorization", "Bearer " + token(t, "alice")}
	if status, body := do(t, c, http.MethodPut, s.PublicURL()+"/v1/hooks/sources/gh", fmt.Sprintf(`{"kind":"github","secrets":[%q]}`, hookSecret), admin...); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	sign := func(secret, id string) []string {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(`{}`))
		return []string{"X-GitHub-Delivery", id, "X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256=" + hex.EncodeToString(mac.Sum(nil))}
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	defer close(stop)
	all.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if status, body := do(t, c, http.MethodPost, s.PublicURL()+"/hooks/demo/gh", `{}`, sign(hookSecret, fmt.Sprint("old-", i))...); status != 200 {
				t.Errorf("the first secret: %d %s", status, body)
				return
			}
		}
	})
	for i := range 5 {
		status, body := do(t, c, http.MethodPost, s.PublicURL()+"/v1/hooks/sources/gh/secrets", "", admin...)
		var made struct {
			Secrets []struct{ ID, Secret string }
		}
		if err := json.Unmarshal([]byte(body), &made); err != nil || status != 201 || len(made.Secrets) != 2 {
			t.Fatalf("%d %s", status, body)
		}
		fresh := made.Secrets[0]
		if status, body := do(t, c, http.MethodPost, s.PublicURL()+"/hooks/demo/gh", `{}`, sign(fresh.Secret, fmt.Sprint("new-", i))...); status != 200 {
			t.Errorf("the new secret: %d %s", status, body)
		}
		if _, list := do(t, c, http.MethodGet, s.PublicURL()+"/v1/hooks/sources", "", admin...); strings.Contains(list, fresh.Secret) || strings.Contains(list, hookSecret) {
			t.Error("a secret is shown again")
		}
		if status, body := do(t, c, http.MethodDelete, s.PublicURL()+"/v1/hooks/sources/gh/secrets/"+fresh.ID, "", admin...); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		if status, _ := do(t, c, http.MethodPost, s.PublicURL()+"/hooks/demo/gh", `{}`, sign(fresh.Secret, "late")...); status != 401 {
			t.Errorf("a secret that was removed: %d", status)
		}
	}
}

func TestHooksFilesAreServedBesideSources(t *testing.T) {
	cfg := settings("")
	cfg.Hooks.Files = []string{writeText(t, "hooks.yaml", `
- id: deploy
  execute-command: /bin/echo
  pass-arguments-to-command: [{source: payload, name: what}]
  include-command-output-in-response: true
`)}
	withSources(t, cfg, githubSource(""))
	s, c := start(t, cfg), client(t)
	if status, body := do(t, c, http.MethodPost, s.PublicURL()+"/hooks/deploy", `{"what":"now"}`, "Content-Type", "application/json"); status != 200 || body != "now\n" {
		t.Errorf("%d %q; want now", status, body)
	}
	if status, body := do(t, c, http.MethodPost, s.PublicURL()+"/hooks/demo/gh", `{}`, hookHeader("1", "push", `{}`)...); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := do(t, c, http.MethodPost, s.PublicURL()+"/hooks/nothing", `{}`); status != 404 {
		t.Errorf("%d; want 404", status)
	}
	if _, page := do(t, c, http.MethodGet, s.OpsURL()+"/metrics", ""); !strings.Contains(page, `webhook_file_requests_total{hook="deploy",status="ran"} 1`) {
		t.Errorf("the metrics do not have the command of the file:\n%s", page)
	}
}

func TestWebhooksAreManagedByWhoMay(t *testing.T) {
	s, c := start(t, settings("")), client(t)
	for _, path := range []string{"/v1/hooks/sources", "/v1/hooks/deliveries"} {
		if status, _ := do(t, c, http.MethodGet, s.PublicURL()+path, ""); status != 401 {
			t.Errorf("%s without a credential: %d", path, status)
		}
		if status, _ := do(t, c, http.MethodGet, s.PublicURL()+path, "", "Authorization", "Bearer "+memberToken(t)); status != 403 {
			t.Errorf("%s as a member: %d", path, status)
		}
	}
}

// The node's own addresses are not for the actions of a webhook.
func TestAnActionReachesNoPrivateAddress(t *testing.T) {
	reached := make(chan struct{}, 10)
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached <- struct{}{} }))
	defer inside.Close()
	cfg := settings("")
	withSources(t, cfg, githubSource(fmt.Sprintf(", tries: 1, actions: [{forward: %q}]", inside.URL)))
	s, c := start(t, cfg), client(t)
	do(t, c, http.MethodPost, s.PublicURL()+"/hooks/demo/gh", `{}`, hookHeader("1", "push", `{}`)...)
	admin := []string{"Authorization", "Bearer " + token(t, "alice")}
	for range 200 {
		_, body := do(t, c, http.MethodGet, s.PublicURL()+"/v1/hooks/deliveries?state=dead", "", admin...)
		if strings.Contains(body, `"dead"`) {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	select {
	case <-reached:
		t.Error("it was reached")
	default:
	}
}

// webhooks asks for everything about webhooks, of an organization demo that has the
// sources gh and near.
func (d *document) webhooks(c *http.Client, base, admin, member string) {
	d.t.Helper()
	ask := func(want int, method, template, path, body string, header ...string) []byte {
		d.t.Helper()
		if len(header) == 0 {
			header = []string{"Authorization", admin}
		}
		resp, answer := d.request(c, method, base+path, template, body, header...)
		if resp.StatusCode != want {
			d.t.Errorf("%s %s: %d, want %d: %s", method, path, resp.StatusCode, want, answer)
		}
		return answer
	}
	const door, gh = "/hooks/{org}/{source}", "/hooks/demo/gh"
	ask(200, "POST", door, gh, `{}`, hookHeader("1", "push", `{}`)...)
	ask(200, "POST", door, gh, `{}`, hookHeader("1", "push", `{}`)...)
	ask(401, "POST", door, gh, `{}`)
	ask(403, "POST", door, "/hooks/demo/near", `{}`, hookHeader("1", "push", `{}`)...)
	ask(404, "POST", door, "/hooks/demo/nope", `{}`)
	large := strings.Repeat(" ", 1<<20+1)
	ask(413, "POST", door, gh, large, hookHeader("1", "push", large)...)
	ask(415, "POST", door, gh, `{}`, append(hookHeader("1", "push", `{}`), "Content-Encoding", "gzip")...)
	poison := `{"twice":1,"twice":2}`
	ask(200, "POST", door, gh, poison, hookHeader("poison", "push", poison)...)
	ask(200, "POST", door, gh, poison+" ", hookHeader("poison-2", "push", poison+" ")...)

	for _, op := range []struct{ method, template, path string }{
		{"GET", "/v1/hooks/sources", "/v1/hooks/sources"},
		{"GET", "/v1/hooks/sources/{source}", "/v1/hooks/sources/gh"},
		{"PUT", "/v1/hooks/sources/{source}", "/v1/hooks/sources/a"},
		{"DELETE", "/v1/hooks/sources/{source}", "/v1/hooks/sources/a"},
		{"POST", "/v1/hooks/sources/{source}/secrets", "/v1/hooks/sources/a/secrets"},
		{"DELETE", "/v1/hooks/sources/{source}/secrets/{secret}", "/v1/hooks/sources/a/secrets/x"},
		{"GET", "/v1/hooks/deliveries", "/v1/hooks/deliveries"},
		{"GET", "/v1/hooks/deliveries/{id}", "/v1/hooks/deliveries/1"},
		{"POST", "/v1/hooks/deliveries/{id}/retry", "/v1/hooks/deliveries/1/retry"},
		{"POST", "/v1/hooks/deliveries/{id}/discard", "/v1/hooks/deliveries/1/discard"},
		{"POST", "/v1/hooks/retry", "/v1/hooks/retry"},
		{"POST", "/v1/hooks/discard", "/v1/hooks/discard"},
	} {
		ask(401, op.method, op.template, op.path, "", "Authorization", "Bearer x")
		ask(403, op.method, op.template, op.path, "", "Authorization", member)
	}
	const one = "/v1/hooks/sources/{source}"
	ask(200, "PUT", one, "/v1/hooks/sources/a", `{"kind":"github"}`)
	ask(400, "PUT", one, "/v1/hooks/sources/a", `{"kind":"gitbucket"}`)
	ask(409, "PUT", one, "/v1/hooks/sources/gh", `{"kind":"github"}`)
	ask(413, "PUT", one, "/v1/hooks/sources/a", `{"kind":"`+strings.Repeat("x", 64<<10)+`"}`)
	ask(429, "PUT", one, "/v1/hooks/sources/b", `{"kind":"github"}`)
	ask(200, "GET", "/v1/hooks/sources", "/v1/hooks/sources", "")
	ask(400, "GET", "/v1/hooks/sources", "/v1/hooks/sources?x=1", "")
	ask(200, "GET", one, "/v1/hooks/sources/gh", "")
	ask(404, "GET", one, "/v1/hooks/sources/nope", "")
	const secrets = "/v1/hooks/sources/{source}/secrets"
	ask(201, "POST", secrets, "/v1/hooks/sources/a/secrets", `{"secret":"another one"}`)
	made := ask(201, "POST", secrets, "/v1/hooks/sources/a/secrets", "")
	ask(400, "POST", secrets, "/v1/hooks/sources/a/secrets", `{"secret":5}`)
	ask(404, "POST", secrets, "/v1/hooks/sources/nope/secrets", "")
	ask(409, "POST", secrets, "/v1/hooks/sources/gh/secrets", "")
	var source struct{ Secrets []struct{ ID string } }
	if err := json.Unmarshal(made, &source); err != nil || len(source.Secrets) != 3 {
		d.t.Fatalf("%s: %v", made, err)
	}
	const secret = "/v1/hooks/sources/{source}/secrets/{secret}"
	ask(404, "DELETE", secret, "/v1/hooks/sources/a/secrets/nope", "")
	for i, want := range []int{200, 200, 409} {
		ask(want, "DELETE", secret, "/v1/hooks/sources/a/secrets/"+source.Secrets[i].ID, "")
	}
	ask(204, "DELETE", one, "/v1/hooks/sources/a", "")
	ask(404, "DELETE", one, "/v1/hooks/sources/a", "")
	ask(409, "DELETE", one, "/v1/hooks/sources/gh", "")

	const list, item = "/v1/hooks/deliveries", "/v1/hooks/deliveries/{id}"
	for dead := ""; strings.Count(dead, `"dead"`) < 2; { // until both are read
		if d.t.Context().Err() != nil {
			d.t.Fatalf("no dead letters: %s", dead)
		}
		dead = string(ask(200, "GET", list, list+"?state=dead&limit=10", ""))
	}
	ask(200, "GET", list, list+"?source=gh&event=pu*&delivery=1&since=-1h&until=2099-01-01T00:00:00Z", "")
	ask(200, "GET", list, list+"?limit=1", "")
	ask(400, "GET", list, list+"?state=alive", "")
	ask(200, "GET", item, "/v1/hooks/deliveries/1", "")
	ask(400, "GET", item, "/v1/hooks/deliveries/1?x=1", "")
	ask(404, "GET", item, "/v1/hooks/deliveries/nope", "")
	ask(202, "POST", item+"/retry", "/v1/hooks/deliveries/1/retry", "")
	ask(404, "POST", item+"/retry", "/v1/hooks/deliveries/nope/retry", "")
	ask(404, "POST", item+"/discard", "/v1/hooks/deliveries/nope/discard", "")
	var page struct {
		Deliveries []struct{ ID string }
	}
	for len(page.Deliveries) == 0 {
		if err := json.Unmarshal(ask(200, "GET", list, list+"?state=refused", ""), &page); err != nil {
			d.t.Fatal(err)
		}
	}
	ask(409, "POST", item+"/retry", "/v1/hooks/deliveries/"+page.Deliveries[0].ID+"/retry", "")
	ask(409, "POST", item+"/discard", "/v1/hooks/deliveries/"+page.Deliveries[0].ID+"/discard", "")
	ask(202, "POST", item+"/discard", "/v1/hooks/deliveries/poison/discard", "")
	ask(202, "POST", "/v1/hooks/retry", "/v1/hooks/retry", `{"source":"gh"}`)
	ask(400, "POST", "/v1/hooks/retry", "/v1/hooks/retry", `[]`)
	ask(202, "POST", "/v1/hooks/discard", "/v1/hooks/discard", `{"event":"push"}`)
	ask(400, "POST", "/v1/hooks/discard", "/v1/hooks/discard", `[]`)
}

// A source's addresses are those of its clients, behind proxies that are trusted.
func TestTheAddressesOfASourceAreThoseBehindTrustedProxies(t *testing.T) {
	for _, tc := range []struct {
		name   string
		header []string
		change func(*config.Config)
		status int
	}{
		{"nobody is trusted", []string{"X-Forwarded-For", "192.0.2.7"}, nil, 403},
		{"a proxy that is trusted", []string{"X-Forwarded-For", "192.0.2.7"}, behindProxies, 200},
		{"what the client claims before it", []string{"X-Forwarded-For", "192.0.2.7, 198.51.100.1"}, behindProxies, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := settings("")
			withSources(t, cfg, githubSource(", allow: [192.0.2.0/24]"))
			if tc.change != nil {
				tc.change(cfg)
			}
			s, c := start(t, cfg), client(t)
			if status, body := do(t, c, http.MethodPost, s.PublicURL()+"/hooks/demo/gh", `{}`, append(hookHeader("1", "push", `{}`), tc.header...)...); status != tc.status {
				t.Errorf("%d %s; want %d", status, body, tc.status)
			}
		})
	}
}

// Two nodes share a log on a cluster: a delivery that comes to both is published once,
// and when the node that processes goes, the other one does.
func TestWebhooksOfTwoNodesArePublishedOnce(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := testkit.NewCluster(t)
	key := writeText(t, "hooks.key", hook.NewKeyFile())
	node := func() *server.Server {
		cfg := onNATS(t, cluster)
		cfg.Hooks.KeyFile = key
		return start(t, cfg)
	}
	first := node()
	second := node()
	c := client(t)
	admin := []string{"Authorization", "Bearer " + token(t, "alice")}
	// It is made on one node, and there on the other.
	if status, body := do(t, c, http.MethodPut, first.PublicURL()+"/v1/hooks/sources/gh", fmt.Sprintf(`{"kind":"github","secrets":[%q]}`, hookSecret), admin...); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	for status := 0; status != 200; {
		if t.Context().Err() != nil {
			t.FailNow()
		}
		status, _ = do(t, c, http.MethodGet, second.PublicURL()+"/v1/hooks/sources/gh", "", admin...)
	}
	send := func(to *server.Server, i int) {
		body := fmt.Sprintf(`{"n":%d}`, i)
		for {
			status, answer := do(t, c, http.MethodPost, to.PublicURL()+"/hooks/demo/gh", body, hookHeader(fmt.Sprint(i), "push", body)...)
			if status == 200 {
				return
			}
			if status != 503 {
				t.Errorf("%d %s", status, answer)
				return
			}
		}
	}
	const n = 40
	var both sync.WaitGroup
	for _, to := range []*server.Server{first, second} {
		both.Go(func() {
			for i := range n {
				send(to, i)
			}
		})
	}
	both.Wait()
	published := func(want int) {
		t.Helper()
		for {
			status, body := do(t, c, http.MethodGet, second.PublicURL()+"/v1/events?limit=1000", "", admin...)
			var page struct {
				Events []struct{ Delivery string }
			}
			if err := json.Unmarshal([]byte(body), &page); err != nil || status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			seen := map[string]int{}
			for _, e := range page.Events {
				if seen[e.Delivery]++; seen[e.Delivery] > 1 {
					t.Fatalf("%s is there twice", e.Delivery)
				}
			}
			if len(seen) == want {
				return
			}
			if t.Context().Err() != nil {
				t.Fatalf("%d events; want %d", len(seen), want)
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	published(n)
	if err := first.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	for i := n; i < 2*n; i++ {
		send(second, i)
	}
	published(2 * n)
}
