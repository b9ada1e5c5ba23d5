package hub

import (
	"math/bits"
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

	mu    sync.Mutex // guards what follows; held for matching only, never across a call out
	refs  int
	tree  *match.Tree[*node]
	users map[string]*node // inboxes: a keyed audience beside the patterns
}

// node is one pattern, or one user's inbox: where the subscriptions to it are.
type node struct {
	shards uint64   // guarded by realm.mu: bit s is set while lists[s] has any
	lists  [][]*Sub // lists[s] belongs to shard s
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
			if n := r.users[u]; n != nil {
				nodes = append(nodes, n)
			}
		}
	default:
		nodes = r.tree.Lookup(e.Type)
	}
	for _, n := range nodes {
		shards |= n.shards
	}
	return nodes, shards
}

// enter puts sub on its pattern's list, or on its user's inbox. Entries the tail
// has matched before may lack it: see Feed.catchUp.
func (r *Realm) enter(sub *Sub, shard int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var n *node
	if sub.user != "" {
		if n = r.users[sub.user]; n == nil {
			n = &node{lists: make([][]*Sub, len(r.part.hub.shards))}
			r.users[sub.user] = n
		}
	} else {
		var ok bool
		if n, ok = r.tree.Get(sub.Pattern); !ok {
			n = &node{lists: make([][]*Sub, len(r.part.hub.shards))}
			if err := r.tree.Add(sub.Pattern, n); err != nil {
				return err
			}
		}
	}
	n.shards |= 1 << shard
	sub.node, sub.index = n, len(n.lists[shard])
	n.lists[shard] = append(n.lists[shard], sub)
	return nil
}

// leave undoes enter.
func (r *Realm) leave(sub *Sub, shard int) {
	n := sub.node
	list := n.lists[shard]
	last := len(list) - 1
	list[sub.index] = list[last]
	list[sub.index].index = sub.index
	list[last] = nil
	n.lists[shard] = list[:last]
	sub.node = nil
	if last > 0 {
		return
	}
	n.lists[shard] = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	n.shards &^= 1 << shard
	if n.shards != 0 {
		return
	}
	if sub.user != "" {
		delete(r.users, sub.user)
	} else {
		r.tree.Remove(sub.Pattern)
	}
}

// eachShard calls f for every set bit.
func eachShard(shards uint64, f func(int)) {
	for ; shards != 0; shards &= shards - 1 {
		f(bits.TrailingZeros64(shards))
	}
}
