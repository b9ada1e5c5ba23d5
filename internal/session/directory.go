package session

import (
	"context"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
)

// directory knows every session and poll of the node.
type directory struct {
	mu       sync.Mutex // guards what follows
	sessions map[string]*Session
	polls    map[*Poll]struct{}
	draining bool
	window   time.Duration // of the drain
	empty    chan struct{} // closed when draining and all are gone
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
