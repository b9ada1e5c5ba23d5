// Package jetstream is the durable engine: NATS JetStream, embedded in this
// process, or a server or cluster of others.
//
// Every partition is one stream, every organization one literal subject of it;
// an event's type and the rest of its envelope are headers, its data is the
// body. Appends are committed in groups: one flight at a time per partition,
// plain publishes while those are cheaper and one atomic batch otherwise, so
// that many events share a flush of the disk.
//
// The server behind it does not guard its directory. This package does: a lock
// against a second process, and a marker of the mode the store was made in.
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
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
	budget  int64
	parts   []*partition
	kv      *kv
	ours    jetstream.KeyValue // the bucket behind kv
	manage  jetstream.JetStream
	firsts  *firsts
	books   *books
	readers readerPool

	signals *nats.Conn // KV, settings, the state of streams; ephemeral events
	tails   *nats.Conn
	replays *nats.Conn
	publish publishLink

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
	appends, duplicates, flights, batchFlights, failures, read, cuts, ackNanos, acks atomic.Uint64
	depth                                                                            atomic.Int64
}

// partition is what the engine knows of one stream.
type partition struct {
	number    int
	stream    string
	committer *committer
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

// Keys of the bucket.
const (
	keyPartitions = "log.partitions"
	keyFirst      = "log.first."  // + org: sequence of its first ever entry
	keyPurged     = "log.purged." // + org: up to where it was purged
	keyBytes      = "log.bytes."  // + org: the sizes of its newest entries
)

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
	if e.tails, err = dial("tail"); err != nil {
		return err
	}
	if e.replays, err = dial("replay"); err != nil {
		return err
	}
	e.publish.dial = dial
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
	if e.firsts, err = e.loadFirsts(ctx); err != nil {
		return err
	}
	if e.budget, err = e.allot(); err != nil {
		return err
	}
	for i := range e.config.Partitions {
		p := &partition{number: i, stream: e.streamOf(i)}
		if err := e.adoptStream(ctx, p); err != nil {
			return err
		}
		p.committer = newCommitter(e, p)
		e.parts = append(e.parts, p)
		if err := e.led(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) streamOf(partition int) string {
	return e.config.streamPrefix() + "_EV_" + strconv.Itoa(partition)
}

// led waits until a partition has a leader, which answers: in a cluster that has
// just started that takes some seconds.
func (e *Engine) led(ctx context.Context, p *partition) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		_, err := e.state(ctx, p)
		if err == nil || e.config.NATS == nil {
			return err
		}
		select {
		case <-time.After(retryWait):
		case <-ctx.Done():
			return err
		}
	}
}

// allot decides how many bytes all partitions may use.
func (e *Engine) allot() (int64, error) {
	if e.dir != nil {
		return e.dir.budget(e.config.MaxBytes, e.config.Partitions)
	}
	if asked := e.config.MaxBytes; asked != 0 {
		return asked, nil
	}
	return DefaultMaxBytes, nil
}

// countPartitions makes the number of partitions the store's.
func (e *Engine) countPartitions(ctx context.Context) error {
	stored, _, err := e.kv.Get(ctx, keyPartitions)
	if errors.Is(err, engine.ErrNoKey) {
		setDefault(&e.config.Partitions, DefaultPartitions)
		stored = []byte(strconv.Itoa(e.config.Partitions))
		if _, err = e.kv.Create(ctx, keyPartitions, stored); errors.Is(err, engine.ErrKeyExists) { // another node was first
			stored, _, err = e.kv.Get(ctx, keyPartitions)
		}
	}
	if err != nil {
		return fmt.Errorf("jetstream: number of partitions: %w", err)
	}
	n, err := strconv.Atoi(string(stored))
	if err != nil || n < 1 {
		return fmt.Errorf("jetstream: the store says it has %q partitions", stored)
	}
	if asked := e.config.Partitions; asked != 0 && asked != n {
		return fmt.Errorf("jetstream: %s was made with %d partitions and cannot change to %d: "+
			"positions name them; export it and import it into a new store", e.config.place(), n, asked)
	}
	e.config.Partitions = n
	return nil
}

func (e *Engine) streamConfig(p *partition) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               p.stream,
		Subjects:           []string{e.config.Prefix + "." + eventBranch(p.number) + ".*"},
		Retention:          jetstream.LimitsPolicy,
		Storage:            jetstream.FileStorage,
		Replicas:           e.config.replicas(),
		Discard:            jetstream.DiscardOld,
		MaxAge:             e.config.Retention,
		MaxMsgsPerSubject:  e.config.MaxPerOrg,
		MaxBytes:           e.budget / int64(e.config.Partitions),
		MaxMsgSize:         maxMessage,
		MaxConsumers:       1000, // explicit: the server lets nothing else lift its own limit
		Duplicates:         e.config.DedupeWindow,
		AllowDirect:        true,
		AllowAtomicPublish: true,
	}
}

// adoptStream makes the partition's stream, or changes an existing one only
// where it really differs: an update is not free of side effects.
func (e *Engine) adoptStream(ctx context.Context, p *partition) error {
	want := e.streamConfig(p)
	stream, err := e.manage.Stream(ctx, p.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = e.manage.CreateStream(ctx, want)
		return wrap(err, "make stream "+p.stream)
	}
	if err != nil {
		return wrap(err, "open stream "+p.stream)
	}
	have := stream.CachedInfo().Config
	if e.config.MaxBytes == 0 { // a default budget follows the disk downwards only
		want.MaxBytes = min(want.MaxBytes, have.MaxBytes)
	}
	same := have.Replicas == want.Replicas && have.MaxAge == want.MaxAge && have.MaxMsgsPerSubject == want.MaxMsgsPerSubject &&
		have.MaxBytes == want.MaxBytes && have.MaxMsgSize == want.MaxMsgSize && have.Duplicates == want.Duplicates &&
		have.AllowDirect && have.AllowAtomicPublish && !have.AllowRollup && have.Discard == want.Discard && have.MaxConsumers == want.MaxConsumers
	if same {
		return nil
	}
	have.MaxAge, have.MaxMsgsPerSubject, have.MaxBytes = want.MaxAge, want.MaxMsgsPerSubject, want.MaxBytes
	have.MaxMsgSize, have.Duplicates, have.Discard, have.MaxConsumers = want.MaxMsgSize, want.Duplicates, want.Discard, want.MaxConsumers
	have.AllowDirect, have.AllowAtomicPublish, have.Replicas = true, true, want.Replicas
	have.AllowRollup = false // probe relies on it
	_, err = e.manage.UpdateStream(ctx, have)
	return wrap(err, "change stream "+p.stream)
}

func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("jetstream: %s: %w", doing, err)
}

// Partitions is the number of partitions of the store.
func (e *Engine) Partitions() int { return e.config.Partitions }

// Open returns the log of one organization.
func (e *Engine) Open(org carillon.OrgID) engine.Log { return e.logOf(org) }

func (e *Engine) logOf(org carillon.OrgID) *log {
	p := e.parts[xxhash.Sum64String(string(org))%uint64(len(e.parts))]
	return &log{engine: e, part: p, org: p.committer.org(org)}
}

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
	c := engine.Caps{Durable: true, DedupeWindow: e.config.DedupeWindow, Retention: e.config.Retention}
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
			e.firsts.flush()
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
	for _, nc := range []*nats.Conn{e.tails, e.replays, e.signals} {
		if nc != nil {
			nc.Close()
		}
	}
	e.publish.close()
	if e.server != nil {
		e.server.stop()
	}
	if e.dir == nil {
		return nil
	}
	return e.dir.release()
}

// publishLink is the connection appends go through. It does not come back by
// itself: on one that does, an event can be lost with the old socket while a
// later one is stored through the new one.
type publishLink struct {
	dial  dialer
	mu    sync.Mutex
	conn  *nats.Conn
	gone  chan struct{} // closed when conn is
	ended bool
}

// get returns the connection that works, or makes one.
func (l *publishLink) get() (*nats.Conn, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, nil, engine.ErrClosed
	}
	if l.conn != nil && !l.conn.IsClosed() {
		return l.conn, l.gone, nil
	}
	gone := make(chan struct{})
	conn, err := l.dial("publish", nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(gone) }))
	if err != nil {
		return nil, nil, err
	}
	l.conn, l.gone = conn, gone
	return conn, gone, nil
}

func (l *publishLink) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.conn != nil {
		l.conn.Close()
	}
}

// firsts remembers which organizations ever had an entry, so that one that lost
// none is not told it did. Records are written in the background: until one is
// there the log itself shows that the organization is known.
//
// Where several nodes share a log, another one's entry may have come first. Then
// the writer looks which is the first, and what this process does not know is
// looked up.
type firsts struct {
	engine *Engine
	shared bool

	mu      sync.Mutex
	known   map[carillon.OrgID]uint64
	waiting []firstEntry
	writing chan struct{} // closed when the running writer ends; nil: none runs
}

// undecided is what is known of an organization while its record is on its way.
const undecided = math.MaxUint64

type firstEntry struct {
	org carillon.OrgID
	seq uint64
}

func (e *Engine) loadFirsts(ctx context.Context) (*firsts, error) {
	f := &firsts{engine: e, shared: e.config.NATS != nil, known: make(map[carillon.OrgID]uint64)}
	watch, err := e.ours.Watch(ctx, keyFirst+">", jetstream.IgnoreDeletes())
	if err != nil {
		return nil, wrap(err, "read the organizations")
	}
	defer func() { _ = watch.Stop() }()
	for {
		select {
		case record := <-watch.Updates():
			if record == nil {
				return f, nil
			}
			seq, _ := strconv.ParseUint(string(record.Value()), 10, 64)
			f.known[carillon.OrgID(strings.TrimPrefix(record.Key(), keyFirst))] = seq
		case <-ctx.Done():
			return nil, wrap(ctx.Err(), "read the organizations")
		}
	}
}

// get returns the sequence of the organization's first ever entry as far as this
// process knows it; 0 when it knows only that there was one, undecided when it
// will know soon.
func (f *firsts) get(org carillon.OrgID) (seq uint64, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	seq, known = f.known[org]
	return seq, known
}

// find is get, and waits for or looks up what this process does not know.
func (f *firsts) find(ctx context.Context, org carillon.OrgID) (seq uint64, known bool, err error) {
	for {
		f.mu.Lock()
		seq, known = f.known[org]
		writing := f.writing
		f.mu.Unlock()
		if seq != undecided {
			break
		}
		select {
		case <-writing:
		case <-ctx.Done():
			return 0, true, ctx.Err()
		}
	}
	if known || !f.shared {
		return seq, known, nil
	}
	record, _, err := f.engine.kv.Get(ctx, keyFirst+string(org))
	if errors.Is(err, engine.ErrNoKey) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	seq, err = strconv.ParseUint(string(record), 10, 64)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[org] = seq
	return seq, true, err
}

// put remembers the first entry that this process has stored of an organization
// that had none, and writes the record soon.
func (f *firsts) put(org carillon.OrgID, seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.known[org]; known {
		return
	}
	f.known[org] = seq
	if f.shared {
		f.known[org] = undecided
	}
	f.waiting = append(f.waiting, firstEntry{org, seq})
	if f.writing == nil {
		f.writing = make(chan struct{})
		go f.write(f.writing)
	}
}

// recordTimeout bounds the writing of one record.
const recordTimeout = 10 * time.Second

func (f *firsts) write(done chan struct{}) {
	defer close(done)
	for {
		f.mu.Lock()
		if len(f.waiting) == 0 {
			f.waiting, f.writing = nil, nil
			f.mu.Unlock()
			return
		}
		entry := f.waiting[0]
		f.waiting = f.waiting[1:]
		f.mu.Unlock()
		if err := f.record(entry); err != nil {
			f.mu.Lock()
			if f.known[entry.org] == undecided {
				f.known[entry.org] = 0
			}
			f.mu.Unlock()
			f.engine.config.Logger.Warn("jetstream: the record of an organization's first entry was not written", "org", entry.org, "err", err)
		}
	}
}

func (f *firsts) record(entry firstEntry) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout) //nolint:forbidigo // it outlives every append
	defer cancel()
	key := keyFirst + string(entry.org)
	if !f.shared {
		return f.engine.kv.Put(ctx, key, strconv.AppendUint(nil, entry.seq, 10))
	}
	l := f.engine.logOf(entry.org)
	oldest, err := f.engine.get(ctx, l.part, getRequest{Seq: 1, NextFor: l.org.subject}, true)
	if err != nil {
		return err
	}
	seq := oldest.seq
	if seq > entry.seq { // it is gone already: nobody can say which was the first
		seq = 0
	}
	_, err = f.engine.kv.Create(ctx, key, strconv.AppendUint(nil, seq, 10))
	if errors.Is(err, engine.ErrKeyExists) {
		f.mu.Lock()
		delete(f.known, entry.org)
		f.mu.Unlock()
		_, _, err = f.find(ctx, entry.org)
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[entry.org] = seq
	return err
}

// flush waits until every record is written.
func (f *firsts) flush() {
	f.mu.Lock()
	writing := f.writing
	f.mu.Unlock()
	if writing != nil {
		<-writing
	}
}
