package hub

// offerShare is which part of a turn's offers are of one partition, before another one
// has its turn.
const offerShare = 8

// offers are the entries of one partition that a shard has yet to offer to its feeds, in
// order. Ten thousand feeds take milliseconds, so that others come in between.
//
// The shard's place is before the first of them until all are through with it. Meanwhile
// no feed of the partition becomes live, since it may have been passed over while it was
// not, and nobody of its organizations has a turn, so that a socket gets with one write
// what was published at once.
type offers struct {
	queue []notice
	first int // in the queue

	// Of the first, while it is offered: the matched nodes before node are through, and of
	// that one the subscriptions from left on. A list is gone through from its end: who is
	// new stands behind, and reads the ring; whoever takes the place of one that is gone
	// came from there, and is offered the entry again, which changes nothing.
	node, left int
	begun      bool

	opened bool   // the partition is among those that have some
	mark   uint64 // from this index on the ring is read, for what had no room; 0: nothing had none
	parked []*branch
}

func (o *offers) any() bool { return o.first < len(o.queue) || o.mark != 0 }

// add leaves an entry. When there are too many, the ring is read instead.
func (o *offers) add(n notice, most int) {
	switch {
	case o.mark != 0:
	case len(o.queue)-o.first >= most:
		o.mark = n.d.at.n
	default:
		o.queue = append(o.queue, n)
	}
}

// clear forgets everything but who is parked.
func (o *offers) clear() {
	clear(o.queue)
	o.queue, o.first = o.queue[:0], 0
	o.node, o.left, o.begun, o.mark = 0, 0, false, 0
}

// offering reports whether entries of the partition are still to be offered.
func (s *Shard) offering(part *partition) bool { return s.todo[part.id].any() }

// sort puts the entries of the mail with those of their partitions.
func (s *Shard) sort() {
	for _, n := range s.mail.notices {
		s.open(n.part)
		s.todo[n.part.id].add(n, s.hub.cfg.Mailbox)
	}
	for p, from := range s.mail.marks {
		if from == 0 {
			continue
		}
		part := s.hub.parts[p]
		s.open(part)
		if s.todo[p].mark == 0 {
			s.todo[p].mark = from
		}
	}
}

func (s *Shard) open(part *partition) {
	if o := &s.todo[part.id]; !o.opened {
		o.opened = true
		s.opened = append(s.opened, part)
	}
}

// offer offers what there is to about so many feeds, a few of each partition at a time.
func (s *Shard) offer(budget int) {
	quantum := max(budget/offerShare, 1)
	for budget > 0 && len(s.opened) > 0 {
		part := s.opened[0]
		budget -= s.offerOf(part, quantum)
		s.opened = append(s.opened[:0], s.opened[1:]...)
		if s.offering(part) {
			s.opened = append(s.opened, part)
		} else {
			s.todo[part.id].opened = false
			s.unpark(part)
		}
	}
}

// offerOf is offer for one partition. It returns to how many, at least 1.
func (s *Shard) offerOf(part *partition, budget int) (spent int) {
	o := &s.todo[part.id]
	for spent < budget && o.first < len(o.queue) {
		n := o.queue[o.first]
		spent += 1 + s.offerFirst(o, n, budget-spent)
		if o.node < len(n.nodes) {
			return spent
		}
		s.passed(part, n.d)
		o.queue[o.first] = notice{}
		o.first, o.node = o.first+1, 0
	}
	if o.first < len(o.queue) {
		return spent
	}
	from := o.mark
	o.clear()
	if from != 0 {
		s.readFrom(part, from)
		spent += budget
	}
	return spent
}

// offerFirst goes on with the first entry.
func (s *Shard) offerFirst(o *offers, n notice, budget int) (spent int) {
	for ; o.node < len(n.nodes); o.node, o.begun = o.node+1, false {
		node := n.nodes[o.node]
		l := node.on(s.id, &s.one)
		if !o.begun {
			o.left, o.begun = len(l), true
		}
		for o.left = min(o.left, len(l)); o.left > 0; spent++ {
			if spent >= budget {
				return spent
			}
			o.left--
			s.offerTo(l[o.left], n.d, node)
		}
	}
	return spent
}

// offerAll offers an entry to all feeds at the matched nodes.
func (s *Shard) offerAll(d *Delivery, nodes []*node) {
	for _, n := range nodes {
		for _, r := range n.on(s.id, &s.one) {
			s.offerTo(r, d, n)
		}
	}
}

func (s *Shard) offerTo(r ref, d *Delivery, n *node) {
	f := s.feeds.get(r.feed())
	if r.sub() == inboxSub {
		if f.owns(n, d.Entry) {
			f.offer(s, d, nil)
		}
	} else if sub := f.sub(r.sub()); sub.accepts(d.Entry) {
		f.offer(s, d, sub)
	}
}

// parks keeps a branch that is due until its partition's entries have been offered.
func (s *Shard) parks(b *branch) bool {
	if b.realm == nil || !s.offering(b.realm.part) {
		return false
	}
	o := &s.todo[b.realm.part.id]
	o.parked = append(o.parked, b)
	return true
}

func (s *Shard) unpark(part *partition) {
	o := &s.todo[part.id]
	for _, b := range o.parked {
		s.due.append(b)
	}
	clear(o.parked)
	o.parked = o.parked[:0]
}
