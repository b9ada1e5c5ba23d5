package ledger

import (
	"context"

	"github.com/carillon-rt/carillon"
)

// Count is how many deliveries of an organization's source are in a state.
type Count struct {
	Org    carillon.OrgID
	Source string
	State  State
	N      int64
}

// Counts are all that are not 0, by organization, source and state. They are kept
// with the rows, so asking is cheap.
func (l *Ledger) Counts(ctx context.Context) (all []Count, err error) {
	err = l.view(ctx, func(q querier) error {
		rows, err := q.QueryContext(ctx, `SELECT org, source, state, n FROM counter WHERE n <> 0 ORDER BY org, source, state`)
		if err != nil {
			return err
		}
		defer rows.Close() //nolint:errcheck // Err has said it
		for rows.Next() {
			var c Count
			if err := rows.Scan(&c.Org, &c.Source, &c.State, &c.N); err != nil {
				return err
			}
			all = append(all, c)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// countKey is the row of a counter.
type countKey struct {
	org    carillon.OrgID
	source string
	state  State
}

// count adds to the counters.
func (w *writer) count(ctx context.Context, changes map[countKey]int64) error {
	for key, n := range changes {
		if n == 0 {
			continue
		}
		if err := w.exec(ctx, sqlCount, string(key.org), key.source, int64(key.state), n); err != nil {
			return err
		}
	}
	return nil
}
