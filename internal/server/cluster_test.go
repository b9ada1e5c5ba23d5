package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/server"
	"github.com/carillon-rt/carillon/internal/testkit"
)

// onNATS are the settings of a node whose log is on a cluster.
func onNATS(t *testing.T, c *testkit.Cluster) *config.Config {
	t.Helper()
	cfg := settings(t.TempDir())
	cfg.Engine.NATS.URL = c.URL
	cfg.Engine.Partitions = 2
	return cfg
}

// publishSome publishes n events and returns their ids.
func publishSome(t *testing.T, c *http.Client, url string, n int) (ids []string) {
	t.Helper()
	for i := range n {
		status, body := do(t, c, http.MethodPost, url+"/v1/events", fmt.Sprintf(`{"type":"a.b","data":%d}`, i), "Authorization", "Bearer "+token(t, "alice"))
		var answer struct{ Events []struct{ ID string } }
		if err := json.Unmarshal([]byte(body), &answer); status != http.StatusAccepted || err != nil || len(answer.Events) != 1 {
			t.Fatalf("%d: %s", status, body)
		}
		ids = append(ids, answer.Events[0].ID)
	}
	return ids
}

// publishOnce answers with the status and, when refused, how long to wait.
func publishOnce(t *testing.T, c *http.Client, url, data string) (status int, wait string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/events", strings.NewReader(`{"type":"a.b","data":`+data+`}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token(t, "alice"))
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Retry-After")
}

// wantFrom resumes after an id and expects those that follow, without a gap.
func wantFrom(t *testing.T, url string, ids []string, after int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ws, err := dial(ctx, url, token(t, "bob"), ids[after])
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	for _, want := range ids[after+1:] {
		for {
			f, err := next(ctx, ws)
			if err != nil {
				t.Fatalf("after %d: %v instead of event %s", after, err, want)
			}
			if f.Type == "gap" || f.Gap != nil {
				t.Fatalf("after %d: a gap", after)
			}
			if f.Type != "event" {
				continue
			}
			if f.ID != want {
				t.Fatalf("after %d: event %s, want %s", after, f.ID, want)
			}
			break
		}
	}
}

func TestEventIDsStayValidWhenTheLogMoves(t *testing.T) {
	t.Parallel() // it mostly waits
	old := settings(t.TempDir())
	old.Engine.Partitions = 2
	s, c := start(t, old), client(t)
	ids := publishSome(t, c, s.PublicURL(), 5)
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	quiet := slog.New(slog.DiscardHandler)
	if _, err := server.ExportLog(t.Context(), old, quiet, &file); err != nil {
		t.Fatal(err)
	}
	cfg := onNATS(t, testkit.NewCluster(t))
	if _, err := server.ImportLog(t.Context(), cfg, quiet, &file); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	if _, metrics := do(t, c, http.MethodGet, s.OpsURL()+"/metrics", ""); !strings.Contains(metrics, `durability="external"`) {
		t.Error("the metrics promise more than other people's servers do")
	}
	ids = append(ids, publishSome(t, c, s.PublicURL(), 3)...)
	for after := range ids {
		wantFrom(t, s.PublicURL(), ids, after)
	}
}

// hearEphemeral publishes an ephemeral event on one node until a client of another
// has heard it.
func hearEphemeral(t *testing.T, c *http.Client, publisher *server.Server, ws *websocket.Conn, data string) {
	t.Helper()
	heard := make(chan frame, 1)
	go func() {
		f, err := next(t.Context(), ws)
		for err == nil && string(f.Payload) != data {
			f, err = next(t.Context(), ws)
		}
		heard <- f
	}()
	for {
		status, body := do(t, c, http.MethodPost, publisher.PublicURL()+"/v1/events", `{"type":"a.b","ephemeral":true,"data":`+data+`}`, "Authorization", "Bearer "+token(t, "alice"))
		if want := `{"events":[{"duplicate":false}]}`; status != http.StatusAccepted || body != want {
			t.Fatalf("%d: %s", status, body)
		}
		select {
		case f := <-heard:
			if f.Type != "event" || f.ID != "" {
				t.Errorf("heard %+v", f)
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestEphemeralEventsReachEveryNodeAlsoWithoutAQuorum(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := testkit.NewCluster(t)
	c := client(t)
	nodes := []*server.Server{start(t, onNATS(t, cluster)), start(t, onNATS(t, cluster))}
	sockets := make([]*websocket.Conn, len(nodes))
	for i, s := range nodes {
		ws, err := dial(t.Context(), s.PublicURL(), token(t, "bob"), "")
		if err != nil {
			t.Fatal(err)
		}
		defer ws.CloseNow()
		await(t, ws, "caught_up")
		sockets[i] = ws
	}
	for i := range nodes {
		hearEphemeral(t, c, nodes[0], sockets[i], fmt.Sprintf(`"to %d"`, i))
	}
	hearEphemeral(t, c, nodes[1], sockets[0], `"back"`)
	cluster.Nodes[0].Kill(t)
	cluster.Nodes[1].Kill(t)
	cluster.Await(t, "a publish on either node", func(context.Context) bool {
		for _, s := range nodes {
			status, _ := do(t, c, http.MethodPost, s.PublicURL()+"/v1/events", `{"type":"x","ephemeral":true,"data":1}`, "Authorization", "Bearer "+token(t, "alice"))
			if status != http.StatusAccepted {
				return false
			}
		}
		return true
	})
	hearEphemeral(t, c, nodes[0], sockets[1], `"with one server left"`)
}

func TestWithoutAQuorumResumesAreServedAndPublishesRefused(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := testkit.NewCluster(t)
	s, c := start(t, onNATS(t, cluster)), client(t)
	ids := publishSome(t, c, s.PublicURL(), 20)
	wantFrom(t, s.PublicURL(), ids, 0)
	ws, err := dial(t.Context(), s.PublicURL(), token(t, "bob"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	await(t, ws, "caught_up")

	cluster.Nodes[0].Kill(t)
	cluster.Nodes[1].Kill(t)
	status, wait := publishOnce(t, c, s.PublicURL(), "0")
	if seconds, err := strconv.Atoi(wait); status != http.StatusServiceUnavailable || err != nil || seconds < 1 {
		t.Errorf("a publish is answered %d, Retry-After: %q", status, wait)
	}
	for after := range ids {
		wantFrom(t, s.PublicURL(), ids, after)
	}
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	await(t, ws, "pong")

	cluster.Nodes[0].Start(t)
	cluster.Await(t, "a publish", func(context.Context) bool {
		status, _ := publishOnce(t, c, s.PublicURL(), `"again"`)
		return status == http.StatusAccepted
	})
	for string(await(t, ws, "event").Payload) != `"again"` {
	}
}
