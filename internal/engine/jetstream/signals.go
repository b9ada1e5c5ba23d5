package jetstream

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// signals hands ephemeral events on: messages that no stream takes, on one
// subject of each organization. Whatever the connection is asked to do one
// goroutine asks, since it may wait; another calls those who listen.
type signals struct {
	conn   *nats.Conn
	prefix string
	logger *slog.Logger
	came   chan *nats.Msg // never closed; what finds it full is dropped
	wake   chan struct{}  // capacity 1: there is something in the queue
	heard  atomic.Uint64

	// Owned by send.
	msg     nats.Msg
	headers headers

	mu     sync.Mutex // guards what follows; not held while the connection is asked
	closed bool
	queue  []func()          // what to ask the connection
	routes map[string]*route // by subject
	lost   uint64            // dropped messages of subscriptions that have ended
}

// route is the subscription to one organization's subject, for all here who
// listen to it.
type route struct {
	org     carillon.OrgID
	subject string

	// Guarded by the signals' mu.
	listeners []*listener // replaced, never changed
	sub       *nats.Subscription
}

type listener struct{ f func(*carillon.Entry) }

func newSignals(conn *nats.Conn, c Config) *signals {
	s := &signals{
		conn: conn, prefix: c.Prefix, logger: c.Logger,
		came: make(chan *nats.Msg, c.SignalBuffer), wake: make(chan struct{}, 1),
		headers: newHeaders(), routes: map[string]*route{},
	}
	s.msg.Header = s.headers.m
	return s
}

// ask has send do something; mu is held.
func (s *signals) ask(do func()) {
	s.queue = append(s.queue, do)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// close has send end when it has done what was asked.
func (s *signals) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.ask(func() {})
}

// send asks the connection, in order, until close.
func (s *signals) send() {
	for {
		s.mu.Lock()
		todo, closed := s.queue, s.closed
		s.queue = nil
		s.mu.Unlock()
		for _, do := range todo {
			do()
		}
		if closed {
			return
		}
		<-s.wake
	}
}

// dispatch calls those who listen, until life ends.
func (s *signals) dispatch(life context.Context) {
	var d decoder
	for {
		select {
		case msg := <-s.came:
			s.hear(&d, msg)
		case <-life.Done():
			return
		}
	}
}

func (s *signals) hear(d *decoder, msg *nats.Msg) {
	s.mu.Lock()
	r := s.routes[msg.Subject]
	var listeners []*listener
	if r != nil {
		listeners = r.listeners
	}
	s.mu.Unlock()
	if r == nil {
		return
	}
	entry, err := d.entry(msg.Subject, msg.Header, msg.Data, 0, time.Time{})
	if err != nil {
		s.logger.Debug("jetstream: an ephemeral event cannot be read", "org", r.org, "err", err)
		return
	}
	entry.Org, entry.Pos = r.org, carillon.Position{}
	s.heard.Add(1)
	for _, l := range listeners {
		l.f(entry)
	}
}

// publish gives events to the connection.
func (s *signals) publish(subject string, events []*carillon.Event) error {
	if !s.conn.IsConnected() {
		return noSignal(nats.ErrDisconnected)
	}
	s.msg.Subject = subject
	for _, ev := range events {
		clear(s.msg.Header)
		encode(s.headers, ev)
		s.msg.Data = ev.Data
		if err := s.conn.PublishMsg(&s.msg); err != nil {
			return noSignal(err)
		}
	}
	s.msg.Data = nil
	return nil
}

func noSignal(err error) error {
	return carillon.Unavailable(time.Second, err, "ephemeral events cannot be handed on right now; try again")
}

func (s *signals) subscribe(r *route) {
	sub, err := s.conn.ChanSubscribe(r.subject, s.came)
	if err != nil {
		s.logger.Error("jetstream: ephemeral events of an organization are not heard", "org", r.org, "err", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.sub = sub
}

func (s *signals) unsubscribe(r *route) {
	if r.sub == nil {
		return
	}
	dropped, _ := r.sub.Dropped() // an error: it has ended with the connection
	_ = r.sub.Unsubscribe()       // the same
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost += uint64(dropped)
}

// dropped is how many events found no room in the buffer.
func (s *signals) dropped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.lost
	for _, r := range s.routes {
		if r.sub != nil {
			n, _ := r.sub.Dropped() // an error: as above
			sum += uint64(n)
		}
	}
	return sum
}

// Signals are those of one organization.
func (e *Engine) Signals(org carillon.OrgID) engine.Signals {
	s := e.ephemeral
	return &orgSignals{s, org, subjectFor(s.prefix, signalBranch, org)}
}

type orgSignals struct {
	*signals

	org     carillon.OrgID
	subject string
}

// Publish hands the events on; see engine.Signals.
func (s *orgSignals) Publish(events []*carillon.Event, done func(error)) {
	for i, ev := range events {
		if _, err := messageSize(ev, "", i, len(events)); err != nil {
			done(err)
			return
		}
	}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.ask(func() { done(s.publish(s.subject, events)) })
	}
	s.mu.Unlock()
	if closed {
		done(carillon.Unavailable(time.Second, engine.ErrClosed, "the server is stopping; try again"))
	}
}

// Listen calls f for what is handed on; see engine.Signals.
func (s *orgSignals) Listen(f func(*carillon.Entry)) (stop func()) {
	l := &listener{f}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.routes[s.subject]
	if r == nil {
		r = &route{org: s.org, subject: s.subject}
		s.routes[s.subject] = r
		s.ask(func() { s.signals.subscribe(r) })
	}
	r.listeners = append(slices.Clone(r.listeners), l)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.listeners = slices.DeleteFunc(slices.Clone(r.listeners), func(o *listener) bool { return o == l })
		if len(r.listeners) == 0 && s.routes[s.subject] == r {
			delete(s.routes, s.subject)
			s.ask(func() { s.unsubscribe(r) })
		}
	}
}
