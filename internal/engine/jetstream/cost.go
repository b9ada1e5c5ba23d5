package jetstream

import "time"

// cost learns what flights take on this machine and decides between the two
// kinds: n plain publishes, each with its own flush of the disk, or one atomic
// batch, which stages its events first and flushes once.
//
// What was not tried lately drifts back to the estimate it began with, so that
// one bad moment does not decide for ever.
type cost struct {
	plain float64 // per event, in nanoseconds
	fixed float64 // of a batch
	per   float64 // and per event of it

	plain0, fixed0 float64
	never          bool // without a flush per event a batch cannot win: its staging has one
}

const (
	learn = 0.1   // weight of a new measurement
	drift = 0.005 // and of the first estimate, at each flight of the other kind
)

func newCost(d Durability) cost {
	c := cost{plain: 300e3, fixed: 3.2e6, per: 50e3, never: d == Relaxed} // break-even near 16
	c.plain0, c.fixed0 = c.plain, c.fixed
	return c
}

// A batch has to win clearly: what it costs the processor, other partitions
// pay too, and that is not in the measure.
const (
	fewest = 12
	margin = 1.25
)

// batch reports whether n events are cheaper as one atomic batch.
func (c *cost) batch(n int) bool {
	return !c.never && n >= fewest && margin*(c.fixed+float64(n)*c.per) < float64(n)*c.plain
}

func (c *cost) flewPlain(n int, d time.Duration) {
	c.plain += learn * (float64(d)/float64(n) - c.plain)
	c.fixed += drift * (c.fixed0 - c.fixed)
}

func (c *cost) flewBatch(n int, d time.Duration) {
	rest := float64(d) - float64(n)*c.per
	c.fixed += learn * (max(rest, c.fixed0/8) - c.fixed)
	c.plain += drift * (c.plain0 - c.plain)
}
