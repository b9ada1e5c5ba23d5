// Package admission limits how fast a node takes new clients on, so that a storm of
// them does not starve those who are connected.
//
// A [Gate] lets handshakes through at a rate, some at once. The others wait in
// line, in the order in which they came, up to a number and a time; beyond, they
// are refused and told when to come back, at the rate at which they could be let
// through. Whoever may wait calls [Gate.Enter]; an event loop, which may not, asks
// with [Gate.Ask], keeps the connection as it is, and comes again with [Gate.Pass].
//
// In any span of time no more are let through than the rate allows in it and Burst
// on top, however late those come who waited.
package admission

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
)

// Config of a Gate. PerSecond is required.
type Config struct {
	PerSecond  int           // handshakes, on average
	Burst      int           // at once; 0: those of a tenth of a second
	Queue      int           // that wait at the same time; 0: none may
	Wait       time.Duration // at most
	Concurrent int           // that Enter has let through and that have not left; 0: no limit
}

// Window is the span for which Stats tells the fullest.
const Window = 100 * time.Millisecond

// How long those who are refused are told to stay away.
const (
	leastRetry = time.Second
	mostRetry  = 30 * time.Second
)

// Gate admits handshakes. A nil Gate admits all. Its methods are safe from
// anywhere.
type Gate struct {
	cfg    Config
	begin  time.Time
	room   int64         // for those that wait
	places chan struct{} // one in it for each that is in hand; never closed; nil: no limit

	line   bucket // turns, given out in advance
	door   bucket // those let through
	later  bucket // times to come back, of those refused
	polite bucket // refusals with an explanation

	waiting                   atomic.Int64
	admitted, queued, refused atomic.Uint64
	window                    atomic.Uint64 // the present one, and how many were let through in it
	fullest                   atomic.Uint64
}

// New makes a gate.
func New(cfg Config) *Gate {
	if cfg.PerSecond <= 0 {
		panic("admission: Config.PerSecond is required")
	}
	if cfg.Burst <= 0 {
		cfg.Burst = max(1, cfg.PerSecond/int(time.Second/Window))
	}
	every := max(time.Second/time.Duration(cfg.PerSecond), 1)
	// More could not be let through in time, whatever they wait for.
	g := &Gate{cfg: cfg, begin: time.Now(), room: min(int64(cfg.Queue), int64(cfg.Wait/every))}
	if cfg.Concurrent > 0 {
		g.places = make(chan struct{}, cfg.Concurrent)
	}
	g.line.init(every, cfg.Burst)
	g.door.init(every, cfg.Burst)
	g.later.init(every, 1)
	g.polite.init(2*every, max(1, cfg.Burst/2))
	return g
}

// Enter waits until a handshake may go on. leave says that the work is done that
// takes the processor; it is called once. The error may be shown.
func (g *Gate) Enter(ctx context.Context) (leave func(), err error) {
	if g == nil {
		return func() {}, nil
	}
	now := time.Now()
	wait, err := g.turn(now)
	if err != nil {
		return nil, err
	}
	e := entry{g: g, until: now.Add(g.cfg.Wait)}
	if wait > 0 {
		e.waits = true // turn has counted it
		if err := e.sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
	if err := e.place(ctx); err != nil {
		return nil, err
	}
	for {
		now := time.Now()
		wait := g.door.take(g.since(now), 0)
		if wait == 0 {
			g.through(now, e.waits)
			return g.leave, nil
		}
		err := e.wait()
		if err == nil {
			err = e.sleep(ctx, wait)
		}
		if err != nil {
			g.leave()
			return nil, err
		}
	}
}

// entry is one in Enter.
type entry struct {
	g     *Gate
	until time.Time // it waits for a place
	waits bool      // it is counted as one that waits
}

// wait counts it as one that waits, if it is not yet.
func (e *entry) wait() error {
	if e.waits {
		return nil
	}
	_, err := e.g.queue(time.Now())
	e.waits = err == nil
	return err
}

// sleep waits for so long. One that gives up does not wait any more.
func (e *entry) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return e.gone(ctx)
	}
}

func (e *entry) gone(ctx context.Context) error {
	e.g.Gone()
	return carillon.Unavailable(leastRetry, ctx.Err(), "the client has gone")
}

// place waits for one of those that may be in hand.
func (e *entry) place(ctx context.Context) error {
	g := e.g
	if g.places == nil {
		return nil
	}
	select {
	case g.places <- struct{}{}:
		return nil
	default:
	}
	if err := e.wait(); err != nil {
		return err
	}
	t := time.NewTimer(time.Until(e.until))
	defer t.Stop()
	select {
	case g.places <- struct{}{}: // in the order in which they came
		return nil
	case <-t.C:
		g.Gone()
		return g.refuse(time.Now())
	case <-ctx.Done():
		return e.gone(ctx)
	}
}

func (g *Gate) leave() {
	if g.places != nil {
		<-g.places
	}
}

// Ask takes a turn. With 0 the handshake is let through. Otherwise it waits: the
// caller comes again with Pass when so much time has passed, or calls Gone if the
// client does not wait that long. The error may be shown: it is refused. Ask and
// Pass take no memory and never block.
func (g *Gate) Ask(now time.Time) (wait time.Duration, err error) {
	if g == nil {
		return 0, nil
	}
	if wait, err = g.turn(now); err != nil || wait > 0 {
		return wait, err
	}
	if wait = g.door.take(g.since(now), 0); wait > 0 { // some came late for their turns
		_, err = g.queue(now)
		return wait, err
	}
	g.through(now, false)
	return 0, nil
}

// Pass is for one that has waited: with 0 it is let through, otherwise it waits on.
func (g *Gate) Pass(now time.Time) (wait time.Duration) {
	if g == nil {
		return 0
	}
	if wait = g.door.take(g.since(now), 0); wait == 0 {
		g.through(now, true)
	}
	return wait
}

// Gone says that one that waited has gone. Its turn is lost.
func (g *Gate) Gone() {
	if g != nil {
		g.waiting.Add(-1)
	}
}

// Return takes back that one was let through, after a wait or at once: it has come to
// nothing here, and comes again with Enter, where it is counted. Its turn is somebody
// else's.
func (g *Gate) Return(now time.Time, waited bool) {
	if g == nil {
		return
	}
	g.door.give()
	g.line.give()
	if waited {
		g.queued.Add(^uint64(0))
	} else {
		g.admitted.Add(^uint64(0))
	}
	for {
		old := g.window.Load()
		if old>>windowBits != uint64(g.since(now)/Window) || old&(1<<windowBits-1) == 0 ||
			g.window.CompareAndSwap(old, old-1) {
			return
		}
	}
}

// Explain reports whether one that is refused may be told so in a way that costs
// nearly as much as a handshake: half as many may as are let through.
func (g *Gate) Explain(now time.Time) bool {
	return g == nil || g.polite.take(g.since(now), 0) == 0
}

// turn gives out the next turn and, if it is not now, counts one more that waits.
func (g *Gate) turn(now time.Time) (wait time.Duration, err error) {
	at := g.since(now)
	if g.waiting.Load() == 0 {
		if wait = g.line.take(at, 0); wait == 0 {
			return 0, nil
		}
	}
	n, err := g.queue(now)
	if err != nil {
		return 0, err
	}
	if wait = g.line.take(at, g.cfg.Wait); wait > g.cfg.Wait {
		g.Gone()
		return 0, g.refuse(now)
	}
	return max(wait, time.Duration(n-1)*g.line.every, 1), nil // not past those who are late
}

// queue counts one more that waits, if there is room, and says how many do.
func (g *Gate) queue(now time.Time) (n int64, err error) {
	if n = g.waiting.Add(1); n > g.room {
		g.waiting.Add(-1)
		return 0, g.refuse(now)
	}
	return n, nil
}

// windowBits are those of the number in Gate.window.
const windowBits = 24

// through counts one that is let through.
func (g *Gate) through(now time.Time, waited bool) {
	if waited {
		g.waiting.Add(-1)
		g.queued.Add(1)
	} else {
		g.admitted.Add(1)
	}
	for {
		old := g.window.Load()
		window, n := uint64(g.since(now)/Window), uint64(1)
		if old>>windowBits >= window { // the time of a turn may be a little old
			window, n = old>>windowBits, old&(1<<windowBits-1)+1
		}
		if g.window.CompareAndSwap(old, window<<windowBits|n) {
			for most := g.fullest.Load(); n > most && !g.fullest.CompareAndSwap(most, n); most = g.fullest.Load() {
			}
			return
		}
	}
}

// refuse is the error of one for which the line is too long. Those who are refused
// are told to come back one after the other, when those are through who wait now.
func (g *Gate) refuse(now time.Time) error {
	g.refused.Add(1)
	wait := g.later.take(g.since(now), mostRetry)
	if wait > mostRetry { // more than that are away already
		wait = mostRetry/2 + rand.N(mostRetry/2)
	}
	wait = max(wait+g.line.away(g.since(now)), leastRetry)
	wait += rand.N(wait / 4)
	return carillon.Unavailable(wait, nil, "more clients come to this server than it can take on at once; connect again later")
}

func (g *Gate) since(now time.Time) time.Duration { return max(now.Sub(g.begin), 0) }

// Stats are the counters of a gate.
type Stats struct {
	Admitted, Queued, Refused uint64 // let through at once; after a wait; neither
	Waiting                   int    // now
	Fullest                   uint64 // the most that were let through in a Window
}

// Stats reads the counters.
func (g *Gate) Stats() Stats {
	if g == nil {
		return Stats{}
	}
	return Stats{
		Admitted: g.admitted.Load(), Queued: g.queued.Load(), Refused: g.refused.Load(),
		Waiting: int(g.waiting.Load()), Fullest: g.fullest.Load(),
	}
}
