package memory

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// signals hands ephemeral events to those who listen.
type signals struct {
	waiting        chan *carillon.Entry // never closed; what finds it full is dropped
	heard, dropped atomic.Uint64

	mu        sync.Mutex // guards what follows
	closed    bool
	listeners map[carillon.OrgID][]*listener // the lists are replaced, never changed
}

type listener struct{ f func(*carillon.Entry) }

func newSignals(buffer int) signals {
	return signals{waiting: make(chan *carillon.Entry, buffer), listeners: map[carillon.OrgID][]*listener{}}
}

// of are those who listen to an organization.
func (s *signals) of(org carillon.OrgID) (all []*listener, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listeners[org], s.closed
}

func (s *signals) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// run calls those who listen, until end is closed.
func (s *signals) run(end <-chan struct{}) {
	for {
		select {
		case e := <-s.waiting:
			all, _ := s.of(e.Org)
			for _, l := range all {
				l.f(e)
			}
		case <-end:
			return
		}
	}
}

// Signals are those of one organization.
func (e *Engine) Signals(org carillon.OrgID) engine.Signals { return &orgSignals{&e.signals, org} }

type orgSignals struct {
	all *signals
	org carillon.OrgID
}

// Publish hands the events on; see engine.Signals.
func (s *orgSignals) Publish(events []*carillon.Event, done func(error)) {
	listeners, closed := s.all.of(s.org)
	if closed {
		done(carillon.Unavailable(time.Second, engine.ErrClosed, "the server is stopping; try again"))
		return
	}
	for _, ev := range events {
		if len(listeners) == 0 {
			break
		}
		select {
		case s.all.waiting <- &carillon.Entry{Event: *ev, Org: s.org}:
			s.all.heard.Add(1)
		default:
			s.all.dropped.Add(1)
		}
	}
	done(nil)
}

// Listen calls f for what is handed on; see engine.Signals.
func (s *orgSignals) Listen(f func(*carillon.Entry)) (stop func()) {
	l := &listener{f}
	s.change(func(all []*listener) []*listener { return append(slices.Clone(all), l) })
	return func() {
		s.change(func(all []*listener) []*listener {
			return slices.DeleteFunc(slices.Clone(all), func(o *listener) bool { return o == l })
		})
	}
}

func (s *orgSignals) change(f func([]*listener) []*listener) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if all := f(s.all.listeners[s.org]); len(all) > 0 {
		s.all.listeners[s.org] = all
	} else {
		delete(s.all.listeners, s.org)
	}
}
