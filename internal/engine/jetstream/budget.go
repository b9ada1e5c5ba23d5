package jetstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// The server limits an organization (a subject) by the entries of every
// organization alike, and not by bytes, so budgets are kept here. What an
// organization has stored is cut into spans of a twentieth of its budget; a record
// in the bucket keeps the newest, which is all that is needed to know where the
// budget ends. Entries that went for another reason stay in it until it looks over
// its budget: then they are looked for.
//
// A record is written once per span, and when the engine closes. What was stored
// after it by a process that was killed is read from the log, one span or less,
// when the organization appends again. Several nodes add their spans to the same
// record. An append that was answered as unavailable and stored all the same is
// not counted.
const budgetSpans = 20

// bookRetry is the pause after a record could not be written.
const bookRetry = time.Second

// span is a stretch of an organization's log: from the one before up to and
// including UpTo.
type span struct {
	UpTo   uint64 `json:"up_to"`
	Bytes  int64  `json:"bytes"`
	Events int64  `json:"events"`
}

// over reports whether it has more than a part of a budget.
func (s span) over(b engine.Budget, part int64) bool {
	return b.Bytes > 0 && s.Bytes > max(b.Bytes/part, 1) || b.Events > 0 && s.Events > max(b.Events/part, 1)
}

// full is over for one that has just as much.
func (s span) full(b engine.Budget) bool {
	s.Bytes++
	s.Events++
	return s.over(b, budgetSpans)
}

// with is s and another together.
func (s span) with(o span) span {
	return span{max(s.UpTo, o.UpTo), s.Bytes + o.Bytes, s.Events + o.Events}
}

// account is what is counted of one organization with a budget.
type account struct {
	kind *kind
	org  carillon.OrgID

	// Guarded by the mu of books.
	budget engine.Budget // zero: it had none when it was last counted
	first  uint64        // sequence of the first entry that was counted; 0: none yet
	fresh  []span        // not in the record yet
	due    bool
	caught bool // what this process has not counted is in the record
}

// books keeps organizations within their byte budgets.
type books struct {
	engine *Engine
	wake   chan struct{}

	mu    sync.Mutex // guards what follows
	open  map[*account]struct{}
	due   []*account
	close bool // when nothing is due, write what is open and end
}

func newBooks(e *Engine) *books {
	return &books{engine: e, wake: make(chan struct{}, 1), open: make(map[*account]struct{})}
}

// count notes that an entry was stored. It is called by the partition's committer.
func (b *books) count(a *account, seq uint64, bytes int64) {
	budget := a.kind.budget(a.org)
	if budget == (engine.Budget{}) && a.first == 0 { // only count changes first
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := a.budget != budget
	if a.budget = budget; budget == (engine.Budget{}) {
		// It has one no more. Should it get one again, what is not counted
		// meanwhile is read from the log.
		a.first, a.fresh, a.caught = 0, nil, false
		delete(b.open, a)
		return
	}
	begun := a.first != 0
	if !begun {
		a.first = seq
	}
	a.fresh = addSpan(a.fresh, budget, span{seq, bytes, 1})
	b.open[a] = struct{}{}
	if !a.due && (!begun || changed || len(a.fresh) > 1 || a.fresh[0].full(budget)) {
		a.due = true
		b.due = append(b.due, a)
		b.poke()
	}
}

// addSpan adds an entry to the last span, or begins one when that is full.
func addSpan(spans []span, budget engine.Budget, entry span) []span {
	if n := len(spans); n > 0 && !spans[n-1].full(budget) {
		spans[n-1] = spans[n-1].with(entry)
		return spans
	}
	return append(spans, entry)
}

func (b *books) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// end makes run write what is open and return.
func (b *books) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.close = true
	b.poke()
}

// run is the keeper: it writes records and cuts back who is over its budget,
// one organization at a time. It ends after end, or with ctx.
func (b *books) run(ctx context.Context) {
	for ctx.Err() == nil {
		a, closing := b.next()
		if a == nil {
			if closing {
				return
			}
			select {
			case <-b.wake:
			case <-ctx.Done():
			}
			continue
		}
		err := b.settle(ctx, a, closing)
		if err == nil || closing {
			continue
		}
		b.engine.config.Logger.Warn("jetstream: an organization's byte budget was not looked after; trying again", "org", a.org, "err", err)
		b.again(a)
		select {
		case <-time.After(bookRetry):
		case <-ctx.Done():
		}
	}
}

// next takes an account that is due; when the books close, one that is open.
func (b *books) next() (a *account, closing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.close && len(b.due) > 0 {
		a = b.due[0]
		b.due = b.due[1:]
		a.due = false
		return a, false
	}
	if b.close {
		for a := range b.open {
			delete(b.open, a)
			return a, true
		}
	}
	return nil, b.close
}

func (b *books) again(a *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !a.due {
		a.due = true
		b.due = append(b.due, a)
	}
}

// settle brings an organization's record up to date, and the organization back
// to its budget unless the engine closes.
func (b *books) settle(ctx context.Context, a *account, closing bool) error {
	e := b.engine
	b.mu.Lock()
	fresh, first, caught, budget := slices.Clone(a.fresh), a.first, a.caught, a.budget
	b.mu.Unlock()
	switch {
	case first == 0:
		return nil // it has no budget any more
	case closing && !caught:
		return nil // the next process will read it
	}
	key := a.kind.key(recordBytes, a.org)
	for {
		spans, revision, err := e.readBook(ctx, key)
		if err != nil {
			return err
		}
		if !caught {
			if spans, err = b.catchUp(ctx, a.kind.log(a.org), budget, spans, first-1); err != nil {
				return err
			}
		}
		spans = append(spans, fresh...)
		slices.SortStableFunc(spans, func(x, y span) int { return cmp.Compare(x.UpTo, y.UpTo) })
		if !closing {
			if spans, err = b.cut(ctx, a.kind.log(a.org), budget, spans); err != nil {
				return err
			}
		}
		done, err := e.writeBook(ctx, key, spans, revision)
		if err != nil {
			return err
		}
		if done {
			break
		}
		// Another node has written it meanwhile.
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.first != first {
		return nil // its budget was taken away meanwhile
	}
	a.caught = true
	a.fresh = takeSpans(a.fresh, fresh)
	if len(a.fresh) == 0 {
		delete(b.open, a)
	}
	return nil
}

// takeSpans removes from spans what was in it when taken was its copy: the last
// of those may have grown since.
func takeSpans(spans, taken []span) []span {
	n := len(taken)
	if n == 0 {
		return spans
	}
	spans[n-1].Bytes -= taken[n-1].Bytes
	if spans[n-1].Events -= taken[n-1].Events; spans[n-1].Events > 0 {
		n--
	}
	return append([]span(nil), spans[n:]...)
}

// catchUp adds what the log has of the organization after the record's end and
// up to last.
func (b *books) catchUp(ctx context.Context, log *log, budget engine.Budget, spans []span, last uint64) ([]span, error) {
	var after uint64
	if n := len(spans); n > 0 {
		after = spans[n-1].UpTo
	}
	for after < last {
		end, err := log.Read(ctx, engine.Range{After: after, UpTo: last}, func(e *carillon.Entry) error {
			spans = addSpan(spans, budget, span{e.Pos.Seq, engine.StoredSize(&e.Event), 1})
			return nil
		})
		if err != nil {
			return nil, err
		}
		if !end.More {
			break
		}
		after = end.Seen
	}
	return spans, nil
}

// cut takes away the oldest entries of an organization that is a twentieth over
// its budget, span by span, until the rest fits. It is late by a span at most,
// so an organization never has more than a tenth too much for long.
func (b *books) cut(ctx context.Context, log *log, budget engine.Budget, spans []span) ([]span, error) {
	var total span
	for _, s := range spans {
		total = total.with(s)
	}
	slack := engine.Budget{Bytes: budget.Bytes + budget.Bytes/budgetSpans, Events: budget.Events + budget.Events/budgetSpans}
	if !total.over(slack, 1) {
		return spans, nil
	}
	oldest, _, err := log.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	var upTo uint64
	for len(spans) > 1 && (spans[0].UpTo < oldest.Seq || total.over(budget, 1)) {
		total.Bytes -= spans[0].Bytes
		total.Events -= spans[0].Events
		upTo = spans[0].UpTo
		spans = spans[1:]
	}
	if oldest.Seq == 0 || upTo < oldest.Seq {
		return spans, nil
	}
	if err := log.Purge(ctx, upTo); err != nil {
		return nil, err
	}
	b.engine.stats.cuts.Add(1)
	return spans, nil
}

func (e *Engine) readBook(ctx context.Context, key string) (spans []span, revision uint64, err error) {
	record, err := e.ours.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err == nil {
		err = json.Unmarshal(record.Value(), &spans)
	}
	if err != nil {
		return nil, 0, wrap(err, "read the bytes of an organization")
	}
	return spans, record.Revision(), nil
}

// writeBook writes a record unless it has changed since revision.
func (e *Engine) writeBook(ctx context.Context, key string, spans []span, revision uint64) (done bool, err error) {
	value, err := json.Marshal(spans)
	if err != nil {
		return false, err
	}
	if revision == 0 {
		_, err = e.ours.Create(ctx, key, value)
	} else {
		_, err = e.ours.Update(ctx, key, value, revision)
	}
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return false, nil
	}
	return err == nil, wrap(err, "write the bytes of an organization")
}
