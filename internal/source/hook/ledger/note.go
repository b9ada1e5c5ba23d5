package ledger

import (
	"database/sql"
	"errors"
	"math"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
)

// note folds an entry about a delivery.
func (f *fold) note(e *carillon.Entry) (Verdict, error) {
	n, err := intake.ParseNote(&e.Event)
	if err != nil {
		f.malformed++
		return Verdict{}, nil //nolint:nilerr // the log cannot be changed, and goes on
	}
	if n.Ref == 0 || n.Ref >= e.Pos.Seq {
		f.ignored++
		return Verdict{}, nil
	}
	var r row
	err = f.w.row(f.ctx, sqlRow, []any{placeOf(f.partition, n.Ref)}, append(r.scan(), &r.notes)...)
	if errors.Is(err, sql.ErrNoRows) || err == nil && r.Org != e.Org {
		f.ignored++
		return Verdict{}, nil
	}
	if err != nil {
		return Verdict{}, err
	}
	before := r.State
	after, fits := next(before, e.Type, n.Outcome)
	if !fits {
		f.ignored++
		d := r.delivery()
		return Verdict{Ref: n.Ref, Delivery: &d}, nil
	}
	r.State = after
	r.take(e, n)
	if before != after {
		f.counts[countKey{r.Org, r.Source, before}]--
		f.counts[countKey{r.Org, r.Source, after}]++
	}
	if err := f.keep(e, n, &r); err != nil {
		return Verdict{}, err
	}
	v := Verdict{Ref: n.Ref}
	if e.Type == intake.TypeRetry {
		v.Act = Process
	}
	d := r.delivery()
	v.Delivery = &d
	return v, nil
}

// next is the state of a delivery after a note, if the note fits.
func next(now State, note carillon.Type, outcome string) (State, bool) {
	if now == Refused || now == Duplicate && note != intake.TypeRetry {
		return now, false
	}
	switch note {
	case intake.TypeDone:
		switch outcome {
		case intake.Published:
			return Published, true
		case intake.Filtered:
			return Filtered, true
		case intake.Ran:
			return Ran, true
		}
		return now, false
	case intake.TypeFailed:
		return now, now == Pending
	case intake.TypeDead:
		return Dead, now == Pending
	case intake.TypeRetry:
		return Pending, true
	case intake.TypeDiscarded:
		return Discarded, now == Pending || now == Dead
	}
	return now, false
}

// take takes over what a note says that fits.
func (r *row) take(e *carillon.Entry, n *intake.Note) {
	d := &r.Delivery
	r.due = 0
	switch e.Type {
	case intake.TypeRetry:
		d.Attempts, d.Error, r.micros = 0, "", 0
		d.Again++
		return
	case intake.TypeDiscarded:
		return
	}
	attempts := bounded(int64(n.Attempts))
	d.Total += max(attempts-d.Attempts, 0)
	d.Attempts = attempts
	r.micros = micros(n)
	d.Error = clip(n.Error, maxText)
	switch e.Type {
	case intake.TypeFailed:
		r.due = millis(e) + retryMS(n)
	case intake.TypeDone:
		d.Error, d.Text = "", clip(n.Text, maxText)
		d.Type, d.Published, r.pubSeq = "", carillon.Position{}, 0
		if n.Outcome == intake.Published {
			d.Type = carillon.Type(clip(n.Type, maxName))
			if n.Event != nil {
				d.Published, r.pubSeq = *n.Event, int64(n.Event.Seq)
			}
		}
	}
}

// keep writes the row, and the note beside it.
func (f *fold) keep(e *carillon.Entry, n *intake.Note, r *row) error {
	d := &r.Delivery
	r.notes++
	err := f.w.exec(f.ctx, sqlUpdate, int64(d.State), d.Attempts, d.Total, r.micros, r.due, d.Error, d.Text, string(d.Type),
		int64(d.Published.Partition), r.pubSeq, int64(d.Published.Check), d.Again, r.notes, r.place)
	if err != nil {
		return err
	}
	err = f.w.exec(f.ctx, sqlNote, r.place, int64(e.Pos.Seq), millis(e), string(e.Type), clip(n.Outcome, maxName), bounded(int64(n.Attempts)),
		micros(n), retryMS(n), clip(n.Error, maxText), clip(n.Text, maxText), clip(n.By, maxName))
	if err != nil || r.notes <= MaxAttempts {
		return err
	}
	return f.w.exec(f.ctx, sqlShorten, r.place, MaxAttempts)
}

// bounded makes a number that a note says one whose sums do not overflow.
func bounded(n int64) int { return int(min(max(n, 0), math.MaxInt32)) }

// micros is how long a note says that it took, in microseconds.
func micros(n *intake.Note) int64 {
	return min(max(n.Micros, 0), math.MaxInt64/int64(time.Microsecond))
}

// retryMS is how long it is until the next attempt, in milliseconds.
func retryMS(n *intake.Note) int64 {
	return min(max(n.RetryMS, 0), (10 * 365 * 24 * time.Hour).Milliseconds())
}
