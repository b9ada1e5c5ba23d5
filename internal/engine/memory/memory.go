// Package memory is an engine that keeps the log in this process: for fast
// tests, for synctest bubbles, and for installs that want nothing on disk.
//
// It keeps every promise of package engine but durability. It does no I/O and
// waits on channels only, so time inside a bubble moves past it. Retention is
// applied when something looks at the log, not by a timer.
package memory

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// Config sets up an Engine. The zero value works.
type Config struct {
	Partitions int           // default 8
	Retention  time.Duration // how long an entry is kept; default 7 days
	MaxPerOrg  int           // entries kept per organization; default 1,000,000
	MaxBytes   int64         // over all partitions; default 256 MiB
	// OrgBudget is an organization's own; it may change. Nil: nobody has one.
	OrgBudget    func(carillon.OrgID) engine.Budget
	DedupeWindow time.Duration // how long a key is known; default 5 minutes

	// The same of the organizations' intakes.
	IntakeRetention time.Duration // default 30 days
	IntakeMaxPerOrg int           // 0: no limit
	IntakeMaxBytes  int64         // default 128 MiB
	IntakeBudget    func(carillon.OrgID) engine.Budget

	SignalBuffer int // default engine.DefaultSignalBuffer
}

func (c Config) withDefaults() Config {
	if c.Partitions <= 0 {
		c.Partitions = 8
	}
	if c.Retention <= 0 {
		c.Retention = 7 * 24 * time.Hour
	}
	if c.MaxPerOrg <= 0 {
		c.MaxPerOrg = 1_000_000
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 256 << 20
	}
	if c.DedupeWindow <= 0 {
		c.DedupeWindow = 5 * time.Minute
	}
	if c.SignalBuffer <= 0 {
		c.SignalBuffer = engine.DefaultSignalBuffer
	}
	if c.IntakeRetention <= 0 {
		c.IntakeRetention = 30 * 24 * time.Hour
	}
	if c.IntakeMaxPerOrg <= 0 {
		c.IntakeMaxPerOrg = math.MaxInt
	}
	if c.IntakeMaxBytes <= 0 {
		c.IntakeMaxBytes = 128 << 20
	}
	for _, budget := range []*func(carillon.OrgID) engine.Budget{&c.OrgBudget, &c.IntakeBudget} {
		if *budget == nil {
			*budget = func(carillon.OrgID) engine.Budget { return engine.Budget{} }
		}
	}
	return c
}

// intakePartitions is how many partitions the intake has.
const intakePartitions = 1

// limits are those of one partition.
type limits struct {
	retention, dedupe time.Duration
	perOrg            int
	bytes             int64
	budget            func(carillon.OrgID) engine.Budget
}

func (c Config) limits() limits {
	return limits{c.Retention, c.DedupeWindow, c.MaxPerOrg, c.MaxBytes / int64(c.Partitions), c.OrgBudget}
}

func (c Config) intakeLimits() limits {
	return limits{c.IntakeRetention, c.DedupeWindow, c.IntakeMaxPerOrg, c.IntakeMaxBytes / intakePartitions, c.IntakeBudget}
}

// Engine is a log in memory. Its zero value does not work; use New.
type Engine struct {
	config     Config
	partitions []*partition // of events, then of the intake
	kv         kv
	signals    signals

	made     atomic.Uint64 // message ids the engine made up
	recreate atomic.Uint64 // partitions made anew, for their identity
	stats    counters
	gate     gate

	closeOnce sync.Once
	closing   chan struct{} // closed by Close: no more appends
	flushed   chan struct{} // closed by Close: appends are answered, tails end
	running   sync.WaitGroup
}

var _ engine.Engine = (*Engine)(nil)

type counters struct {
	appends, duplicates, flights, failures, read, cuts, ackNanos, acks atomic.Uint64
	depth                                                              atomic.Int64
}

// New makes an empty log and starts one goroutine per partition, and one for the
// signals; Close ends them.
func New(c Config) *Engine {
	c = c.withDefaults()
	e := &Engine{config: c, signals: newSignals(c.SignalBuffer), closing: make(chan struct{}), flushed: make(chan struct{})}
	e.gate.open = make(chan struct{})
	close(e.gate.open)
	for i := range c.Partitions + intakePartitions {
		l := c.limits()
		if i >= c.Partitions {
			l = c.intakeLimits()
		}
		p := newPartition(uint16(i), l, e.newIdentity())
		e.partitions = append(e.partitions, p)
		e.running.Go(func() { e.commit(p) })
	}
	e.running.Go(func() { e.signals.run(e.closing) })
	return e
}

func (e *Engine) newIdentity() string {
	return "memory-" + strconv.FormatUint(e.recreate.Add(1), 10)
}

// Partitions is the number of the events' partitions.
func (e *Engine) Partitions() int { return e.config.Partitions }

// IntakePartitions is the number of the intakes'.
func (e *Engine) IntakePartitions() int { return intakePartitions }

// Open returns the log of one organization's events.
func (e *Engine) Open(org carillon.OrgID) engine.Log {
	return e.log(org, e.partitions[:e.config.Partitions])
}

// Intake returns the organization's other log.
func (e *Engine) Intake(org carillon.OrgID) engine.Log {
	return e.log(org, e.partitions[e.config.Partitions:])
}

func (e *Engine) log(org carillon.OrgID, among []*partition) engine.Log {
	return &log{engine: e, part: among[xxhash.Sum64String(string(org))%uint64(len(among))], org: org}
}

func (e *Engine) partition(i int) (*partition, error) {
	if i < 0 || i >= len(e.partitions) {
		return nil, fmt.Errorf("memory: no partition %d of %d", i, len(e.partitions))
	}
	select {
	case <-e.flushed:
		return nil, engine.ErrClosed
	default:
	}
	return e.partitions[i], nil
}

// chunk is how many entries a reader takes per turn of the lock.
const chunk = 256

// Tail follows one partition; see engine.Engine.
func (e *Engine) Tail(ctx context.Context, partition int, after uint64, f func(*carillon.Entry)) error {
	p, err := e.partition(partition)
	if err != nil {
		return err
	}
	p.mu.Lock()
	broken := p.broken
	p.mu.Unlock()
	buf := make([]*carillon.Entry, 0, chunk)
	for {
		p.mu.Lock()
		cut := p.broken != broken
		changed := p.changed
		if !cut {
			buf, after = p.after(buf[:0], after)
		}
		p.mu.Unlock()
		if cut {
			return fmt.Errorf("memory: partition %d was cut under the tail", partition)
		}
		for _, entry := range buf {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f(entry)
		}
		if len(buf) > 0 {
			clear(buf)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.flushed:
			return engine.ErrClosed
		}
	}
}

// State reads the partition's bounds.
func (e *Engine) State(ctx context.Context, partition int) (engine.State, error) {
	p, err := e.partition(partition)
	if err != nil {
		return engine.State{}, err
	}
	if err := ctx.Err(); err != nil {
		return engine.State{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(time.Now())
	return engine.State{
		Identity: p.identity,
		First:    p.first(),
		Last:     p.at(p.last()),
		Entries:  uint64(p.kept),
		Bytes:    uint64(p.bytes),
	}, nil
}

// Check reads the check of the entry at seq.
func (e *Engine) Check(ctx context.Context, partition int, seq uint64) (check uint32, found bool, err error) {
	p, err := e.partition(partition)
	if err != nil {
		return 0, false, err
	}
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(time.Now())
	if entry := p.entry(seq); entry != nil {
		return entry.Pos.Check, true, nil
	}
	return 0, false, nil
}

// Head is the position of the last entry stored.
func (e *Engine) Head(partition int) carillon.Position {
	if head := e.partitions[partition].head.Load(); head != nil {
		return *head
	}
	return carillon.Position{Partition: uint16(partition)}
}

// KV is a map.
func (e *Engine) KV() engine.KV { return &e.kv }

// Caps promises nothing durable.
func (e *Engine) Caps() engine.Caps {
	return engine.Caps{
		DedupeWindow:    e.config.DedupeWindow,
		Retention:       e.config.Retention,
		IntakeRetention: e.config.IntakeRetention,
		Describe:        "in memory, nothing survives the process",
	}
}

// Healthy returns the error of Fail, or that the engine is closed.
func (e *Engine) Healthy(ctx context.Context) error {
	select {
	case <-e.closing:
		return engine.ErrClosed
	default:
	}
	if _, err := e.gate.state(); err != nil {
		return err
	}
	return ctx.Err()
}

// Stats are counters since New.
func (e *Engine) Stats() engine.Stats {
	return engine.Stats{
		Appends:       e.stats.appends.Load(),
		Duplicates:    e.stats.duplicates.Load(),
		Flights:       e.stats.flights.Load(),
		Failures:      e.stats.failures.Load(),
		QueueDepth:    int(e.stats.depth.Load()),
		ReadEntries:   e.stats.read.Load(),
		Cuts:          e.stats.cuts.Load(),
		AckNanosTotal: e.stats.ackNanos.Load(),
		AckCount:      e.stats.acks.Load(),

		SignalsHeard:   e.signals.heard.Load(),
		SignalsDropped: e.signals.dropped.Load(),
	}
}

// Close answers what was appended and ends the engine's goroutines and tails.
// It may be called more than once.
func (e *Engine) Close(ctx context.Context) error {
	e.closeOnce.Do(func() {
		for _, p := range e.partitions {
			p.mu.Lock()
			p.closed = true
			p.mu.Unlock()
		}
		e.signals.close()
		close(e.closing)
		go func() {
			e.running.Wait()
			close(e.flushed)
		}()
	})
	select {
	case <-e.flushed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
