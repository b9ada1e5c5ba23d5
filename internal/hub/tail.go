package hub

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// Bounds of the pause between two attempts to read a partition's tail.
const (
	tailRetryMin = 20 * time.Millisecond
	tailRetryMax = 2 * time.Second
)

// warmEntries bounds how many entries a ring begins with.
const warmEntries = 200_000

// partition is one partition of the log on this node: its ring, filled by one
// tail, and the shards to tell.
type partition struct {
	hub  *Hub
	id   int
	ring *ring

	posted   atomic.Pointer[place] // every notice up to here has been posted
	watchers atomic.Uint64         // shards that want to know when posted moves
	warm     chan struct{}         // closed by the tail when the ring is filled

	// Owned by the tail.
	identity string
	isWarm   bool
	target   uint64

	entries, notices, marked, reopened, resets atomic.Uint64
}

// watch has the shard woken at the next entry of the partition, whosever it is.
func (p *partition) watch(shard int) { p.watchers.Or(1 << shard) }

// ringCost is about what an entry costs in a ring beyond its size in the log, in bytes.
const ringCost = 512

// begin fills in where the tails start: so far back that the rings will be full.
func (h *Hub) begin(ctx context.Context) error {
	states, has := make([]engine.State, len(h.parts)), make([]int64, len(h.parts))
	for i := range h.parts {
		st, err := h.cfg.Engine.State(ctx, i)
		if err != nil {
			return err
		}
		states[i], has[i] = st, int64(st.Bytes+st.Entries*ringCost)
	}
	for i, room := range h.budget.divide(has) {
		if err := h.parts[i].begin(ctx, states[i], room); err != nil {
			return err
		}
	}
	return nil
}

// begin fills in where the tail starts, so that the ring begins with at most so many
// bytes.
func (p *partition) begin(ctx context.Context, st engine.State, room int64) (err error) {
	base := st.Last
	if st.Entries > 0 {
		n := min(uint64(room)/(st.Bytes/st.Entries+ringCost)+1, warmEntries)
		base = carillon.Position{Partition: uint16(p.id), Seq: st.First - 1}
		if st.Last.Seq > n {
			base.Seq = max(base.Seq, st.Last.Seq-n)
		}
		if base.Check, _, err = p.hub.cfg.Engine.Check(ctx, p.id, base.Seq); err != nil {
			return err
		}
	}
	p.identity, p.target = st.Identity, st.Last.Seq
	p.ring.begin(base)
	p.posted.Store(&place{pos: base})
	p.warmUp(base.Seq)
	return nil
}

func (p *partition) warmUp(seq uint64) {
	if !p.isWarm && seq >= p.target {
		p.isWarm = true
		close(p.warm)
	}
}

// run tails the partition until ctx ends.
func (p *partition) run(ctx context.Context) {
	pause := tailRetryMin
	for ctx.Err() == nil {
		began := time.Now()
		err := p.hub.cfg.Engine.Tail(ctx, p.id, p.posted.Load().pos.Seq, p.take)
		for ctx.Err() == nil {
			if err == nil {
				err = p.reopen(ctx)
				if err == nil {
					break
				}
			}
			if time.Since(began) > tailRetryMax {
				pause = tailRetryMin
			}
			p.reopened.Add(1)
			p.hub.log.Warn("the tail of the log broke; opening it again", slog.Int("partition", p.id), slog.Any("error", err))
			select {
			case <-time.After(pause/2 + rand.N(pause)):
			case <-ctx.Done():
			}
			pause = min(2*pause, tailRetryMax)
			err = nil
		}
	}
}

// reopen looks whether the log is still the one the ring knows.
func (p *partition) reopen(ctx context.Context) error {
	st, err := p.hub.cfg.Engine.State(ctx, p.id)
	if err != nil {
		return err
	}
	here := p.posted.Load().pos
	same := st.Identity == p.identity && st.Last.Seq >= here.Seq
	if same && here.Check != 0 {
		check, found, err := p.hub.cfg.Engine.Check(ctx, p.id, here.Seq)
		if err != nil {
			return err
		}
		// An entry that is gone by retention says nothing against the log.
		same = !found || check == here.Check
	}
	if same {
		return nil
	}
	p.hub.log.Error("the log is not the one this node knew: its tail was lost; every reader of the partition is told",
		slog.Int("partition", p.id), slog.String("known", here.String()), slog.String("found", st.Last.String()))
	p.identity = st.Identity
	p.resets.Add(1)
	p.ring.reset(st.Last)
	p.posted.Store(&place{n: p.ring.head.Load(), pos: st.Last})
	for _, s := range p.hub.shards {
		s.box.reset(p.id)
	}
	return nil
}

// take adds one entry: append, match once, post one notice to each shard with
// feeds there. It never waits and never touches a feed.
func (p *partition) take(e *carillon.Entry) {
	d, c := p.ring.append(e)
	p.ring.budget.settle()
	p.entries.Add(1)
	if realm := c.realm.Load(); realm != nil {
		nodes, shards := realm.match(e)
		eachShard(shards, func(i int) {
			p.notices.Add(1)
			if p.hub.shards[i].box.post(notice{p, d, nodes}) {
				p.marked.Add(1)
			}
		})
	}
	p.posted.Store(&d.at)
	if p.watchers.Load() != 0 {
		eachShard(p.watchers.Swap(0), func(i int) { p.hub.shards[i].box.nudge() })
	}
	p.warmUp(e.Pos.Seq)
}
