package hub

import (
	"time"

	"github.com/carillon-rt/carillon"
)

// Member is a shard's handle on something that sends: a session. It is embedded
// in its owner. A member that is due gets its turn in a round-robin of the
// organizations, so that one organization's thousands do not keep another's one
// waiting.
type Member struct {
	shard  *Shard
	turn   Turner
	org    carillon.OrgID
	next   *Member
	queued bool
}

// Turner does what is due; it may be queued again meanwhile.
type Turner interface{ Turn() }

// Join makes m a member of the shard.
func (s *Shard) Join(m *Member, org carillon.OrgID, t Turner) {
	m.shard, m.org, m.turn = s, org, t
}

// SetOrg moves a member to the organization it turned out to belong to.
func (m *Member) SetOrg(org carillon.OrgID) { m.org = org }

// Shard is where the member lives.
func (m *Member) Shard() *Shard { return m.shard }

// Due asks for a turn.
func (m *Member) Due() {
	if !m.queued {
		m.queued = true
		m.shard.due.push(m)
	}
}

// dueList has one queue per organization with something due, and the
// organizations in turn.
type dueList struct {
	orgs  map[carillon.OrgID]*orgQueue
	first *orgQueue
	last  *orgQueue
	spare *orgQueue
}

type orgQueue struct {
	org         carillon.OrgID
	first, last *Member
	next        *orgQueue
}

func (l *dueList) any() bool { return l.first != nil }

func (l *dueList) push(m *Member) {
	m.next = nil
	q := l.orgs[m.org]
	if q == nil {
		if q = l.spare; q != nil {
			l.spare = q.next
			*q = orgQueue{}
		} else {
			q = new(orgQueue)
		}
		q.org = m.org
		if l.orgs == nil {
			l.orgs = map[carillon.OrgID]*orgQueue{}
		}
		l.orgs[m.org] = q
		l.append(q)
	}
	if q.last == nil {
		q.first = m
	} else {
		q.last.next = m
	}
	q.last = m
}

func (l *dueList) append(q *orgQueue) {
	q.next = nil
	if l.last == nil {
		l.first = q
	} else {
		l.last.next = q
	}
	l.last = q
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
		q := l.first
		if l.first = q.next; l.first == nil {
			l.last = nil
		}
		m := q.first
		if q.first = m.next; q.first == nil {
			q.last = nil
			delete(l.orgs, q.org)
			q.next, l.spare = l.spare, q
		} else {
			l.append(q)
		}
		m.next, m.queued = nil, false
		m.turn.Turn()
	}
}
