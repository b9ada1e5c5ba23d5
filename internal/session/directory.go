package session

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
)

// directory knows every session and poll of the node.
type directory struct {
	mu       sync.Mutex // guards what follows
	sessions map[string]*Session
	polls    map[*Poll]struct{}
	places   map[carillon.OrgID]int // taken by sessions
	reserved int                    // places of the node, taken by sessions and polls or about to be
	draining bool
	window   time.Duration // of the drain
	empty    chan struct{} // closed when draining and all are gone
}

// Reserve takes a place among the connections of the node, for a session or a
// poll that is about to be made and gives it back at its end; if nothing comes of
// it, Release does. It reports whether there was one.
func (c *Core) Reserve() bool {
	d := &c.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.MaxConnections > 0 && d.reserved >= c.MaxConnections {
		c.stats.limits.Add(limitNode)
		return false
	}
	d.reserved++
	return true
}

// Release gives back what Reserve took.
func (c *Core) Release() {
	c.dir.mu.Lock()
	defer c.dir.mu.Unlock()
	c.dir.reserved--
}

// Met counts a limit of the config that a door refuses by, as the error's Limit
// says; "" is none.
func (c *Core) Met(limit string) { c.stats.limits.Add(limit) }

// placeRetry is how long a client is told to wait for a place.
const placeRetry = 5 * time.Second

// Enter takes a place among the connections of an organization. leave gives it
// back, once. The error may be shown.
func (c *Core) Enter(org carillon.OrgID) (leave func(), err error) {
	most := 0
	if c.Connections != nil {
		most = c.Connections(org)
	}
	d := &c.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if most > 0 && d.places[org] >= most {
		c.stats.limits.Add(limitConnections)
		return nil, &carillon.Error{
			Code:       carillon.CodeQuotaExceeded,
			Message:    fmt.Sprintf("this organization has %d connections, as many as it may have; close one, or come back later", most),
			RetryAfter: placeRetry,
			Limit:      limitConnections,
		}
	}
	d.places[org]++
	return func() { d.leave(org) }, nil
}

func (d *directory) leave(org carillon.OrgID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.places[org]--; d.places[org] == 0 {
		delete(d.places, org)
	}
}

// add takes a session in. One that comes while the node drains is told at once.
func (d *directory) add(s *Session) {
	d.mu.Lock()
	d.sessions[s.id] = s
	draining, window := d.draining, d.window
	d.mu.Unlock()
	if draining {
		s.late = &window
	}
}

func (d *directory) remove(s *Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, s.id)
	if s.opt.Reserved {
		d.reserved--
	}
	d.check()
}

func (d *directory) addPoll(p *Poll) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.polls[p] = struct{}{}
	if d.draining {
		p.opt.Wait = 0
	}
}

func (d *directory) removePoll(p *Poll) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.polls, p)
	if p.opt.Reserved {
		d.reserved--
	}
	d.check()
}

// check is called with d.mu held.
func (d *directory) check() {
	if d.empty != nil && len(d.sessions)+len(d.polls) == 0 {
		close(d.empty)
		d.empty = nil
	}
}

func (d *directory) drain(ctx context.Context, window time.Duration) error {
	d.mu.Lock()
	d.draining, d.window = true, window
	empty := make(chan struct{})
	d.empty = empty
	sessions := make([]*Session, 0, len(d.sessions))
	for _, s := range d.sessions {
		sessions = append(sessions, s)
	}
	polls := make([]*Poll, 0, len(d.polls))
	for p := range d.polls {
		polls = append(polls, p)
	}
	d.check()
	d.mu.Unlock()
	for _, s := range sessions {
		s.Post(func() { s.drain(window) })
	}
	for _, p := range polls {
		p.Shard().Post(p.end)
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Draining reports whether the node takes no new sessions.
func (c *Core) Draining() bool {
	c.dir.mu.Lock()
	defer c.dir.mu.Unlock()
	return c.dir.draining
}

// Count is how many sessions there are now.
func (c *Core) Count() int {
	c.dir.mu.Lock()
	defer c.dir.mu.Unlock()
	return len(c.dir.sessions)
}

// Find calls f on the shard of the session with this connection id, with the
// session if it is the principal's (same org and user), else with nil. It calls
// f exactly once, possibly at once.
func (c *Core) Find(id string, p *carillon.Principal, f func(*Session)) {
	c.dir.mu.Lock()
	s := c.dir.sessions[id]
	c.dir.mu.Unlock()
	if s == nil {
		f(nil)
		return
	}
	s.Post(func() {
		if s.closed || s.principal == nil || s.principal.Org != p.Org || s.principal.User != p.User {
			f(nil)
			return
		}
		f(s)
	})
}
