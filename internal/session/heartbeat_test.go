package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
)

// Those that came together, or were sent something at the same time, would otherwise
// all be due in the same tick, for ever.
func TestHeartbeatsAreSpreadAndNeverLate(t *testing.T) {
	const (
		n       = 200
		tick    = 100 * time.Millisecond
		maxIdle = 20 * time.Second
		most    = n / 10 // in one tick; evenly it were 8
	)
	for _, format := range []session.Format{session.WebSocket, session.SSE} {
		inBubble(t, session.Limits{MaxIdle: maxIdle, KeepAlive: maxIdle, DeadAfter: time.Hour}, hub.Config{}, func(t *testing.T, node *node) {
			var all []*client
			for range n {
				all = append(all, node.connect(session.Options{Format: format, Principal: user("alice"), Subscribe: format == session.SSE, Patterns: []carillon.Pattern{"a.b"}}))
			}
			if format == session.WebSocket {
				for _, c := range all {
					c.say(t, `{"type":"subscribe","pattern":"a.b"}`)
				}
			}
			came := func(c *client) (anything bool) {
				c.mu.Lock()
				defer c.mu.Unlock()
				anything, c.raw = len(c.raw) > 0, nil
				return anything
			}
			for _, since := range []string{"they came", "an event for all", "the heartbeats before", "those before"} {
				for _, c := range all {
					came(c)
				}
				if since == "an event for all" {
					node.publish("a.b", 1, 1)
				}
				last, crowd := make([]time.Time, n), 0
				for i, c := range all {
					if last[i] = time.Now(); since == "an event for all" && !came(c) {
						t.Fatal("it is not for all")
					}
				}
				left := n
				for passed := time.Duration(0); left > 0 && passed <= maxIdle+2*tick; passed += tick {
					time.Sleep(tick)
					synctest.Wait()
					together := 0
					for i, c := range all {
						if !came(c) || last[i].IsZero() {
							continue
						}
						last[i] = time.Time{}
						together++
						left--
						if since == "an event for all" && passed < maxIdle*7/8-tick {
							t.Errorf("format %d, after %s: a heartbeat after %v", format, since, passed)
						}
					}
					crowd = max(crowd, together)
				}
				if left > 0 || crowd > most {
					t.Errorf("format %d, after %s: %d heartbeats did not come in time, %d came together", format, since, left, crowd)
				}
			}
			for _, c := range all {
				node.gone(c)
			}
		})
	}
}
