package hub

import "time"

// dueList is the members that are due: one queue per organization, and the
// organizations in turn, so that one's thousands do not keep another's one waiting.
type dueList struct{ first, last *branch }

func (l *dueList) any() bool { return l.first != nil }

// push puts m at the end of the queue of its branch.
func (l *dueList) push(b *branch, m *Member) {
	n := b.shard.members.number(m)
	m.due = 0
	if b.last == 0 {
		b.first = n
	} else {
		b.shard.members.get(b.last).due = n
	}
	b.last = n
	if !b.waits {
		b.waits = true
		l.append(b)
	}
}

func (l *dueList) append(b *branch) {
	b.next = nil
	if l.last == nil {
		l.first = b
	} else {
		l.last.next = b
	}
	l.last = b
}

// serve gives members their turn, one of each organization at a time, for about
// as long as the budget says.
func (l *dueList) serve(budget time.Duration) {
	if l.first == nil {
		return
	}
	const most = 512 // members, should the clock stand still
	end := time.Now().Add(budget)
	for n := 0; l.first != nil; n++ {
		if n == most || n > 0 && !time.Now().Before(end) {
			return
		}
		b := l.first
		if l.first = b.next; l.first == nil {
			l.last = nil
		}
		b.next = nil
		s := b.shard
		if s.parks(b) {
			continue
		}
		m := s.members.get(b.first)
		if b.first = m.due; b.first == 0 {
			b.last, b.waits = 0, false
		} else {
			l.append(b)
		}
		m.due = 0
		m.state &^= queued
		if m.is(left) {
			s.members.forget(m)
			continue
		}
		m.owner.(Turner).Turn() // Join took an Owner
	}
}
