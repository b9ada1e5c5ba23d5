package main

import (
	"context"
	"errors"
	"time"

	"github.com/carillon-rt/carillon/internal/bench"
)

// BenchCmd is `carillon bench`: load on a server of its own or a running one,
// with every message checked.
type BenchCmd struct {
	Publish BenchPublishCmd `cmd:"" help:"How fast events become durable over HTTP: a closed loop of publishers."`
	Fanout  BenchFanoutCmd  `cmd:"" help:"One event to many subscribers: an open loop, beside a bare write(2) loop."`
	Many    BenchManyCmd    `cmd:"" help:"Many connections with a type each, one event to one of them."`
	Resume  BenchResumeCmd  `cmd:"" help:"All clients of an org come back at once and have missed events."`
	Idle    BenchIdleCmd    `cmd:"" help:"What a connection costs that does nothing."`

	FloorServer BenchFloorCmd `cmd:"" hidden:"" help:"The bare write(2) loop that fanout, many and idle start."`
}

// BenchFlags are common to all scenarios.
type BenchFlags struct {
	JSON bool `name:"json" help:"Print JSON instead of a table."`

	Durability string   `enum:"strict,relaxed" default:"strict" help:"Durability of the server that is started: strict or relaxed."`
	Data       string   `placeholder:"DIR" help:"Directory under which its store is made (default: the system's for temporary files). It must be on the disk you want to measure."`
	ServerCPUs string   `name:"server-cpus" placeholder:"LIST" help:"CPUs of the server and the bare loop, such as 0 or 0,2-3."`
	ClientCPUs string   `name:"client-cpus" placeholder:"LIST" help:"CPUs of the load client; one loop each."`
	ServerProc int      `name:"server-procs" placeholder:"N" help:"GOMAXPROCS of the server and the bare loop."`
	ServerArgs []string `name:"server-arg" placeholder:"ARG" sep:"none" help:"Another argument for the server's dev command. Repeatable."`
	NoFloor    bool     `help:"Leave out the bare write(2) loop."`

	URL    string `name:"url" placeholder:"URL" help:"Load this running server instead of starting one."`
	OpsURL string `name:"ops-url" placeholder:"URL" help:"Its operations port, for memory by part."`
	Secret string `env:"CARILLON_JWT_SECRET" placeholder:"TEXT" help:"Its HS256 secret, of an issuer that may name every org."`
	PID    int    `name:"pid" placeholder:"PID" help:"Its process id, for CPU and RSS."`
}

func (f *BenchFlags) run(ctx context.Context, io *IO, s bench.Scenario) error {
	if f.URL != "" && f.Secret == "" {
		return errors.New("bench: --url needs --secret, to sign tokens with")
	}
	server, err := bench.ParseCPUs(f.ServerCPUs)
	if err != nil {
		return err
	}
	client, err := bench.ParseCPUs(f.ClientCPUs)
	if err != nil {
		return err
	}
	rep, err := bench.Run(ctx, bench.Config{
		URL: f.URL, OpsURL: f.OpsURL, Secret: f.Secret, PID: f.PID,
		Durability: f.Durability, Data: f.Data, Procs: f.ServerProc, ServerArgs: f.ServerArgs,
		ServerCPUs: server, ClientCPUs: client, NoFloor: f.NoFloor, Log: io.Err,
	}, s)
	if err != nil {
		return err
	}
	write := rep.WriteTable
	if f.JSON {
		write = rep.WriteJSON
	}
	return errors.Join(write(io.Out), rep.Checks.Err())
}

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

// Run runs it.
func (c *BenchPublishCmd) Run(ctx context.Context, io *IO) error {
	return c.run(ctx, io, &bench.Publish{
		Publishers: c.Publishers, Batch: c.Batch, Orgs: c.Orgs, Size: c.Size,
		Warmup: c.Warmup, Duration: c.Duration, NoReadBack: c.NoReadBack,
	})
}

// BenchFanoutCmd is `carillon bench fanout`.
type BenchFanoutCmd struct {
	BenchFlags `embed:""`

	Subscribers int           `default:"1000" help:"Connections that receive every event."`
	Rate        float64       `default:"50" help:"Publishes per second."`
	Publishers  int           `default:"16" help:"Publishes that may be unanswered at once."`
	Size        int           `default:"256" help:"Bytes of data per event."`
	Warmup      time.Duration `default:"2s" help:"How long it runs before anything is measured."`
	Duration    time.Duration `default:"10s" help:"How long it is measured."`
	Runs        int           `default:"1" help:"How often floor and server are measured in turn."`
}

// Run runs it.
func (c *BenchFanoutCmd) Run(ctx context.Context, io *IO) error {
	return c.run(ctx, io, &bench.Fanout{
		Subscribers: c.Subscribers, Rate: c.Rate, Publishers: c.Publishers, Size: c.Size,
		Warmup: c.Warmup, Duration: c.Duration, Runs: c.Runs,
	})
}

// BenchManyCmd is `carillon bench many`.
type BenchManyCmd struct {
	BenchFlags `embed:""`

	Connections int           `default:"10000" help:"Connections, each subscribed to a literal type of its own."`
	Rate        float64       `default:"5000" help:"Publishes per second in total."`
	Publishers  int           `default:"64" help:"Publishes that may be unanswered at once."`
	Size        int           `default:"256" help:"Bytes of data per event."`
	Warmup      time.Duration `default:"2s" help:"How long it runs before anything is measured."`
	Duration    time.Duration `default:"10s" help:"How long it is measured."`
}

// Run runs it.
func (c *BenchManyCmd) Run(ctx context.Context, io *IO) error {
	return c.run(ctx, io, &bench.Many{
		Connections: c.Connections, Rate: c.Rate, Publishers: c.Publishers, Size: c.Size,
		Warmup: c.Warmup, Duration: c.Duration,
	})
}

// BenchResumeCmd is `carillon bench resume`.
type BenchResumeCmd struct {
	BenchFlags `embed:""`

	Clients   int     `default:"1000" help:"Clients of one org that come back."`
	Missed    int     `default:"100" help:"Events that each has missed."`
	Size      int     `default:"256" help:"Bytes of data per event."`
	FillMB    int     `name:"fill-mb" placeholder:"MB" help:"Publish so much in other orgs in between, so that the missed events lie below the ring."`
	OtherRate float64 `placeholder:"N" help:"Let another org publish and receive N events per second meanwhile, and show its latency alone and meanwhile."`
}

// Run runs it.
func (c *BenchResumeCmd) Run(ctx context.Context, io *IO) error {
	return c.run(ctx, io, &bench.Resume{
		Clients: c.Clients, Missed: c.Missed, Size: c.Size, FillMB: c.FillMB, OtherRate: c.OtherRate,
	})
}

// BenchIdleCmd is `carillon bench idle`.
type BenchIdleCmd struct {
	BenchFlags `embed:""`

	Connections int           `default:"15000" help:"Connections, authenticated, with one subscription each."`
	Orgs        int           `default:"1" help:"Orgs that they are spread over."`
	Settle      time.Duration `default:"2s" help:"Between the last handshake and the reading of RSS."`
	Hold        time.Duration `default:"5s" help:"How long idle CPU is measured."`
	FillMB      int           `name:"fill-mb" placeholder:"MB" help:"Publish so much first, so that the ring is full."`
}

// Run runs it.
func (c *BenchIdleCmd) Run(ctx context.Context, io *IO) error {
	return c.run(ctx, io, &bench.Idle{
		Connections: c.Connections, Orgs: c.Orgs, Settle: c.Settle, Hold: c.Hold, FillMB: c.FillMB,
	})
}

// BenchFloorCmd is the hidden floor server.
type BenchFloorCmd struct {
	Conns   int    `required:"" help:"Readers to wait for."`
	EnvFile string `required:"" type:"path" help:"Where its addresses are written."`
}

// Run serves until its control connection ends.
func (c *BenchFloorCmd) Run(ctx context.Context) error {
	return bench.FloorServer(ctx, c.Conns, c.EnvFile)
}
