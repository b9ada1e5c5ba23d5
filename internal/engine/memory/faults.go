package memory

import (
	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// Truncate is for tests: it throws away everything above last, as a store does
// that lost its tail in a power cut. Sequences are used again, the identity
// stays, and the tails of the partition end with an error.
func (e *Engine) Truncate(partition int, last uint64) {
	p := e.partitions[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.last() > last && len(p.entries) > 0 {
		end := len(p.entries) - 1
		if entry := p.entries[end]; entry != nil {
			o := p.orgs[entry.Org]
			o.entries = o.entries[:len(o.entries)-1]
			o.bytes -= engine.StoredSize(&entry.Event)
			p.kept--
			p.bytes -= int64(entry.Size())
		}
		p.entries = p.entries[:end]
	}
	if p.last() > last { // everything kept was above
		p.entries, p.base = nil, last+1
	}
	for _, o := range p.orgs {
		o.lost = min(o.lost, last)
	}
	for len(p.ids) > 0 && p.ids[len(p.ids)-1].seq > last {
		p.forget(p.ids[len(p.ids)-1])
		p.ids = p.ids[:len(p.ids)-1]
	}
	p.head.Store(nil)
	if last > 0 {
		head := p.at(last)
		p.head.Store(&head)
	}
	p.cut()
}

// Recreate is for tests: it makes the partition anew, empty, with another
// identity and sequences from 1. Its tails end with an error.
func (e *Engine) Recreate(partition int) {
	p := e.partitions[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset(e.newIdentity())
}

// ExpireBefore is for tests: it removes every entry below seq, as retention
// does.
func (e *Engine) ExpireBefore(partition int, seq uint64) {
	p := e.partitions[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.entries) > 0 && p.base < seq {
		if oldest := p.entries[0]; oldest != nil {
			p.drop(oldest)
		}
		p.entries = p.entries[1:]
		p.base++
	}
}

// BreakTails is for tests: the partition's tails end with an error; nothing is
// lost.
func (e *Engine) BreakTails(partition int) {
	p := e.partitions[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

// Fail is for tests: appends are refused until Heal. An error that is no
// *carillon.Error is the cause of an unavailable one.
func (e *Engine) Fail(err error) {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	if err == nil {
		err = carillon.Unavailable(0, nil, "the log does not answer; try again")
	}
	e.gate.err = err
}

// Heal ends Fail.
func (e *Engine) Heal() {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	e.gate.err = nil
}

// Hold is for tests: appends wait, unanswered, until Release or Close.
func (e *Engine) Hold() {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	select {
	case <-e.gate.open:
		e.gate.open = make(chan struct{})
	default:
	}
}

// Release ends Hold.
func (e *Engine) Release() {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	select {
	case <-e.gate.open:
	default:
		close(e.gate.open)
	}
}
