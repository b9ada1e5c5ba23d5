package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Whom an order to the engine server is for.
const (
	engineWarm    = 0 // what it takes is not counted
	engineMeasure = 1
)

const (
	engineSubject = "bare.0.bench"
	engineStart   = 30 * time.Second
	// enginePending is how many publishes may be unanswered, and how many may be on
	// their way to the tail. Beyond it the publisher waits.
	enginePending = 1 << 16
)

// engineReport is what an engine server has measured.
type engineReport struct {
	Published uint64 `json:"published"` // all of them
	Tailed    uint64 `json:"tailed"`
	Failed    uint64 `json:"failed"`
	First     string `json:"first_problem,omitempty"`

	Count      uint64   `json:"count"`       // those measured
	FromDue    [4]int64 `json:"from_due"`    // p50, p99, p999 and max, in nanoseconds, from when they were due to the tail
	FromEngine [4]int64 `json:"from_engine"` // the same from the call of the engine
}

// quantiles are p50, p99, p999 and the largest.
func quantiles(h *Histogram) [4]int64 {
	return [4]int64{int64(h.Quantile(0.5)), int64(h.Quantile(0.99)), int64(h.Quantile(0.999)), int64(h.Max())}
}

// EngineServer is the bare engine that a server is compared with: NATS JetStream
// in this process with the settings that a server gives it, one stream, and an
// ordered consumer as its tail. It takes orders on one connection: whether it is
// to be measured, a length, when it was due, and the bytes that it publishes. No
// HTTP, no checks, nobody to deliver to. When the connection ends it waits for the tail and writes
// a report into reportFile. Its address stands in envFile once it listens.
func EngineServer(ctx context.Context, durability, dir, envFile, reportFile string) error {
	e, err := openEngine(ctx, durability, dir)
	if err != nil {
		return fmt.Errorf("bench: engine: %w", err)
	}
	defer e.close()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("bench: engine: %w", err)
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	if err := os.WriteFile(envFile, fmt.Appendf(nil, "ENGINE_CTL=%s\n", l.Addr()), 0o600); err != nil {
		return fmt.Errorf("bench: engine: %w", err)
	}
	c, err := l.Accept()
	if err != nil {
		return fmt.Errorf("bench: engine: %w", err)
	}
	defer c.Close()
	stopCtl := context.AfterFunc(ctx, func() { c.Close() })
	defer stopCtl()
	if err := e.obey(c); err != nil {
		return fmt.Errorf("bench: engine: %w", err)
	}
	rep := e.finish(drainQuiet)
	b, err := json.Marshal(rep)
	if err != nil {
		return fmt.Errorf("bench: engine: %w", err)
	}
	if err := os.WriteFile(reportFile, b, 0o600); err != nil {
		return fmt.Errorf("bench: engine: %w", err)
	}
	return nil
}

// bareEngine is a stream, who publishes into it, and its tail.
type bareEngine struct {
	server *natsserver.Server
	conns  []*nats.Conn
	js     jetstream.JetStream
	tail   jetstream.ConsumeContext
	failed atomic.Uint64
	first  atomic.Pointer[string]

	clock     *clock
	sent      chan publishing // in the order in which the tail takes them
	published uint64          // owned by who obeys

	tailed              atomic.Uint64
	fromDue, fromEngine Histogram // owned by the tail until it has taken all
}

// publishing is when one was due and when it was published; 0, 0 for those not
// measured.
type publishing struct{ due, at int64 }

func openEngine(ctx context.Context, durability, dir string) (_ *bareEngine, err error) {
	e := &bareEngine{sent: make(chan publishing, enginePending)}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if e.clock, err = newClock(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil { // the server would only be silent about it
		return nil, err
	}
	// The settings are those of internal/engine/jetstream.
	e.server, err = natsserver.NewServer(&natsserver.Options{
		DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir,
		JetStreamMaxStore: 1 << 60, JetStreamMaxMemory: 64 << 20, MaxPayload: 1 << 20,
		SyncInterval: time.Second, SyncAlways: durability == "strict",
	})
	if err != nil {
		return nil, err
	}
	e.server.Start()
	if !e.server.ReadyForConnections(engineStart) || !e.server.JetStreamEnabled() {
		return nil, errors.New("the embedded server is not ready")
	}
	publish, err := e.connect(jetstream.WithPublishAsyncMaxPending(enginePending),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { e.problem(err.Error()) }))
	if err != nil {
		return nil, err
	}
	e.js = publish
	_, err = e.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "BARE_0", Subjects: []string{"bare.0.*"}, Storage: jetstream.FileStorage,
		MaxAge: 7 * 24 * time.Hour, MaxMsgsPerSubject: 1_000_000, MaxConsumers: 1000,
		Duplicates: 5 * time.Minute, AllowDirect: true, AllowAtomicPublish: true,
	})
	if err != nil {
		return nil, err
	}
	tail, err := e.connect()
	if err != nil {
		return nil, err
	}
	consumer, err := tail.OrderedConsumer(ctx, "BARE_0", jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	e.tail, err = consumer.Consume(func(jetstream.Msg) { e.take() },
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { e.problem("tail: " + err.Error()) }))
	return e, err
}

func (e *bareEngine) connect(options ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	nc, err := nats.Connect("", nats.InProcessServer(e.server))
	if err != nil {
		return nil, err
	}
	e.conns = append(e.conns, nc)
	return jetstream.New(nc, options...)
}

func (e *bareEngine) close() {
	if e.tail != nil {
		e.tail.Stop()
	}
	for _, nc := range e.conns {
		nc.Close()
	}
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
}

func (e *bareEngine) problem(what string) {
	e.failed.Add(1)
	e.first.CompareAndSwap(nil, &what)
}

// take is told of each message of the tail. It has one publisher and one stream:
// they come in the order in which they were published.
func (e *bareEngine) take() {
	now := e.clock.everywhere(e.clock.now())
	if p := <-e.sent; p.at > 0 {
		e.fromDue.Record(now - p.due)
		e.fromEngine.Record(now - p.at)
	}
	e.tailed.Add(1)
}

// obey publishes what it is told to until the connection ends.
func (e *bareEngine) obey(ctl io.Reader) error {
	r := bufio.NewReaderSize(ctl, 64<<10)
	var head [16]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil //nolint:nilerr // the client is done
		}
		to, size, due := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint64(head[8:])
		if size < 8 || size > 1<<20 {
			return fmt.Errorf("an order of %d bytes", size)
		}
		b := make([]byte, size-8) // the client of the log may keep it until it is answered
		if _, err := io.ReadFull(r, b); err != nil {
			return nil //nolint:nilerr // as above
		}
		e.published++
		msg := &nats.Msg{
			Subject: engineSubject,
			Header:  nats.Header{"Nats-Msg-Id": {"bench:~" + strconv.FormatUint(e.published, 10)}},
			Data:    b,
		}
		var p publishing
		if to == engineMeasure {
			p = publishing{int64(due), e.clock.everywhere(e.clock.now())}
		}
		e.sent <- p
		if _, err := e.js.PublishMsgAsync(msg); err != nil {
			return err
		}
	}
}

// finish waits for the tail; what does not come for a while is lost.
func (e *bareEngine) finish(quiet time.Duration) engineReport {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for got, at := e.tailed.Load(), time.Now(); got < e.published && time.Since(at) < quiet; {
		<-look.C
		if now := e.tailed.Load(); now != got {
			got, at = now, time.Now()
		}
	}
	e.tail.Stop()
	<-e.tail.Closed()
	rep := engineReport{
		Published: e.published, Tailed: e.tailed.Load(), Failed: e.failed.Load(), Count: e.fromDue.Count(),
		FromDue: quantiles(&e.fromDue), FromEngine: quantiles(&e.fromEngine),
	}
	if first := e.first.Load(); first != nil {
		rep.First = *first
	}
	return rep
}

// engineChild is a running engine server.
type engineChild struct {
	child  *child
	ctl    netip.AddrPort
	report string
}

func startEngine(ctx context.Context, cfg *Config, dir string) (*engineChild, error) {
	env, store := filepath.Join(dir, "engine.env"), filepath.Join(dir, "engine")
	e := &engineChild{report: filepath.Join(dir, "engine.json")}
	argv := append([]string(nil), cfg.Program...)
	argv = append(argv, "bench", "engine-server", "--durability", cfg.Durability, "--data", store, "--env-file", env, "--report", e.report)
	var err error
	if e.child, err = startChild("the bare engine", filepath.Join(dir, "engine.log"), cfg.ServerCPUs, cfg.Procs, argv); err != nil {
		return nil, err
	}
	vars, err := e.child.waitFor(ctx, env, "ENGINE_CTL")
	if err == nil {
		e.ctl, err = resolve(ctx, vars["ENGINE_CTL"])
	}
	if err != nil {
		return nil, errors.Join(err, e.child.stop())
	}
	return e, nil
}

// wait waits until the engine server, whose connection has ended, has written
// its report, and reads it.
func (e *engineChild) wait(ctx context.Context) (rep engineReport, err error) {
	select {
	case <-e.child.exited:
	case <-ctx.Done():
		return rep, errors.Join(context.Cause(ctx), e.child.stop())
	}
	if e.child.err != nil {
		return rep, fmt.Errorf("bench: %s: %w\n%s", e.child.name, e.child.err, e.child.tail())
	}
	b, err := os.ReadFile(e.report)
	if err == nil {
		err = json.Unmarshal(b, &rep)
	}
	if err != nil {
		return rep, fmt.Errorf("bench: the report of %s: %w", e.child.name, err)
	}
	return rep, nil
}

// bareEngine measures the bare engine at a rate: from when an event was due to the
// tail, and of that its own part, from the call of publish. The row has no ack and
// nothing of the way to a client.
func (r *rig) bareEngine(ctx context.Context, o *load, size int) (_ *Row, err error) {
	e, err := startEngine(ctx, &r.cfg, r.dir)
	if err != nil {
		return nil, err
	}
	ended := false
	defer func() {
		if !ended {
			err = errors.Join(err, e.child.stop())
		}
	}()
	f, err := r.newFleet()
	if err != nil {
		return nil, err
	}
	defer f.close()
	l, st, seq := f.loops[0], r.stream("bench", "engine"), uint64(0)
	l.conns = append(l.conns, conn{fd: -1, addr: e.ctl, kind: bareSender, timed: true})
	target := engineWarm
	l.pub = &schedule{size: size, pick: func(c *conn, n int) (*stream, int, uint64) {
		c.target = target
		seq += uint64(n)
		return st, 0, seq - uint64(n)
	}}
	if err := f.connect(); err != nil {
		return nil, err
	}
	nothing := func(*conn) uint64 { return 0 }
	if o.warmup > 0 {
		l.pub.begin(r.clock.now(), o.rate, uint64(o.rate*o.warmup.Seconds()), 0)
		if err := f.play(promptly(nothing)); err != nil {
			return nil, err
		}
	}
	target = engineMeasure
	s, err := o.span(f, e.child.pid(), nothing)
	if err != nil {
		return nil, err
	}
	l.hangUp(&l.conns[0]) // which tells it to end
	rep, err := e.wait(ctx)
	ended = true
	if err != nil {
		return nil, err
	}
	if rep.Failed > 0 || rep.Tailed != rep.Published || rep.Published != seq || rep.Count != s.events {
		return nil, fmt.Errorf("bench: the bare engine: %d of %d published events at its tail, %d sent, %d problems; first: %s",
			rep.Tailed, rep.Published, seq, rep.Failed, rep.First)
	}
	var v Values
	v.add("publishes", "/s", perSecond(s.events, s.elapsed))
	for i, name := range []string{"p50", "p99", "p999", "max"} {
		v.add(name, "ms", float64(rep.FromDue[i])/1e6)
	}
	v.add("server CPU per delivery", "µs", micros(s.user+s.sys, s.events))
	v.add("of it user", "µs", micros(s.user, s.events))
	v.add("server CPU", "%", 100*(s.user+s.sys).Seconds()/s.elapsed.Seconds())
	if s.late.Count() > 0 {
		v.add("sent late p99", "ms", ms(s.late.Quantile(0.99)))
	}
	v.add("client CPU", "%", 100*s.client.Seconds()/s.elapsed.Seconds())
	for i, name := range []string{"p50", "p99", "p999", "max"} {
		v.add("from the call "+name, "ms", float64(rep.FromEngine[i])/1e6)
	}
	return &Row{"engine", v}, nil
}
