package hook

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

const (
	foldBatch  = 256     // entries in one transaction of the ledger
	foldBytes  = 4 << 20 // of bodies that are kept in memory until they are processed; others are read again
	foldRetry  = time.Second
	foldRest   = 10 * time.Second // between two times that the intake is read to its end, while much is received
	pruneEvery = 10 * time.Minute
)

// fold keeps the ledger as one partition of the intake is.
type fold struct {
	*Processor

	partition int
	identity  string

	mu    sync.Mutex // guards what follows
	queue []*carillon.Entry
	bytes int64 // of the queue, without bodies
	full  bool  // the queue is as long as it may be: the tail has to stop
	wake  chan struct{}
	stop  context.CancelFunc // ends the tail that is open
}

// run folds until ctx ends.
func (f *fold) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil { // it was full
			f.rest(ctx)
			continue
		}
		f.Logger.Warn("hook: the intake cannot be followed; trying again", "partition", f.partition, "err", err)
		select {
		case <-time.After(foldRetry):
		case <-ctx.Done():
		}
	}
}

// rest waits while much is received, foldRest at most, before the intake is read again
// to its end: an embedded server keeps the buffer of a block, 8 MB, that was read while
// it was written, and while much is received it writes several in a second.
func (f *fold) rest(ctx context.Context) {
	if f.Busy == nil {
		return
	}
	tick := time.NewTicker(governEvery)
	defer tick.Stop()
	for waited := time.Duration(0); f.Busy() && waited < foldRest; waited += governEvery {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// follow tails the partition from where the ledger stands. It returns nil when the
// queue was full and has been worked off.
func (f *fold) follow(ctx context.Context) error {
	from, err := f.begin(ctx)
	if err != nil {
		return err
	}
	tail, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.giveBack(f.queue) // what could not be folded comes again
	f.queue, f.bytes, f.full, f.stop = nil, 0, false, cancel
	f.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- f.Log.Tail(tail, f.partition, from, f.take) }()
	for {
		select {
		case <-f.wake:
			if err := f.work(ctx); err != nil {
				cancel()
				return errors.Join(err, unlessCanceled(<-ended))
			}
		case err := <-ended:
			return errors.Join(unlessCanceled(err), f.work(ctx))
		}
	}
}

// unlessCanceled is the error of a tail that has ended by itself.
func unlessCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// begin sees that the ledger is one of this log, and says where it stands.
func (f *fold) begin(ctx context.Context) (after uint64, err error) {
	state, err := f.Log.State(ctx, f.partition)
	if err != nil {
		return 0, err
	}
	identity, at, err := f.Ledger.Cursor(ctx, f.partition)
	if err != nil {
		return 0, err
	}
	same := identity == state.Identity && at.Seq <= state.Last.Seq
	if same && at.Check != 0 {
		check, found, err := f.Log.Check(ctx, f.partition, at.Seq)
		if err != nil {
			return 0, err
		}
		same = !found || check == at.Check
	}
	if !same {
		if identity != "" {
			f.Logger.Warn("hook: the intake is not the one the ledger was made from; it is made again", "partition", f.partition)
		}
		if err := f.Ledger.Reset(ctx, f.partition, state.Identity); err != nil {
			return 0, err
		}
		at = carillon.Position{}
	}
	f.identity = state.Identity
	f.goal.Store(state.Last.Seq)
	f.folded.Store(at.Seq)
	f.begun.Store(true)
	// What is folded now may have been processed long ago, as the ledger will say.
	f.fromLedger()
	return at.Seq, nil
}

// take is called by the tail. It does not wait.
func (f *fold) take(e *carillon.Entry) {
	if e.Type == intake.TypePart {
		e = withoutData(e)
	}
	f.mu.Lock()
	if f.full {
		f.mu.Unlock()
		return
	}
	f.bytes += facts(e)
	if e.Type == intake.TypeReceived && (f.behind.Load() || !f.bodies.take(int64(len(e.Data)))) {
		e = withoutData(e)
	}
	f.queue = append(f.queue, e)
	f.queued.Store(int64(len(f.queue)))
	if len(f.queue) >= f.Backlog || f.bytes >= f.BacklogBytes {
		f.full = true
		f.stop()
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// facts is about what an entry holds of memory, a body apart.
func facts(e *carillon.Entry) int64 {
	if e.Type == intake.TypeReceived {
		return int64(e.Size() - len(e.Data))
	}
	return int64(e.Size())
}

// withoutData is an entry whose body is read again where it is needed. Entries are
// shared: e stays as it is.
func withoutData(e *carillon.Entry) *carillon.Entry {
	short := *e
	short.Data = nil
	return &short
}

// work folds what is queued.
func (f *fold) work(ctx context.Context) error {
	for {
		f.turn()
		f.mu.Lock()
		n := min(len(f.queue), foldBatch)
		batch := f.queue[:n:n]
		f.queue = f.queue[n:]
		for _, e := range batch {
			f.bytes -= facts(e)
		}
		f.mu.Unlock()
		if n == 0 {
			return nil
		}
		verdicts, err := f.Ledger.Apply(ctx, f.partition, f.identity, batch)
		if err != nil {
			f.giveBack(batch)
			return fmt.Errorf("hook: ledger: %w", err)
		}
		for i, v := range verdicts {
			f.judge(ctx, batch[i], v)
		}
		f.folded.Store(batch[n-1].Pos.Seq)
		f.mu.Lock()
		f.queued.Store(int64(len(f.queue)))
		f.mu.Unlock()
	}
}

// judge hands on what is to be processed.
func (f *fold) judge(ctx context.Context, e *carillon.Entry, v ledger.Verdict) {
	if e.Type != intake.TypeReceived {
		f.folds(jobID{uint16(f.partition), v.Ref})
		e = nil
	}
	if v.Act == ledger.Process {
		if e != nil && e.Data == nil && v.Delivery.Size > 0 { // there was no room for it
			e = nil
		}
		f.add(v.Delivery, e)
		return
	}
	f.release(e)
	if v.Delivery != nil && v.Delivery.State == ledger.Duplicate {
		f.logDuplicate(ctx, v.Delivery)
	}
}

// giveBack releases what entries hold of the budget.
func (f *fold) giveBack(batch []*carillon.Entry) {
	for _, e := range batch {
		if e.Type == intake.TypeReceived {
			f.release(e)
		}
	}
}
