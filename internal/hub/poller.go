package hub

import "time"

// Poller is where a shard waits, in front of its sockets. Its methods are for the
// shard's goroutine, except Wake.
type Poller interface {
	// Serve does what the sockets ask for, within the bounds of a turn, and
	// reports whether there may be more.
	Serve() (more bool)

	// Wait returns when a socket asks for something, after Wake, or when d has
	// passed; with 0 when whoever else was ready has had a turn, with a negative
	// d never by time.
	Wait(d time.Duration)

	// Wake ends the current Wait, or the next. It may be called from anywhere.
	Wake()

	// End is called when nobody waits any more.
	End()
}

// sleeper is the poller of a shard whose sockets others read and write.
type sleeper struct {
	wake   chan struct{} // capacity 1; never closed
	timer  *time.Timer
	others *yielder // nil: not needed yet
}

func newSleeper() *sleeper {
	s := &sleeper{wake: make(chan struct{}, 1), timer: time.NewTimer(0)}
	s.timer.Stop()
	return s
}

func (*sleeper) Serve() bool { return false }

func (s *sleeper) Wait(d time.Duration) {
	var tick <-chan time.Time
	switch {
	case d == 0:
		if s.others == nil {
			s.others = newYielder()
		}
		s.others.yield()
		return
	case d > 0:
		s.timer.Reset(d)
		tick = s.timer.C
	}
	select {
	case <-s.wake:
	case <-tick:
	}
	s.timer.Stop()
}

func (s *sleeper) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *sleeper) End() {
	if s.others != nil {
		s.others.close()
	}
}
