package hub

import (
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
)

// Member is something that a shard owns and calls: a session, by way of example. It
// is embedded in its owner. A member has turns, one deadline, and, once it has said
// which, an organization.
//
// What links members to each other are their numbers in the shard's table.
type Member struct {
	owner  TimerOwner             // of a member that has turns: an Owner
	branch atomic.Pointer[branch] // never nil after Join; written on the shard

	number uint32 // 0: it has none yet
	due    uint32 // the next of its branch that is due

	// In the wheel.
	prev, next uint32
	tick       uint32 // in which it fires
	slot       uint16 // 1 + the slot it is in; 0: none

	state memberState
}

// memberState is what is the case with a member, in one byte.
type memberState uint8

const (
	queued memberState = 1 << iota // it is due
	left
	alone // it is a Timer's
)

func (m *Member) is(what memberState) bool { return m.state&what != 0 }

// Owner is told on its shard's goroutine.
type Owner interface {
	Turner
	TimerOwner
}

// Turner does what is due; it may be due again meanwhile.
type Turner interface{ Turn() }

// branch is an organization's members on one shard, and what they share. Only the
// shard's goroutine touches what changes in it.
type branch struct {
	shard *Shard
	realm *Realm // nil: of those that have no organization

	tag       any
	members   int
	listening int // feeds that want ephemeral events

	// Those that are due.
	first, last uint32
	waits       bool    // it is in the shard's due list
	next        *branch // there
}

// Join makes m a member of the shard. It may be called from anywhere, once, before
// anything else is done with m.
func (s *Shard) Join(m *Member, owner Owner) {
	m.owner = owner
	m.branch.Store(s.nobody)
}

// Shard is where the member lives. Safe from anywhere.
func (m *Member) Shard() *Shard { return m.branch.Load().shard }

// Realm is the organization it has entered, or nil.
func (m *Member) Realm() *Realm { return m.branch.Load().realm }

// Org is the name of that, or "".
func (m *Member) Org() carillon.OrgID {
	if r := m.Realm(); r != nil {
		return r.org
	}
	return ""
}

// Tag is what SetTag said last for the organization's members on this shard; nil
// when the first of them comes.
func (m *Member) Tag() any { return m.branch.Load().tag }

// SetTag keeps something for all of them.
func (m *Member) SetTag(tag any) { m.branch.Load().tag = tag }

// SetTag keeps something for all members that have no organization. It is called
// before there are any.
func (h *Hub) SetTag(tag any) {
	for _, s := range h.shards {
		s.nobody.tag = tag
	}
}

// Enter moves the member to its organization, for good.
func (m *Member) Enter(org carillon.OrgID) {
	s := m.Shard()
	b := s.branches[org]
	if b == nil {
		b = &branch{shard: s, realm: s.hub.Enter(org)}
		s.branches[org] = b
	}
	b.members++
	m.branch.Store(b)
}

// Leave ends the membership: m is not called any more. Its feeds must be closed.
// Leaving twice is allowed.
func (m *Member) Leave() {
	if m.is(left) {
		return
	}
	m.state |= left
	b := m.branch.Load()
	s := b.shard
	s.wheel.remove(m)
	if !m.is(queued) {
		s.members.forget(m)
	}
	if b.realm == nil {
		return
	}
	if b.members--; b.members == 0 {
		delete(s.branches, b.realm.org)
		s.hub.Leave(b.realm)
	}
}

// Number is the member's place in the shard's table. No two members of a shard have
// the same at the same time.
func (m *Member) Number() uint32 { return m.Shard().members.number(m) }

// members are what a shard calls, by number.
type members struct{ table[Member] }

// number is that of m, which gets one if it has none.
func (t *members) number(m *Member) uint32 {
	if m.number == 0 {
		m.number = t.add(m)
	}
	return m.number
}

// forget takes the number of m back.
func (t *members) forget(m *Member) {
	if m.number != 0 {
		t.remove(m.number)
		m.number = 0
	}
}

// Find is the owner of the member with this number, or nil.
func (s *Shard) Find(number uint32) any {
	if m := s.members.get(number); m != nil && !m.is(left|alone) {
		return m.owner
	}
	return nil
}

// walkSlice is how many members one task of a walk visits.
const walkSlice = 256

// Walk calls f on the shard's goroutine for the owner of every member that has a
// number and stays, some of them in each turn, and then done, if there is one. Those
// that come meanwhile may be left out. Safe from anywhere.
func (s *Shard) Walk(f func(owner any), done func()) {
	next := uint32(1)
	var step TaskFunc
	step = func() {
		for range walkSlice {
			if next > s.members.last {
				if done != nil {
					done()
				}
				return
			}
			if owner := s.Find(next); owner != nil {
				f(owner)
			}
			next++
		}
		s.Post(step)
	}
	s.Post(step)
}

// Alarm sets the member's deadline, instead of the one it had: Timeout is called in
// the first tick after it.
func (m *Member) Alarm(deadline time.Time) { m.Shard().wheel.set(m, deadline) }

// StopAlarm unsets the deadline.
func (m *Member) StopAlarm() { m.Shard().wheel.remove(m) }

// Due asks for a turn.
func (m *Member) Due() {
	if m.is(queued | left) {
		return
	}
	m.state |= queued
	b := m.branch.Load()
	b.shard.due.push(b, m)
}
