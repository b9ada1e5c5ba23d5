package hub

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// Bounds of shared scans.
const (
	passEntries        = 256
	passBytes          = 1 << 20
	scansPerPartition  = 2
	scanRetry          = 250 * time.Millisecond
	maxRememberedPass  = 16 // chunks kept for feeds that come back for them
	rememberedPassTime = 2 * time.Second
)

// scanChunk is a piece of one organization's log, read once for all feeds of
// the pass: every entry of the organization in (from, seen].
type scanChunk struct {
	org     carillon.OrgID
	from    uint64
	seen    uint64
	entries []*Delivery
	lost    bool // what should follow the entries is gone
	read    time.Time
}

// passenger is a feed that waits for a pass.
type passenger struct {
	feed   *Feed
	shard  *Shard
	realm  *Realm
	ticket uint64
	pos    carillon.Position
	seq    uint64
}

type passOutcome uint8

const (
	passChunk passOutcome = iota
	passExpired
	passReset
)

type passResult struct {
	outcome passOutcome
	chunk   *scanChunk
	from    carillon.Position
}

// scans reads the log below the ring for all feeds that are there: at most one
// pass at a time per organization and two per partition, organizations in turn,
// on a fixed pool of workers. No worker waits for a socket: a feed takes what
// it has room for and boards the next pass.
type scans struct {
	hub  *Hub
	work chan struct{} // a token per thing to do, never more than workers; never closed

	mu      sync.Mutex // guards what follows
	orgs    map[carillon.OrgID]*scanOrg
	ready   []*scanOrg // those with passengers and no pass of theirs running
	running []int      // passes per partition
	busy    int        // workers
	lookups []func(context.Context)
	recent  []*scanChunk // newest last

	queued atomic.Uint64 // what found every worker busy
}

// scanOrg is the platform of one organization.
type scanOrg struct {
	realm   *Realm
	waiting []passenger
	busy    bool // a pass is running, or it waits after an error
}

func newScans(h *Hub, workers int) *scans {
	return &scans{hub: h, work: make(chan struct{}, workers), orgs: map[carillon.OrgID]*scanOrg{}, running: make([]int, len(h.parts))}
}

// board makes p wait for the next pass.
func (s *scans) board(p passenger) {
	s.mu.Lock()
	realm := p.realm
	o := s.orgs[realm.org]
	if o == nil {
		o = &scanOrg{}
		s.orgs[realm.org] = o
	}
	o.realm = realm
	o.waiting = append(o.waiting, p)
	if !o.busy && len(o.waiting) == 1 {
		s.ready = append(s.ready, o)
		s.queue()
	}
	s.mu.Unlock()
	s.signal()
}

// queue counts something new to do for which no worker is free. s.mu is held.
func (s *scans) queue() {
	if s.busy == cap(s.work) {
		s.queued.Add(1)
	}
}

// lookup runs f on a worker: one question to the log, for one session.
func (s *scans) lookup(f func(context.Context)) {
	s.mu.Lock()
	s.lookups = append(s.lookups, f)
	s.queue()
	s.mu.Unlock()
	s.signal()
}

func (s *scans) signal() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

func (s *scans) run(ctx context.Context) {
	for {
		select {
		case <-s.work:
		case <-ctx.Done():
			return
		}
		for s.step(ctx) {
		}
	}
}

// step does one thing, if there is one to do.
func (s *scans) step(ctx context.Context) bool {
	s.mu.Lock()
	if len(s.lookups) > 0 {
		f := s.lookups[0]
		s.lookups = s.lookups[1:]
		s.busy++
		s.mu.Unlock()
		s.signal()
		f(ctx)
		s.mu.Lock()
		s.busy--
		s.mu.Unlock()
		return true
	}
	for i, o := range s.ready {
		p := o.realm.part.id
		if s.running[p] >= scansPerPartition {
			continue
		}
		s.ready = slices.Delete(s.ready, i, i+1)
		s.running[p]++
		s.busy++
		o.busy = true
		board := o.waiting
		o.waiting = nil
		realm := o.realm
		s.mu.Unlock()
		s.signal()
		left, err := s.pass(ctx, realm, board)
		s.mu.Lock()
		s.running[p]--
		s.busy--
		o.waiting = append(left, o.waiting...)
		if err == nil {
			s.idle(o)
		}
		s.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			s.hub.log.Warn("reading the log failed; trying again", slog.String("org", string(realm.org)), slog.Any("error", err))
			time.AfterFunc(scanRetry, func() {
				s.mu.Lock()
				s.idle(o)
				s.mu.Unlock()
				s.signal()
			})
		}
		return ctx.Err() == nil
	}
	s.mu.Unlock()
	return false
}

// idle lets an organization have its next pass. s.mu is held.
func (s *scans) idle(o *scanOrg) {
	o.busy = false
	if len(o.waiting) > 0 {
		s.ready = append(s.ready, o)
	} else {
		delete(s.orgs, o.realm.org)
	}
}

// pass serves those who stand where the pass begins or inside what it reads, and
// returns the others.
func (s *scans) pass(ctx context.Context, realm *Realm, board []passenger) (left []passenger, err error) {
	// Those for whom a recent pass is still at hand need no reading.
	board = slices.DeleteFunc(board, func(p passenger) bool {
		c := s.remembered(realm.org, p.seq)
		if c != nil {
			p.answer(passResult{chunk: c})
		}
		return c != nil
	})
	if len(board) == 0 {
		return nil, nil
	}
	first := slices.MinFunc(board, func(a, b passenger) int {
		switch {
		case a.seq < b.seq:
			return -1
		case a.seq > b.seq:
			return 1
		}
		return 0
	})
	c, err := s.read(ctx, realm, first.seq)
	if err != nil {
		return board, err
	}
	if first.pos.Seq != 0 { // asked after the reading: what went before or meanwhile is noticed
		out, err := realm.log.Resume(ctx, first.pos)
		if err != nil {
			return board, err
		}
		switch out.Status {
		case engine.Expired:
			for _, p := range board {
				if p.seq < out.From.Seq {
					p.answer(passResult{outcome: passExpired, from: out.From})
				} else {
					left = append(left, p)
				}
			}
			return left, nil
		case engine.Reset:
			for _, p := range board {
				if p.pos == first.pos {
					p.answer(passResult{outcome: passReset})
				} else {
					left = append(left, p)
				}
			}
			return left, nil
		case engine.OK:
		}
	}
	if c.lost {
		from := carillon.Position{Partition: uint16(realm.part.id), Seq: c.seen}
		for _, p := range board {
			p.answer(passResult{outcome: passExpired, from: from})
		}
		return nil, nil
	}
	s.remember(c)
	for _, p := range board {
		if p.seq < c.seen || p.seq == first.seq {
			p.answer(passResult{chunk: c})
		} else {
			left = append(left, p)
		}
	}
	return left, nil
}

// read takes one piece of the log. A piece that ends without more to come must
// reach what the ring knows of the organization; otherwise it came from a
// replica that lags, and the leader is asked.
func (s *scans) read(ctx context.Context, realm *Realm, from uint64) (*scanChunk, error) {
	for _, leader := range []bool{false, true} {
		c := &scanChunk{org: realm.org, from: from, read: time.Now()}
		end, err := realm.log.Read(ctx, engine.Range{After: from, Limit: passEntries, MaxBytes: passBytes, Leader: leader},
			func(e *carillon.Entry) error {
				c.entries = append(c.entries, &Delivery{Entry: e, at: place{pos: e.Pos}})
				return nil
			})
		if err != nil {
			return nil, err
		}
		s.hub.passes.Add(1)
		s.hub.scanned.Add(uint64(len(c.entries)))
		c.seen = end.Seen
		v := realm.part.ring.view(realm.chain)
		if end.More || end.Seen >= v.floor {
			return c, nil
		}
		s.hub.stale.Add(1)
		if leader {
			// Even the leader's log ends below what has left the ring: entries
			// were removed meanwhile.
			c.lost, c.seen = true, v.floor
			return c, nil
		}
	}
	panic("unreachable")
}

func (p passenger) answer(r passResult) {
	p.shard.Post(TaskFunc(func() { p.feed.land(p.ticket, r) }))
}

func (s *scans) remember(c *scanChunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent = slices.DeleteFunc(s.recent, func(o *scanChunk) bool { return c.read.Sub(o.read) > rememberedPassTime })
	if len(s.recent) >= maxRememberedPass {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	if len(c.entries) > 0 {
		s.recent = append(s.recent, c)
	}
}

// remembered finds a chunk of the organization that holds what follows seq.
func (s *scans) remembered(org carillon.OrgID, seq uint64) *scanChunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.recent {
		if c.org == org && c.from <= seq && seq < c.seen && time.Since(c.read) <= rememberedPassTime {
			return c
		}
	}
	return nil
}
