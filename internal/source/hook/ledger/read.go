package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/carillon-rt/carillon"
)

// MaxPage is the most deliveries that one call gives.
const MaxPage = 500

// Known reports whether a delivery that is received now would be a duplicate, and
// of which: for who answers its sender. What the fold says later is what counts.
func (l *Ledger) Known(ctx context.Context, org carillon.OrgID, source, delivery, digest string, now time.Time) (pos carillon.Position, ok bool, err error) {
	args := []any{seenKey(org, source, delivery, digest), since(now.UnixMilli(), l.known)}
	var found repeated
	err = l.use(ctx, func(db *database) error {
		if db.read != nil {
			return found.scan(db.seen.QueryRowContext(ctx, args...).Scan(found.into()...))
		}
		if err := db.take(ctx); err != nil {
			return err
		}
		defer db.give()
		return found.scan(db.w.row(ctx, sqlSeen, args, found.into()...))
	})
	if err != nil {
		return carillon.Position{}, false, err
	}
	place, check, ok := found.judge()
	if !ok {
		return carillon.Position{}, false, nil
	}
	return position(place, check), true, nil
}

func position(place int64, check uint32) carillon.Position {
	return carillon.Position{Partition: uint16(place >> 47), Seq: seqOf(place), Check: check}
}

// Waiting lists the pending deliveries of a partition, of all organizations, with
// a sequence above after, in order. limit is at most MaxPage; 0 is as many.
func (l *Ledger) Waiting(ctx context.Context, partition int, after uint64, limit int) (page []Delivery, err error) {
	if err := checkPartition(partition); err != nil {
		return nil, err
	}
	if after >= maxSeq {
		return nil, nil
	}
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	_, last := bounds(partition)
	err = l.view(ctx, func(q querier) error {
		page, err = collect(q.QueryContext(ctx, `SELECT `+columns+` FROM delivery INDEXED BY delivery_waiting
			WHERE state = 0 AND place > ? AND place <= ? ORDER BY place LIMIT ?`, placeOf(partition, after), last, limit))
		return err
	})
	return page, err
}

// collect reads deliveries.
func collect(rows *sql.Rows, err error) ([]Delivery, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err has said it
	var page []Delivery
	for rows.Next() {
		var r row
		if err := rows.Scan(r.scan()...); err != nil {
			return nil, err
		}
		page = append(page, r.delivery())
	}
	return page, rows.Err()
}

// Get reads the organization's delivery at a place, and what was noted about it,
// oldest first: the last MaxAttempts. A check of 0 in pos stands for any. It is
// ErrNotFound where there is none.
func (l *Ledger) Get(ctx context.Context, org carillon.OrgID, pos carillon.Position) (d Delivery, attempts []Attempt, err error) {
	if pos.Seq == 0 || pos.Seq > maxSeq {
		return Delivery{}, nil, fmt.Errorf("ledger: %w", ErrNotFound)
	}
	place := placeOf(int(pos.Partition), pos.Seq)
	err = l.view(ctx, func(q querier) error {
		var r row
		err := q.QueryRowContext(ctx, `SELECT `+columns+` FROM delivery WHERE place = ? AND org = ?`, place, string(org)).Scan(r.scan()...)
		if errors.Is(err, sql.ErrNoRows) || err == nil && pos.Check != 0 && pos.Check != r.Pos.Check {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		d = r.delivery()
		attempts, err = attemptsOf(ctx, q, place)
		return err
	})
	if err != nil {
		return Delivery{}, nil, err
	}
	return d, attempts, nil
}

func attemptsOf(ctx context.Context, q querier, place int64) (all []Attempt, err error) {
	rows, err := q.QueryContext(ctx, `SELECT seq, at, kind, outcome, attempts, micros, retry, error, text, by
		FROM attempt WHERE place = ? ORDER BY seq`, place)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err has said it
	for rows.Next() {
		var a Attempt
		var at, micros, retry int64
		if err := rows.Scan(&a.Seq, &at, &a.Kind, &a.Outcome, &a.Attempts, &micros, &retry, &a.Error, &a.Text, &a.By); err != nil {
			return nil, err
		}
		a.At = time.UnixMilli(at).UTC()
		a.Took, a.Retry = time.Duration(micros)*time.Microsecond, time.Duration(retry)*time.Millisecond
		all = append(all, a)
	}
	return all, rows.Err()
}

// ByDelivery reads the organization's newest delivery with the provider's id. One
// that was refused, to which anybody can have given that id, is only given where
// there is no other. It is ErrNotFound where there is none.
func (l *Ledger) ByDelivery(ctx context.Context, org carillon.OrgID, id string) (Delivery, error) {
	id = clip(id, maxName)
	var best *Delivery
	err := l.view(ctx, func(q querier) error {
		s, err := q.PrepareContext(ctx, `SELECT `+columns+` FROM delivery INDEXED BY delivery_delivery
			WHERE org = ? AND delivery = ? AND state = ? ORDER BY received DESC, place DESC LIMIT 1`)
		if err != nil {
			return err
		}
		defer s.Close() //nolint:errcheck // it was only read
		for state := range State(len(states)) {
			if state == Refused && best != nil {
				break
			}
			found, err := collect(s.QueryContext(ctx, string(org), id, int64(state)))
			if err != nil {
				return err
			}
			if len(found) == 1 && (best == nil || found[0].newer(best)) {
				best = &found[0]
			}
		}
		if best == nil {
			return ErrNotFound
		}
		return nil
	})
	if err != nil {
		return Delivery{}, err
	}
	return *best, nil
}

// newer reports whether d comes before o where the newest come first.
func (d *Delivery) newer(o *Delivery) bool {
	if !d.Received.Equal(o.Received) {
		return d.Received.After(o.Received)
	}
	return placeOf(int(d.Pos.Partition), d.Pos.Seq) > placeOf(int(o.Pos.Partition), o.Pos.Seq)
}
