package admission

import (
	"math"
	"sync/atomic"
	"time"
)

// bucket gives out moments, one after the other: of any span of time as many as it
// has intervals, and some more.
type bucket struct {
	every time.Duration
	slack time.Duration // how far the next may lie in the past

	next atomic.Int64
}

func (b *bucket) init(every time.Duration, burst int) {
	b.every, b.slack = every, every*time.Duration(burst-1)
	b.next.Store(math.MinInt64 / 2)
}

// take takes the next moment, if it is at most so far away, and says how far it is;
// 0: it is now.
func (b *bucket) take(now, most time.Duration) (wait time.Duration) {
	for {
		next := b.next.Load()
		at := max(time.Duration(next), now-b.slack)
		wait = max(at-now, 0)
		if wait > most || b.next.CompareAndSwap(next, int64(at+b.every)) {
			return wait
		}
	}
}

// give gives a moment back that was taken.
func (b *bucket) give() { b.next.Add(-int64(b.every)) }

// away is how far the next moment is.
func (b *bucket) away(now time.Duration) time.Duration {
	return max(time.Duration(b.next.Load())-now, 0)
}
