package hub

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
)

// earLinger is how long a node goes on listening to an organization after its last
// session: clients that lost their connection come back in that time.
const earLinger = 30 * time.Second

// ear is where a node hears one organization's ephemeral events, while it has
// sessions of it.
type ear struct {
	hub   *Hub
	realm atomic.Pointer[Realm] // nil: no session is here now
	stop  func()

	// Guarded by the hub's mu.
	shards int
	idle   *time.Timer // set while there are none
}

// listen counts in a shard that has feeds of the realm which want ephemeral events.
func (h *Hub) listen(r *Realm) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.ears[r.org]
	if e == nil {
		e = &ear{hub: h}
		h.ears[r.org] = e
		e.stop = h.cfg.Engine.Signals(r.org).Listen(e.hear)
	}
	if e.idle != nil {
		e.idle.Stop()
		e.idle = nil
	}
	e.shards++
	e.realm.Store(r)
}

// unlisten counts a shard out.
func (h *Hub) unlisten(r *Realm) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.ears[r.org]
	if e.shards--; e.shards > 0 {
		return
	}
	e.realm.Store(nil)
	e.idle = time.AfterFunc(earLinger, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if e.shards == 0 && h.ears[r.org] == e {
			delete(h.ears, r.org)
			e.stop()
		}
	})
}

// deafen ends every ear: the hub stops.
func (h *Hub) deafen() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for org, e := range h.ears {
		if e.idle != nil {
			e.idle.Stop()
		}
		e.stop()
		delete(h.ears, org)
	}
}

// hear takes one event: it is matched once and posted to each shard with feeds
// there. It never waits; a shard that has no room goes without.
func (e *ear) hear(entry *carillon.Entry) {
	realm := e.realm.Load()
	if realm == nil {
		return
	}
	nodes, shards := realm.match(entry)
	if shards == 0 {
		return
	}
	d := &Delivery{Entry: entry}
	eachShard(shards, func(i int) {
		if !e.hub.shards[i].box.signal(notice{d: d, nodes: nodes}) {
			e.hub.unposted.Add(1)
		}
	})
}

// hear gives an ephemeral event to the feeds of this shard at the matched nodes.
func (s *Shard) hear(d *Delivery, nodes []*node) {
	for _, n := range nodes {
		for _, r := range n.on(s.id, &s.one) {
			f := s.feeds.get(r.feed())
			if r.sub() == inboxSub && f.owns(n, d.Entry) || r.sub() != inboxSub && f.sub(r.sub()).about(d.Entry) {
				f.hear(d)
			}
		}
	}
}

// aside is what a feed has of ephemeral events until its owner takes them: the
// newest of each type, subject and sender.
type aside struct {
	deliveries []*Delivery
	bytes      int
}

func (a *aside) remove(i int) {
	a.bytes -= a.deliveries[i].Entry.Size()
	a.deliveries = slices.Delete(a.deliveries, i, i+1)
}

// supersedes reports whether an event takes the place of an older one.
func supersedes(e, old *carillon.Entry) bool {
	return e.Type == old.Type && e.Subject == old.Subject && e.From == old.From
}

// Listen has the feed give ephemeral events too, between the log's, as long as it
// is live and not held. They do not move it.
func (f *Feed) Listen() {
	f.listens = true
	b := f.m.branch.Load()
	if b.listening++; b.listening == 1 {
		b.shard.hub.listen(b.realm)
	}
}

func (f *Feed) unlisten() {
	f.listens = false
	b := f.m.branch.Load()
	if b.listening--; b.listening == 0 {
		b.shard.hub.unlisten(b.realm)
	}
}

// hear is called for an ephemeral event that matched.
func (f *Feed) hear(d *Delivery) {
	if !f.listens {
		return
	}
	s := f.shard()
	if !f.live || f.held {
		s.stats.EphemeralBehind++
		return
	}
	b := f.need()
	if b.aside == nil {
		b.aside = s.newAside()
	}
	a := b.aside
	if i := slices.IndexFunc(a.deliveries, func(old *Delivery) bool { return supersedes(d.Entry, old.Entry) }); i >= 0 {
		if a.deliveries[i] == d { // another subscription matched it too
			return
		}
		a.remove(i)
		s.stats.EphemeralSuperseded++
	}
	size := d.Entry.Size()
	for len(a.deliveries) > 0 && a.bytes+size > s.hub.cfg.Ephemeral {
		a.remove(0)
		s.stats.EphemeralFull++
	}
	a.deliveries = append(a.deliveries, d)
	a.bytes += size
	f.m.Due()
}

// nextAside takes the oldest ephemeral event; there is one.
func (f *Feed) nextAside() *Delivery {
	a := f.busy.aside
	d := a.deliveries[0]
	a.remove(0)
	f.putAside()
	return d
}

// putAside gives an empty aside back.
func (f *Feed) putAside() {
	if a := f.busy.aside; len(a.deliveries) == 0 {
		s := f.shard()
		s.asides = append(s.asides, a)
		f.busy.aside = nil
	}
}

// discard forgets what is aside.
func (f *Feed) discard() {
	if f.busy == nil || f.busy.aside == nil {
		return
	}
	f.shard().stats.EphemeralBehind += uint64(len(f.busy.aside.deliveries))
	f.siftAside(func(*Delivery) bool { return true })
}

// siftAside takes out what out says.
func (f *Feed) siftAside(out func(*Delivery) bool) {
	if f.busy == nil || f.busy.aside == nil {
		return
	}
	a := f.busy.aside
	for i := len(a.deliveries) - 1; i >= 0; i-- {
		if out(a.deliveries[i]) {
			a.remove(i)
		}
	}
	f.putAside()
}

// hears reports whether some subscription wants an ephemeral event.
func (f *Feed) hears(e *carillon.Entry) bool {
	if e.To.Direct() {
		return f.mine(e)
	}
	for sub := range f.Subs {
		if sub.about(e) && sub.matches(e) {
			return true
		}
	}
	return false
}

func (s *Shard) newAside() *aside {
	if len(s.asides) > maxPooledQueues {
		s.asides = s.asides[:maxPooledQueues]
	}
	if i := len(s.asides) - 1; i >= 0 {
		a := s.asides[i]
		s.asides = s.asides[:i]
		return a
	}
	return new(aside)
}
