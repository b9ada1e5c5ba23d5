// Package jetstream is the durable engine: NATS JetStream, embedded in this
// process, or a server or cluster of others.
//
// Every partition is one stream, every organization one literal subject of it; its
// intake is a subject of another stream. An event's type and the rest of its
// envelope are headers, its data is the body. Appends are committed in groups: one
// flight at a time per partition, plain publishes while those are cheaper and one
// atomic batch otherwise, so that many events share a flush of the disk.
//
// The server behind it does not guard its directory. This package does: a lock
// against a second process, and a marker of the mode the store was made in.
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// Engine is a log on disk. Use Open.
type Engine struct {
	config  Config
	dir     *storeDir
	server  *embedded
	events  *kind
	intake  *kind
	parts   []*partition // of events, then of the intake; by number
	kv      *kv
	ours    jetstream.KeyValue // the bucket behind kv
	manage  jetstream.JetStream
	books   *books
	readers readerPool

	signals *nats.Conn // KV, settings, the state of streams; ephemeral events
	replays *nats.Conn

	ephemeral *signals

	purging chan struct{} // holds one token: one purge at a time

	stats     counters
	closeOnce sync.Once
	closing   chan struct{}   // closed when appends are refused
	kill      <-chan struct{} // closed by end: waiting has to end
	end       context.CancelFunc
	closed    chan struct{} // closed when the store is released
	closeErr  error         // set before closed is closed
	committed sync.WaitGroup
	kept      sync.WaitGroup // the keeper of the books
	healing   sync.WaitGroup
	handing   sync.WaitGroup        // on of ephemeral events
	shut      atomic.Pointer[error] // why the store cannot be written, or nil
}

var _ engine.Engine = (*Engine)(nil)

type counters struct {
	appends, duplicates, flights, batchFlights, failures, read, cuts, catchUps, ackNanos, acks atomic.Uint64
	depth                                                                                      atomic.Int64
}

// partition is what the engine knows of one stream.
type partition struct {
	kind      *kind
	number    int
	stream    string
	branch    string // of its subjects
	committer *committer
	feed      feed // of what the committer stores, where nobody else writes
	head      atomic.Pointer[carillon.Position]
	breaks    atomic.Uint64 // tails that broke
	// checked is what epoch said when head was last compared with the leader.
	checked atomic.Uint64
}

// epoch changes when the log may have lost its tail: that takes a server that
// stops, and then a connection or a tail breaks.
func (e *Engine) epoch(p *partition) uint64 { return e.replays.Stats().Reconnects + p.breaks.Load() }

// raise moves the head up to pos.
func (p *partition) raise(pos carillon.Position) {
	for {
		head := p.head.Load()
		if head != nil && head.Seq >= pos.Seq {
			return
		}
		next := pos // on the heap only where it counts: the tail and the committer both come here
		if p.head.CompareAndSwap(head, &next) {
			return
		}
	}
}

// keyPartitions is the key of the number of the events' partitions.
const keyPartitions = "log.partitions"

// Open claims the directory and starts the server, or connects to the external
// one, and makes or adopts the streams. ctx bounds the start only. The error is
// engine.ErrStoreInUse when another process has the directory.
func Open(ctx context.Context, c Config) (*Engine, error) {
	e, life, err := attach(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := e.adopt(ctx); err != nil {
		return nil, errors.Join(err, e.release())
	}
	for _, p := range e.parts {
		e.committed.Go(p.committer.run)
	}
	e.kept.Go(func() { e.books.run(life) })
	e.handing.Go(e.ephemeral.send)
	e.handing.Go(func() { e.ephemeral.dispatch(life) })
	if e.server != nil {
		e.healing.Go(func() { e.heal(life) })
	}
	return e, nil
}

// attach makes an engine that is connected to its server and knows nothing of
// what is there. life ends with it.
func attach(ctx context.Context, c Config) (_ *Engine, life context.Context, err error) {
	if c, err = c.withDefaults(); err != nil {
		return nil, nil, err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	e := &Engine{
		config:  c,
		purging: make(chan struct{}, 1),
		closing: make(chan struct{}),
		kill:    life.Done(),
		end:     end,
		closed:  make(chan struct{}),
	}
	e.makeKinds()
	e.books = newBooks(e)
	defer func() {
		if err != nil {
			err = errors.Join(err, e.release())
		}
	}()
	var dial dialer
	if c.NATS == nil {
		if e.dir, err = claimDir(c.Dir); err != nil {
			return nil, nil, err
		}
		e.server = newEmbedded(c)
		if err = e.server.start(ctx); err != nil {
			return nil, nil, err
		}
		dial = e.server.dial
	} else {
		if err = noStandalone(c.Dir); err != nil {
			return nil, nil, err
		}
		if dial, err = c.NATS.dialer(c.Logger); err != nil {
			return nil, nil, err
		}
	}
	if err = e.connect(dial); err != nil {
		return nil, nil, err
	}
	if c.NATS != nil {
		err = e.suits(ctx)
	}
	return e, life, err
}

func (e *Engine) connect(dial dialer) (err error) {
	if e.signals, err = dial("signals"); err != nil {
		return err
	}
	e.ephemeral = newSignals(e.signals, e.config)
	if e.replays, err = dial("replay"); err != nil {
		return err
	}
	for _, k := range e.kinds() {
		k.publish.dial = dial
		if e.server != nil {
			continue // its tails are fed
		}
		if k.tails, err = dial("tail"); err != nil {
			return err
		}
	}
	e.readers.conn = e.replays
	e.manage, err = jetstream.New(e.signals)
	return err
}

// adopt opens the bucket and the streams, making what is missing.
func (e *Engine) adopt(ctx context.Context) error {
	var err error
	if e.ours, err = e.adoptBucket(ctx); err != nil {
		return fmt.Errorf("jetstream: settings bucket: %w", err)
	}
	e.kv = &kv{e.ours}
	if err := e.countPartitions(ctx); err != nil {
		return err
	}
	if err := e.allot(); err != nil {
		return err
	}
	for i := range e.config.Partitions {
		e.events.parts = append(e.events.parts, e.events.partition(i, i))
	}
	for i := range intakePartitions {
		e.intake.parts = append(e.intake.parts, e.intake.partition(i, e.config.Partitions+i))
	}
	e.parts = append(e.events.parts[:len(e.events.parts):len(e.events.parts)], e.intake.parts...)
	for _, k := range e.kinds() {
		if k.firsts, err = k.loadFirsts(ctx); err != nil {
			return err
		}
	}
	for _, p := range e.parts {
		p.committer = newCommitter(e, p)
		if err := e.adoptStream(ctx, p); err != nil {
			return err
		}
		if err := e.led(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("jetstream: %s: %w", doing, err)
}

// Partitions is the number of the events' partitions in the store.
func (e *Engine) Partitions() int { return e.config.Partitions }

// IntakePartitions is the number of the intakes'.
func (e *Engine) IntakePartitions() int { return intakePartitions }

// Open returns the log of one organization's events.
func (e *Engine) Open(org carillon.OrgID) engine.Log { return e.events.log(org) }

// Intake returns the organization's other log.
func (e *Engine) Intake(org carillon.OrgID) engine.Log { return e.intake.log(org) }

func (e *Engine) partition(i int) (*partition, error) {
	if i < 0 || i >= len(e.parts) {
		return nil, fmt.Errorf("jetstream: no partition %d of %d", i, len(e.parts))
	}
	select {
	case <-e.closing:
		return nil, engine.ErrClosed
	default:
		return e.parts[i], nil
	}
}

// Head is the highest position known to be stored.
func (e *Engine) Head(partition int) carillon.Position {
	if head := e.parts[partition].head.Load(); head != nil {
		return *head
	}
	return carillon.Position{Partition: uint16(partition)}
}

// KV is a bucket of the same store.
func (e *Engine) KV() engine.KV { return e.kv }

// Caps says what the configured durability promises.
func (e *Engine) Caps() engine.Caps {
	c := engine.Caps{
		Durable: true, DedupeWindow: e.config.DedupeWindow,
		Retention: e.config.Retention, IntakeRetention: e.config.IntakeRetention,
	}
	if n := e.config.NATS; n != nil {
		c.Describe = fmt.Sprintf("external NATS, %d copies: what an acknowledged event survives is for its servers to say", n.Replicas)
		return c
	}
	if e.config.Durability == Strict {
		c.FsyncBeforeAck = true
		c.Describe = "sync always: an acknowledged event survives power loss"
		return c
	}
	c.Describe = "sync every second: power loss may take the last second"
	return c
}

// Healthy asks the store whether it works and reports appends that cannot get
// through.
func (e *Engine) Healthy(ctx context.Context) error {
	select {
	case <-e.closing:
		return engine.ErrClosed
	default:
	}
	if reason := e.shut.Load(); reason != nil {
		return fmt.Errorf("jetstream: the store cannot be written: %w", *reason)
	}
	for _, p := range e.parts {
		if reason := p.committer.trouble.Load(); reason != nil {
			return fmt.Errorf("jetstream: partition %d: %w", p.number, *reason)
		}
	}
	_, err := e.manage.AccountInfo(ctx)
	return wrap(err, "health")
}

// Stats are counters since Open.
func (e *Engine) Stats() engine.Stats {
	return engine.Stats{
		Appends:       e.stats.appends.Load(),
		Duplicates:    e.stats.duplicates.Load(),
		Flights:       e.stats.flights.Load(),
		BatchFlights:  e.stats.batchFlights.Load(),
		Failures:      e.stats.failures.Load(),
		QueueDepth:    int(e.stats.depth.Load()),
		ReadEntries:   e.stats.read.Load(),
		Cuts:          e.stats.cuts.Load(),
		TailCatchUps:  e.stats.catchUps.Load(),
		AckNanosTotal: e.stats.ackNanos.Load(),
		AckCount:      e.stats.acks.Load(),

		SignalsHeard:   e.ephemeral.heard.Load(),
		SignalsDropped: e.ephemeral.dropped(),
	}
}

// Close refuses new appends, stores the ones it has, stops the server and gives
// the directory back. When ctx ends first, what still waits is answered as
// unavailable; the directory is given back all the same. It may be called more
// than once.
func (e *Engine) Close(ctx context.Context) error {
	e.closeOnce.Do(func() {
		close(e.closing)
		e.ephemeral.close()
		for _, p := range e.parts {
			p.committer.close()
		}
		flushed := make(chan struct{})
		go func() {
			e.committed.Wait()
			for _, k := range e.kinds() {
				k.firsts.flush()
			}
			e.books.end()
			e.kept.Wait()
			close(flushed)
		}()
		go func() {
			select {
			case <-flushed:
			case <-ctx.Done():
				e.end()
				<-flushed
			}
			e.closeErr = e.release()
			close(e.closed)
		}()
	})
	<-e.closed
	return e.closeErr
}

// release undoes what Open has done, as far as it came.
func (e *Engine) release() error {
	e.end()
	e.healing.Wait()
	e.handing.Wait()
	for _, nc := range []*nats.Conn{e.events.tails, e.intake.tails, e.replays, e.signals} {
		if nc != nil {
			nc.Close()
		}
	}
	for _, k := range e.kinds() {
		k.publish.close()
	}
	if e.server != nil {
		e.server.stop()
	}
	if e.dir == nil {
		return nil
	}
	return e.dir.release()
}
