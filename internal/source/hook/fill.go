package hook

import (
	"context"
	"time"
)

const (
	fillPage  = 500
	fillRetry = 200 * time.Millisecond
)

// waits says which deliveries are in the ledger and not in memory, because there was
// no room, or because they were there before this process began. While there are any,
// new ones wait there too, so that all come in order.
type waits struct {
	any   bool
	after uint64 // they come after this sequence
	times uint64 // how often one was left there
}

// skip leaves a delivery in the ledger; 0 is whatever there is. mu is held.
func (p *Processor) skip(seq uint64) {
	p.waits.times++
	if !p.waits.any || seq <= p.waits.after {
		p.waits.after = max(seq, 1) - 1
	}
	p.waits.any = true
	p.behind.Store(true)
}

// fromLedger leaves everything there is in the ledger, from which it is taken when that
// is as far as the log.
func (p *Processor) fromLedger() {
	p.mu.Lock()
	p.skip(0)
	p.mu.Unlock()
	p.poke()
}

// folds forgets that a note of a delivery is not in the ledger yet.
func (p *Processor) folds(id jobID) {
	p.mu.Lock()
	delete(p.noted, id)
	p.mu.Unlock()
}

func (p *Processor) poke() {
	select {
	case p.refill <- struct{}{}:
	default:
	}
}

// fill takes deliveries from the ledger when there is room, until ctx ends.
func (p *Processor) fill(ctx context.Context) {
	first := p.Log.Partitions()
	for {
		select {
		case <-p.refill:
		case <-ctx.Done():
			return
		}
		for !p.filled(ctx, first) {
			select {
			case <-time.After(fillRetry):
			case <-ctx.Done():
				return
			}
		}
	}
}

// filled takes what there is room for. It returns false if that is to be tried again
// soon.
func (p *Processor) filled(ctx context.Context, partition int) bool {
	// What is noted of a delivery may stand in the log, and not in the ledger yet.
	goal := p.goal.Load()
	if !p.begun.Load() || p.folded.Load() < goal {
		return false
	}
	for {
		p.mu.Lock()
		room, after, times := p.Waiting-len(p.jobs), p.waits.after, p.waits.times
		done := !p.waits.any || !p.leader.Load() || p.closed || room <= 0
		if p.waits.any && room <= 0 {
			p.full.Add("hook_deliveries_in_memory")
		}
		p.mu.Unlock()
		if done {
			return true
		}
		list, err := p.Ledger.Waiting(ctx, partition, after, min(room, fillPage))
		if err != nil {
			if ctx.Err() == nil {
				p.Logger.Warn("hook: what waits cannot be read from the ledger; trying again", "err", err)
			}
			return false
		}
		p.mu.Lock()
		for i := range list {
			p.put(&list[i], nil, list[i].Pos.Seq <= goal)
			if p.waits.times == times { // nobody has gone back meanwhile
				p.waits.after = list[i].Pos.Seq
			}
		}
		if len(list) == 0 && p.waits.times == times {
			p.waits.any = false
			p.behind.Store(false)
		}
		p.mu.Unlock()
	}
}
