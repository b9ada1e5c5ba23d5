package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/api"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/source/hook/manage"
)

// TestTheOpenAPIDocumentIsTrue asks a running node for everything the document
// has, every operation with every answer, and holds each request and answer
// against it.
func TestTheOpenAPIDocumentIsTrue(t *testing.T) {
	cfg := settings("")
	cfg.Limits.RequestBytes, cfg.Limits.HookSources = 300_000, 3
	withSources(t, cfg, githubSource(""), strings.Replace(githubSource(", allow: [192.0.2.1]"), "name: gh", "name: near", 1))
	one := 1
	cfg.Orgs = append(cfg.Orgs, []config.Org{
		{ID: "slow", Limits: config.OrgLimits{PublishPerSecond: &one}},
		{ID: "narrow", Limits: config.OrgLimits{Connections: &one}},
	}...)
	s, c, d := start(t, cfg), client(t), newDocument(t)
	as := func(org, user string, role carillon.Role, p *carillon.Permissions) string {
		text, err := auth.Sign([]byte(secret), auth.Claims{User: user, Org: org, Role: role, Permissions: p, Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + text
	}
	alice := as("demo", "alice", carillon.RoleAdmin, nil)
	member := as("demo", "bob", carillon.RoleMember, &carillon.Permissions{Subscribe: []carillon.Pattern{"orders.*"}})
	const foreign = "https://evil.example.com"
	large := strings.Repeat(" ", 300_001)
	// ask asks as alice, or with whatever Authorization there is.
	ask := func(want int, path, body string, header ...string) []byte {
		t.Helper()
		if len(header) == 0 || header[0] != "Authorization" {
			header = append([]string{"Authorization", alice}, header...)
		}
		resp, answer := d.ask(c, s.PublicURL(), path, body, header...)
		if resp.StatusCode != want {
			t.Errorf("%s %s: %d, want %d: %s", path, body[:min(len(body), 100)], resp.StatusCode, want, answer)
		}
		return answer
	}

	// Publish.
	const event = `{"type":"orders.paid","data":{"n":1},"subject":"o-1"}`
	const cloud = `{"specversion":"1.0","id":"1","source":"/s","type":"orders.paid","time":"2025-07-09T10:30:00Z","ext":5}`
	published := ask(202, "/v1/events", event)
	ask(202, "/v1/events", `[{"type":"orders.paid","data":1,"time":"2025-07-09T10:30:00Z","id":"own"},{"type":"orders.paid","data":null,"to":{"users":["alice","bob"]}}]`)
	ask(202, "/v1/events", event, "Content-Type", "application/json", "Idempotency-Key", "k")
	ask(202, "/v1/events", cloud, "Content-Type", "application/cloudevents+json")
	ask(202, "/v1/events", "["+cloud+"]", "Content-Type", "application/cloudevents-batch+json")
	ask(202, "/v1/events", `[1]`, "Content-Type", "application/json", "ce-specversion", "1.0", "ce-id", "2", "ce-source", "/s", "ce-type", "orders.paid", "ce-carillonuser", "alice")
	ask(400, "/v1/events", `{}`)
	ask(401, "/v1/events", event, "Authorization", "Bearer x")
	ask(403, "/v1/events", event, "Authorization", member)
	ask(404, "/v1/events", `{"type":"a","data":1,"to":{"room":"nowhere"}}`)
	ask(413, "/v1/events", large)
	ask(415, "/v1/events", event, "Content-Type", "text/xml")
	slow := as("slow", "alice", carillon.RoleAdmin, nil)
	for status := 202; status == 202; {
		resp, _ := d.ask(c, s.PublicURL(), "/v1/events", event, "Authorization", slow)
		status = resp.StatusCode
	}

	// Read.
	first := idOf(t, published)
	ask(200, "/v1/events?pattern=orders.*&pattern=a.>&subject=o-1&after=earliest&limit=10", "", "Accept-Encoding", "gzip")
	ask(200, "/v1/events?order=desc&before=now", "", "Accept", "application/cloudevents+json")
	ask(200, "/v1/events?after="+foreignCursor, "")
	last := cursorOf(t, ask(200, "/v1/events?after="+first, ""))
	ask(304, "/v1/events?after="+last, "", "If-None-Match", `"`+last+`"`)
	ask(400, "/v1/events?limit=0", "")
	ask(401, "/v1/events", "", "Authorization", "Bearer x")
	ask(403, "/v1/events?pattern=private.*", "", "Authorization", member)
	ask(404, "/v1/events?room=nowhere", "")
	ask(415, "/v1/events", "", "Accept", "text/html")

	// Poll.
	ask(200, "/v1/poll?pattern=orders.*&after=earliest&wait=0&limit=1", "")
	ask(200, "/v1/poll?pattern=orders.*&cursor=earliest&wait=25", "", "Accept", "application/cloudevents+json")
	ask(304, "/v1/poll?pattern=orders.*&cursor="+last+"&wait=0", "", "If-None-Match", `"`+last+`"`)
	ask(400, "/v1/poll?wait=31", "")
	ask(401, "/v1/poll", "", "Authorization", "Bearer x")
	ask(403, "/v1/poll", "", "Origin", foreign)
	ask(404, "/v1/poll?room=nowhere", "")
	ask(415, "/v1/poll", "", "Accept", "text/html")
	ask(200, "/v1/poll", `{"patterns":["orders.*"],"rooms":[],"after":"earliest","wait":0,"limit":1}`)
	ask(400, "/v1/poll", `{"wait":-1}`)
	ask(401, "/v1/poll", `{}`, "Authorization", "Bearer x")
	ask(403, "/v1/poll", `{"patterns":["private.*"],"wait":0}`, "Authorization", member)
	ask(404, "/v1/poll", `{"rooms":["nowhere"],"wait":0}`)
	ask(413, "/v1/poll", large)
	ask(415, "/v1/poll", `{}`, "Content-Type", "text/plain")

	// Stream.
	ask(200, "/v1/sse?pattern=orders.*&after=earliest&named=true", "")
	ask(200, "/v1/sse?pattern=orders.*&last_event_id=earliest", "", "Last-Event-ID", first)
	ask(400, "/v1/sse?named=perhaps", "")
	ask(401, "/v1/sse", "", "Authorization", "Bearer x")
	ask(403, "/v1/sse?pattern=private.*", "", "Authorization", member)
	ask(404, "/v1/sse?room=nowhere", "")
	ask(200, "/v1/sse", `{"patterns":["orders.*"],"after":"earliest"}`)
	ask(400, "/v1/sse", `[]`)
	ask(401, "/v1/sse", `{}`, "Authorization", "Bearer x")
	ask(403, "/v1/sse", `{"patterns":["private.*"]}`, "Authorization", member)
	ask(404, "/v1/sse", `{"rooms":["nowhere"]}`)
	ask(413, "/v1/sse", large)
	ask(415, "/v1/sse", `{}`, "Content-Type", "text/plain")
	narrow := as("narrow", "alice", carillon.RoleAdmin, nil)
	ws := dialDocument(t, s.PublicURL(), narrow, d)
	await(t, ws, "welcome")
	ask(429, "/v1/sse", "", "Authorization", narrow)
	ask(429, "/v1/sse", `{}`, "Authorization", narrow)
	_ = ws.CloseNow()

	// WebSocket.
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	ask(400, "/v1/ws", "", append(upgrade, "Sec-WebSocket-Protocol", "soap")...)
	ask(401, "/v1/ws", "", append([]string{"Authorization", "Bearer x"}, upgrade...)...)
	ask(403, "/v1/ws", "", append(upgrade, "Origin", foreign)...)
	ask(426, "/v1/ws", "")
	ask(426, "/v1/ws", "", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "8", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	d.conversation(t, dialDocument(t, s.PublicURL(), "", d), strings.TrimPrefix(alice, "Bearer "))

	// Frames.
	ask(200, "/v1/frames", `[{"type":"ping","ref":"a"},{"type":"publish","event":`+event+`,"ref":2},{"type":"publish","events":[`+event+`]}]`)
	ask(200, "/v1/frames", `{"type":"subscribe","pattern":"orders.*"}`)
	ask(200, "/v1/frames", `{"type":"ping"}`+"\n"+`{"type":"ping"}`, "Content-Type", "application/x-ndjson")
	ask(400, "/v1/frames", `frames`)
	ask(401, "/v1/frames", `[]`, "Authorization", "Bearer x")
	ask(403, "/v1/frames", `[]`, "Origin", foreign)
	ask(404, "/v1/frames", `{"type":"ping"}`, "X-Carillon-Connection", "nobody")
	ask(413, "/v1/frames", large)
	ask(415, "/v1/frames", `[]`, "Content-Type", "text/plain")

	// Tickets.
	ask(201, "/v1/tickets", "{}")
	ask(400, "/v1/tickets?ticket=x", "{}")
	ask(401, "/v1/tickets", "{}", "Authorization", "Bearer x")
	ask(403, "/v1/tickets", "{}", "Origin", foreign)

	d.webhooks(c, s.PublicURL(), alice, member)

	// The document itself, which needs no credential.
	resp, body := d.ask(c, s.PublicURL(), "/v1/openapi.json", "")
	if resp.StatusCode != http.StatusOK || !json.Valid(body) {
		t.Errorf("%d, %d bytes", resp.StatusCode, len(body))
	}
	ask(304, "/v1/openapi.json", "", "If-None-Match", resp.Header.Get("ETag"))
	ask(403, "/v1/openapi.json", "", "Origin", foreign)

	for _, missed := range d.missed() {
		t.Errorf("in the document, but never seen: %s", missed)
	}
}

// foreignCursor has the shape of an id and is none of this log.
const foreignCursor = "00000000000000000000000000"

func idOf(t *testing.T, published []byte) string {
	t.Helper()
	var a struct{ Events []struct{ ID string } }
	if err := json.Unmarshal(published, &a); err != nil || len(a.Events) != 1 {
		t.Fatalf("%s: %v", published, err)
	}
	return a.Events[0].ID
}

func cursorOf(t *testing.T, page []byte) string {
	t.Helper()
	var a struct{ Cursor string }
	if err := json.Unmarshal(page, &a); err != nil || a.Cursor == "" {
		t.Fatalf("%s: %v", page, err)
	}
	return a.Cursor
}

// dialDocument opens a WebSocket, as the document has it.
func dialDocument(t *testing.T, base, authorization string, d *document) *websocket.Conn {
	t.Helper()
	h := http.Header{}
	if authorization != "" {
		h.Set("Authorization", authorization)
	}
	url := strings.Replace(base, "http", "ws", 1) + "/v1/ws?numbered=true"
	ws, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPHeader: h, Subprotocols: []string{"carillon.v1"}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	d.check(exchange{path: "/v1/ws", request: r, response: resp})
	return ws
}

// conversation says every frame there is and hears the answers.
func (d *document) conversation(t *testing.T, ws *websocket.Conn, token string) {
	t.Helper()
	defer func() { _ = ws.CloseNow() }()
	for _, step := range []struct{ say, until string }{
		{`{"type":"connect","token":"` + token + `","after":"` + foreignCursor + `","ref":"c"}`, "welcome"},
		{`{"type":"subscribe","patterns":["orders.*","a.>"],"after":"` + foreignCursor + `","overflow":"replay"}`, "caught_up"},
		{`{"type":"subscribe","pattern":"b.*","subject":"s","after":"earliest","ref":1.5}`, "caught_up"},
		{`{"type":"publish","event":{"type":"orders.paid","data":1,"to":{"user":"alice"}}}`, "event"},
		{`{"type":"ping"}`, "pong"},
		{`{"type":"refresh","token":"` + token + `"}`, "refreshed"},
		{`{"type":"unsubscribe","pattern":"b.*","subject":"s"}`, "unsubscribed"},
		{`{"type":"unsubscribe","pattern":"c.*"}`, "error"},
	} {
		d.hold("a client's frame", "/paths/~1v1~1ws/get/x-client", []byte(step.say))
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(step.say)); err != nil {
			t.Fatal(err)
		}
		for heard := ""; heard != step.until; {
			_, text, err := ws.Read(context.WithoutCancel(t.Context()))
			if err != nil {
				t.Fatalf("after %s: %v", step.say, err)
			}
			d.hold("a server's frame", "/paths/~1v1~1ws/get/x-server", text)
			var f struct{ Type string }
			if err := json.Unmarshal(text, &f); err != nil {
				t.Fatal(err)
			}
			heard = f.Type
		}
	}
}

// TestEveryRouteIsInTheOpenAPIDocument finds the paths of the public port where
// they are made, and asks each which methods it has.
func TestEveryRouteIsInTheOpenAPIDocument(t *testing.T) {
	s, c, d := start(t, settings("")), client(t), newDocument(t)
	documented := map[string]bool{}
	d.operations(func(method, path string, _ map[string]any) { documented[method+" "+path] = true })
	source, err := os.ReadFile("public.go")
	if err != nil {
		t.Fatal(err)
	}
	routes := append(api.Routes(), append(manage.Routes(), "POST /hooks/{org}/{source}")...)
	for _, m := range regexp.MustCompile(`"(/v1/[^"]+)"`).FindAllSubmatch(source, -1) {
		path := string(m[1])
		if path == "/v1/hooks/" {
			continue // manage.Routes
		}
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			status, _ := do(t, c, method, s.PublicURL()+path, "")
			if status != http.StatusMethodNotAllowed && status != http.StatusNotFound {
				routes = append(routes, method+" "+path)
			}
		}
	}
	slices.Sort(routes)
	routes = slices.Compact(routes) // one may be named twice there
	if len(routes) < 9 {
		t.Fatalf("only %q were found", routes)
	}
	for _, route := range routes {
		if !documented[route] {
			t.Errorf("%s is not in protocol/openapi.json", route)
		}
		delete(documented, route)
	}
	for route := range documented {
		t.Errorf("%s is in protocol/openapi.json, and there is no such route", route)
	}
}
