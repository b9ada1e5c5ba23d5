package ledger

import (
	"sync/atomic"
	"time"
)

// Stats are counters since the start.
type Stats struct {
	Applied      uint64    // entries folded, without those known already
	Transactions uint64    // of Apply
	Duplicates   uint64    // deliveries
	Ignored      uint64    // notes about a delivery that is not known, or that do not fit its state
	Malformed    uint64    // entries that could not be read, and of types not known
	Pruned       uint64    // rows
	Rebuilt      uint64    // files made anew
	LastApply    time.Time // end of the last transaction of Apply; zero: none yet
	Lag          uint64    // entries that wait in the log, as SetLag said
}

type counters struct {
	applied, transactions, duplicates, ignored, malformed, pruned, rebuilt, lag atomic.Uint64
	last                                                                        atomic.Int64 // Unix nanoseconds; 0: never
}

// Stats reads the counters; they are not read at one moment.
func (l *Ledger) Stats() Stats {
	c := &l.count
	s := Stats{
		Applied:      c.applied.Load(),
		Transactions: c.transactions.Load(),
		Duplicates:   c.duplicates.Load(),
		Ignored:      c.ignored.Load(),
		Malformed:    c.malformed.Load(),
		Pruned:       c.pruned.Load(),
		Rebuilt:      c.rebuilt.Load(),
		Lag:          c.lag.Load(),
	}
	if last := c.last.Load(); last != 0 {
		s.LastApply = time.Unix(0, last).UTC()
	}
	return s
}

// SetLag is how many entries wait in the log: whoever reads it knows.
func (l *Ledger) SetLag(entries uint64) { l.count.lag.Store(entries) }
