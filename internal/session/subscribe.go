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
		if s.is(subscribed) || !s.feed.Held() {
			s.subscribeAt(f, reply, wanted, hub.Start{Pos: s.Shard().Head(s.Realm())}, false)
			return
		}
		start := hub.Start{Pos: s.feed.Position()}
		if s.active != nil {
			start.Gap = s.active.startGap
		}
		s.subscribeAt(f, reply, wanted, start, false)
		return
	}
	cursor, err := s.ids().ParseCursor(f.After)
	if err != nil {
		fail(err)
		return
	}
	s.await(f, reply)
	s.Shard().Resolve(s.Realm(), cursor, func(start hub.Start, err error) {
		if s.is(closed) {
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

// wish is a pattern of a subscribe frame.
type wish struct {
	pattern carillon.Pattern
	alias   bool // it was written with **
}

// spelled is a subscription's pattern as the client wrote it.
func spelled(sub *hub.Sub) string {
	p := string(sub.Pattern())
	if sub.Alias {
		p = p[:len(p)-1] + "**"
	}
	return p
}

// wanted checks a subscribe frame as a whole: it is accepted or refused whole.
func (s *Session) wanted(f *wire.ClientFrame, subject string) ([]wish, error) {
	wanted := make([]wish, 0, len(f.Patterns))
	added, have, p := 0, s.feed.Count(), s.principal()
	for _, text := range f.Patterns {
		pattern, err := carillon.ParsePattern(text)
		if err != nil {
			return nil, err
		}
		if !match.MaySubscribe(p, pattern) {
			return nil, carillon.Errorf(carillon.CodeForbidden, "the token does not cover the pattern %q", text)
		}
		if slices.ContainsFunc(wanted, func(o wish) bool { return o.pattern == pattern }) {
			continue
		}
		if s.feed.Find(pattern, subject) == nil {
			added++
		}
		wanted = append(wanted, wish{pattern: pattern, alias: string(pattern) != text})
	}
	if most := s.core().Limits.Subscriptions; have+added > most {
		s.core().stats.limits.Add(limitSubscriptions)
		return nil, carillon.Errorf(carillon.CodeQuotaExceeded, "a connection has at most %d subscriptions; this one has %d", most, have).Over(limitSubscriptions)
	}
	return wanted, nil
}

func (s *Session) subscribeAt(f *wire.ClientFrame, reply Reply, wanted []wish, start hub.Start, explicit bool) {
	first := !s.is(subscribed) && s.feed.Held() && s.backfilling() == nil
	target := s.Shard().Head(s.Realm()).Seq
	here := s.feed.Seq()
	back := explicit && start.Pos.Seq < here
	began := max(start.Pos.Seq, here)
	if first && !explicit {
		began = start.Pos.Seq
	}
	var added, standing []*hub.Sub
	for _, w := range wanted {
		if old := s.feed.Find(w.pattern, f.Subject); old != nil {
			standing = append(standing, old)
			continue
		}
		sub, err := s.feed.Add(w.pattern, f.Subject, f.Overflow, began)
		if err != nil {
			for _, a := range added {
				s.drop(a)
			}
			s.answer(wire.ErrorFrame(err, f.Ref), reply)
			if s.is(stream) && !s.is(subscribed) { // a stream that could only be silent
				s.close(wire.CloseRateLimited, "the subscription was refused")
			}
			return
		}
		sub.Alias = w.alias
		added = append(added, sub)
	}
	subs := added
	for _, old := range standing {
		s.feed.SetOverflow(old, f.Overflow)
	}
	if explicit {
		// They begin anew: up to here a backfill or nothing, from here on as before.
		for _, old := range standing {
			s.feed.Restart(old, began)
		}
		subs = append(subs, standing...)
	}
	repeated := len(wanted) > 0 && len(added) == 0
	gap := start.Gap
	if a := s.active; a != nil {
		if first && explicit && gap == nil {
			gap = a.startGap
		}
		a.startGap = nil
	}
	answer := wire.Begin("subscribed")
	if f.List {
		answer.Strs("patterns", f.Patterns)
	} else {
		answer.Str("pattern", f.Patterns[0])
	}
	answer.Str("subject", f.Subject).ID("cursor", s.ids(), start.Pos).True("backfill", back && len(subs) > 0).
		Gap("gap", s.ids(), gap).Raw("ref", f.Ref)
	s.answerInOrder(answer, reply)
	if first {
		s.set(subscribed)
		s.feed.OpenInbox()
	}
	switch {
	case back && len(subs) > 0:
		s.backfill(&backfill{subs: subs, start: start.Pos, target: target, caught: f})
	case repeated && !explicit: // its options were replaced; nothing is replayed
	default:
		s.feed.Mark(target, f)
	}
	if first && s.backfilling() == nil {
		s.feed.Release()
	}
}

// backfill starts b, or queues it behind those that run. Meanwhile the
// connection's own feed stands still.
func (s *Session) backfill(b *backfill) {
	s.feed.Hold()
	s.Shard().Open(&b.feed, &s.Member, b.start)
	a := s.act()
	a.backfills = append(a.backfills, b)
	s.activate()
}

func (s *Session) activate() {
	b := s.backfilling()
	if b == nil {
		s.feed.Release()
		return
	}
	if !b.active {
		b.active = true
		b.feed.Backfill(&s.feed, b.subs)
	}
}

// backfilled ends the backfill that runs.
func (s *Session) backfilled() {
	b := s.backfilling()
	s.active.backfills = s.active.backfills[1:]
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
	sub := s.feed.Find(p, f.Subject)
	if sub == nil {
		s.answer(wire.ErrorFrame(carillon.Errorf(carillon.CodeNotFound, "there is no subscription to %q with this subject", f.Patterns[0]), f.Ref), reply)
		return
	}
	s.drop(sub)
	s.answerInOrder(wire.Begin("unsubscribed").Str("pattern", f.Patterns[0]).Str("subject", f.Subject).Raw("ref", f.Ref), reply)
}

// drop ends a subscription everywhere.
func (s *Session) drop(sub *hub.Sub) {
	if s.active != nil {
		for _, b := range s.active.backfills {
			b.subs = slices.DeleteFunc(b.subs, func(o *hub.Sub) bool { return o == sub })
			if b.active {
				b.feed.Forget(sub)
			}
		}
	}
	s.feed.Remove(sub)
}
