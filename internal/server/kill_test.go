package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/server"
	"github.com/carillon-rt/carillon/internal/testkit"
)

const (
	// childDir is the variable that makes this test's program a node on that store.
	childDir = "CARILLON_TEST_CHILD_DIR"
	// childSmall is the one that has it keep little, so that it soon keeps as much
	// as it ever will.
	childSmall = "CARILLON_TEST_CHILD_SMALL"
	// childHooks is the one that gives the organization demo a source of webhooks.
	childHooks = "CARILLON_TEST_CHILD_HOOKS"
)

// child is a node that prints its addresses and runs until it is killed or drained.
func child(dir string) int {
	cfg := settings(dir)
	if os.Getenv(childSmall) != "" {
		cfg.Engine.Retention.EventsPerOrg, cfg.Engine.DedupeWindow, cfg.Limits.RingBytes = 5000, config.Duration(10*time.Second), 4<<20
	}
	if os.Getenv(childHooks) != "" {
		setSource(cfg, "")
	}
	rolling(cfg)
	s, err := server.New(cfg, server.Options{Development: &server.Development{}})
	if err == nil {
		err = s.Run(context.Background(), func() error {
			_, err := fmt.Fprintln(os.Stdout, s.PublicURL(), s.OpsURL())
			return err
		})
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// spawn starts a child and returns it with its address.
func spawn(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd, url, _ := spawnNode(t, dir)
	return cmd, url
}

// spawnNode starts a child and returns it with the addresses of both ports.
func spawnNode(t *testing.T, dir string, env ...string) (cmd *exec.Cmd, public, ops string) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), childDir+"="+dir), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the child did not start: %v", err)
	}
	public, ops, _ = strings.Cut(strings.TrimSpace(line), " ")
	return cmd, public, ops
}

// mark is the data of a published event: the nth of a publisher.
type mark struct{ P, N int }

// acked is what a publisher was answered.
type acked struct {
	mu  sync.Mutex // guards ids
	ids map[mark]string
	n   atomic.Int64
}

func (a *acked) add(t *testing.T, m mark, id string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ids[m] = id
	a.n.Add(1)
}

// address is where the node is now.
type address struct{ v atomic.Value }

func (a *address) get() string { return a.v.Load().(string) }

// retry waits a little before the next try; false when ctx has ended.
func retry(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(5 * time.Millisecond):
		return true
	}
}

// publisher publishes one event after the other, each until it is acknowledged.
func publisher(ctx context.Context, t *testing.T, at *address, p int, token string, answers *acked) {
	t.Helper()
	tr := new(http.Transport)
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	for n := 0; ctx.Err() == nil; {
		body := fmt.Sprintf(`{"type":"load.p%d","id":"%d-%d","data":{"P":%d,"N":%d}}`, p, p, n, p, n)
		r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, at.get()+"/v1/events", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := c.Do(r)
		if err != nil {
			retry(ctx)
			continue
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode == http.StatusServiceUnavailable {
			retry(ctx)
			continue
		}
		var answer struct{ Events []struct{ ID string } }
		if json.Unmarshal(text, &answer) != nil || len(answer.Events) != 1 {
			t.Errorf("publish %d-%d: %d, %s", p, n, resp.StatusCode, text)
			return
		}
		answers.add(t, mark{p, n}, answer.Events[0].ID)
		n++
	}
}

// got is an event that a subscriber received.
type got struct {
	ID string
	M  mark
}

// subscriber receives everything, and resumes by the last id whenever it is cut.
// It ends when it has the event that closes the test.
func subscriber(ctx context.Context, t *testing.T, at *address, token string) (events []got) {
	t.Helper()
	cursor := "earliest"
	for ctx.Err() == nil {
		c, err := dial(ctx, at.get(), token, cursor)
		if err != nil {
			retry(ctx)
			continue
		}
		for {
			f, err := next(ctx, c)
			if err != nil {
				break
			}
			switch f.Type {
			case "gap":
				t.Errorf("a gap after %d events: %s", len(events), f.Reason)
			case "event":
				var m mark
				if err := json.Unmarshal(f.Payload, &m); err != nil {
					t.Error(err)
				}
				cursor = f.ID
				if m.P < 0 {
					_ = c.CloseNow()
					return events
				}
				events = append(events, got{f.ID, m})
			}
		}
		_ = c.CloseNow()
	}
	t.Errorf("the end did not come; %d events did", len(events))
	return events
}

// killRun is a load on a node of which something is killed again and again.
type killRun struct {
	at    address
	kills int
	kill  func(i int) // kills, and starts again

	acked func(ctx context.Context) bool // waits for some more events; false: the time is over
}

// between is how many events are acknowledged between two kills.
const between = 150

func TestKillUnderLoadLosesNothing(t *testing.T) {
	dir := t.TempDir()
	cmd, url := spawn(t, dir)
	run := &killRun{kills: 20}
	run.at.v.Store(url)
	run.kill = func(int) {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		cmd, url = spawn(t, dir)
		run.at.v.Store(url)
	}
	run.check(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
}

// TestKillsInTheClusterLoseNothing kills the servers of a log on a cluster one
// after the other: a few times, or as often as CARILLON_KILLS says.
func TestKillsInTheClusterLoseNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	run := &killRun{kills: 4}
	if s := os.Getenv("CARILLON_KILLS"); s != "" {
		var err error
		if run.kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	cluster := testkit.NewCluster(t)
	s := start(t, onNATS(t, cluster))
	run.at.v.Store(s.PublicURL())
	run.kill = func(i int) {
		stream := fmt.Sprintf("CAR_EV_%d", i%2)
		node := cluster.Leader(t, stream)
		node.Kill(t)
		run.acked(t.Context()) // under the next leader
		node.Start(t)
	}
	run.check(t)
}

// check loads the node, kills, and holds what is in the log, and what every
// subscriber got, against what was acknowledged.
func (run *killRun) check(t *testing.T) {
	t.Helper()
	const publishers, subscribers = 4, 3
	tok := token(t, "alice")
	answers := &acked{ids: map[mark]string{}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(run.kills+6)*30*time.Second)
	defer cancel()
	run.acked = func(ctx context.Context) bool {
		want := answers.n.Load() + between
		for answers.n.Load() < want {
			if !retry(ctx) {
				return false
			}
		}
		return true
	}
	loading, enough := context.WithCancel(ctx)
	var load, listen sync.WaitGroup
	for p := range publishers {
		load.Go(func() { publisher(loading, t, &run.at, p, tok, answers) })
	}
	received := make([][]got, subscribers)
	for i := range subscribers {
		listen.Go(func() { received[i] = subscriber(ctx, t, &run.at, tok) })
	}
	for i := range run.kills {
		run.acked(ctx)
		run.kill(i)
	}
	if !run.acked(ctx) {
		t.Error("after the last kill nothing is acknowledged")
	}
	enough()
	load.Wait()
	c := client(t)
	for {
		status, body := do(t, c, http.MethodPost, run.at.get()+"/v1/events", `{"type":"load.end","data":{"P":-1}}`, "Authorization", "Bearer "+tok)
		if status == http.StatusAccepted {
			break
		}
		if status != http.StatusServiceUnavailable || !retry(ctx) {
			t.Fatalf("%d: %s", status, body)
		}
	}
	listen.Wait()

	log := history(t, c, run.at.get(), tok)
	seen, newest := map[string]mark{}, map[int]int{}
	for _, e := range log {
		if _, twice := seen[e.ID]; twice {
			t.Errorf("%s is in the log twice", e.ID)
		}
		seen[e.ID] = e.M
		if e.M.N != newest[e.M.P] {
			t.Errorf("publisher %d: its event %d comes where %d should", e.M.P, e.M.N, newest[e.M.P])
		}
		newest[e.M.P]++
	}
	for m, id := range answers.ids {
		if seen[id] != m {
			t.Errorf("event %+v was acknowledged as %s; the log has %+v there", m, id, seen[id])
		}
	}
	for i, events := range received {
		if !slices.Equal(events, log) {
			t.Errorf("subscriber %d received %d events; the log has %d, or others, or in another order", i, len(events), len(log))
		}
	}
	t.Logf("%d events acknowledged, %d in the log, %d kills", len(answers.ids), len(log), run.kills)
}

// history reads the whole log but its last event.
func history(t *testing.T, c *http.Client, url, token string) (events []got) {
	t.Helper()
	for after := "earliest"; ; {
		_, body := do(t, c, http.MethodGet, url+"/v1/events?limit=1000&after="+after, "", "Authorization", "Bearer "+token)
		var page struct {
			Events []struct {
				ID      string
				Payload mark
			}
			Cursor string
			More   bool
		}
		if err := json.NewDecoder(bytes.NewReader([]byte(body))).Decode(&page); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		for _, e := range page.Events {
			if e.Payload.P >= 0 {
				events = append(events, got{e.ID, e.Payload})
			}
		}
		if after = page.Cursor; !page.More {
			return events
		}
	}
}
