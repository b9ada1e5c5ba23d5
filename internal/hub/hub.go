package hub

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/match"
)

// Config of a hub. Zero fields mean the defaults given.
type Config struct {
	Engine engine.Engine
	Logger *slog.Logger

	Shards      int   // GOMAXPROCS, at most 64
	RingBytes   int64 // 24 MiB for the node, encodings counted
	FeedQueue   int   // 64 entries that a live feed may be late before it is behind
	Conflated   int   // 1,024 subjects of which one feed that is behind knows the newest entry
	Mailbox     int   // 4096 notices per shard
	Offers      int   // 1024 feeds that a shard offers entries to before others have a turn
	Ephemeral   int   // 32 KiB of ephemeral events that wait for one feed
	ScanWorkers int   // 4 readers of the log below the ring
	MaxShapes   int   // kinds of wildcard patterns per organization; see match.Tree

	// Poller makes the one in which a shard waits, in front of its sockets; nil:
	// others read and write them. Stop ends them.
	Poller func(shard int) Poller
}

// Hub is the part of a node between the log and the sessions.
type Hub struct {
	cfg    Config
	log    *slog.Logger
	parts  []*partition
	budget budget // of the rings
	shards []*Shard
	scans  *scans
	next   atomic.Uint64 // the shard for the next session

	mu     sync.Mutex // guards realms and ears
	realms map[carillon.OrgID]*Realm
	ears   map[carillon.OrgID]*ear

	cancel context.CancelFunc
	wg     sync.WaitGroup

	passes, scanned, stale atomic.Uint64
	unposted               atomic.Uint64 // ephemeral events that found a mailbox full
}

// New makes a hub; Start makes it run.
func New(cfg Config) *Hub {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&cfg.Shards, runtime.GOMAXPROCS(0))
	cfg.Shards = min(cfg.Shards, 64)
	def(&cfg.FeedQueue, 64)
	def(&cfg.Conflated, 1024)
	def(&cfg.Mailbox, 4096)
	def(&cfg.Offers, 1024)
	def(&cfg.Ephemeral, 32<<10)
	def(&cfg.ScanWorkers, 4)
	def(&cfg.MaxShapes, match.DefaultMaxShapes)
	if cfg.RingBytes <= 0 {
		cfg.RingBytes = 24 << 20
	}
	h := &Hub{cfg: cfg, log: cfg.Logger, budget: budget{bytes: cfg.RingBytes}, realms: map[carillon.OrgID]*Realm{}, ears: map[carillon.OrgID]*ear{}}
	parts := cfg.Engine.Partitions()
	for i := range parts {
		h.parts = append(h.parts, &partition{
			hub: h, id: i, warm: make(chan struct{}),
			ring: newRing(&h.budget),
		})
	}
	for i := range cfg.Shards {
		var poller Poller = newSleeper()
		if cfg.Poller != nil {
			poller = cfg.Poller(i)
		}
		s := &Shard{
			hub: h, id: i, box: newMailbox(poller.Wake, cfg.Mailbox, parts), poller: poller, branches: map[carillon.OrgID]*branch{},
			places: make([]place, parts), before: make([]place, parts), posted: make([]place, parts), todo: make([]offers, parts),
			mail: mail{marks: make([]uint64, parts), resets: make([]bool, parts)},
		}
		s.nobody = &branch{shard: s}
		s.wheel.begin, s.wheel.members = time.Now(), &s.members
		s.moments.begin = s.wheel.begin
		h.shards = append(h.shards, s)
	}
	h.scans = newScans(h, cfg.ScanWorkers)
	return h
}

// Start opens the tails and returns when the rings are filled, or with ctx's
// error. The hub runs until Stop.
func (h *Hub) Start(ctx context.Context) error {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h.cancel = cancel
	if err := h.begin(ctx); err != nil {
		cancel()
		return err
	}
	for _, p := range h.parts {
		h.wg.Go(func() { p.run(run) })
	}
	for _, s := range h.shards {
		h.wg.Go(func() { s.run(run) })
	}
	for range h.cfg.ScanWorkers {
		h.wg.Go(func() { h.scans.run(run) })
	}
	for _, p := range h.parts {
		select {
		case <-p.warm:
		case <-ctx.Done():
			h.Stop()
			return errors.Join(errors.New("hub: the log could not be read to its end"), ctx.Err())
		}
	}
	return nil
}

// Stop ends the hub's goroutines and waits for them. Sessions must be gone.
func (h *Hub) Stop() {
	if h.cancel == nil {
		return
	}
	h.cancel()
	for _, s := range h.shards {
		s.poller.Wake()
	}
	h.wg.Wait()
	h.deafen()
	for _, s := range h.shards {
		s.poller.End()
	}
}

// Shard chooses where a new session lives.
func (h *Hub) Shard() *Shard { return h.shards[h.next.Add(1)%uint64(len(h.shards))] }

// Shards are all of them.
func (h *Hub) Shards() []*Shard { return h.shards }

// Enter returns the realm of an organization; every Enter needs a Leave.
func (h *Hub) Enter(org carillon.OrgID) *Realm {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.realms[org]
	if r == nil {
		log := h.cfg.Engine.Open(org)
		r = &Realm{org: org, log: log, part: h.parts[log.Partition()]}
		r.tree = match.New[*node](match.Config{MaxShapes: h.cfg.MaxShapes})
		r.chain = r.part.ring.attach(org, r)
		h.realms[org] = r
	}
	r.refs++
	return r
}

// Leave gives a realm back; the last one out removes it.
func (h *Hub) Leave(r *Realm) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.refs--; r.refs == 0 {
		r.chain.realm.Store(nil)
		delete(h.realms, r.org)
	}
}

// Start is where a reader can begin.
type Start struct {
	Pos carillon.Position
	Gap *carillon.Gap // entries before Pos that it asked for are missing
}

// Resolve turns a cursor into a start. done is called on the shard's goroutine:
// at once when the ring can tell, else when the log has been asked; err is then
// that of the log.
func (s *Shard) Resolve(r *Realm, c carillon.Cursor, done func(Start, error)) {
	now := s.head(r)
	switch c.Kind {
	case carillon.CursorNone, carillon.CursorNow:
		done(Start{Pos: now}, nil)
	case carillon.CursorEarliest:
		done(Start{Pos: carillon.Position{Partition: uint16(r.part.id)}}, nil)
	case carillon.CursorForeign:
		done(foreign(now), nil)
	case carillon.CursorAt:
		if int(c.Pos.Partition) != r.part.id {
			done(foreign(now), nil)
			return
		}
		switch r.part.ring.verify(c.Pos) {
		case genuine:
			s.stats.RingResumes++
			done(Start{Pos: c.Pos}, nil)
		case mistaken:
			done(foreign(now), nil)
		case unknown:
			s.ask(r, done, func(ctx context.Context) (Start, error) { return resume(ctx, r, c.Pos) })
		}
	case carillon.CursorAgo:
		t := s.now.Add(-c.Ago)
		kept := s.hub.cfg.Engine.Caps().Retention
		s.ask(r, done, func(ctx context.Context) (Start, error) {
			pos, err := r.log.At(ctx, t)
			if err != nil {
				return Start{}, err
			}
			start, err := resume(ctx, r, pos)
			if err == nil && start.Gap == nil && kept > 0 && c.Ago > kept {
				start.Gap = &carillon.Gap{Reason: carillon.GapExpired, Pos: start.Pos}
			}
			return start, err
		})
	}
}

func foreign(now carillon.Position) Start {
	return Start{Pos: now, Gap: &carillon.Gap{Reason: carillon.GapReset, Pos: now}}
}

// resume asks the log about a position the ring does not know.
func resume(ctx context.Context, r *Realm, pos carillon.Position) (Start, error) {
	if pos.Seq == 0 {
		return Start{Pos: pos}, nil
	}
	out, err := r.log.Resume(ctx, pos)
	switch {
	case err != nil:
		return Start{}, err
	case out.Status == engine.Expired:
		return Start{Pos: out.From, Gap: &carillon.Gap{Reason: carillon.GapExpired, Pos: out.From}}, nil
	case out.Status == engine.Reset:
		return Start{Gap: &carillon.Gap{Reason: carillon.GapReset}}, nil
	}
	return Start{Pos: pos}, nil
}

// lookupTimeout bounds one question to the log.
const lookupTimeout = 15 * time.Second

func (s *Shard) ask(r *Realm, done func(Start, error), question func(context.Context) (Start, error)) {
	s.stats.LogLookups++
	s.hub.scans.lookup(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		start, err := question(ctx)
		cancel()
		s.Post(TaskFunc(func() {
			if err == nil && start.Gap != nil && start.Gap.Reason == carillon.GapReset {
				start = foreign(s.head(r))
			}
			done(start, err)
		}))
	})
}

// Head is the position of the end of the realm's partition as this process
// knows it: at least everything it has acknowledged.
func (s *Shard) Head(r *Realm) carillon.Position { return s.head(r) }
