package hub

import "time"

const (
	wheelSlots = 512
	wheelTick  = 100 * time.Millisecond
)

// Timer is one deadline of something a shard owns, linked into the shard's
// wheel. It is embedded in its owner; the zero value is ready. It fires within
// a tick (100 ms) after its deadline, never before.
type Timer struct {
	owner      TimerOwner
	deadline   time.Time
	prev, next *Timer
	slot       int16 // 1 + the slot it is linked into; 0: none
}

// TimerOwner is told on its shard's goroutine. The timer is no longer set then.
type TimerOwner interface{ Timeout(now time.Time) }

// wheel is a hashed timer wheel. Deadlines further than one turn of 51.2 s away
// stay in their slot and are passed over. It counts from begin, by the monotonic
// clock where the times have one, so that it goes on when the wall clock is set.
type wheel struct {
	begin time.Time
	slots [wheelSlots]*Timer
	tick  int64 // the last one handled
	count int
}

func (w *wheel) tickOf(t time.Time) int64 { return int64(t.Sub(w.begin) / wheelTick) }

// untilTick is how long after now the next tick begins.
func (w *wheel) untilTick(now time.Time) time.Duration { return wheelTick - now.Sub(w.begin)%wheelTick }

// add links t so that it fires in the first tick that lies wholly after its
// deadline.
func (w *wheel) add(t *Timer) {
	i := max(w.tickOf(t.deadline)+1, w.tick+1) % wheelSlots
	t.prev, t.next, t.slot = nil, w.slots[i], int16(i)+1
	if t.next != nil {
		t.next.prev = t
	}
	w.slots[i] = t
	w.count++
}

func (w *wheel) remove(t *Timer) {
	if t.slot == 0 {
		return
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		w.slots[t.slot-1] = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.prev, t.next, t.slot = nil, nil, 0
	w.count--
}

// advance fires what is due at now.
func (w *wheel) advance(now time.Time) {
	to := w.tickOf(now)
	if to-w.tick > wheelSlots {
		w.tick = to - wheelSlots
	}
	for w.tick < to && w.count > 0 {
		w.tick++
		for t := w.slots[w.tick%wheelSlots]; t != nil; {
			next := t.next
			if w.tickOf(t.deadline) < w.tick {
				w.remove(t)
				t.owner.Timeout(now)
				// A timeout may remove any timer: begin the slot again.
				next = w.slots[w.tick%wheelSlots]
				if next != nil && w.tickOf(next.deadline) >= w.tick {
					next = w.firstDue()
				}
			}
			t = next
		}
	}
	w.tick = max(w.tick, to)
}

// firstDue finds a due timer left in the current slot.
func (w *wheel) firstDue() *Timer {
	for t := w.slots[w.tick%wheelSlots]; t != nil; t = t.next {
		if w.tickOf(t.deadline) < w.tick {
			return t
		}
	}
	return nil
}
