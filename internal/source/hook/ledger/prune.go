package ledger

import (
	"context"
	"math"
	"time"
)

// pruneStep is how many rows one transaction deletes, so that nobody waits long.
const pruneStep = 500

// Prune deletes the rows that were received longer than Config.Keep before now,
// in small steps between which others have their turn, and says how many.
func (l *Ledger) Prune(ctx context.Context, now time.Time) (n int, err error) {
	return l.remove(ctx, `DELETE FROM delivery WHERE place IN
		(SELECT place FROM delivery INDEXED BY delivery_received WHERE received < ? ORDER BY received LIMIT ?)
		RETURNING place, org, source, state`, since(now.UnixMilli(), l.keep))
}

// Forget deletes the rows of a partition that lie below a sequence: those that the
// log has dropped, which cannot be shown or processed any more. It goes in small
// steps, as Prune does.
func (l *Ledger) Forget(ctx context.Context, partition int, below uint64) (n int, err error) {
	if err := checkPartition(partition); err != nil {
		return 0, err
	}
	first, _ := bounds(partition)
	return l.remove(ctx, `DELETE FROM delivery WHERE place IN
		(SELECT place FROM delivery WHERE place >= ? AND place < ? ORDER BY place LIMIT ?)
		RETURNING place, org, source, state`, first, placeOf(partition, min(below, maxSeq)))
}

// remove repeats a statement that deletes some rows, its last argument, until
// there are no more.
func (l *Ledger) remove(ctx context.Context, query string, args ...any) (n int, err error) {
	args = append(args, pruneStep)
	for {
		var gone int
		err := l.change(ctx, func(w *writer) (err error) {
			gone, err = w.remove(ctx, query, args)
			return err
		})
		if err != nil {
			return n, err
		}
		n += gone
		l.count.pruned.Add(uint64(gone))
		if gone < pruneStep {
			return n, nil
		}
	}
}

func (w *writer) remove(ctx context.Context, query string, args []any) (int, error) {
	s, err := w.prepare(ctx, query)
	if err != nil {
		return 0, err
	}
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	defer rows.Close() //nolint:errcheck // Err has said it
	counts := map[countKey]int64{}
	var places []int64
	for rows.Next() {
		var place int64
		var key countKey
		if err := rows.Scan(&place, &key.org, &key.source, &key.state); err != nil {
			return 0, err
		}
		places = append(places, place)
		counts[key]--
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	for _, place := range places {
		if err := w.exec(ctx, `DELETE FROM attempt WHERE place = ?`, place); err != nil {
			return 0, err
		}
	}
	if err := w.count(ctx, counts); err != nil || len(places) == 0 {
		return 0, err
	}
	return len(places), w.exec(ctx, `DELETE FROM counter WHERE n = 0`)
}

// Reset forgets all of a partition, and puts the cursor before the first entry of
// a log with another identity.
func (l *Ledger) Reset(ctx context.Context, partition int, identity string) error {
	if err := checkPartition(partition); err != nil {
		return err
	}
	var alone bool
	err := l.change(ctx, func(w *writer) error {
		var others int
		if err := w.row(ctx, `SELECT count(*) FROM cursor WHERE partition <> ?`, []any{partition}, &others); err != nil {
			return err
		}
		if alone = others == 0; !alone {
			// Should this be broken off, nothing is applied to the half that is left.
			return w.exec(ctx, sqlMove, partition, "", 0, 0)
		}
		// Without a condition this deletes no rows one by one, but all of them.
		for _, table := range [...]string{"attempt", "delivery", "counter"} {
			if err := w.exec(ctx, `DELETE FROM `+table); err != nil {
				return err
			}
		}
		return w.exec(ctx, sqlMove, partition, identity, 0, 0)
	})
	if err != nil || alone {
		return err
	}
	if _, err := l.Forget(ctx, partition, math.MaxUint64); err != nil {
		return err
	}
	return l.change(ctx, func(w *writer) error { return w.exec(ctx, sqlMove, partition, identity, 0, 0) })
}
