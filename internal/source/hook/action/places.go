package action

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
)

// busyRetry is how long those who find all places taken are told to stay away.
const busyRetry = 5 * time.Second

// places are what runs and what waits to run, for all hooks and for each. Its
// methods are safe from anywhere.
type places struct {
	total, each      int // that run
	queue, eachQueue int // that wait

	mu      sync.Mutex
	running int
	runs    map[string]int
	waiting []*place // in the order in which they came
	waits   map[string]int
	full    uint64 // how often there was no room to wait
	shut    bool
	idle    chan struct{} // closed when shut and nobody is left
}

// place is one that runs or waits. Who has it leaves it once.
type place struct {
	all  *places
	of   string
	turn chan struct{} // closed when it may run
}

func newPlaces(total, each, queue, eachQueue int) *places {
	return &places{
		total: total, each: each, queue: queue, eachQueue: eachQueue,
		runs: map[string]int{}, waits: map[string]int{}, idle: make(chan struct{}),
	}
}

// take takes a place, at once or in the queue.
func (p *places) take(of string) (*place, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := &place{all: p, of: of, turn: make(chan struct{})}
	switch {
	case p.shut:
		return nil, carillon.Unavailable(busyRetry, nil, "the server is stopping")
	case p.fits(of):
		p.start(at)
	case len(p.waiting) >= p.queue:
		p.full++
		return nil, carillon.Unavailable(busyRetry, nil, "too much is running and waiting")
	case p.waits[of] >= p.eachQueue:
		p.full++
		return nil, carillon.Unavailable(busyRetry, nil, "too much of this hook is running and waiting")
	default:
		p.waiting = append(p.waiting, at)
		p.waits[of]++
	}
	return at, nil
}

func (p *places) stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Running: p.running, Waiting: len(p.waiting), Full: p.full}
}

// wait waits for its turn.
func (at *place) wait(ctx context.Context, stop <-chan struct{}) error {
	select {
	case <-at.turn:
		return nil
	default:
	}
	select {
	case <-at.turn:
		return nil
	case <-ctx.Done():
		return stopped(ctx)
	case <-stop:
		return ErrStopped
	}
}

// leave gives the place back, whether it was its turn or not.
func (at *place) leave() {
	p := at.all
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.waiting, at); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		less(p.waits, at.of)
	} else {
		p.running--
		less(p.runs, at.of)
	}
	p.next()
	p.settle()
}

// leaveAfter leaves once that is closed; nil: at once.
func (at *place) leaveAfter(gone <-chan struct{}) {
	if gone == nil {
		at.leave()
		return
	}
	go func() {
		<-gone
		at.leave()
	}()
}

// next lets those run that now fit, the longest waiting first.
func (p *places) next() {
	for i := 0; i < len(p.waiting) && p.running < p.total; {
		at := p.waiting[i]
		if !p.fits(at.of) {
			i++
			continue
		}
		p.waiting = slices.Delete(p.waiting, i, i+1)
		less(p.waits, at.of)
		p.start(at)
	}
}

func (p *places) fits(of string) bool { return p.running < p.total && p.runs[of] < p.each }

func (p *places) start(at *place) {
	p.running++
	p.runs[at.of]++
	close(at.turn)
}

// less counts one less, and forgets names that have none.
func less(counts map[string]int, of string) {
	if counts[of]--; counts[of] <= 0 {
		delete(counts, of)
	}
}

// close refuses whoever comes. The channel is closed when all have left.
func (p *places) close() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.shut {
		p.shut = true
		p.settle()
	}
	return p.idle
}

func (p *places) settle() {
	if p.shut && p.running == 0 && len(p.waiting) == 0 {
		select {
		case <-p.idle:
		default:
			close(p.idle)
		}
	}
}
