package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// order is what a timed sender writes.
func order(to uint32, due int64, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, to)
	b = binary.BigEndian.AppendUint32(b, uint32(8+len(body)))
	b = binary.BigEndian.AppendUint64(b, uint64(due))
	return append(b, body...)
}

// serveEngine runs an engine server for as long as the orders take.
func serveEngine(t *testing.T, orders func(c net.Conn)) (rep engineReport, err error) {
	t.Helper()
	dir := t.TempDir()
	env, report := filepath.Join(dir, "env"), filepath.Join(dir, "report")
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() { ended <- EngineServer(ctx, "relaxed", filepath.Join(dir, "store"), env, report) }()
	vars, err := (&child{name: "the engine", exited: make(chan struct{})}).waitFor(ctx, env, "ENGINE_CTL")
	if err != nil {
		t.Fatal(err, <-ended)
	}
	c, err := net.Dial("tcp", vars["ENGINE_CTL"])
	if err != nil {
		t.Fatal(err)
	}
	orders(c)
	c.Close()
	if err := <-ended; err != nil {
		return rep, err
	}
	b, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	return rep, json.Unmarshal(b, &rep)
}

func TestTheEngineCountsFromWhenItWasDueAndFromItsCall(t *testing.T) {
	const late = 3 * time.Second
	clock, err := newClock()
	if err != nil {
		t.Fatal(err)
	}
	rep, err := serveEngine(t, func(c net.Conn) {
		due := clock.everywhere(clock.now()) - int64(late)
		for _, to := range []uint32{engineWarm, engineMeasure, engineMeasure} {
			if _, err := c.Write(order(to, due, "an event")); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Published != 3 || rep.Tailed != 3 || rep.Failed != 0 || rep.Count != 2 {
		t.Errorf("%+v, want three events, two of them measured", rep)
	}
	for i := range rep.FromDue {
		if due, call := time.Duration(rep.FromDue[i]), time.Duration(rep.FromEngine[i]); due < late || call <= 0 || call >= due {
			t.Errorf("%v from when it was due, which was %v before, and %v from the call", due, late, call)
		}
	}
}

func TestAnOrderTheEngineCannotReadEndsIt(t *testing.T) {
	for _, size := range []uint32{0, 7, 1<<20 + 1} {
		_, err := serveEngine(t, func(c net.Conn) {
			b := order(engineMeasure, 1, "an event")
			binary.BigEndian.PutUint32(b[4:], size)
			_, _ = c.Write(b)
		})
		if err == nil || !strings.Contains(err.Error(), "an order of") {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

func TestManyIsComparedWithTheEngine(t *testing.T) {
	s := &Many{Connections: 5, Rate: 200, Publishers: 2, Size: 256, Duration: short}
	cfg := config(t, "")
	cfg.NoFloor = true
	rep := run(t, cfg, s)
	row, engine := rep.row("carillon"), rep.row("engine")
	if engine == nil {
		t.Fatalf("no row: %+v", rep.Rows)
	}
	for _, q := range []string{"p50", "p99"} {
		ours, _ := row.Values.get(q + " ms")
		its, _ := engine.Values.get(q + " ms")
		ratio, ok := row.Values.get(q + " / engine's ×")
		if its <= 0 || !ok || ratio != ours/its {
			t.Errorf("%s: %v and %v ms, ratio %v", q, ours, its, ratio)
		}
	}
	if key := (Value{Name: "p99 / engine's", Unit: "×"}).key(); key != "p99_over_engines" {
		t.Errorf("in JSON it is %q", key)
	}
	cfg.NoEngine = true
	if rep := run(t, cfg, s); rep.row("engine") != nil {
		t.Error("it was measured all the same")
	}
}

func TestAnEngineThatDoesNotStartSaysWhy(t *testing.T) {
	cfg := config(t, "")
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	cfg.Program = []string{os.Args[0]}
	cfg.Durability = "relaxed"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "engine"), nil, 0o600); err != nil { // where its store should be
		t.Fatal(err)
	}
	if _, err := startEngine(t.Context(), &cfg, dir); err == nil || !strings.Contains(err.Error(), "bare engine ended before it was ready") {
		t.Errorf("%v", err)
	}
}
