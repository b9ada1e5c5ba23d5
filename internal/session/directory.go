package session

import (
	"context"
	"fmt"
	"net/netip"
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
	users    map[userOf]int         // the same, where they are limited
	reserved int                    // places of the node, taken by sessions and polls or about to be
	addrs    map[netip.Addr]int     // the same by address, where they are limited
	draining bool
	window   time.Duration // of the drain
	empty    chan struct{} // closed when draining and all are gone
}

// userOf is a user of an organization.
type userOf struct {
	org  carillon.OrgID
	user string
}

// Reserve takes a place among the connections of the node and of a client's
// address, for a session or a poll that is about to be made and gives it back at
// its end; if nothing comes of it, Release does. An address that is not valid is
// that of nobody. The error may be shown.
func (c *Core) Reserve(addr netip.Addr) error {
	if c.Full != nil {
		if err := c.Full(); err != nil {
			return err
		}
	}
	d := &c.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.MaxConnections > 0 && d.reserved >= c.MaxConnections {
		c.stats.limits.Add(limitNode)
		return carillon.Unavailable(nodeRetry, nil, "this server has as many connections as it can carry; connect again later").Over(limitNode)
	}
	if addr = household(addr); c.MaxPerAddress > 0 && addr.IsValid() {
		if d.addrs[addr] >= c.MaxPerAddress {
			c.stats.limits.Add(limitAddress)
			return tooMany("your address", c.MaxPerAddress, limitAddress)
		}
		d.addrs[addr]++
	}
	d.reserved++
	return nil
}

// Release gives back what Reserve took for the address.
func (c *Core) Release(addr netip.Addr) {
	c.dir.mu.Lock()
	defer c.dir.mu.Unlock()
	c.dir.release(addr)
}

// release is called with d.mu held.
func (d *directory) release(addr netip.Addr) {
	d.reserved--
	if addr = household(addr); d.addrs[addr] > 1 {
		d.addrs[addr]--
		return
	}
	delete(d.addrs, addr)
}

// household is what counts as one address: one of IPv4, and the /64 of one of
// IPv6, of which a client has all.
func household(addr netip.Addr) netip.Addr {
	const bits = 64
	if addr = addr.Unmap(); !addr.Is6() {
		return addr
	}
	prefix, _ := addr.WithZone("").Prefix(bits) // never fails
	return prefix.Addr()
}

// Met counts a limit of the config that a door refuses by, as the error's Limit
// says; "" is none.
func (c *Core) Met(limit string) { c.stats.limits.Add(limit) }

// How long a client is told to wait: for a place of its own, and for one of the
// node, where another node may have one.
const (
	placeRetry = 5 * time.Second
	nodeRetry  = 2 * time.Second
)

// Enter takes a place among the connections of an organization and of its user.
// leave gives it back, once. The error may be shown.
func (c *Core) Enter(p *carillon.Principal) (leave func(), err error) {
	most := 0
	if c.Connections != nil {
		most = c.Connections(p.Org)
	}
	who := userOf{p.Org, p.User}
	d := &c.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if most > 0 && d.places[p.Org] >= most {
		c.stats.limits.Add(limitConnections)
		return nil, tooMany("this organization", most, limitConnections)
	}
	counted := c.MaxPerUser > 0 && p.User != "" // a server's key has no user
	if counted {
		if d.users[who] >= c.MaxPerUser {
			c.stats.limits.Add(limitUser)
			return nil, tooMany("this user", c.MaxPerUser, limitUser)
		}
		d.users[who]++
	}
	d.places[p.Org]++
	return func() { d.leave(who, counted) }, nil
}

func tooMany(whose string, most int, limit string) error {
	return &carillon.Error{
		Code:       carillon.CodeQuotaExceeded,
		Message:    fmt.Sprintf("%s has %d connections, as many as it may have; close one, or come back later", whose, most),
		RetryAfter: placeRetry,
		Limit:      limit,
	}
}

func (d *directory) leave(who userOf, counted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.places[who.org]--; d.places[who.org] == 0 {
		delete(d.places, who.org)
	}
	if counted {
		if d.users[who]--; d.users[who] == 0 {
			delete(d.users, who)
		}
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
		d.release(s.opt.Address)
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
		d.release(p.opt.Address)
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
