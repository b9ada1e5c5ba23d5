package hook

import (
	"context"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
)

// What is read at once where deliveries that waited in the ledger are read again.
const (
	aheadEntries = 512
	aheadBytes   = 2 << 20
	aheadLargest = 512 << 10 // a delivery that is larger is read by itself
	aheadGap     = 64        // sequences that are read rather than passed over
)

// reading is who reads deliveries from the intake again: one at a time, in order, and
// with each those that come next. Read one by one, by all workers, they have an embedded
// server load block after block, of 8 MB each, and keep those it was not asked for to
// the end.
type reading struct {
	turn sync.Mutex // guards what follows, and is held while it is read
	org  carillon.OrgID
	seen uint64    // the last sequence that was read
	away time.Time // when a read failed: nobody waits for who waits for the log
}

// entry is a job's entry: the one that is in memory, or read from the intake with what
// comes next. It is nil where that is not so, and Load says why.
func (p *Processor) entry(ctx context.Context, j *job) *carillon.Entry {
	if j.entry != nil || j.Size > aheadLargest {
		return j.entry
	}
	p.want(j, true)
	defer p.want(j, false)
	r := &p.reading
	r.turn.Lock()
	defer r.turn.Unlock()
	if e := p.given(j); e != nil || time.Since(r.away) < awayRetry {
		return e
	}
	after, limit := j.Pos.Seq-1, p.reach(j.Org)
	if r.org == j.Org && r.seen < after && after-r.seen <= aheadGap {
		limit += int(after - r.seen)
		after = r.seen
	}
	r.org = j.Org
	var found *carillon.Entry
	_, err := p.Log.Intake(j.Org).Read(ctx, engine.Range{After: after, Limit: limit, MaxBytes: aheadBytes}, func(e *carillon.Entry) error {
		r.seen = e.Pos.Seq
		if e.Pos.Seq != j.Pos.Seq {
			p.give(e)
		} else if e.Type == intake.TypeReceived {
			found = e
		}
		return nil
	})
	if err != nil {
		r.away = time.Now()
	}
	return found
}

// want says whether a job in hand waits for its entry.
func (p *Processor) want(j *job, wants bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if j.wants != wants {
		j.wants = wants
		if wants {
			p.wanting++
		} else {
			p.wanting--
		}
	}
}

// given is what another one has read for a job that wants its entry, or nil.
func (p *Processor) given(j *job) *carillon.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return j.entry
}

// reach is how many entries are worth reading: there are notes between deliveries.
func (p *Processor) reach(org carillon.OrgID) int {
	if p.bodies.left.Load() < aheadBytes {
		return 1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(aheadEntries, 2*(len(p.ready.of[org])+p.wanting))
}

// give keeps an entry for the job that will want it, if there is one that can go on and
// room for it.
func (p *Processor) give(e *carillon.Entry) {
	if e.Type != intake.TypeReceived {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	j := p.jobs[jobID{e.Pos.Partition, e.Pos.Seq}]
	if j == nil || j.inHand && !j.wants { // its entry is its worker's
		return
	}
	if j.entry != nil || j.timer != nil || p.lanes[j.lane][0] != j {
		return
	}
	if p.bodies.take(int64(len(e.Data))) {
		j.entry = e
	}
}
