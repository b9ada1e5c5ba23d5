package hub

import "time"

// Moment is a deadline some milliseconds away, for which the ticks of a [Timer]
// are too coarse. It is embedded in its owner; the zero value is ready. It fires
// at its deadline, as exactly as its shard can, never before.
type Moment struct {
	owner      TimerOwner // nil: it is not set
	at         time.Duration
	prev, next *Moment
}

// moments are those of a shard, the next one first. They are mostly all as far
// away as each other, so that a new one is the last.
type moments struct {
	begin       time.Time // which they count from
	first, last *Moment
}

// SetMoment sets m to call owner at a time, instead of whatever it was set to.
func (s *Shard) SetMoment(m *Moment, owner TimerOwner, at time.Time) {
	s.moments.remove(m)
	m.owner, m.at = owner, at.Sub(s.moments.begin)
	s.moments.add(m)
}

// StopMoment unsets m.
func (s *Shard) StopMoment(m *Moment) { s.moments.remove(m) }

func (l *moments) add(m *Moment) {
	after := l.last
	for after != nil && after.at > m.at {
		after = after.prev
	}
	if m.prev = after; after != nil {
		m.next, after.next = after.next, m
	} else {
		m.next, l.first = l.first, m
	}
	if m.next != nil {
		m.next.prev = m
	} else {
		l.last = m
	}
}

func (l *moments) remove(m *Moment) {
	if m.owner == nil {
		return
	}
	if m.prev != nil {
		m.prev.next = m.next
	} else {
		l.first = m.next
	}
	if m.next != nil {
		m.next.prev = m.prev
	} else {
		l.last = m.prev
	}
	*m = Moment{}
}

// until is how long it is to the next one, at most d; a negative d is for ever.
func (l *moments) until(d time.Duration) time.Duration {
	if l.first == nil {
		return d
	}
	wait := max(l.first.at-time.Since(l.begin), 0)
	if d < 0 {
		return wait
	}
	return min(d, wait)
}

// advance fires those that are due at now.
func (l *moments) advance(now time.Time) {
	if l.first == nil {
		return
	}
	for due := now.Sub(l.begin); l.first != nil && l.first.at <= due; {
		owner := l.first.owner
		l.remove(l.first)
		owner.Timeout(now)
	}
}
