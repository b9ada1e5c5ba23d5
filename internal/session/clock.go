package session

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/wire"
)

// elapsed is the time in milliseconds since the shard was made. It begins anew every
// 49 days: only how far two of them are apart, which is never that much, says
// something.
func (s *Session) elapsed() uint32 { return uint32(s.Shard().Elapsed().Milliseconds()) }

// since is how long ago that was.
func (s *Session) since(at uint32) time.Duration {
	return time.Duration(s.elapsed()-at) * time.Millisecond
}

// setExpiry notes when the connection ends with its principal's credential, about
// which leeway whoever verified it has decided: some time before, so that clients
// whose tokens were made together do not come back together.
func (s *Session) setExpiry(p *carillon.Principal) {
	s.expires = 0
	s.unset(warned)
	if p.Expires.IsZero() {
		return
	}
	expires := p.Expires
	if spread := min(s.core().Limits.TokenSpread, expires.Sub(s.now())/10); spread > 0 {
		expires = expires.Add(-rand.N(spread))
	}
	s.expires = tenthsAfter(s.core().began, expires)
}

// lasts is how long it is until then. A token tells the time by the wall clock.
func (s *Session) lasts() time.Duration { return max(s.ends().Sub(s.now()), 0) }

func (s *Session) ends() time.Time { return s.core().began.Add(time.Duration(s.expires-1) * tenth) }

// tenth is the unit of times that are far away: there is no finer alarm.
const tenth = 100 * time.Millisecond

// tenthsAfter is 1 + the tenth of a second after begin in which t lies, or the first
// or last one.
func tenthsAfter(begin, t time.Time) uint32 {
	return uint32(min(max(t.Sub(begin)/tenth, 0)+1, math.MaxUint32))
}

// leaves is how long it is until leaveAt.
func (s *Session) leaves() time.Duration {
	return time.Duration(s.leaveAt-1)*tenth - s.Shard().Elapsed()
}

// idle is for how long nothing is sent, or heard, before something is done about it:
// maxIdle, or up to an eighth less, by the session's number. So those that came
// together, or were all sent an event, are not all sent their heartbeats in one turn,
// and every time they are further apart.
func (s *Session) idle() time.Duration {
	const spread = 8
	most := s.maxIdle()
	return most - most/spread*time.Duration(s.serial*0x9e3779b9>>16)>>16 // a golden section apart from the one before
}

// rearm sets the alarm to the next of all deadlines. Sending and hearing only
// move some of them away: the alarm then comes early and is set anew.
func (s *Session) rearm() {
	if s.is(closing | closed) {
		return
	}
	now := s.now()
	next := s.idle() - s.since(s.sentAt)
	if a := s.active; a != nil {
		sooner := func(t time.Time) {
			if !t.IsZero() {
				next = min(next, t.Sub(now))
			}
		}
		sooner(a.connectBy)
	}
	switch leaves := s.leaves(); {
	case s.leaveAt == 0:
	case s.parting == untold:
		next = min(next, leaves-s.core().Limits.notice())
	default:
		next = min(next, leaves)
	}
	if s.expires != 0 {
		// The alarm goes by the monotonic clock, and looks at the wall clock again
		// when it comes.
		lasts := s.lasts()
		if next = min(next, lasts); !s.is(warned) {
			next = min(next, lasts-s.core().Limits.TokenExpiring)
		}
	}
	if s.format == WebSocket {
		silent := s.since(s.heardAt)
		if next = min(next, s.core().Limits.DeadAfter-silent); !s.is(pinged) {
			next = min(next, s.idle()-silent)
		}
	}
	s.Alarm(now.Add(next))
}

// Timeout does what is due by the clock. Of a session that is closing nothing is:
// for the client to take what it is owed, the transport's deadline counts.
func (s *Session) Timeout(now time.Time) {
	if s.is(closing | closed) {
		return
	}
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }
	a, limits := s.active, &s.core().Limits
	switch {
	case a != nil && due(a.connectBy):
		s.send(wire.ErrorFrame(carillon.Errorf(carillon.CodeUnauthenticated, "no connect frame within %s", limits.ConnectTimeout), nil))
		s.close(wire.CloseNoConnect, "no connect in time")
	case s.parting != untold && s.leaves() <= 0:
		s.close(s.parting.code(), s.parting.reason())
	case s.expires != 0 && s.lasts() == 0:
		s.send(wire.ErrorFrame(carillon.Errorf(carillon.CodeUnauthenticated, "the token has expired; come back with a new one"), nil))
		s.close(wire.CloseTokenExpired, "token expired")
	case s.format == WebSocket && s.since(s.heardAt) >= limits.DeadAfter:
		s.core().stats.dead.Add(1)
		s.close(wire.CloseNormal, "nothing heard for too long")
	}
	if s.is(closing) {
		return
	}
	if s.parting == untold && s.leaveAt != 0 && s.leaves() <= limits.notice() {
		s.goaway(lifetime, now.Add(s.leaves()))
	}
	if s.expires != 0 && !s.is(warned) && s.lasts() <= limits.TokenExpiring {
		s.set(warned)
		s.send(wire.Begin("token_expiring").Int("in", int64(s.lasts().Round(time.Second)/time.Second)))
	}
	if s.since(s.sentAt) >= s.idle() {
		s.sentAt = s.elapsed()
		switch {
		case !s.feed.Open():
		case s.format == SSE:
			s.put(wire.KeepAlive(s.ids(), s.feed.Position()))
		default:
			s.send(wire.Begin("heartbeat").ID("cursor", s.ids(), s.feed.Position()))
		}
	}
	if s.format == WebSocket && !s.is(pinged) && s.since(s.heardAt) >= s.idle() {
		s.set(pinged)
		s.put(wire.AppendControl(nil, wire.OpPing, nil))
	}
	s.rearm()
	s.rest()
}
