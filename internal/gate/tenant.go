package gate

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/org"
)

const (
	// maxTenants bounds the organizations whose rates are remembered; beyond it
	// those idle for idleAfter are forgotten, a few at every new one.
	maxTenants = 10_000
	idleAfter  = time.Minute
	// evictLook is how many are looked at to find one to forget.
	evictLook = 32
)

// tenant is what the gate remembers of one organization.
type tenant struct {
	org     *org.Org
	log     engine.Log
	signals engine.Signals
	events  *rate.Limiter // nil: no limit
	bytes   *rate.Limiter // nil: no limit
	used    time.Time     // guarded by tenants.mu
}

// tenants are the organizations that published lately.
type tenants struct {
	open    func(carillon.OrgID) engine.Log
	signals func(carillon.OrgID) engine.Signals
	atLeast int // bytes that every organization may send at once: one event

	mu sync.Mutex // guards what follows
	m  map[carillon.OrgID]*tenant
}

// get returns what is remembered of o. An organization whose limits were changed
// begins anew.
func (ts *tenants) get(o *org.Org, now time.Time) *tenant {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t := ts.m[o.ID]; t != nil && t.org == o {
		t.used = now
		return t
	}
	if len(ts.m) >= maxTenants {
		ts.evict(now)
	}
	t := &tenant{org: o, log: ts.open(o.ID), signals: ts.signals(o.ID), used: now}
	if n := o.Limits.PublishPerSecond; n > 0 {
		burst := o.Limits.PublishBurst
		if burst <= 0 {
			burst = n
		}
		t.events = rate.NewLimiter(rate.Limit(n), burst)
	}
	if n := o.Limits.PublishBytesPerSecond; n > 0 {
		t.bytes = rate.NewLimiter(rate.Limit(n), max(int(n), ts.atLeast+oneEventExtra))
	}
	ts.m[o.ID] = t
	return t
}

// oneEventExtra is what an event may have beside its data, roughly.
const oneEventExtra = 1024

// evict looks at a few and forgets those that were idle long enough, or else the
// one that was idle longest.
func (ts *tenants) evict(now time.Time) {
	var oldest *tenant
	looked, evicted := 0, 0
	for id, t := range ts.m { // begins anywhere
		if now.Sub(t.used) >= idleAfter {
			delete(ts.m, id)
			evicted++
		} else if oldest == nil || t.used.Before(oldest.used) {
			oldest = t
		}
		if looked++; looked == evictLook {
			break
		}
	}
	if evicted == 0 {
		delete(ts.m, oldest.org.ID)
	}
}

// take takes n events of so many bytes from what the organization may publish
// now, or nothing.
func (t *tenant) take(now time.Time, n, bytes int) *carillon.Error {
	events, err := reserve(t.events, now, n, measure{"events", "publish_per_second", "publish_burst"})
	if err != nil {
		return err
	}
	if _, err := reserve(t.bytes, now, bytes, measure{"bytes of events", "publish_bytes_per_second", "publish_bytes_per_second"}); err != nil {
		if events != nil {
			events.CancelAt(now)
		}
		return err
	}
	return nil
}

// measure is what a rate is of, and the limits that set it.
type measure struct{ what, rate, burst string }

func reserve(l *rate.Limiter, now time.Time, n int, m measure) (*rate.Reservation, *carillon.Error) {
	if l == nil {
		return nil, nil
	}
	if n > l.Burst() {
		return nil, carillon.Errorf(carillon.CodeTooLarge, "%d %s at once; this organization may publish %d at once, send them in parts", n, m.what, l.Burst()).Over(m.burst)
	}
	r := l.ReserveN(now, n)
	wait := r.DelayFrom(now)
	if wait == 0 {
		return r, nil
	}
	r.CancelAt(now)
	return nil, &carillon.Error{
		Code:       carillon.CodeRateLimited,
		Message:    "this organization publishes more " + m.what + " than its limit a second; send them again later",
		RetryAfter: wait,
		Limit:      m.rate,
	}
}
