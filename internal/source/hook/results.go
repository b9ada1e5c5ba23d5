package hook

import (
	"maps"
	"slices"
	"sync"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
)

// durationBounds are the buckets of the time from receipt to outcome, in seconds.
var durationBounds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 300, 3600}

// results count what became of deliveries.
type results struct {
	mu       sync.Mutex
	outcomes map[string]uint64
	retries  uint64
	buckets  []uint64
	sum      float64
}

func newResults() results {
	return results{outcomes: map[string]uint64{}, buckets: make([]uint64, len(durationBounds)+1)}
}

func (r *results) count(_ *job, t carillon.Type, n *intake.Note) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch t {
	case intake.TypeFailed:
		r.retries++
		return
	case intake.TypeDead:
		r.outcomes["dead"]++
	default:
		r.outcomes[n.Outcome]++
	}
	seconds := float64(n.Micros) / 1e6
	i, _ := slices.BinarySearch(durationBounds, seconds)
	r.buckets[i]++
	r.sum += seconds
}

func (r *results) duplicate() {
	r.mu.Lock()
	r.outcomes["duplicate"]++
	r.mu.Unlock()
}

// ProcessorStats are counters since the start.
type ProcessorStats struct {
	Outcomes map[string]uint64
	Retries  uint64    // attempts that failed and were followed by another
	Bounds   []float64 // of Buckets, in seconds
	Buckets  []uint64  // deliveries by the time from receipt, or retry, to outcome
	Sum      float64   // of those times, in seconds
	Waiting  int       // deliveries in memory that are processed or wait for it
	Lag      uint64    // entries of the intake that the ledger has not folded yet, as far as known
	Leader   bool      // this node processes
	Limits   map[string]uint64
}

// Stats reads them.
func (p *Processor) Stats() ProcessorStats {
	p.mu.Lock()
	waiting := len(p.jobs)
	p.mu.Unlock()
	s := ProcessorStats{Bounds: durationBounds, Waiting: waiting, Leader: p.leader.Load(), Lag: uint64(max(p.queued.Load(), 0)), Limits: p.full.Load()}
	p.results.mu.Lock()
	defer p.results.mu.Unlock()
	s.Outcomes, s.Retries, s.Buckets, s.Sum = maps.Clone(p.results.outcomes), p.results.retries, slices.Clone(p.results.buckets), p.results.sum
	return s
}
