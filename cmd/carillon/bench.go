package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/internal/bench"
)

// BenchCmd is `carillon bench`: load on a server of its own or a running one,
// with every message checked.
type BenchCmd struct {
	Idle    BenchIdleCmd    `cmd:"" help:"What a connection costs that does nothing."`
	Fanout  BenchFanoutCmd  `cmd:"" help:"One event to many subscribers: an open loop, beside a bare write(2) loop."`
	Many    BenchManyCmd    `cmd:"" help:"Many connections with a type each, one event to one of them."`
	Slow    BenchSlowCmd    `cmd:"" help:"What readers that stop reading do to the others; then they read on."`
	Storm   BenchStormCmd   `cmd:"" help:"All clients are cut at once and come back."`
	Resume  BenchResumeCmd  `cmd:"" help:"All clients of an org come back at once and have missed many events."`
	Publish BenchPublishCmd `cmd:"" help:"How fast events become durable over HTTP: a closed loop of publishers."`
	Hooks   BenchHooksCmd   `cmd:"" help:"How fast webhooks are taken in: signed, stored, answered, published and received once."`
	All     BenchAllCmd     `cmd:"" help:"Measure every figure that we publish, into a directory."`
	Plot    BenchPlotCmd    `cmd:"" help:"Draw cost against connections, rate and the like, from JSON results."`

	FloorServer  BenchFloorCmd  `cmd:"" hidden:"" help:"The bare write(2) loop that scenarios start."`
	EngineServer BenchEngineCmd `cmd:"" hidden:"" help:"The bare engine that scenarios start."`
}

// BenchServerFlags say what is loaded, and from where.
type BenchServerFlags struct {
	Data       string `placeholder:"DIR" help:"Directory under which the started server's store is made (default: the system's for temporary files). It must be on the disk you want to measure."`
	ServerCPUs string `name:"server-cpus" placeholder:"LIST" help:"CPUs of the server and the bare loop, such as 0 or 0,2-3."`
	ClientCPUs string `name:"client-cpus" placeholder:"LIST" help:"CPUs of the load client; one loop each."`
	ServerProc int    `name:"server-procs" placeholder:"N" help:"GOMAXPROCS of the server and the bare loop."`
}

// BenchFlags are common to all scenarios.
type BenchFlags struct {
	BenchServerFlags `embed:""`

	JSON bool `name:"json" help:"Print JSON instead of a table."`

	Durability string   `enum:"strict,relaxed" default:"strict" help:"Durability of the server that is started: strict or relaxed."`
	ServerArgs []string `name:"server-arg" placeholder:"ARG" sep:"none" help:"Another argument for the server's dev command. Repeatable."`
	NoFloor    bool     `help:"Leave out the bare write(2) loop, or the plain publishes beside webhooks."`

	URL    string `name:"url" placeholder:"URL" help:"Load this running server instead of starting one."`
	OpsURL string `name:"ops-url" placeholder:"URL" help:"Its operations port, for memory by part."`
	Secret string `env:"CARILLON_JWT_SECRET" placeholder:"TEXT" help:"Its HS256 secret, of an issuer that may name every org."`
	PID    int    `name:"pid" placeholder:"PID" help:"Its process id, for CPU and RSS."`
}

func (f *BenchFlags) config(std *IO) (cfg bench.Config, err error) {
	if f.URL != "" && f.Secret == "" {
		return cfg, errors.New("bench: --url needs --secret, to sign tokens with")
	}
	server, err := bench.ParseCPUs(f.ServerCPUs)
	if err != nil {
		return cfg, err
	}
	client, err := bench.ParseCPUs(f.ClientCPUs)
	return bench.Config{
		URL: f.URL, OpsURL: f.OpsURL, Secret: f.Secret, PID: f.PID,
		Durability: f.Durability, Data: f.Data, Procs: f.ServerProc, ServerArgs: f.ServerArgs,
		ServerCPUs: server, ClientCPUs: client, NoFloor: f.NoFloor, Log: std.Err,
	}, err
}

// run measures and prints.
func (f *BenchFlags) run(ctx context.Context, std *IO, c benchScenario) error {
	rep, err := measure(ctx, std, c)
	if err != nil {
		return err
	}
	rep.Command = commandLine(os.Args[1:])
	write := rep.WriteTable
	if f.JSON {
		write = rep.WriteJSON
	}
	return errors.Join(write(std.Out), rep.Checks.Err())
}

// commandLine is what was typed, but for the secrets.
func commandLine(args []string) string {
	words := []string{"carillon"}
	for i, a := range args {
		switch {
		case i > 0 && (args[i-1] == "--secret" || args[i-1] == "--hook-secret"):
			a = "…"
		case strings.HasPrefix(a, "--secret="):
			a = "--secret=…"
		case strings.HasPrefix(a, "--hook-secret="):
			a = "--hook-secret=…"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// benchScenario is the command of a scenario.
type benchScenario interface {
	config(std *IO) (bench.Config, error)
	scenario() bench.Scenario
}

func measure(ctx context.Context, std *IO, c benchScenario) (*bench.Report, error) {
	cfg, err := c.config(std)
	if err != nil {
		return nil, err
	}
	return bench.Run(ctx, cfg, c.scenario())
}

// BenchReaderFlags are common to the scenarios that receive.
type BenchReaderFlags struct {
	BenchFlags `embed:""`

	Transport string `enum:"ws,sse,poll" default:"ws" help:"How subscribers receive: ws, sse or poll."`
	Numbered  bool   `help:"Ask a WebSocket's server for numbers, and check them too. They make every frame of a delivery another."`
}

func (f *BenchReaderFlags) config(std *IO) (bench.Config, error) {
	cfg, err := f.BenchFlags.config(std)
	cfg.Transport, cfg.Numbered = bench.Transport(f.Transport), f.Numbered
	return cfg, err
}

// BenchIdleCmd is `carillon bench idle`.
type BenchIdleCmd struct {
	BenchReaderFlags `embed:""`

	Connections int           `default:"15000" help:"Connections, authenticated, with one subscription each."`
	Orgs        int           `default:"1" help:"Orgs that they are spread over."`
	Settle      time.Duration `default:"5s" help:"Between the last handshake and the reading of RSS."`
	Hold        time.Duration `default:"5s" help:"How long idle CPU is measured."`
	FillMB      int           `name:"fill-mb" placeholder:"MB" help:"Publish so much first, so that the ring is full."`
}

func (c *BenchIdleCmd) scenario() bench.Scenario {
	return &bench.Idle{Connections: c.Connections, Orgs: c.Orgs, Settle: c.Settle, Hold: c.Hold, FillMB: c.FillMB}
}

// Run runs it.
func (c *BenchIdleCmd) Run(ctx context.Context, std *IO) error { return c.run(ctx, std, c) }

// BenchFanoutCmd is `carillon bench fanout`.
type BenchFanoutCmd struct {
	BenchReaderFlags `embed:""`

	Subscribers int           `default:"1000" help:"Connections that receive every event."`
	Rate        float64       `default:"50" help:"Publishes per second."`
	Batch       int           `default:"1" help:"Events per publish, which arrive together; 1 is a single object."`
	Publishers  int           `default:"16" help:"Publishes that may be unanswered at once."`
	Size        int           `default:"256" help:"Bytes of data per event."`
	Warmup      time.Duration `default:"2s" help:"How long it runs before anything is measured."`
	Duration    time.Duration `default:"10s" help:"How long it is measured."`
	Runs        int           `default:"1" help:"How often floor and server are measured in turn."`
	OtherRate   float64       `placeholder:"N" help:"Let another org publish and receive N events per second meanwhile, and show its latency alone and meanwhile."`
}

func (c *BenchFanoutCmd) scenario() bench.Scenario {
	return &bench.Fanout{
		Subscribers: c.Subscribers, Rate: c.Rate, Batch: c.Batch, Publishers: c.Publishers, Size: c.Size,
		Warmup: c.Warmup, Duration: c.Duration, Runs: c.Runs, OtherRate: c.OtherRate,
	}
}

// Run runs it.
func (c *BenchFanoutCmd) Run(ctx context.Context, std *IO) error { return c.run(ctx, std, c) }

// BenchManyCmd is `carillon bench many`.
type BenchManyCmd struct {
	BenchReaderFlags `embed:""`

	NoEngine    bool          `help:"Leave out the bare engine."`
	Connections int           `default:"10000" help:"Connections, each subscribed to a literal type of its own."`
	Rate        float64       `default:"5000" help:"Publishes per second in total."`
	Publishers  int           `default:"64" help:"Publishes that may be unanswered at once."`
	Size        int           `default:"256" help:"Bytes of data per event."`
	Warmup      time.Duration `default:"2s" help:"How long it runs before anything is measured."`
	Duration    time.Duration `default:"10s" help:"How long it is measured."`
}

func (c *BenchManyCmd) config(std *IO) (bench.Config, error) {
	cfg, err := c.BenchReaderFlags.config(std)
	cfg.NoEngine = c.NoEngine
	return cfg, err
}

func (c *BenchManyCmd) scenario() bench.Scenario {
	return &bench.Many{
		Connections: c.Connections, Rate: c.Rate, Publishers: c.Publishers, Size: c.Size,
		Warmup: c.Warmup, Duration: c.Duration,
	}
}

// Run runs it.
func (c *BenchManyCmd) Run(ctx context.Context, std *IO) error { return c.run(ctx, std, c) }

// BenchSlowCmd is `carillon bench slow`.
type BenchSlowCmd struct {
	BenchReaderFlags `embed:""`

	Subscribers int           `default:"1000" help:"Connections that receive every event."`
	Slow        float64       `default:"5" placeholder:"PERCENT" help:"How many of them become slow, in percent (default: 5)."`
	SlowRate    float64       `placeholder:"N" help:"Bytes per second that each of those still reads (default: none)."`
	Rate        float64       `default:"25" help:"Publishes per second."`
	Publishers  int           `default:"16" help:"Publishes that may be unanswered at once."`
	Size        int           `default:"16384" help:"Bytes of data per event."`
	Warmup      time.Duration `default:"2s" help:"How long it runs before anything is measured."`
	Duration    time.Duration `default:"15s" help:"How long it is measured while all read, and again while some do not."`
}

func (c *BenchSlowCmd) scenario() bench.Scenario {
	return &bench.Slow{
		Subscribers: c.Subscribers, Share: c.Slow, SlowRate: c.SlowRate, Rate: c.Rate,
		Publishers: c.Publishers, Size: c.Size, Warmup: c.Warmup, Duration: c.Duration,
	}
}

// Run runs it.
func (c *BenchSlowCmd) Run(ctx context.Context, std *IO) error { return c.run(ctx, std, c) }

// BenchStormCmd is `carillon bench storm`.
type BenchStormCmd struct {
	BenchReaderFlags `embed:""`

	Clients   int           `default:"15000" help:"Clients that are cut at once and come back, authenticated and subscribed, to where they were."`
	Orgs      int           `default:"1" help:"Orgs that they are spread over."`
	Missed    int           `default:"1" help:"Events of each org while its clients are away."`
	Size      int           `default:"256" help:"Bytes of data per event."`
	AtOnce    int           `default:"512" help:"Handshakes under way at the same time, at most."`
	Settle    time.Duration `default:"5s" help:"Before the cut and after the last is back, for the reading of RSS."`
	OtherRate float64       `placeholder:"N" help:"Let another org publish and receive N events per second meanwhile, and show its latency alone and meanwhile."`
}

func (c *BenchStormCmd) scenario() bench.Scenario {
	return &bench.Storm{
		Clients: c.Clients, Orgs: c.Orgs, Missed: c.Missed, Size: c.Size,
		AtOnce: c.AtOnce, Settle: c.Settle, OtherRate: c.OtherRate,
	}
}

// Run runs it.
func (c *BenchStormCmd) Run(ctx context.Context, std *IO) error { return c.run(ctx, std, c) }

// BenchResumeCmd is `carillon bench resume`.
type BenchResumeCmd struct {
	BenchReaderFlags `embed:""`

	Clients   int     `default:"1000" help:"Clients of one org that come back."`
	Missed    int     `default:"100" help:"Events that each has missed."`
	Size      int     `default:"256" help:"Bytes of data per event."`
	FillMB    int     `name:"fill-mb" placeholder:"MB" help:"Publish so much in other orgs in between, so that the missed events lie below the ring."`
	OtherRate float64 `placeholder:"N" help:"Let another org publish and receive N events per second meanwhile, and show its latency alone and meanwhile."`
}

func (c *BenchResumeCmd) scenario() bench.Scenario {
	return &bench.Resume{Clients: c.Clients, Missed: c.Missed, Size: c.Size, FillMB: c.FillMB, OtherRate: c.OtherRate}
}

// Run runs it.
func (c *BenchResumeCmd) Run(ctx context.Context, std *IO) error { return c.run(ctx, std, c) }

// BenchPublishCmd is `carillon bench publish`.
type BenchPublishCmd struct {
	BenchFlags `embed:""`

	Publishers int           `default:"64" help:"Connections, each with one request at a time."`
	Batch      int           `default:"1" help:"Events per request; 1 is a single object."`
	Orgs       int           `default:"1" help:"Orgs that the publishers are spread over."`
	Size       int           `default:"256" help:"Bytes of data per event."`
	Warmup     time.Duration `default:"2s" help:"How long it runs before anything is measured."`
	Duration   time.Duration `default:"10s" help:"How long it is measured."`
	NoReadBack bool          `help:"Do not read everything back through history afterwards."`
}

func (c *BenchPublishCmd) scenario() bench.Scenario {
	return &bench.Publish{
		Publishers: c.Publishers, Batch: c.Batch, Orgs: c.Orgs, Size: c.Size,
		Warmup: c.Warmup, Duration: c.Duration, NoReadBack: c.NoReadBack,
	}
}

// Run runs it.
func (c *BenchPublishCmd) Run(ctx context.Context, std *IO) error { return c.run(ctx, std, c) }

// BenchHooksCmd is `carillon bench hooks`.
type BenchHooksCmd struct {
	BenchReaderFlags `embed:""`

	Senders     int           `default:"64" help:"Connections, with one delivery in flight each."`
	Size        int           `default:"7000" help:"Bytes of a body, which looks like a push on GitHub."`
	Rate        float64       `placeholder:"N" help:"Deliveries per second (default: a closed loop)."`
	Deliveries  int           `placeholder:"N" help:"Deliveries in all (default: those of --duration)."`
	Subscribers int           `default:"1" help:"Subscribers to all that the source publishes."`
	Warmup      time.Duration `default:"2s" help:"How long it runs before anything is measured."`
	Duration    time.Duration `default:"10s" help:"How long it is measured."`
	NoWait      bool          `help:"Do not wait for the ledger and for memory."`

	Org        string `default:"demo" help:"Organization of a running server that they go to."`
	Source     string `default:"gh" help:"Its source, of kind github, without a filter."`
	HookSecret string `env:"CARILLON_HOOK_SECRET" placeholder:"TEXT" help:"The source's secret."`
}

func (c *BenchHooksCmd) config(std *IO) (bench.Config, error) {
	cfg, err := c.BenchReaderFlags.config(std)
	if err == nil && c.URL != "" && c.HookSecret == "" {
		return cfg, errors.New("bench: --url needs --hook-secret, to sign webhooks with")
	}
	return cfg, err
}

func (c *BenchHooksCmd) scenario() bench.Scenario {
	return &bench.Hooks{
		Senders: c.Senders, Size: c.Size, Rate: c.Rate, Deliveries: c.Deliveries, Subscribers: c.Subscribers,
		Warmup: c.Warmup, Duration: c.Duration, NoWait: c.NoWait, Org: c.Org, Source: c.Source, HookSecret: c.HookSecret,
	}
}

// Run runs it.
func (c *BenchHooksCmd) Run(ctx context.Context, std *IO) error { return c.run(ctx, std, c) }

// BenchFloorCmd is the hidden floor server.
type BenchFloorCmd struct {
	Conns   int    `required:"" help:"Readers to wait for."`
	EnvFile string `required:"" type:"path" help:"Where its addresses are written."`
}

// Run serves until its control connection ends.
func (c *BenchFloorCmd) Run(ctx context.Context) error {
	return bench.FloorServer(ctx, c.Conns, c.EnvFile)
}

// BenchEngineCmd is the hidden bare engine.
type BenchEngineCmd struct {
	Durability string `required:"" enum:"strict,relaxed" help:"What an acknowledged event survives."`
	Data       string `required:"" type:"path" help:"Directory of its store."`
	EnvFile    string `required:"" type:"path" help:"Where its address is written."`
	Report     string `required:"" type:"path" help:"Where its report is written."`
}

// Run publishes until its control connection ends.
func (c *BenchEngineCmd) Run(ctx context.Context) error {
	return bench.EngineServer(ctx, c.Durability, c.Data, c.EnvFile, c.Report)
}
