package hook

import (
	"context"
	"time"
)

// While much is received the log's flushes and the processor are for that: what was
// received is stored and can wait. It is not forgotten, either: in each holdFor there
// is one governEvery in which it is processed, by all workers, so that they share few
// flushes.
const (
	governEvery = 25 * time.Millisecond
	holdFor     = 250 * time.Millisecond
)

// govern holds processing while much is received, until ctx ends.
func (p *Processor) govern(ctx context.Context) {
	tick := time.NewTicker(governEvery)
	defer tick.Stop()
	for since := time.Duration(0); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.hold(false)
			return
		}
		if since += governEvery; !p.Busy() || since >= holdFor {
			since = 0
		}
		p.hold(since > 0)
	}
}

// hold holds processing, or lets it go on.
func (p *Processor) hold(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != held {
		p.held = held
		p.idle.Broadcast()
	}
}

// turn waits while processing is held, or until it ends.
func (p *Processor) turn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.held && !p.closed {
		p.idle.Wait()
	}
}
