package carillon

import (
	"context"
	"math/rand/v2"
	"time"
)

// Between two tries passes a random time between backoffMin and a limit that
// doubles up to backoffMax, so that clients cut together do not come back
// together.
const (
	backoffMin = 500 * time.Millisecond
	backoffMax = 30 * time.Second
)

// backoff is how long to wait before try n, counted from 0. What the server
// asked for is obeyed, with a little added so that its clients spread.
func backoff(n int, asked time.Duration) time.Duration {
	if asked > 0 {
		return asked + rand.N(asked/4+backoffMin/2)
	}
	limit := min(backoffMax, backoffMin<<min(n+1, 10))
	return backoffMin + rand.N(limit-backoffMin)
}

// sleep waits; it returns false when the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
