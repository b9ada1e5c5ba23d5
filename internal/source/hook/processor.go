package hook

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/limit"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

// schedule is how long a delivery waits after each attempt that failed; the last one
// again and again, where a source tries more often. A fifth is added or taken.
var schedule = [...]time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour}

// Processor makes events of deliveries: each once, in the order of its source's key
// where it has one, and again until it is a dead letter where it fails. Run it once.
type Processor struct {
	Config

	bodies budget        // of deliveries in memory
	begun  atomic.Bool   // goal is set
	goal   atomic.Uint64 // where the intake ended when it was looked at
	folded atomic.Uint64 // where the ledger stands
	queued atomic.Int64  // entries that wait for the ledger
	behind atomic.Bool   // new deliveries wait in the ledger: waits.any
	leader atomic.Bool   // this node processes

	reading reading
	buffers intake.Buffers
	notes   sync.WaitGroup // that are on their way
	results results
	full    limit.Hits

	mu      sync.Mutex // guards what follows
	jobs    map[jobID]*job
	noted   map[jobID]struct{} // what became of them is in the log, and not in the ledger yet
	lanes   map[lane][]*job    // the first is in hand or waits for its next attempt
	ready   queue
	waits   waits
	held    bool // receiving goes before
	wanting int  // jobs in hand that wait for their entries
	idle    *sync.Cond
	closed  bool

	refill chan struct{} // capacity 1: there may be room for those that wait in the ledger
}

// jobID is the place of a delivery.
type jobID struct {
	partition uint16
	seq       uint64
}

// lane is what is processed one after the other.
type lane struct {
	org    carillon.OrgID
	source string
	key    string
}

// job is a delivery to be processed.
type job struct {
	*ledger.Delivery

	id        jobID
	lane      lane
	entry     *carillon.Entry // as it came, where there was room to keep it; the worker's while it is in hand, unless it wants
	wants     bool            // the worker that has it waits for its entry
	since     time.Time       // it was received, or retried
	doubt     bool            // another process may have published it
	published *intake.Note    // by this one, whatever else is to be done
	timer     *time.Timer
	inHand    bool
}

// NewProcessor makes one. It panics if a required field is missing.
func NewProcessor(cfg Config) *Processor {
	cfg.defaults()
	p := &Processor{Config: cfg, jobs: map[jobID]*job{}, noted: map[jobID]struct{}{}, lanes: map[lane][]*job{}, results: newResults(), full: limit.Of("hook_deliveries_in_memory"), refill: make(chan struct{}, 1)}
	p.idle = sync.NewCond(&p.mu)
	p.bodies.left.Store(foldBytes)
	p.ready.init()
	return p
}

// Run processes until ctx ends, and returns when nothing of it runs any more. An
// attempt that is in hand then is finished first.
func (p *Processor) Run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range p.Log.IntakePartitions() {
		f := &fold{Processor: p, partition: p.Log.Partitions() + i, wake: make(chan struct{}, 1)}
		all.Go(func() { f.run(ctx) })
	}
	for range p.Workers {
		all.Go(func() { p.work(ctx) })
	}
	all.Go(func() { p.prune(ctx) })
	all.Go(func() { p.lead(ctx) })
	all.Go(func() { p.fill(ctx) })
	if p.Busy != nil {
		all.Go(func() { p.govern(ctx) })
	}
	<-ctx.Done()
	p.mu.Lock()
	p.closed = true
	for _, j := range p.jobs {
		if j.timer != nil {
			j.timer.Stop()
		}
	}
	p.idle.Broadcast()
	p.mu.Unlock()
	all.Wait()
	p.notes.Wait()
}

// prune forgets what is older than the ledger keeps, and what the intake has lost.
func (p *Processor) prune(ctx context.Context) {
	forget := func() error {
		_, err := p.Ledger.Prune(ctx, p.Now())
		for i := range p.Log.IntakePartitions() {
			state, e := p.Log.State(ctx, p.Log.Partitions()+i)
			if e == nil {
				_, e = p.Ledger.Forget(ctx, p.Log.Partitions()+i, state.First)
			}
			err = errors.Join(err, e)
		}
		return err
	}
	for {
		if err := forget(); err != nil && ctx.Err() == nil {
			p.Logger.Warn("hook: old deliveries could not be forgotten", "err", err)
		}
		select {
		case <-time.After(pruneEvery):
		case <-ctx.Done():
			return
		}
	}
}

// add takes a delivery that the ledger says is to be processed. e is its entry, whose
// body is taken from the budget, or nil.
func (p *Processor) add(d *ledger.Delivery, e *carillon.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if full := len(p.jobs) >= p.Waiting; full || p.waits.any || !p.leader.Load() {
		if full {
			p.full.Add("hook_deliveries_in_memory")
		}
		p.skip(d.Pos.Seq)
		p.release(e)
		return
	}
	p.put(d, e, false)
}

// release gives back what an entry holds of the budget.
func (p *Processor) release(e *carillon.Entry) {
	if e != nil {
		p.bodies.give(int64(len(e.Data)))
	}
}

// put makes a job of it, unless there is one. mu is held.
func (p *Processor) put(d *ledger.Delivery, e *carillon.Entry, doubt bool) {
	id := jobID{d.Pos.Partition, d.Pos.Seq}
	if _, done := p.noted[id]; done || p.jobs[id] != nil || p.closed {
		p.release(e)
		return
	}
	j := &job{Delivery: d, id: id, entry: e, doubt: doubt, since: d.Received, lane: lane{d.Org, d.Source, d.Order}}
	if d.Again > 0 {
		j.since = p.Now()
	}
	if d.Order == "" { // it waits for nobody
		j.lane.key = "\x00" + strconv.FormatUint(d.Pos.Seq, 10)
	}
	p.jobs[id] = j
	p.lanes[j.lane] = append(p.lanes[j.lane], j)
	if len(p.lanes[j.lane]) == 1 {
		p.start(j, d.Due)
	}
}

// start has a job done at the time. mu is held.
func (p *Processor) start(j *job, due time.Time) {
	wait := due.Sub(p.Now())
	if due.IsZero() || wait <= 0 {
		p.ready.push(j)
		p.idle.Signal()
		return
	}
	j.timer = time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		j.timer = nil
		if !p.closed && p.jobs[j.id] == j { // it may have been forgotten meanwhile
			p.ready.push(j)
			p.idle.Signal()
		}
	})
}

// work does jobs until ctx ends.
func (p *Processor) work(ctx context.Context) {
	for {
		p.mu.Lock()
		for !p.closed && (p.ready.empty() || p.held) {
			p.idle.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		j := p.ready.pop()
		j.inHand = true
		p.mu.Unlock()
		p.do(ctx, j)
	}
}

// do makes an attempt, which is finished although ctx ends, and notes what came of it.
func (p *Processor) do(ctx context.Context, j *job) {
	note, again := p.attempt(context.WithoutCancel(ctx), j)
	switch {
	case note == nil: // nothing is said about it: it is the log that is away
		p.later(j, again)
	case again > 0:
		p.note(ctx, j, intake.TypeFailed, note)
		p.later(j, again)
	case note.Error != "":
		p.note(ctx, j, intake.TypeDead, note)
	default:
		p.note(ctx, j, intake.TypeDone, note)
	}
}

// later has the job done again.
func (p *Processor) later(j *job, wait time.Duration) {
	p.drop(j)
	p.mu.Lock()
	defer p.mu.Unlock()
	j.inHand = false
	if !p.closed && p.jobs[j.id] == j {
		p.start(j, p.Now().Add(wait))
	}
}

// end is the end of a job: the next one of its lane begins.
func (p *Processor) end(j *job) {
	p.drop(j)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.jobs[j.id] != j {
		return // it was forgotten when another node took over
	}
	delete(p.jobs, j.id)
	rest := p.lanes[j.lane][1:]
	if len(rest) == 0 {
		delete(p.lanes, j.lane)
	} else {
		p.lanes[j.lane] = rest
		p.start(rest[0], rest[0].Due)
	}
	if p.waits.any && len(p.jobs) <= p.Waiting/2 {
		p.poke()
	}
}

// drop forgets what a job keeps in memory.
func (p *Processor) drop(j *job) {
	p.release(j.entry)
	j.entry = nil
}

// note appends what became of a delivery, and does not give up until ctx ends: what is
// not noted is looked for after a restart. It does not wait for it; when a note is
// stored after which nothing follows, the job ends.
func (p *Processor) note(ctx context.Context, j *job, t carillon.Type, n *intake.Note) {
	n.Ref = j.Pos.Seq
	n.Micros = p.Now().Sub(j.since).Microseconds()
	p.results.count(j, t, n)
	p.log(ctx, j, t, n)
	ev, err := n.Entry(t, p.Now(), j.Source)
	if err != nil {
		p.Logger.Error("hook: what became of a delivery cannot be noted", "org", j.Org, "source", j.Source, "err", err)
		if t != intake.TypeFailed {
			p.end(j)
		}
		return
	}
	key := "n\x00" + strconv.FormatUint(j.Pos.Seq, 10) + "\x00" + strconv.Itoa(j.Again) + "\x00" + strconv.Itoa(n.Attempts) + "\x00" + string(t)
	last := t != intake.TypeFailed
	if last {
		p.mu.Lock()
		p.noted[j.id] = struct{}{}
		p.mu.Unlock()
	}
	p.notes.Add(1)
	p.append(ctx, j.Org, engine.Append{Event: ev, Key: key}, noteRetry, func() {
		if last {
			p.end(j)
		}
		p.notes.Done()
	})
}

// noteRetry is the first pause after a note was not taken; the next ones are longer.
const noteRetry = 50 * time.Millisecond

// append appends a note until it is stored or ctx ends, and calls then.
func (p *Processor) append(ctx context.Context, org carillon.OrgID, a engine.Append, wait time.Duration, then func()) {
	p.Log.Intake(org).Append([]engine.Append{a}, func(_ []carillon.Receipt, err error) {
		if err == nil || ctx.Err() != nil {
			then()
			return
		}
		p.Logger.Warn("hook: what became of a delivery is not noted yet", "org", org, "source", a.Event.Source, "err", err)
		time.AfterFunc(wait, func() { p.append(ctx, org, a, min(2*wait, longestRetry), then) })
	})
}

const longestRetry = 5 * time.Second

// backoff is how long to wait after so many attempts.
func backoff(attempts int) time.Duration {
	d := schedule[min(max(attempts, 1), len(schedule))-1]
	return d - d/5 + rand.N(2*d/5+1)
}

// log writes the one line of a delivery.
func (p *Processor) log(ctx context.Context, j *job, t carillon.Type, n *intake.Note) {
	level, outcome := slog.LevelInfo, n.Outcome
	switch t {
	case intake.TypeFailed:
		level, outcome = slog.LevelWarn, "failed"
	case intake.TypeDead:
		level, outcome = slog.LevelError, "dead"
	}
	attrs := append(p.attrs(outcome, j.Delivery), slog.String("type", n.Type), slog.Int("attempts", n.Attempts),
		slog.Duration("took", time.Duration(n.Micros)*time.Microsecond))
	if n.Error != "" {
		attrs = append(attrs, slog.String("err", n.Error))
	}
	p.Logger.LogAttrs(ctx, level, "hook: processed", attrs...)
}

func (p *Processor) logDuplicate(ctx context.Context, d *ledger.Delivery) {
	p.results.duplicate()
	p.Logger.LogAttrs(ctx, slog.LevelInfo, "hook: processed", p.attrs("duplicate", d)...)
}

// attrs are what a line says of a delivery.
func (p *Processor) attrs(outcome string, d *ledger.Delivery) []slog.Attr {
	return []slog.Attr{
		slog.String("outcome", outcome), slog.String("org", string(d.Org)), slog.String("source", d.Source), slog.String("id", p.IDs.ID(d.Org, d.Pos)),
		slog.String("delivery", d.Delivery), slog.String("event", d.Event), slog.String("client", d.Remote), slog.Int64("bytes", d.Size),
	}
}
