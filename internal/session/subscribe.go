package session

import (
	"slices"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/match"
	"github.com/carillon-rt/carillon/internal/wire"
)

// backfill is a replay of what lies before the connection's position, for the
// subscriptions of one frame.
type backfill struct {
	feed   hub.Feed
	subs   []*hub.Sub
	start  carillon.Position
	target uint64
	caught *wire.ClientFrame
	active bool
}

// FeedDue is told by the session's feeds.
func (s *Session) FeedDue() { s.Due() }

// subscribe answers subscribed, then sees to it that exactly one caught_up comes
// when what is in the log now has been sent.
func (s *Session) subscribe(f *wire.ClientFrame, reply Reply) {
	fail := func(err error) { s.answer(wire.ErrorFrame(err, f.Ref), reply) }
	subject, err := carillon.ParseSubject(f.Subject)
	if err != nil {
		fail(err)
		return
	}
	wanted, err := s.wanted(f, subject)
	if err != nil {
		fail(err)
		return
	}
	if !f.HasAfter {
		if s.subscribed || !s.feed.Held() {
			s.subscribeAt(f, reply, wanted, hub.Start{Pos: s.Shard().Head(s.realm)}, false)
			return
		}
		s.subscribeAt(f, reply, wanted, hub.Start{Pos: s.feed.Position(), Gap: s.startGap}, false)
		return
	}
	cursor, err := s.ids.ParseCursor(f.After)
	if err != nil {
		fail(err)
		return
	}
	s.await(f, reply)
	s.Shard().Resolve(s.realm, cursor, func(start hub.Start, err error) {
		if s.closed {
			return
		}
		s.completed()
		if err != nil {
			fail(logError(err))
		} else {
			s.subscribeAt(f, reply, wanted, start, true)
		}
		s.next()
	})
}

// wanted checks a subscribe frame as a whole: it is accepted or refused whole.
func (s *Session) wanted(f *wire.ClientFrame, subject string) ([]*subscription, error) {
	var wanted []*subscription
	added := 0
	for _, text := range f.Patterns {
		p, err := carillon.ParsePattern(text)
		if err != nil {
			return nil, err
		}
		if !match.MaySubscribe(s.principal, p) {
			return nil, carillon.Errorf(carillon.CodeForbidden, "the token does not cover the pattern %q", text)
		}
		if slices.ContainsFunc(wanted, func(o *subscription) bool { return o.Pattern == p }) {
			continue
		}
		if s.find(p, subject) == nil {
			added++
		}
		wanted = append(wanted, &subscription{Sub: hub.Sub{Pattern: p, Subject: subject, Overflow: f.Overflow}, text: text})
	}
	if len(s.subs)+added > s.core.Limits.Subscriptions {
		s.core.stats.limits.Add(limitSubscriptions)
		return nil, carillon.Errorf(carillon.CodeQuotaExceeded, "a connection has at most %d subscriptions; this one has %d", s.core.Limits.Subscriptions, len(s.subs)).Over(limitSubscriptions)
	}
	return wanted, nil
}

func (s *Session) find(p carillon.Pattern, subject string) *subscription {
	for _, sub := range s.subs {
		if sub.Pattern == p && sub.Subject == subject {
			return sub
		}
	}
	return nil
}

func (s *Session) subscribeAt(f *wire.ClientFrame, reply Reply, wanted []*subscription, start hub.Start, explicit bool) {
	first := !s.subscribed && s.feed.Held() && len(s.backfills) == 0
	target := s.Shard().Head(s.realm).Seq
	here := s.feed.Seq()
	back := explicit && start.Pos.Seq < here
	began := max(start.Pos.Seq, here)
	if first && !explicit {
		began = start.Pos.Seq
	}
	var added, standing []*subscription
	var subs []*hub.Sub
	for _, w := range wanted {
		if old := s.find(w.Pattern, w.Subject); old != nil {
			standing = append(standing, old)
			continue
		}
		if err := s.feed.Add(&w.Sub, began); err != nil {
			for _, a := range added {
				s.drop(a)
			}
			s.answer(wire.ErrorFrame(err, f.Ref), reply)
			if s.opt.Subscribe && !s.subscribed { // a stream that could only be silent
				s.close(wire.CloseRateLimited, "the subscription was refused")
			}
			return
		}
		s.subs = append(s.subs, w)
		added = append(added, w)
		subs = append(subs, &w.Sub)
	}
	for _, old := range standing {
		s.feed.SetOverflow(&old.Sub, f.Overflow)
	}
	if explicit {
		// They begin anew: up to here a backfill or nothing, from here on as before.
		for _, old := range standing {
			s.feed.Restart(&old.Sub, began)
			subs = append(subs, &old.Sub)
		}
	}
	repeated := len(wanted) > 0 && len(added) == 0
	gap := start.Gap
	if first && explicit && s.startGap != nil && gap == nil {
		gap = s.startGap
	}
	answer := wire.Begin("subscribed")
	if f.List {
		answer.Strs("patterns", f.Patterns)
	} else {
		answer.Str("pattern", f.Patterns[0])
	}
	answer.Str("subject", f.Subject).ID("cursor", s.ids, start.Pos).True("backfill", back && len(subs) > 0).
		Gap("gap", s.ids, gap).Raw("ref", f.Ref)
	s.answerInOrder(answer, reply)
	s.startGap = nil
	if first {
		s.subscribed = true
		s.begin()
	}
	switch {
	case back && len(subs) > 0:
		s.backfill(&backfill{subs: subs, start: start.Pos, target: target, caught: f})
	case repeated && !explicit: // its options were replaced; nothing is replayed
	default:
		s.feed.Mark(target, f)
	}
	if first && len(s.backfills) == 0 {
		s.feed.Release()
	}
}

// backfill starts b, or queues it behind those that run. Meanwhile the
// connection's own feed stands still.
func (s *Session) backfill(b *backfill) {
	s.feed.Hold()
	s.Shard().Open(&b.feed, s.realm, s, b.start)
	s.backfills = append(s.backfills, b)
	s.activate()
}

func (s *Session) activate() {
	if len(s.backfills) == 0 {
		s.feed.Release()
		return
	}
	if b := s.backfills[0]; !b.active {
		b.active = true
		b.feed.Backfill(&s.feed, b.subs)
	}
}

// backfilled ends the backfill that runs.
func (s *Session) backfilled() {
	b := s.backfills[0]
	s.backfills = s.backfills[1:]
	b.feed.Close()
	s.feed.Mark(b.target, b.caught)
	s.activate()
}

func (s *Session) unsubscribe(f *wire.ClientFrame, reply Reply) {
	p, err := carillon.ParsePattern(f.Patterns[0])
	if err != nil {
		s.answer(wire.ErrorFrame(err, f.Ref), reply)
		return
	}
	sub := s.find(p, f.Subject)
	if sub == nil {
		s.answer(wire.ErrorFrame(carillon.Errorf(carillon.CodeNotFound, "there is no subscription to %q with this subject", f.Patterns[0]), f.Ref), reply)
		return
	}
	s.drop(sub)
	s.answerInOrder(wire.Begin("unsubscribed").Str("pattern", f.Patterns[0]).Str("subject", f.Subject).Raw("ref", f.Ref), reply)
}

// drop ends a subscription everywhere.
func (s *Session) drop(sub *subscription) {
	s.feed.Remove(&sub.Sub)
	s.subs = slices.DeleteFunc(s.subs, func(o *subscription) bool { return o == sub })
	for _, b := range s.backfills {
		b.subs = slices.DeleteFunc(b.subs, func(o *hub.Sub) bool { return o == &sub.Sub })
		if b.active {
			b.feed.Forget(sub.Pattern, sub.Subject)
		}
	}
}
