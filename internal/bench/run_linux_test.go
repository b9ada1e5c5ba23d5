package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

const short = 300 * time.Millisecond

func config(t *testing.T, fault string) Config {
	t.Helper()
	return Config{
		Data:       t.TempDir(),
		Program:    []string{os.Args[0]},
		ServerArgs: []string{"--fault=" + fault},
	}
}

func smallFanout() *Fanout {
	return &Fanout{Subscribers: 20, Rate: 100, Publishers: 4, Warmup: 50 * time.Millisecond, Duration: short}
}

func TestEveryScenarioRunsCleanAgainstACorrectServer(t *testing.T) {
	for _, tt := range []struct {
		scenario Scenario
		rows     string
		received uint64 // at least
	}{
		{&Publish{Publishers: 6, Orgs: 2, Duration: short, Warmup: 50 * time.Millisecond}, "carillon", 10},
		{&Publish{Publishers: 3, Batch: 50, Duration: short}, "carillon", 100},
		{smallFanout(), "carillon floor", 2 * 20 * 30},
		{&Fanout{Subscribers: 5, Rate: 50, Duration: short, Runs: 2}, "carillon floor", 4 * 5 * 15},
		{&Many{Connections: 50, Rate: 200, Publishers: 8, Duration: short}, "carillon floor", 2 * 60},
		{&Resume{Clients: 10, Missed: 1234, OtherRate: 100}, "carillon other meanwhile other alone", 12340},
		{&Resume{Clients: 3, Missed: 3, FillMB: 2}, "carillon", 9},
		{&Idle{Connections: 50, Orgs: 3, Settle: 10 * time.Millisecond, Hold: 50 * time.Millisecond}, "carillon floor", 0},
	} {
		t.Run(tt.scenario.name(), func(t *testing.T) {
			rep, err := Run(t.Context(), config(t, ""), tt.scenario)
			if err != nil {
				t.Fatal(err)
			}
			if err := rep.Checks.Err(); err != nil {
				t.Error(err)
			}
			var names []string
			for _, row := range rep.Rows {
				names = append(names, row.Name)
			}
			if got := strings.Join(names, " "); got != tt.rows {
				t.Errorf("rows %q, want %q", got, tt.rows)
			}
			if rep.Checks.Received < tt.received {
				t.Errorf("%d events received, want at least %d", rep.Checks.Received, tt.received)
			}
			var table, text bytes.Buffer
			if err := errors.Join(rep.WriteTable(&table), rep.WriteJSON(&text)); err != nil {
				t.Fatal(err)
			}
			var back map[string]any
			if err := json.Unmarshal(text.Bytes(), &back); err != nil {
				t.Errorf("JSON: %v", err)
			}
			t.Logf("\n%s", table.String())
		})
	}
}

func TestSeveralLoopsShareTheWork(t *testing.T) {
	cfg := config(t, "")
	cfg.ClientCPUs, cfg.NoFloor = []int{0, 0}, true
	for _, s := range []Scenario{smallFanout(), &Publish{Publishers: 4, Duration: short}, &Resume{Clients: 7, Missed: 100}} {
		rep, err := Run(t.Context(), cfg, s)
		if err != nil {
			t.Fatal(err)
		}
		if err := rep.Checks.Err(); err != nil {
			t.Errorf("%s: %v", s.name(), err)
		}
	}
}

func TestAFaultyServerIsFoundOut(t *testing.T) {
	for fault, count := range map[string]func(c *Checks) (got, want uint64){
		"lose":          func(c *Checks) (uint64, uint64) { return c.Lost, 20 },
		"lose-silently": func(c *Checks) (uint64, uint64) { return c.Misnumbered, 20 },
		"repeat":        func(c *Checks) (uint64, uint64) { return c.Duplicated, 20 },
		"swap":          func(c *Checks) (uint64, uint64) { return min(c.Reordered, 20), 20 },
		"misroute":      func(c *Checks) (uint64, uint64) { return c.Misrouted, 20 },
		"cut":           func(c *Checks) (uint64, uint64) { return c.Closed, 20 },
		"refuse":        func(c *Checks) (uint64, uint64) { return c.PublishErrors, 30 },
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, fault)
			cfg.NoFloor = true
			s := smallFanout()
			s.Warmup, s.Publishers = 0, 1
			rep, err := Run(t.Context(), cfg, s)
			if err != nil {
				t.Fatal(err)
			}
			if rep.Checks.Err() == nil || rep.Checks.First == "" {
				t.Fatalf("nothing was found: %+v", rep.Checks)
			}
			if got, want := count(&rep.Checks); got != want {
				t.Errorf("%d found, want %d: %+v", got, want, rep.Checks)
			}
		})
	}
}

func TestAServerThatDoesNotStartSaysWhy(t *testing.T) {
	_, err := Run(t.Context(), config(t, "dies"), smallFanout())
	if err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("got %v, want what the server printed", err)
	}
}

func TestAnEndedContextEndsARunAndItsServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	s := smallFanout()
	s.Duration = time.Hour
	cfg := config(t, "")
	_, err := Run(ctx, cfg, s)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	left, err := os.ReadDir(cfg.Data)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
