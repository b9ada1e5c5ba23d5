package hub

import (
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"

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
	refs  int        // guarded by the hub's mu
	tree  *match.Tree[*node]
	users users // inboxes: a keyed audience beside the patterns
}

// node is one pattern, or one user's inbox: where the subscriptions to it are. Most
// have subscribers on one shard only, and one of them.
type node struct {
	text   string                 // the pattern, or directKey and the user
	here   list                   // of the home shard, which alone touches it
	others atomic.Pointer[others] // of the other shards; replaced under realm.mu; nil: none
	home   atomic.Int32           // 1 + the shard that here belongs to; 0: none. Changes under realm.mu
	refs   int32                  // guarded by realm.mu: feeds that know it
}

// Pattern is that of a node that is no inbox.
func (n *node) Pattern() carillon.Pattern { return carillon.Pattern(n.text) }

// inbox reports whether it is a user's.
func (n *node) inbox() bool { return n.text[:1] == directKey }

// user is whose inbox it is.
func (n *node) user() string { return n.text[len(directKey):] }

// ref names a subscription on its shard: the number of the feed, and which of the
// feed's subscriptions it is.
type ref uint64

func refOf(feed, sub uint32) ref { return ref(feed)<<32 | ref(sub) }

func (r ref) feed() uint32 { return uint32(r >> 32) }
func (r ref) sub() uint32  { return uint32(r) }

// list is subscriptions on one shard. The first needs no memory of its own.
type list struct {
	first ref // 0: there is none
	more  *[]ref
}

func (l *list) len() int {
	switch {
	case l.first == 0:
		return 0
	case l.more == nil:
		return 1
	}
	return 1 + len(*l.more)
}

func (l *list) at(i int) ref {
	if i == 0 {
		return l.first
	}
	return (*l.more)[i-1]
}

func (l *list) set(i int, r ref) {
	if i == 0 {
		l.first = r
		return
	}
	(*l.more)[i-1] = r
}

// add returns the place of r.
func (l *list) add(r ref) int {
	n := l.len()
	switch {
	case n == 0:
		l.first = r
		return 0
	case l.more == nil:
		l.more = &[]ref{r}
	default:
		*l.more = append(*l.more, r)
	}
	return n
}

// remove puts the last in the place i, and returns it.
func (l *list) remove(i int) (moved ref) {
	last := l.len() - 1
	moved = l.at(last)
	l.set(i, moved)
	switch last {
	case 0:
		l.first = 0
	case 1:
		l.more = nil
	default:
		*l.more = (*l.more)[:last-1]
		if cap(*l.more) >= 64 && len(*l.more) <= cap(*l.more)/4 { // most are gone
			*l.more = append(make([]ref, 0, 2*len(*l.more)), *l.more...)
		}
	}
	return moved
}

// others are the lists of the shards in a set, in the order of the shards. It is
// replaced, never changed; each list is its shard's.
type others struct {
	shards uint64
	lists  []*list
}

// find is the place of the shard's list, and whether there is one.
func (o *others) find(shard int) (i int, ok bool) {
	if o == nil {
		return 0, false
	}
	below := uint64(1)<<shard - 1
	return bits.OnesCount64(o.shards & below), o.shards>>shard&1 != 0
}

func (o *others) with(shard int, l *list) *others {
	i, _ := o.find(shard)
	n := &others{shards: 1 << shard}
	if o != nil {
		n.shards |= o.shards
		n.lists = append(n.lists, o.lists[:i]...)
	}
	n.lists = append(n.lists, l)
	if o != nil {
		n.lists = append(n.lists, o.lists[i:]...)
	}
	return n
}

func (o *others) without(shard int) *others {
	i, _ := o.find(shard)
	n := &others{shards: o.shards &^ (1 << shard)}
	if n.shards == 0 {
		return nil
	}
	n.lists = append(append(n.lists, o.lists[:i]...), o.lists[i+1:]...)
	return n
}

// on is the list of a shard, for the shard's goroutine; nil: it has none.
func (n *node) on(shard int) *list {
	if int(n.home.Load()) == shard+1 {
		return &n.here
	}
	o := n.others.Load()
	if i, ok := o.find(shard); ok {
		return o.lists[i]
	}
	return nil
}

// shards is the set of those that have subscriptions. realm.mu is held.
func (n *node) shards() (set uint64) {
	if o := n.others.Load(); o != nil {
		set = o.shards
	}
	if home := n.home.Load(); home != 0 {
		set |= 1 << (home - 1)
	}
	return set
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
			if n := r.users.find(u); n != nil {
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

// pattern finds the node of a pattern, and makes it if need be: there is one feed
// more that knows it.
func (r *Realm) pattern(p carillon.Pattern) (*node, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.tree.Get(p)
	if !ok {
		n = &node{text: strings.Clone(string(p))} // not all that it is part of
		if err := r.tree.Add(n); err != nil {
			return nil, err
		}
	}
	n.refs++
	return n, nil
}

// user is pattern for the inbox of a user.
func (r *Realm) user(name string) *node {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.users.find(name)
	if n == nil {
		n = &node{text: directKey + name}
		r.users.add(n)
	}
	n.refs++
	return n
}

// release undoes pattern or user: the last out removes the node.
func (r *Realm) release(n *node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.refs--; n.refs > 0 {
		return
	}
	if n.inbox() {
		r.users.remove(n)
	} else {
		r.tree.Remove(n.Pattern())
	}
}

// enter puts a subscription on the shard's list of the node and returns its place.
// Entries the tail has matched before may lack it: see Feed.catchUp.
func (r *Realm) enter(n *node, shard int, sub ref) (place int) {
	if l := n.on(shard); l != nil {
		return l.add(sub)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.home.Load() == 0 {
		n.here = list{first: sub}
		n.home.Store(int32(shard) + 1)
		return 0
	}
	n.others.Store(n.others.Load().with(shard, &list{first: sub}))
	return 0
}

// leave undoes enter. It returns what has the place now, if that is another.
func (r *Realm) leave(n *node, shard, place int) (moved ref) {
	l := n.on(shard)
	if l.len() > 1 {
		return l.remove(place)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l == &n.here {
		n.here = list{}
		n.home.Store(0)
	} else {
		n.others.Store(n.others.Load().without(shard))
	}
	return 0
}

// eachShard calls f for every set bit.
func eachShard(shards uint64, f func(int)) {
	for ; shards != 0; shards &= shards - 1 {
		f(bits.TrailingZeros64(shards))
	}
}
