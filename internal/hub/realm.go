package hub

import (
	"math/bits"
	"strings"
	"sync"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/match"
)

// Realm is one organization's subscriptions on this node. It belongs to one
// organization for life; nothing in it can name another.
type Realm struct {
	org   carillon.OrgID
	log   engine.Log
	part  *partition
	chain *chain

	mu   sync.Mutex // guards what follows; held for matching only, never across a call out
	refs int        // guarded by the hub's mu
	tree *match.Tree[*node]

	// Inboxes: a keyed audience beside the patterns.
	alone users[*Feed] // of users with one feed here
	among users[*node] // of those who have several, or had
}

// Org is the realm's organization.
func (r *Realm) Org() carillon.OrgID { return r.org }

// match returns the nodes of the realm that accept e, and the shards that have
// feeds there. The slice is shared: do not change it.
func (r *Realm) match(e *carillon.Entry) (nodes []*node, shards uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.To.Room != "":
		return nil, 0
	case e.To.Direct():
		for _, u := range e.To.Users {
			if n := r.inboxes(u); n != nil {
				nodes = append(nodes, n)
			}
		}
	default:
		nodes = r.tree.Lookup(e.Type)
	}
	for _, n := range nodes {
		shards |= n.shards()
	}
	return nodes, shards
}

// pattern finds the node of a pattern, and makes it if need be: there is one
// subscription more that knows it.
func (r *Realm) pattern(p carillon.Pattern) (*node, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n, ok := r.tree.Get(p); ok {
		n.known()
		return n, nil
	}
	n := &node{text: strings.Clone(string(p))} // not all that it is part of
	if err := r.tree.Add(n); err != nil {
		return nil, err
	}
	return n, nil
}

// release undoes pattern: the last out removes the node.
func (r *Realm) release(n *node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.forgotten() {
		r.tree.Remove(n.Pattern())
	}
}

// enter puts a subscription on the shard's list of the node and returns its place.
// Entries the tail has matched before may lack it: see Feed.catchUp.
func (r *Realm) enter(n *node, sub ref) (place int) {
	if l := n.crowd.Load().list(sub.shard()); l != nil {
		return l.add(sub)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n.begin(sub)
	return 0
}

// leave undoes enter. It returns what has the place now, if that is another.
func (r *Realm) leave(n *node, shard, place int) (moved ref) {
	if l := n.crowd.Load().list(shard); l != nil && len(*l) > 1 {
		return l.remove(place)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n.end(shard)
	return 0
}

// inboxes is where the feeds of a user are, or nil. r.mu is held.
func (r *Realm) inboxes(user string) *node {
	if n := r.among.find(user); n != nil {
		return n
	}
	if f := r.alone.find(user); f != nil {
		return nodeOf(f)
	}
	return nil
}

// openInbox takes in a feed of a user. A user's first feed stands in the directory
// itself; with the second they get a node, which is returned.
func (r *Realm) openInbox(f *Feed) *node {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.among.find(f.user)
	if n == nil {
		first := r.alone.find(f.user)
		if first == nil {
			r.alone.add(f)
			return nil
		}
		r.alone.remove(first)
		n = nodeOf(first)
		r.among.add(n)
	}
	n.known()
	return n
}

// closeInbox takes out a feed that stands in the directory itself, or returns the
// node where it is.
func (r *Realm) closeInbox(f *Feed) *node {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.among.find(f.user); n != nil {
		return n
	}
	r.alone.remove(f)
	return nil
}

// releaseInbox is release for the node of a user.
func (r *Realm) releaseInbox(n *node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.forgotten() {
		r.among.remove(n)
	}
}

// eachShard calls f for every set bit.
func eachShard(shards uint64, f func(int)) {
	for ; shards != 0; shards &= shards - 1 {
		f(bits.TrailingZeros64(shards))
	}
}
