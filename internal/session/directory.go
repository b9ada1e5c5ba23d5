package session

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
)

// directory counts the sessions and polls of the node. Which there are their shards
// know.
type directory struct {
	sessions atomic.Int64
	polls    atomic.Int64 // followers

	seed maphash.Seed // of the keys

	mu       sync.Mutex             // guards what follows
	places   map[carillon.OrgID]int // taken by sessions
	users    map[userKey]int        // the same, where they are limited
	reserved int                    // places of the node, taken by sessions and polls or about to be
	addrs    map[addressKey]int     // the same by address, where they are limited
	empty    chan struct{}          // closed when draining and all are gone
}

// userKey and addressKey stand for a user of an organization and for a client's
// address: hashes of 64 bits with a secret seed, so that it is as good as certain
// that no two of those who are here have the same.
type (
	userKey    uint64
	addressKey uint64
)

func (d *directory) init() {
	d.seed = maphash.MakeSeed()
	d.places, d.users, d.addrs = map[carillon.OrgID]int{}, map[userKey]int{}, map[addressKey]int{}
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
		return carillon.Unavailable(nodeRetry+rand.N(nodeRetry), nil, "this server has as many connections as it can carry; connect again later").Over(limitNode)
	}
	if key := c.addressKey(addr); key != 0 {
		if d.addrs[key] >= c.MaxPerAddress {
			c.stats.limits.Add(limitAddress)
			return tooMany("your address", c.MaxPerAddress, limitAddress)
		}
		d.addrs[key]++
	}
	d.reserved++
	return nil
}

// Release gives back what Reserve took for the address.
func (c *Core) Release(addr netip.Addr) { c.dir.release(c.addressKey(addr)) }

func (d *directory) release(key addressKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved--
	if d.addrs[key] > 1 {
		d.addrs[key]--
		return
	}
	delete(d.addrs, key)
}

// addressKey stands for the household of an address; 0: none that is counted.
func (c *Core) addressKey(addr netip.Addr) addressKey {
	if addr = household(addr); c.MaxPerAddress <= 0 || !addr.IsValid() {
		return 0
	}
	return addressKey(maphash.Comparable(c.dir.seed, addr) | 1)
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
// node, where another node may have one, at most twice as long.
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
	who, d := c.userKey(p), &c.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if most > 0 && d.places[p.Org] >= most {
		c.stats.limits.Add(limitConnections)
		return nil, tooMany("this organization", most, limitConnections)
	}
	if who != 0 {
		if d.users[who] >= c.MaxPerUser {
			c.stats.limits.Add(limitUser)
			return nil, tooMany("this user", c.MaxPerUser, limitUser)
		}
		d.users[who]++
	}
	d.places[p.Org]++
	return func() { c.exit(p) }, nil
}

// exit gives back what Enter took.
func (c *Core) exit(p *carillon.Principal) {
	who, d := c.userKey(p), &c.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.places[p.Org]--; d.places[p.Org] == 0 {
		delete(d.places, p.Org)
	}
	if who != 0 {
		if d.users[who]--; d.users[who] == 0 {
			delete(d.users, who)
		}
	}
}

// userKey stands for a principal's user; 0: none that is counted. A server's key has
// none.
func (c *Core) userKey(p *carillon.Principal) userKey {
	if c.MaxPerUser <= 0 || p.User == "" {
		return 0
	}
	return userKey(maphash.Comparable(c.dir.seed, userOf{p.Org, p.User}) | 1)
}

func tooMany(whose string, most int, limit string) error {
	return &carillon.Error{
		Code:       carillon.CodeQuotaExceeded,
		Message:    fmt.Sprintf("%s has %d connections, as many as it may have; close one, or come back later", whose, most),
		RetryAfter: placeRetry,
		Limit:      limit,
	}
}

// gone is called when a session has ended.
func (c *Core) gone(s *Session) {
	if s.is(reserved) {
		c.dir.release(s.address)
	}
	if c.dir.sessions.Add(-1) == 0 {
		c.dir.ended()
	}
}

// pollEnded is called when a follower has ended.
func (d *directory) pollEnded() {
	if d.polls.Add(-1) == 0 {
		d.ended()
	}
}

// ended is called when the last of the sessions or of the polls has.
func (d *directory) ended() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.check()
}

// check is called with d.mu held.
func (d *directory) check() {
	if d.empty != nil && d.sessions.Load() == 0 && d.polls.Load() == 0 {
		close(d.empty)
		d.empty = nil
	}
}

// each calls f for every session, on its shard, some of them in each turn. Those
// that begin meanwhile may be left out.
func (c *Core) each(f func(*Session)) {
	for _, shard := range c.Hub.Shards() {
		shard.Walk(func(owner any) {
			if s, ok := owner.(*Session); ok {
				f(s)
			}
		}, nil)
	}
}

// all are those that there are, or, if ctx ends meanwhile, none.
func (c *Core) all(ctx context.Context) []*Session {
	var (
		shards = c.Hub.Shards()
		lists  = make(chan []*Session, len(shards))
		all    []*Session
	)
	for _, shard := range shards {
		var list []*Session
		shard.Walk(func(owner any) {
			if s, ok := owner.(*Session); ok {
				list = append(list, s)
			}
		}, func() { lists <- list })
	}
	for range shards {
		select {
		case list := <-lists:
			all = append(all, list...)
		case <-ctx.Done():
			return nil
		}
	}
	return all
}

// whenEmpty is closed when all sessions and polls are gone.
func (d *directory) whenEmpty() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	empty := d.empty
	if empty == nil {
		empty = make(chan struct{})
		d.empty = empty
	}
	d.check()
	return empty
}

// Count is how many sessions there are now.
func (c *Core) Count() int { return int(c.dir.sessions.Load()) }

// Find calls f on the shard of the session with this connection id, with the
// session if it is the principal's (same org and user), else with nil. It calls
// f exactly once, possibly at once.
func (c *Core) Find(id string, p *carillon.Principal, f func(*Session)) {
	at, ok := c.ids.parse(id)
	shards := c.Hub.Shards()
	if !ok || int(at.shard) >= len(shards) {
		f(nil)
		return
	}
	shard := shards[at.shard]
	shard.Post(hub.TaskFunc(func() {
		s, ok := shard.Find(at.number).(*Session)
		if !ok || s.serial != at.serial || s.is(closed) || s.grant == nil || s.Org() != p.Org || s.principal().User != p.User {
			f(nil)
			return
		}
		f(s)
	}))
}
