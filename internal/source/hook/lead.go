package hook

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"github.com/carillon-rt/carillon/internal/engine"
)

const (
	leaseKey = "hook.lease"
	// A lease that nobody renewed for leaseTerm is free, by the clock of who looks.
	leaseTerm  = 9 * time.Second
	leaseRenew = 3 * time.Second
)

// lead decides whether this node processes, and has it begin and end. Where the log
// is this node's own it always does.
func (p *Processor) lead(ctx context.Context) {
	if !p.Lease {
		p.begin(ctx)
		<-ctx.Done()
		return
	}
	var me [16]byte
	_, _ = rand.Read(me[:]) // never fails
	l := lease{kv: p.Log.KV(), me: []byte(hex.EncodeToString(me[:])), now: time.Now}
	for ctx.Err() == nil {
		held := l.look(ctx)
		switch {
		case held && !p.leader.Load():
			p.Logger.Info("hook: this node processes webhooks")
			p.begin(ctx)
		case !held && p.leader.Load():
			p.Logger.Warn("hook: another node processes webhooks now")
			p.retire()
		}
		select {
		case <-time.After(leaseRenew):
		case <-ctx.Done():
		}
	}
	if p.leader.Load() {
		p.retire()
		l.release(context.WithoutCancel(ctx))
	}
}

// lease is held by one node at a time. Not for concurrent use.
type lease struct {
	kv  engine.KV
	me  []byte
	now func() time.Time

	revision uint64    // that was last seen
	seen     time.Time // when it was first seen
	held     bool
	renewed  time.Time
}

// look renews the lease, or takes it if it is free, and reports whether it is held.
func (l *lease) look(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, leaseRenew)
	defer cancel()
	now := l.now()
	if l.held {
		revision, err := l.kv.Update(ctx, leaseKey, l.me, l.revision)
		switch {
		case err == nil:
			l.revision, l.renewed = revision, now
		case errors.Is(err, engine.ErrKeyChanged) || now.Sub(l.renewed) > leaseTerm-leaseRenew:
			l.held = false
		}
		return l.held
	}
	_, revision, err := l.kv.Get(ctx, leaseKey)
	switch {
	case errors.Is(err, engine.ErrNoKey):
		revision, err = l.kv.Create(ctx, leaseKey, l.me)
	case err == nil && revision != l.revision:
		l.revision, l.seen = revision, now
		return false
	case err == nil && now.Sub(l.seen) > leaseTerm:
		revision, err = l.kv.Update(ctx, leaseKey, l.me, revision)
	default:
		return false
	}
	if err == nil {
		l.held, l.revision, l.renewed = true, revision, now
	}
	return l.held
}

// release gives the lease back.
func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaseRenew)
	defer cancel()
	if l.held {
		l.held = false
		_ = l.kv.Delete(ctx, leaseKey, l.revision) // if not, it runs out
	}
}

// begin takes up what waits. The node before may have noted more than this one knows.
func (p *Processor) begin(ctx context.Context) {
	for {
		state, err := p.Log.State(ctx, p.Log.Partitions())
		if err == nil {
			p.goal.Store(max(p.goal.Load(), state.Last.Seq))
			break
		}
		p.Logger.Warn("hook: the intake does not answer; trying again", "err", err)
		select {
		case <-time.After(storeRetry):
		case <-ctx.Done():
			return
		}
	}
	p.leader.Store(true)
	p.fromLedger()
}

// retire forgets what waits; attempts in hand end by themselves, and what they publish
// has the same key as what another node does.
func (p *Processor) retire() {
	p.leader.Store(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, j := range p.jobs {
		if j.timer != nil {
			j.timer.Stop()
		}
		if !j.inHand {
			p.drop(j)
		}
	}
	clear(p.jobs)
	clear(p.lanes)
	p.ready.clear()
}
