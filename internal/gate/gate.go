// Package gate is the only way in. It decides whether events may be published, are
// valid, and are not too much; it stamps them and appends them to the log, or hands
// them on past it if they are ephemeral.
//
// A batch is accepted whole or refused whole, and is of one kind. Every refusal is a
// *[carillon.Error] that may be shown; in a batch of several it names the
// event's index, from 0.
//
// # Concurrency
//
// The methods of [Gate] may be called from any goroutine and never wait, except
// [Gate.Publish]. Batches submitted one after the other by one goroutine keep
// their order.
package gate

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/org"
)

// Config of a gate. Zero fields mean the defaults.
type Config struct {
	// Open opens an organization's log, without I/O. Required.
	Open func(carillon.OrgID) engine.Log
	// Signals carry an organization's ephemeral events. Required.
	Signals func(carillon.OrgID) engine.Signals
	// Orgs knows which organizations exist, and their limits. Required.
	Orgs *org.Directory
	// Source reports whether an organization has a source of this name: nobody
	// else may publish types that begin with it. Nil: there are none. It must not
	// block.
	Source func(org carillon.OrgID, name string) bool

	EventBytes    int   // of data in one event
	BatchEvents   int   // events in one batch
	BatchBytes    int   // of the events of one batch together
	UsersPerEvent int   // users named by one event
	InFlight      int   // events of the node that wait for the log at the same time
	InFlightBytes int64 // and their bytes

	// Full returns why nothing is taken now; nil, or a nil function: it is. It
	// must not block.
	Full func() error

	Now func() time.Time // time.Now
}

// Defaults of Config.
const (
	DefaultEventBytes    = 200_000
	DefaultBatchEvents   = 1000
	DefaultBatchBytes    = 10_000_000
	DefaultUsersPerEvent = 1000
	DefaultInFlight      = 100_000
	DefaultInFlightBytes = 256 << 20
)

// busyRetry is how long a publisher is told to wait when too much is in flight:
// in that time the log stores what is waiting.
const busyRetry = time.Second

// Gate admits events. Make one with New.
type Gate struct {
	cfg     Config
	tenants tenants
	count   counters
	waiters sync.Pool // of *waiter
}

// New makes a gate. It panics if a required field is missing.
func New(cfg Config) *Gate {
	if cfg.Open == nil || cfg.Signals == nil || cfg.Orgs == nil {
		panic("gate: Config.Open, Config.Signals and Config.Orgs are required")
	}
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&cfg.EventBytes, DefaultEventBytes)
	def(&cfg.BatchEvents, DefaultBatchEvents)
	def(&cfg.BatchBytes, DefaultBatchBytes)
	def(&cfg.UsersPerEvent, DefaultUsersPerEvent)
	def(&cfg.InFlight, DefaultInFlight)
	if cfg.InFlightBytes <= 0 {
		cfg.InFlightBytes = DefaultInFlightBytes
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	g := &Gate{cfg: cfg}
	g.count.limits = newLimits()
	g.tenants.open, g.tenants.signals = cfg.Open, cfg.Signals
	g.tenants.atLeast = cfg.EventBytes
	g.tenants.m = map[carillon.OrgID]*tenant{}
	return g
}

// Submit checks the drafts and appends them as one batch. It never waits. done
// is called exactly once, possibly before Submit returns, or else from a goroutine
// of the engine, and then it must not block. With a nil error everything is in the
// log, or handed on if it is ephemeral, and there is a receipt for each draft, in
// order.
//
// The gate keeps the Data and the strings of the drafts, not the slice itself.
func (g *Gate) Submit(p *carillon.Principal, drafts []carillon.Draft, done func([]carillon.Receipt, error)) {
	g.submit(publisher{Principal: p}, drafts, done)
}

// SubmitFrom is Submit for an event that a source of the organization made of a
// delivery. Its type begins with the source's name. The draft's ID is unique among
// those of the source.
func (g *Gate) SubmitFrom(org carillon.OrgID, source, delivery string, d carillon.Draft, done func([]carillon.Receipt, error)) {
	g.submit(publisher{Principal: &carillon.Principal{Org: org}, source: source, delivery: delivery}, []carillon.Draft{d}, done)
}

// publisher is who publishes.
type publisher struct {
	*carillon.Principal

	source   string // of the organization, instead of a principal; or ""
	delivery string // that came to the source
}

// ids says whose own ids the publisher's are: the user's, the org's servers'
// together, or a source's. They never meet.
func (p *publisher) ids() string {
	if p.source != "" {
		return "s." + p.source
	}
	return p.Publisher()
}

func (g *Gate) submit(p publisher, drafts []carillon.Draft, done func([]carillon.Receipt, error)) {
	if err := g.take(&p, drafts, done); err != nil {
		g.count.refuse(err)
		done(nil, err)
	}
}

// take calls done only if it returns nil.
func (g *Gate) take(p *publisher, drafts []carillon.Draft, done func([]carillon.Receipt, error)) *carillon.Error {
	if g.cfg.Full != nil {
		if err := g.cfg.Full(); err != nil {
			return carillon.AsError(err)
		}
	}
	now := g.cfg.Now()
	o, err := g.organization(p.Principal)
	if err != nil {
		return err
	}
	batch, bytes, err := g.admit(p, drafts, now)
	if err != nil {
		return err
	}
	n, size := int64(len(batch)), int64(bytes)
	if over := g.count.enter(n, size, int64(g.cfg.InFlight), g.cfg.InFlightBytes); over != "" {
		return carillon.Unavailable(busyRetry, nil, "more events are waiting to be stored than this server takes; send them again later").Over(over)
	}
	t := g.tenants.get(o, now)
	if err := t.take(now, len(batch), bytes); err != nil {
		g.count.leave(n, size)
		return err
	}
	if drafts[0].Ephemeral {
		g.handOn(t.signals, batch, size, done)
		return nil
	}
	t.log.Append(batch, func(receipts []carillon.Receipt, err error) {
		g.count.leave(n, size)
		if err != nil {
			g.count.failed.Add(uint64(n))
			done(nil, fmt.Errorf("gate: append %d events: %w", n, err))
			return
		}
		g.count.store(receipts, batch)
		done(receipts, nil)
	})
	return nil
}

// handOn publishes events past the log.
func (g *Gate) handOn(s engine.Signals, batch []engine.Append, size int64, done func([]carillon.Receipt, error)) {
	events := make([]*carillon.Event, len(batch))
	for i := range batch {
		events[i] = batch[i].Event
	}
	s.Publish(events, func(err error) {
		n := len(events)
		g.count.leave(int64(n), size)
		if err != nil {
			g.count.failed.Add(uint64(n))
			done(nil, fmt.Errorf("gate: hand on %d events: %w", n, err))
			return
		}
		g.count.ephemeral.Add(uint64(n))
		done(make([]carillon.Receipt, n), nil)
	})
}

// Publish is Submit for those who can wait. When ctx ends first it returns an
// unavailable error, and the events may be stored all the same.
func (g *Gate) Publish(ctx context.Context, p *carillon.Principal, drafts []carillon.Draft) ([]carillon.Receipt, error) {
	w, _ := g.waiters.Get().(*waiter)
	if w == nil {
		w = newWaiter()
	}
	g.Submit(p, drafts, w.done)
	select {
	case a := <-w.answered:
		g.waiters.Put(w)
		return a.receipts, a.err
	case <-ctx.Done(): // w is still waited for, by nobody
		return nil, carillon.Unavailable(busyRetry, ctx.Err(), "the log has not answered yet; the events may be stored: with an id of your own it is safe to send them again")
	}
}

// answer is what becomes of a batch.
type answer struct {
	receipts []carillon.Receipt
	err      error
}

// waiter takes the answer to one batch at a time.
type waiter struct {
	answered chan answer // capacity 1: who answers does not wait
	done     func([]carillon.Receipt, error)
}

func newWaiter() *waiter {
	w := &waiter{answered: make(chan answer, 1)}
	w.done = func(receipts []carillon.Receipt, err error) { w.answered <- answer{receipts, err} }
	return w
}

// organization is the caller's, if it may be used.
func (g *Gate) organization(p *carillon.Principal) (*org.Org, *carillon.Error) {
	o, ok := g.cfg.Orgs.Get(p.Org)
	switch {
	case !ok:
		return nil, carillon.Errorf(carillon.CodeForbidden, "this organization does not exist any more")
	case o.Disabled:
		return nil, carillon.Errorf(carillon.CodeForbidden, "this organization is disabled; ask the operator")
	}
	return o, nil
}
