package memory

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// pending is a batch that waits to be stored.
type pending struct {
	org   carillon.OrgID
	batch []engine.Append
	done  func([]carillon.Receipt, error)
	since time.Time
}

// gate holds appends back or refuses them, for tests.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while appends may pass
	err  error         // and be refused with this
}

func (g *gate) state() (open <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open, g.err
}

// Append stores a batch; see engine.Log.
func (l *log) Append(batch []engine.Append, done func([]carillon.Receipt, error)) {
	p := l.part
	item := pending{l.org, append([]engine.Append(nil), batch...), done, time.Now()}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		l.engine.stats.failures.Add(uint64(len(batch)))
		go done(nil, carillon.Unavailable(time.Second, engine.ErrClosed, "the server is stopping; try again"))
		return
	}
	p.queue = append(p.queue, item)
	l.engine.stats.depth.Add(int64(len(batch)))
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// commit is the goroutine of a partition: it stores what is queued and answers.
func (e *Engine) commit(p *partition) {
	for {
		p.mu.Lock()
		queue := p.queue
		p.queue = nil
		closed := p.closed
		p.mu.Unlock()
		if len(queue) == 0 {
			if closed {
				return
			}
			select {
			case <-p.wake:
			case <-e.closing:
			}
			continue
		}
		for _, item := range queue {
			receipts, err := e.store(p, item)
			e.stats.flights.Add(1)
			e.stats.depth.Add(-int64(len(item.batch)))
			e.stats.acks.Add(1)
			e.stats.ackNanos.Add(uint64(time.Since(item.since)))
			if err != nil {
				e.stats.failures.Add(uint64(len(item.batch)))
			}
			item.done(receipts, err)
		}
	}
}

func (e *Engine) store(p *partition, item pending) ([]carillon.Receipt, error) {
	open, _ := e.gate.state()
	select {
	case <-open:
	case <-e.closing: // a held append is still answered
	}
	if _, refused := e.gate.state(); refused != nil {
		var shown *carillon.Error
		if errors.As(refused, &shown) {
			return nil, shown
		}
		return nil, carillon.Unavailable(time.Second, refused, "the log does not answer; try again")
	}

	receipts := make([]carillon.Receipt, len(item.batch))
	stored := 0
	p.mu.Lock()
	now := time.Now().UTC().Round(0)
	p.expire(now)
	for i, a := range item.batch {
		id := e.messageID(item.org, a.Key)
		if pos, ok := p.known[id]; ok {
			receipts[i] = carillon.Receipt{Pos: pos, Duplicate: true}
			continue
		}
		receipts[i].Pos = p.add(item.org, a.Event, id, now)
		stored++
	}
	if stored > 0 {
		if p.limit(item.org) {
			e.stats.cuts.Add(1)
		}
		p.expire(now)
		head := p.at(p.last())
		if head.Check == 0 { // the limits are smaller than the batch
			head = receipts[len(receipts)-1].Pos
		}
		p.head.Store(&head)
		p.announce()
	}
	p.mu.Unlock()
	e.stats.appends.Add(uint64(stored))
	e.stats.duplicates.Add(uint64(len(item.batch) - stored))
	return receipts, nil
}

func (e *Engine) messageID(org carillon.OrgID, key string) string {
	if key == "" {
		return string(org) + ":~" + strconv.FormatUint(e.made.Add(1), 10)
	}
	return string(org) + ":" + key
}
