package hub

import (
	"math"
	"time"
)

const (
	wheelSlots = 4096
	wheelTick  = 100 * time.Millisecond

	// firing is the slot of what is due.
	firing = wheelSlots

	// maxFired is how many timers fire before others get their turn.
	maxFired = 256
)

// Timer is a deadline of something that is no member itself. It is embedded in its
// owner; the zero value is ready. It fires within a tick (100 ms) after its deadline,
// never before; when very many do, some turns of the shard later.
type Timer struct{ m Member }

// TimerOwner is told on its shard's goroutine. The timer is no longer set then.
type TimerOwner interface{ Timeout(now time.Time) }

// SetTimer sets t to call owner at deadline, instead of whatever it was set to.
func (s *Shard) SetTimer(t *Timer, owner TimerOwner, deadline time.Time) {
	t.m.owner, t.m.state = owner, alone
	s.wheel.set(&t.m, deadline)
}

// StopTimer unsets t.
func (s *Shard) StopTimer(t *Timer) {
	s.wheel.remove(&t.m)
	s.members.forget(&t.m)
}

// Rearm is SetTimer, or with the zero time StopTimer, for a timer that mostly is not
// set: t is nil then. It returns what t is from now on.
func (s *Shard) Rearm(t *Timer, owner TimerOwner, deadline time.Time) *Timer {
	switch {
	case !deadline.IsZero():
		if t == nil {
			t = new(Timer)
		}
		s.SetTimer(t, owner, deadline)
		return t
	case t != nil:
		s.StopTimer(t)
	}
	return nil
}

// wheel is a hashed timer wheel. Deadlines further than one turn of 409.6 s away
// stay in their slot and are passed over; no session has one as long as it is sent
// heartbeats. It counts from begin, by the monotonic clock where the times have one,
// so that it goes on when the wall clock is set.
type wheel struct {
	begin   time.Time
	members *members
	slots   [wheelSlots + 1]uint32 // the first member in each
	tick    int64                  // the last one handled
	count   int
}

func (w *wheel) tickOf(t time.Time) int64 { return int64(t.Sub(w.begin) / wheelTick) }

// untilTick is how long after now the next tick begins.
func (w *wheel) untilTick(now time.Time) time.Duration { return wheelTick - now.Sub(w.begin)%wheelTick }

// set has m fire in the first tick that lies wholly after the deadline.
func (w *wheel) set(m *Member, deadline time.Time) {
	tick := uint32(min(max(w.tickOf(deadline), w.tick)+1, math.MaxUint32))
	if m.slot != 0 {
		if m.tick == tick {
			return
		}
		w.remove(m)
	}
	m.tick = tick
	w.link(m, int(tick%wheelSlots))
}

func (w *wheel) link(m *Member, slot int) {
	n := w.members.number(m)
	m.prev, m.next, m.slot = 0, w.slots[slot], uint16(slot)+1
	if m.next != 0 {
		w.members.get(m.next).prev = n
	}
	w.slots[slot] = n
	w.count++
}

func (w *wheel) remove(m *Member) {
	if m.slot == 0 {
		return
	}
	if m.prev != 0 {
		w.members.get(m.prev).next = m.next
	} else {
		w.slots[m.slot-1] = m.next
	}
	if m.next != 0 {
		w.members.get(m.next).prev = m.prev
	}
	m.prev, m.next, m.slot = 0, 0, 0
	w.count--
}

// advance fires what is due at now, as far as the bound goes. It reports whether
// more is due.
func (w *wheel) advance(now time.Time) (more bool) {
	to := w.tickOf(now)
	for n := 0; ; {
		for ; w.slots[firing] != 0; n++ {
			if n == maxFired {
				return true
			}
			w.fire(w.members.get(w.slots[firing]), now)
		}
		switch {
		case w.tick >= to:
			return false
		case w.count == 0:
			w.tick = to
			return false
		}
		w.tick = max(w.tick+1, to-wheelSlots+1)
		w.collect()
	}
}

func (w *wheel) fire(m *Member, now time.Time) {
	w.remove(m)
	owner := m.owner
	if m.is(alone) {
		w.members.forget(m)
	}
	owner.Timeout(now)
}

// collect takes what is due from the current slot. A timeout may remove any timer:
// nothing fires while the slot is gone through.
func (w *wheel) collect() {
	for n := w.slots[w.tick%wheelSlots]; n != 0; {
		m := w.members.get(n)
		n = m.next
		if int64(m.tick) <= w.tick {
			w.remove(m)
			w.link(m, firing)
		}
	}
}
