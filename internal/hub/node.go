package hub

import (
	"math/bits"
	"sync/atomic"

	"github.com/carillon-rt/carillon"
)

// node is one pattern, or one user's inboxes: where the subscriptions to it are. Most
// have one, which needs no more memory than this.
type node struct {
	text  string                // the pattern, or the user
	only  atomic.Uint64         // as long as there is no crowd: the only subscription's ref; 0: it is not on a list
	crowd atomic.Pointer[crowd] // nil: no second subscription has come yet. Changes under realm.mu, once
}

// crowd is what a node has for more than one subscription.
type crowd struct {
	refs  int                   // guarded by realm.mu: subscriptions that know the node
	lists atomic.Pointer[lists] // replaced under realm.mu; nil: none
}

// nodeOf is a node of the user whose only feed f is. Nobody else knows it, so that it
// does not hear when the feed closes: see Feed.owns.
func nodeOf(f *Feed) *node {
	n := &node{text: f.user}
	n.only.Store(uint64(f.inbox()))
	return n
}

// Pattern is that of a node of a pattern.
func (n *node) Pattern() carillon.Pattern { return carillon.Pattern(n.text) }

// name is that of the user whose inboxes it is for.
func (n *node) name() string { return n.text }

// known counts in one more subscription that knows the node, which is no longer for
// one only. realm.mu is held, as for the following.
func (n *node) known() {
	c := n.crowd.Load()
	if c == nil {
		c = &crowd{refs: 1}
		if only := ref(n.only.Load()); only != 0 { // which stays, for the shard that has just seen that there is no crowd
			c.lists.Store((*lists)(nil).with(only.shard(), &list{only}))
		}
		n.crowd.Store(c)
	}
	c.refs++
}

// forgotten counts one out, and reports whether it was the last.
func (n *node) forgotten() bool {
	c := n.crowd.Load()
	if c == nil {
		return true
	}
	c.refs--
	return c.refs == 0
}

// begin makes a list of a shard that has none.
func (n *node) begin(sub ref) {
	if c := n.crowd.Load(); c != nil {
		c.lists.Store(c.lists.Load().with(sub.shard(), &list{sub}))
		return
	}
	n.only.Store(uint64(sub))
}

// end takes a shard's list away.
func (n *node) end(shard int) {
	if c := n.crowd.Load(); c != nil {
		c.lists.Store(c.lists.Load().without(shard))
		return
	}
	n.only.Store(0)
}

// shards is the set of those that have subscriptions.
func (n *node) shards() uint64 {
	if c := n.crowd.Load(); c != nil {
		if l := c.lists.Load(); l != nil {
			return l.shards
		}
		return 0
	}
	if only := ref(n.only.Load()); only != 0 {
		return 1 << only.shard()
	}
	return 0
}

// on are the subscriptions of a shard, for the shard's goroutine. one is memory for
// the only one there is.
func (n *node) on(shard int, one *list) list {
	if c := n.crowd.Load(); c != nil {
		if l := c.list(shard); l != nil {
			return *l
		}
		return nil
	}
	if only := ref(n.only.Load()); only != 0 && only.shard() == shard {
		*one = append((*one)[:0], only)
		return *one
	}
	return nil
}

// list is that of a shard, for the shard's goroutine; nil: it has none.
func (c *crowd) list(shard int) *list {
	if c == nil {
		return nil
	}
	l := c.lists.Load()
	if i, ok := l.find(shard); ok {
		return l.each[i]
	}
	return nil
}

// ref names a subscription: the number of the feed, its shard, and which of the feed's
// subscriptions it is. It is never 0.
type ref uint64

const (
	refShard = 24 // where the shard begins
	refFeed  = 32

	// inboxSub names the inbox where a number names a subscription. It is more than a
	// feed ever has.
	inboxSub = 1<<refShard - 1
)

func refOf(feed uint32, shard int, sub uint32) ref {
	return ref(feed)<<refFeed | ref(shard)<<refShard | ref(sub)
}

func (r ref) feed() uint32 { return uint32(r >> refFeed) }
func (r ref) shard() int   { return int(uint8(r >> refShard)) }
func (r ref) sub() uint32  { return uint32(r) & inboxSub }

// list is subscriptions on one shard.
type list []ref

// add returns the place of r.
func (l *list) add(r ref) int {
	*l = append(*l, r)
	return len(*l) - 1
}

// remove puts the last in the place i, and returns it.
func (l *list) remove(i int) (moved ref) {
	last := len(*l) - 1
	moved = (*l)[last]
	(*l)[i] = moved
	*l = (*l)[:last]
	if cap(*l) >= 64 && last <= cap(*l)/4 { // most are gone
		*l = append(make(list, 0, 2*last), *l...)
	}
	return moved
}

// lists are those of the shards in a set, in the order of the shards. They are
// replaced, never changed; each list is its shard's.
type lists struct {
	shards uint64
	each   []*list
}

// find is the place of the shard's list, and whether there is one.
func (o *lists) find(shard int) (i int, ok bool) {
	if o == nil {
		return 0, false
	}
	below := uint64(1)<<shard - 1
	return bits.OnesCount64(o.shards & below), o.shards>>shard&1 != 0
}

func (o *lists) with(shard int, l *list) *lists {
	i, _ := o.find(shard)
	n := &lists{shards: 1 << shard}
	if o != nil {
		n.shards |= o.shards
		n.each = append(n.each, o.each[:i]...)
	}
	n.each = append(n.each, l)
	if o != nil {
		n.each = append(n.each, o.each[i:]...)
	}
	return n
}

func (o *lists) without(shard int) *lists {
	i, _ := o.find(shard)
	n := &lists{shards: o.shards &^ (1 << shard)}
	if n.shards == 0 {
		return nil
	}
	n.each = append(append(n.each, o.each[:i]...), o.each[i+1:]...)
	return n
}
