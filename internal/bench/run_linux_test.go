package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
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
	return &Fanout{Subscribers: 20, Rate: 100, Batch: 1, Publishers: 4, Size: 256, Warmup: 50 * time.Millisecond, Duration: short, Runs: 1}
}

func smallHooks() *Hooks {
	return &Hooks{Senders: 4, Size: 7000, Subscribers: 2, Warmup: 50 * time.Millisecond, Duration: short, NoWait: true, Org: "unused", Source: "gh"}
}

func smallResume() *Resume { return &Resume{Clients: 7, Missed: 100, Size: 256} }

func smallStorm() *Storm {
	return &Storm{Clients: 40, Orgs: 3, Missed: 20, Size: 256, AtOnce: 16, Settle: 10 * time.Millisecond}
}

func smallSlow() *Slow {
	return &Slow{Subscribers: 20, Share: 10, Rate: 400, Publishers: 4, Size: 20_000, Duration: short}
}

// run runs a scenario that must find nothing wrong.
func run(t *testing.T, cfg Config, s Scenario) *Report {
	t.Helper()
	rep, err := Run(t.Context(), cfg, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := rep.Checks.Err(); err != nil {
		t.Error(err)
	}
	return rep
}

func TestEveryScenarioRunsCleanAgainstACorrectServer(t *testing.T) {
	resumeBelow := smallResume()
	resumeBelow.FillMB = 2
	resumeBeside := smallResume()
	resumeBeside.Missed, resumeBeside.OtherRate = 1234, 100
	batches := smallFanout()
	batches.Batch, batches.OtherRate = 5, 100
	twice := smallFanout()
	twice.Runs = 2
	stormBeside := smallStorm()
	stormBeside.OtherRate = 100
	hooksAtARate, soManyHooks := smallHooks(), smallHooks()
	hooksAtARate.Rate = 100
	soManyHooks.Deliveries, soManyHooks.Warmup, soManyHooks.Duration = 101, 0, 0
	sipping := smallSlow()
	sipping.SlowRate = 100_000
	for _, tt := range []struct {
		name     string
		scenario Scenario
		rows     string
		received uint64 // at least
	}{
		{"publish", &Publish{Publishers: 6, Batch: 1, Orgs: 2, Size: 256, Duration: short, Warmup: 50 * time.Millisecond}, "carillon", 10},
		{"publish in arrays", &Publish{Publishers: 3, Batch: 50, Orgs: 1, Size: 256, Duration: short}, "carillon", 100},
		{"fanout", smallFanout(), "carillon floor", 2 * 20 * 30},
		{"fanout in arrays", batches, "carillon floor other meanwhile other alone", 2 * 20 * 30 * 5},
		{"fanout twice", twice, "carillon floor", 4 * 20 * 30},
		{"many", &Many{Connections: 50, Rate: 200, Publishers: 8, Size: 256, Warmup: 50 * time.Millisecond, Duration: short}, "carillon floor engine", 2 * 60},
		{"slow", smallSlow(), "all read some slow reading on floor", 3 * 20 * 120},
		{"slow sips", sipping, "all read some slow reading on floor", 3 * 20 * 120},
		{"storm", smallStorm(), "carillon floor", 40 * 21},
		{"storm beside another", stormBeside, "carillon other meanwhile other alone floor", 40 * 21},
		{"resume", resumeBeside, "carillon other meanwhile other alone", 7 * 1234},
		{"resume below", resumeBelow, "carillon", 700},
		{"hooks", smallHooks(), "hooks publish", 2 * 20},
		{"hooks at a rate", hooksAtARate, "hooks publish", 2 * 2 * 30},
		{"so many hooks", soManyHooks, "hooks publish", 2 * 2 * 101},
		{"idle", &Idle{Connections: 50, Orgs: 3, Settle: 10 * time.Millisecond, Hold: 50 * time.Millisecond}, "carillon floor", 0},
	} {
		for _, via := range []Transport{WebSocket, SSE, LongPoll} {
			if via != WebSocket && tt.scenario.name() == "publish" {
				continue // nobody receives
			}
			t.Run(tt.name+" "+string(via), func(t *testing.T) {
				t.Parallel()
				cfg := config(t, "")
				cfg.Transport = via
				rep := run(t, cfg, tt.scenario)
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
				var back Report
				if err := json.Unmarshal(text.Bytes(), &back); err != nil {
					t.Errorf("JSON: %v", err)
				}
				t.Logf("\n%s", table.String())
			})
		}
	}
}

func TestSeveralLoopsShareTheWork(t *testing.T) {
	cfg := config(t, "")
	cfg.ClientCPUs, cfg.NoFloor = []int{0, 0}, true
	for _, s := range []Scenario{
		smallFanout(), smallResume(), smallStorm(), smallSlow(), smallHooks(),
		&Publish{Publishers: 4, Batch: 1, Orgs: 1, Size: 256, Duration: short},
	} {
		t.Run(s.name(), func(t *testing.T) { run(t, cfg, s) })
	}
}

func TestAFaultyServerIsFoundOut(t *testing.T) {
	for _, tt := range []struct {
		fault string
		count func(c *Checks) (got, want uint64)
		only  Transport // empty: all
	}{
		{fault: "lose", count: func(c *Checks) (uint64, uint64) { return c.Lost, 20 }},
		{fault: "lose-numbered", count: func(c *Checks) (uint64, uint64) { return c.Lost, 20 }, only: WebSocket},
		{fault: "repeat", count: func(c *Checks) (uint64, uint64) { return c.Duplicated, 20 }},
		{fault: "swap", count: func(c *Checks) (uint64, uint64) { return min(c.Reordered, 20), 20 }},
		{fault: "misroute", count: func(c *Checks) (uint64, uint64) { return c.Misrouted, 20 }},
		{fault: "id", count: func(c *Checks) (uint64, uint64) { return c.Reordered, 1 }},
		{fault: "no-id", count: func(c *Checks) (uint64, uint64) { return c.Protocol, 20 }},
		{fault: "no-id-line", count: func(c *Checks) (uint64, uint64) { return c.Protocol, 20 }, only: SSE},
		{fault: "no-cursor", count: func(c *Checks) (uint64, uint64) { return c.Protocol, 20 }, only: LongPoll},
		{fault: "cut", count: func(c *Checks) (uint64, uint64) { return c.Closed, 20 }},
		{fault: "refuse", count: func(c *Checks) (uint64, uint64) { return c.PublishErrors, 30 }, only: WebSocket},
	} {
		for _, via := range []Transport{WebSocket, SSE, LongPoll} {
			if tt.only != "" && tt.only != via {
				continue
			}
			t.Run(tt.fault+" "+string(via), func(t *testing.T) {
				t.Parallel()
				cfg := config(t, tt.fault)
				cfg.NoFloor, cfg.Transport, cfg.quiet = true, via, 2*time.Second
				s := smallFanout()
				s.Warmup, s.Publishers = 0, 1
				rep, err := Run(t.Context(), cfg, s)
				if err != nil {
					t.Fatal(err)
				}
				if rep.Checks.Err() == nil || rep.Checks.First == "" {
					t.Fatalf("nothing was found: %+v", rep.Checks)
				}
				if got, want := tt.count(&rep.Checks); got != want {
					t.Errorf("%d found, want %d: %+v", got, want, rep.Checks)
				}
			})
		}
	}
}

func TestWebhooksThatAreNotTakenInAsTheyShouldBeAreFoundOut(t *testing.T) {
	for _, tt := range []struct {
		fault string
		count func(c *Checks) uint64
		want  uint64
	}{
		{"lose", func(c *Checks) uint64 { return c.Lost }, 2},
		{"repeat", func(c *Checks) uint64 { return c.Duplicated }, 2},
		{"swap", func(c *Checks) uint64 { return c.Reordered }, 0},
		{"refuse", func(c *Checks) uint64 { return c.PublishErrors }, 50},
		{"hook-forgotten", func(c *Checks) uint64 { return c.Lost }, 2}, // by each subscriber
		{"hook-known", func(c *Checks) uint64 { return c.PublishErrors }, 1},
		{"hook-busy", func(c *Checks) uint64 { return c.PublishErrors }, 1},
		{"hook-aside", func(*Checks) uint64 { return 0 }, 0},
		{"hook-later", func(*Checks) uint64 { return 0 }, 0}, // half of them, long after the last answer
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, tt.fault)
			cfg.NoFloor, cfg.quiet = true, time.Second
			s := smallHooks()
			s.Warmup, s.Deliveries = 0, 50
			rep, err := Run(t.Context(), cfg, s)
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.count(&rep.Checks); got != tt.want {
				t.Errorf("%d found, want %d: %+v", got, tt.want, rep.Checks)
			}
			if other := rep.Checks.Lost + rep.Checks.Duplicated + rep.Checks.Reordered + rep.Checks.PublishErrors; other != tt.want {
				t.Errorf("something else was found too: %+v", rep.Checks)
			}
			late := slices.ContainsFunc(rep.Notes, func(n string) bool { return strings.Contains(n, "1 came that were refused") })
			if late != (tt.fault == "hook-busy") {
				t.Errorf("notes %q", rep.Notes)
			}
			aside, _ := rep.row("hooks").Values.get("of it put aside")
			if want := map[bool]float64{true: 50}[tt.fault == "hook-aside"]; aside != want {
				t.Errorf("%v were put aside, want %v", aside, want)
			}
		})
	}
}

func TestSeveralLoopsSendAsManyWebhooksAsAreWanted(t *testing.T) {
	for _, deliveries := range []int{1, 2, 3, 101} {
		cfg := config(t, "")
		cfg.ClientCPUs, cfg.NoFloor = []int{0, 0}, true
		s := smallHooks()
		s.Warmup, s.Deliveries = 0, deliveries
		rep := run(t, cfg, s)
		if n, _ := rep.row("hooks").Values.get("accepted"); n != float64(deliveries) || rep.Checks.Received != uint64(2*deliveries) {
			t.Errorf("%v were accepted and %d received by two, want %d", n, rep.Checks.Received, deliveries)
		}
	}
}

func TestTheLedgerOfWebhooksIsWaitedFor(t *testing.T) {
	s := smallHooks()
	s.NoWait, s.Deliveries, s.Warmup = false, 60, 0
	cfg := config(t, "")
	cfg.NoFloor = true
	rep := run(t, cfg, s)
	values := rep.row("hooks").Values
	for _, name := range []string{"accepted /s", "answer p99 ms", "subscriber p99 ms", "RSS peak MB", "RSS settled MB", "ledger caught up after ms", "ledger entries /s"} {
		if n, ok := values.get(name); !ok || n <= 0 {
			t.Errorf("%s is %v %t", name, n, ok)
		}
	}
	if n, _ := values.get("accepted"); n != 60 {
		t.Errorf("%v were accepted, want 60", n)
	}
	if n, _ := values.get("ledger lag at most"); n != 3 { // the fake's first answers are 4, before anything was sent, and 3
		t.Errorf("the ledger lagged by %v, want 3", n)
	}
}

func TestWebhooksToAServerThatTellsNothingOfThemAreRefused(t *testing.T) {
	for fault, want := range map[string]string{
		"no-hooks":  "the server named none",
		"no-ledger": "does not show webhook_ledger_lag",
	} {
		if _, err := Run(t.Context(), config(t, fault), smallHooks()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", fault, err, want)
		}
	}
}

func TestNumbersAreCheckedWhereTheyAreAskedFor(t *testing.T) {
	for fault, want := range map[string]uint64{"": 0, "lose-numbered": 20} {
		cfg := config(t, fault)
		cfg.Numbered, cfg.quiet = true, 2*time.Second
		s := smallFanout()
		s.Warmup, s.Publishers = 0, 1
		rep, err := Run(t.Context(), cfg, s)
		if err != nil {
			t.Fatal(err)
		}
		if rep.Checks.Misnumbered != want {
			t.Errorf("fault %q: %+v, want %d misnumbered", fault, rep.Checks, want)
		}
	}
}

func TestNumbersBeginAnewWithAConnection(t *testing.T) {
	cfg := config(t, "")
	cfg.Numbered, cfg.NoFloor = true, true
	run(t, cfg, smallStorm())
}

func TestClientsThatAreRefusedInAStormComeBackWhenTold(t *testing.T) {
	for _, via := range []Transport{WebSocket, SSE, LongPoll} {
		t.Run(string(via), func(t *testing.T) {
			cfg := config(t, "busy")
			cfg.NoFloor, cfg.Transport = true, via
			rep := run(t, cfg, smallStorm())
			if n, _ := rep.row("carillon").Values.get("refused, came again"); n != 7 {
				t.Errorf("%v came again, want the 7 that were refused", n)
			}
		})
	}
}

func TestASlowReaderThatIsCutComesBackAndMissesNothing(t *testing.T) {
	for _, via := range []Transport{WebSocket, SSE} {
		t.Run(string(via), func(t *testing.T) {
			cfg := config(t, "cut-slow")
			cfg.NoFloor, cfg.Transport = true, via
			s := smallSlow()
			s.Rate, s.Size = 400, 100_000 // more than the kernel takes for a reader that stopped
			rep := run(t, cfg, s)
			if n, _ := rep.row("reading on").Values.get("the server had cut conns"); n != 2 {
				t.Errorf("%v were cut, want both that are slow", n)
			}
		})
	}
}

func TestAPublisherWithNothingToSayMayBeCut(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	back := make(chan net.Conn, 1)
	go func() {
		if c, err := server.Accept(); err == nil {
			c.Close()
		}
		c, _ := server.Accept()
		back <- c
	}()
	clock, err := newClock()
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLoop(clock, new(atomic.Bool))
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	l.pub = &schedule{}
	l.conns = []conn{{fd: -1, addr: netip.MustParseAddrPort(server.Addr().String()), kind: publisher}}
	if err := l.run(func(int64) bool { return len(back) > 0 && l.settled() || l.checker.Closed > 0 }); err != nil {
		t.Fatal(err)
	}
	if l.checker.Closed > 0 || !slices.Equal(l.pub.idle, []int{0}) {
		t.Errorf("%+v, idle %v", l.checker.Checks, l.pub.idle)
	}
	server.Close()
	if c := <-back; c != nil {
		c.Close()
	}
}

func TestNobodyToTalkToIsSaidAtOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, s := range []Scenario{smallFanout(), &Publish{Publishers: 4, Batch: 1, Orgs: 1, Size: 256, Duration: time.Hour}} {
		_, err := Run(t.Context(), Config{URL: "http://" + l.Addr().String(), Secret: "x"}, s)
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("%s: %v", s.name(), err)
		}
	}
}

func TestAServerThatKnowsUsNotIsSaidAtOnce(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who are you", 401) }))
	defer s.Close()
	_, err := Run(t.Context(), Config{URL: s.URL, Secret: "x"}, &Publish{Publishers: 4, Batch: 1, Orgs: 1, Size: 256, Duration: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "401 Unauthorized: who are you") {
		t.Errorf("got %v", err)
	}
}

func TestEveryOrgGetsAsManyEventsAsAnother(t *testing.T) {
	cfg := config(t, "")
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	r, err := newRig(t.Context(), cfg, smallStorm())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	streams, sent := make([]*stream, 4), make([]uint64, 4)
	for k := range streams {
		streams[k] = r.stream(orgName(k), "each")
	}
	for range 2 {
		f, err := r.publishEach(streams, sent, 1501, 256)
		if err != nil {
			t.Fatal(err)
		}
		f.close()
	}
	if !slices.Equal(sent, []uint64{3002, 3002, 3002, 3002}) {
		t.Errorf("sent %v", sent)
	}
}

func TestWhatMakesNoSenseIsRefused(t *testing.T) {
	for _, tt := range []struct {
		spoil func(cfg *Config, s *Fanout)
		want  string
	}{
		{func(_ *Config, s *Fanout) { s.Subscribers = 0 }, "subscribers is 0; it is at least 1"},
		{func(_ *Config, s *Fanout) { s.Batch = 0 }, "batch is 0"},
		{func(_ *Config, s *Fanout) { s.Rate = math.NaN() }, "rate is NaN"},
		{func(_ *Config, s *Fanout) { s.Duration = 0 }, "duration is 0s"},
		{func(_ *Config, s *Fanout) { s.Warmup = -1 }, "warmup is -1ns"},
		{func(_ *Config, s *Fanout) { s.OtherRate = -1 }, "other rate is -1"},
		{func(_ *Config, s *Fanout) { s.Size = 3 }, "size is 3"},
		{func(c *Config, _ *Fanout) { c.Transport = "carrier pigeon" }, "it is ws, sse or poll"},
		{func(c *Config, _ *Fanout) { c.Transport, c.Numbered = SSE, true }, "only a WebSocket's events"},
	} {
		cfg, s := config(t, ""), smallFanout()
		tt.spoil(&cfg, s)
		if _, err := Run(t.Context(), cfg, s); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
	for want, s := range map[string]Scenario{
		"orgs is 3; it is at most":         &Publish{Publishers: 2, Orgs: 3, Batch: 1, Size: 256, Duration: 1},
		"publishers is 9; it is at most":   &Many{Connections: 8, Publishers: 9, Rate: 1, Size: 256, Duration: 1},
		"at least one is slow":             &Slow{Subscribers: 10, Share: 5, Rate: 1, Publishers: 1, Size: 256, Duration: 1},
		"handshakes at once is 0":          &Storm{Clients: 1, Orgs: 1, Missed: 1, Size: 256},
		"missed is 0":                      &Resume{Clients: 1, Size: 256},
		"-1 MB to fill the ring with":      &Idle{Connections: 1, Orgs: 1, Hold: 1, FillMB: -1},
		"connections is 0; it is at least": &Idle{},
		"senders is 0":                     &Hooks{},
		"webhook is 1":                     &Hooks{Senders: 1, Size: 300, Subscribers: 1, Duration: 1, Org: "o", Source: "s"},
		"deliveries is -1":                 &Hooks{Senders: 1, Size: 7000, Subscribers: 1, Deliveries: -1, Org: "o", Source: "s"},
		"rate is -1":                       &Hooks{Senders: 1, Size: 7000, Subscribers: 1, Rate: -1, Duration: 1, Org: "o", Source: "s"},
		"duration is 0s":                   &Hooks{Senders: 1, Size: 7000, Subscribers: 1, Org: "o", Source: "s"},
		"subscribers is 0":                 &Hooks{Senders: 1, Size: 7000, Duration: 1, Org: "o", Source: "s"},
		"webhooks go to /hooks/o/<source>": &Hooks{Senders: 1, Size: 7000, Subscribers: 1, Duration: 1, Org: "o"},
	} {
		if _, err := Run(t.Context(), config(t, ""), s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
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
