package session

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/wire"
)

// parting is what a client was told about the end of its connection.
type parting uint8

const (
	untold   parting = iota
	lifetime         // it has been there long enough
	drained          // the node stops
)

func (p parting) reason() string {
	if p == lifetime {
		return "lifetime"
	}
	return "drain"
}

func (p parting) code() wire.CloseCode {
	if p == lifetime {
		return wire.CloseLifetimeEnded
	}
	return wire.CloseDrain
}

// mostNotice is how long before its lifetime ends a client is told, of a long one.
const mostNotice = 5 * time.Second

func (l *Limits) notice() time.Duration { return min(mostNotice, l.MaxLifetime/10) }

// setLifetime notes when the connection ends in any case: up to a tenth earlier
// than it has to, so that clients that came together do not come back together.
func (s *Session) setLifetime() {
	if most := s.core().Limits.MaxLifetime; most > 0 {
		s.leave(s.now().Add(most - rand.N(most/10+1)))
	}
}

// leave sets leaveAt.
func (s *Session) leave(at time.Time) {
	s.leaveAt = tenthsAfter(s.now().Add(-s.Shard().Elapsed()), at)
}

// goaway tells the client when its connection ends.
func (s *Session) goaway(why parting, at time.Time) {
	s.parting = why
	s.leave(at)
	s.send(wire.Begin("goaway").Str("reason", why.reason()).Int("retry_after_ms", max(at.Sub(s.now()), 0).Milliseconds()))
	s.rearm()
}

// drain closes the session at a time, and tells its client so, unless that knows
// of a sooner end.
func (s *Session) drain(at time.Time) {
	if s.is(closing|closed) || s.serial == 0 || (s.parting != untold && at.Sub(s.now()) >= s.leaves()) {
		return // one that has not begun yet asks by itself when it does
	}
	s.goaway(drained, at)
}

// departures are when the sessions of a node that drains are closed.
type departures struct {
	begin  time.Time
	window time.Duration
	pace   time.Duration // at least so long between two; 0: any time in the window

	mu   sync.Mutex // guards last
	last time.Time  // of them all, where there is a pace
}

// late is when a session closes that comes after the beginning.
func (d *departures) late(now time.Time) time.Time {
	if d.pace == 0 {
		return now.Add(within(d.window))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last = d.last.Add(d.pace); d.last.Before(now) {
		d.last = now
	}
	return d.last
}

func within(window time.Duration) time.Duration {
	if window <= 0 {
		return 0
	}
	return rand.N(window)
}

// plan says how long after the beginning each of the sessions closes, in random
// order, and gives each shard those of its own.
func (d *departures) plan(sessions []*Session, shards []*hub.Shard) []*goodbyes {
	rand.Shuffle(len(sessions), func(i, j int) { sessions[i], sessions[j] = sessions[j], sessions[i] })
	every := d.pace
	if d.pace > 0 && len(sessions) > 0 {
		every = max(every, d.window/time.Duration(len(sessions)))
	}
	all := make([]*goodbyes, len(shards))
	for i, shard := range shards {
		all[i] = &goodbyes{begin: d.begin, shard: shard}
	}
	for i, s := range sessions {
		after := time.Duration(i) * every
		if d.pace == 0 {
			after = within(d.window)
		}
		g := all[s.Shard().ID()]
		g.left = append(g.left, goodbye{s, after})
	}
	d.last = d.begin.Add(time.Duration(len(sessions)-1) * every)
	return all
}

// goodbyes are to be said to the sessions of one shard: some in each turn, so that
// a node with many goes on with its work.
type goodbyes struct {
	begin time.Time
	shard *hub.Shard
	left  []goodbye
}

type goodbye struct {
	s     *Session
	after time.Duration
}

// goodbyesAtOnce is how many are said in one turn.
const goodbyesAtOnce = 256

// Run is hub.Task's.
func (g *goodbyes) Run() {
	some := g.left[:min(goodbyesAtOnce, len(g.left))]
	for _, b := range some {
		b.s.drain(g.begin.Add(b.after))
	}
	clear(some)
	if g.left = g.left[len(some):]; len(g.left) > 0 {
		g.shard.Post(g)
	}
}

// Drain says goaway to every session, answers every poll, and closes the sessions
// in random order, spread over the window; with a rate other than 0 at most so
// many in a second, which may take longer. One that comes meanwhile is told at
// once, and closed like the others. It returns when all are gone or ctx ends.
func (c *Core) Drain(ctx context.Context, window time.Duration, rate int) error {
	d := &departures{begin: time.Now(), window: window}
	if rate > 0 {
		d.pace = time.Second / time.Duration(rate)
	}
	c.leaving.Store(d) // before they are looked for: who comes too late for that sees this
	empty := c.dir.whenEmpty()
	sessions := c.all(ctx)
	for _, g := range d.plan(sessions, c.Hub.Shards()) {
		g.shard.Post(g)
	}
	c.eachFollower(func(f *follower) { f.Timeout(d.begin) }) // they answer, or linger no more
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Draining reports whether the node takes no new sessions.
func (c *Core) Draining() bool { return c.leaving.Load() != nil }
