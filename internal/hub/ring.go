package hub

import (
	"sort"
	"sync"
	"sync/atomic"

	"github.com/carillon-rt/carillon"
)

// Form names one encoding of an entry: codec, framing and the like. Package
// session gives the numbers their meaning.
type Form uint8

// NumForms is how many encodings a delivery remembers.
const NumForms = 4

// place is a position and its index in the ring.
type place struct {
	n   uint64
	pos carillon.Position
}

// Delivery is an entry that remembers its encodings, so that each is made at
// most once and shared by every session. An encoding may be empty: whoever
// remembered it says that there is none. Safe for concurrent use.
type Delivery struct {
	Entry *carillon.Entry

	at   place         // where it is in the ring; n is 0 for one read by a scan
	prev uint64        // ring index of the organization's previous entry, or 0
	next atomic.Uint64 // and of its next, or 0
	same uint64        // ring index of its previous entry with the same key, or 0
	ring *ring         // counts the encodings' bytes; nil for a scan's
	enc  [NumForms]atomic.Pointer[[]byte]
}

// Encoding returns the remembered encoding, or nil; one that is empty is not nil.
func (d *Delivery) Encoding(f Form) []byte {
	if p := d.enc[f].Load(); p != nil && (d.ring == nil || p != d.ring.left) {
		return *p
	}
	return nil
}

// Remember keeps b as the encoding and returns the one to use: b, or that of
// whoever came first. b must not change afterwards.
func (d *Delivery) Remember(f Form, b []byte) []byte {
	for {
		switch p := d.enc[f].Load(); {
		case p != nil && (d.ring == nil || p != d.ring.left):
			return *p
		case !d.enc[f].CompareAndSwap(p, &b):
		default:
			if p == nil && d.ring != nil {
				d.ring.bytes.Add(int64(allocated(cap(b))))
			}
			return b
		}
	}
}

// leave is called when d leaves its ring, which from then on counts none of its bytes.
// It returns those that it has counted.
func (d *Delivery) leave() (bytes int64) {
	bytes = int64(cost(d.Entry))
	for f := range d.enc {
		if !d.enc[f].CompareAndSwap(nil, d.ring.left) {
			bytes += int64(allocated(cap(*d.enc[f].Load())))
		}
	}
	return bytes
}

// chunkSize is how many entries one piece of the ring has at most, and chunkBytes how
// many bytes, unless a single entry is larger.
const (
	chunkSize  = 256
	chunkBytes = 256 << 10
)

type chunk [chunkSize]*Delivery

// last is its newest entry.
func (c *chunk) last() *Delivery {
	for i := chunkSize - 1; i > 0; i-- {
		if c[i] != nil {
			return c[i]
		}
	}
	return c[0]
}

// ringTable is the ring's directory; it is replaced, never changed.
type ringTable struct {
	base   uint64 // index of chunks[0][0]
	chunks []*chunk
}

func (t *ringTable) get(n uint64) *Delivery {
	if n < t.base {
		return nil
	}
	i := n - t.base
	if i/chunkSize >= uint64(len(t.chunks)) {
		return nil
	}
	return t.chunks[i/chunkSize][i%chunkSize]
}

// evictable reports whether the oldest chunk may leave: the newest two stay.
func (t *ringTable) evictable() bool { return len(t.chunks) > 2 }

// from is the entry at n or, where that is a hole, the one behind it.
func (t *ringTable) from(n uint64) *Delivery {
	d := t.get(n)
	if d == nil && n >= t.base {
		d = t.get(t.base + ((n-t.base)/chunkSize+1)*chunkSize)
	}
	return d
}

// chain is what the ring knows of one organization.
type chain struct {
	org     carillon.OrgID
	head    atomic.Uint64 // ring index of its newest entry, or 0
	evicted atomic.Uint64 // sequence of its last entry that left the ring, or 0
	realm   atomic.Pointer[Realm]

	mu   sync.Mutex        // guards keys
	keys map[string]uint64 // ring index of the newest entry of each key
}

// directKey is the key of all entries that go to named users; any other entry's
// is its type.
const directKey = "@"

func keyOf(e *carillon.Entry) string {
	if e.To.Direct() {
		return directKey
	}
	return string(e.Type)
}

// enter links d behind the newest entry of its key.
func (c *chain) enter(d *Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		c.keys = map[string]uint64{}
	}
	key := keyOf(d.Entry)
	d.same = c.keys[key]
	c.keys[key] = d.at.n
}

// leave forgets the key of d, which leaves the ring, if d is its newest entry.
func (c *chain) leave(d *Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if key := keyOf(d.Entry); c.keys[key] == d.at.n {
		delete(c.keys, key)
	}
}

// newest is the ring index of the newest entry of a key, or 0.
func (c *chain) newest(key string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys[key]
}

// ring holds the recent entries of a partition, of all organizations, in order.
// The tail appends; its oldest entries leave when the rings of the node together are
// over their budget; anyone may read. Indices of entries rise from 1. They have holes
// where a chunk was full of bytes before it was full of entries, as sequences of the
// log have holes.
type ring struct {
	budget *budget
	left   *[]byte // stands for an encoding that was not made before its entry left

	head  atomic.Uint64 // index of the newest entry; published after the entry
	table atomic.Pointer[ringTable]
	count atomic.Int64 // of entries
	bytes atomic.Int64 // entries and their encodings, as the runtime allocates them
	start atomic.Uint64
	// evictions are how often its oldest entries had to leave.
	evictions atomic.Uint64
	// floor is the position just before the oldest entry here.
	floor atomic.Pointer[carillon.Position]

	turn   sync.Mutex // held by whoever appends, evicts or resets
	filled int        // bytes of the newest chunk without encodings; guarded by turn

	mu      sync.RWMutex // guards chains
	chains  map[carillon.OrgID]*chain
	dropped bool // a chain was thrown away: new ones know nothing from before
}

// maxChains bounds the organizations a ring remembers without having entries or
// subscribers of them.
const maxChains = 100_000

func newRing(b *budget) *ring {
	r := &ring{budget: b, left: new([]byte), chains: map[carillon.OrgID]*chain{}}
	b.rings = append(b.rings, r)
	r.begin(carillon.Position{})
	return r
}

// begin has the ring begin behind base. It is empty.
func (r *ring) begin(base carillon.Position) {
	r.table.Store(&ringTable{base: r.head.Load() + 1})
	r.floor.Store(&base)
	r.start.Store(base.Seq)
	r.filled = 0
}

// chainOf returns what is known of an organization, making it if need be.
func (r *ring) chainOf(org carillon.OrgID) *chain {
	r.mu.RLock()
	c := r.chains[org]
	r.mu.RUnlock()
	if c != nil {
		return c
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.chainLocked(org)
}

func (r *ring) chainLocked(org carillon.OrgID) *chain {
	c := r.chains[org]
	if c == nil {
		c = &chain{org: org}
		if r.dropped {
			c.evicted.Store(r.floor.Load().Seq)
		}
		r.chains[org] = c
	}
	return c
}

// attach makes realm the one that the tail matches the organization's entries in.
func (r *ring) attach(org carillon.OrgID, realm *Realm) *chain {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.chainLocked(org)
	c.realm.Store(realm)
	return c
}

// append adds the newest entry. Only the tail calls it.
func (r *ring) append(e *carillon.Entry) (*Delivery, *chain) {
	r.turn.Lock()
	defer r.turn.Unlock()
	c := r.chainOf(e.Org)
	n := r.head.Load() + 1
	t := r.table.Load()
	if n-t.base == uint64(len(t.chunks))*chunkSize {
		r.filled = 0
	} else if size := cost(e); r.filled > 0 && r.filled+size > chunkBytes {
		n, r.filled = t.base+uint64(len(t.chunks))*chunkSize, 0
	}
	r.filled += cost(e)
	d := &Delivery{Entry: e, at: place{n: n, pos: e.Pos}, ring: r}
	prev := t.get(c.head.Load())
	if prev != nil {
		d.prev = prev.at.n
	}
	i := n - t.base
	if i/chunkSize == uint64(len(t.chunks)) {
		grown := &ringTable{base: t.base, chunks: make([]*chunk, len(t.chunks)+1)}
		copy(grown.chunks, t.chunks)
		grown.chunks[len(t.chunks)] = new(chunk)
		t = grown
	}
	t.chunks[i/chunkSize][i%chunkSize] = d
	r.count.Add(1)
	r.bytes.Add(int64(cost(e)))
	r.table.Store(t)
	if prev != nil {
		prev.next.Store(n)
	}
	c.enter(d)
	c.head.Store(n)
	r.head.Store(n)
	r.forget()
	return d, c
}

// newest is the newest entry; there is one.
func (r *ring) newest() *Delivery {
	for {
		if d := r.table.Load().get(r.head.Load()); d != nil { // or both have moved on meanwhile
			return d
		}
	}
}

// evict drops the oldest chunk, unless it has to stay. A reader that has loaded the
// table keeps what it sees.
func (r *ring) evict() bool {
	r.turn.Lock()
	defer r.turn.Unlock()
	t := r.table.Load()
	if !t.evictable() {
		return false
	}
	r.evictions.Add(1)
	var freed int64
	for _, d := range t.chunks[0] {
		if d == nil {
			break
		}
		r.count.Add(-1)
		freed += d.leave()
		c := r.chainOf(d.Entry.Org)
		c.evicted.Store(d.at.pos.Seq)
		c.leave(d)
	}
	r.floor.Store(&t.chunks[0].last().at.pos)
	t = &ringTable{base: t.base + chunkSize, chunks: append([]*chunk(nil), t.chunks[1:]...)}
	r.table.Store(t)
	r.bytes.Add(-freed)
	return true
}

// forget drops the organizations that are neither here nor listened to, if there are too
// many.
func (r *ring) forget() {
	r.mu.RLock()
	few := len(r.chains) <= maxChains
	r.mu.RUnlock()
	if few {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := r.table.Load().base
	for org, c := range r.chains {
		if c.realm.Load() == nil && c.head.Load() < oldest {
			delete(r.chains, org)
			r.dropped = true
		}
	}
}

// reset empties the ring: what follows comes after base.
func (r *ring) reset(base carillon.Position) {
	r.turn.Lock()
	defer r.turn.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for org, c := range r.chains {
		c.head.Store(0)
		c.evicted.Store(0)
		c.mu.Lock()
		c.keys = nil
		c.mu.Unlock()
		if c.realm.Load() == nil {
			delete(r.chains, org)
		}
	}
	r.dropped = false
	var freed int64
	for _, c := range r.table.Load().chunks {
		for _, d := range c {
			if d != nil {
				freed += d.leave()
			}
		}
	}
	r.count.Store(0)
	r.bytes.Add(-freed)
	r.begin(base)
}

// view is a consistent look at one organization's entries in the ring.
type view struct {
	table *ringTable
	head  uint64 // index of the organization's newest entry, or 0
	floor uint64 // every entry of the organization above this sequence is here
}

func (r *ring) view(c *chain) view {
	// The order matters: an entry seen through head is in a table loaded later,
	// and an entry whose eviction is not seen yet is in a table loaded before.
	v := view{head: c.head.Load()}
	v.table = r.table.Load()
	v.floor = max(c.evicted.Load(), r.start.Load())
	return v
}

// after is the organization's first entry above seq, or nil. seq must not be
// below the floor.
func (v *view) after(seq uint64) *Delivery {
	var found *Delivery
	for d := v.table.get(v.head); d != nil && d.at.pos.Seq > seq; d = v.table.get(d.prev) {
		found = d
	}
	return found
}

// following is the organization's next entry after d, or nil.
func (v *view) following(d *Delivery) *Delivery {
	if n := d.next.Load(); n != 0 {
		return v.table.get(n)
	}
	return nil
}

// verdict of looking a position up in the ring.
type verdict uint8

const (
	unknown  verdict = iota // the ring does not hold that place
	genuine                 // it is a place of this log
	mistaken                // another entry has that place
)

// verify compares a position with the entry at its place, whosever that is.
func (r *ring) verify(pos carillon.Position) verdict {
	head := r.head.Load()
	t := r.table.Load()
	if floor := r.floor.Load(); pos == *floor && (pos.Check != 0 || head < t.base) {
		return genuine
	}
	if head < t.base {
		return unknown
	}
	at := func(i int) *Delivery { return t.from(t.base + uint64(i)) } // the newest chunk has no hole before head
	count := int(head - t.base + 1)
	i := sort.Search(count, func(i int) bool { return at(i).at.pos.Seq >= pos.Seq })
	if i == count {
		return unknown
	}
	d := at(i)
	switch {
	case d.at.pos.Seq != pos.Seq:
		return unknown
	case d.at.pos.Check == pos.Check:
		return genuine
	}
	return mistaken
}
