package session

import (
	"math/rand/v2"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/wire"
)

// setExpiry notes when the connection ends with its principal's credential, about
// which leeway whoever verified it has decided: some time before, so that clients
// whose tokens were made together do not come back together.
func (s *Session) setExpiry(p *carillon.Principal) {
	s.expires, s.warned = p.Expires, false
	if s.expires.IsZero() {
		return
	}
	if spread := min(s.core.Limits.TokenSpread, s.expires.Sub(s.now())/10); spread > 0 {
		s.expires = s.expires.Add(-rand.N(spread))
	}
}

// rearm sets the timer to the next of all deadlines. Sending and hearing only
// move some of them away: the timer then fires early and is set anew.
func (s *Session) rearm() {
	if s.closing || s.closed {
		return
	}
	next := s.sentAt.Add(s.maxIdle())
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	sooner(s.connectBy)
	sooner(s.drainAt)
	if !s.expires.IsZero() {
		// A token tells the time by the wall clock. The timer runs by the monotonic
		// one, and looks at the wall clock again when it fires.
		expires := s.now().Add(s.expires.Sub(s.now()))
		sooner(expires)
		if !s.warned {
			sooner(expires.Add(-s.core.Limits.TokenExpiring))
		}
	}
	if s.opt.Format == WebSocket {
		sooner(s.heardAt.Add(s.core.Limits.DeadAfter))
		if !s.pingedAt.After(s.heardAt) {
			sooner(s.heardAt.Add(s.core.Limits.MaxIdle))
		}
	}
	s.Shard().SetTimer(&s.timer, s, next)
}

// Timeout does what is due by the clock. Of a session that is closing nothing is:
// for the client to take what it is owed, the transport's deadline counts.
func (s *Session) Timeout(now time.Time) {
	if s.closing || s.closed {
		return
	}
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }
	switch {
	case due(s.connectBy):
		s.send(wire.ErrorFrame(carillon.Errorf(carillon.CodeUnauthenticated, "no connect frame within %s", s.core.Limits.ConnectTimeout), nil))
		s.close(wire.CloseNoConnect, "no connect in time")
	case due(s.drainAt):
		s.close(wire.CloseDrain, "drain")
	case due(s.expires):
		s.send(wire.ErrorFrame(carillon.Errorf(carillon.CodeUnauthenticated, "the token has expired; come back with a new one"), nil))
		s.close(wire.CloseTokenExpired, "token expired")
	case s.opt.Format == WebSocket && due(s.heardAt.Add(s.core.Limits.DeadAfter)):
		s.core.stats.dead.Add(1)
		s.close(wire.CloseNormal, "nothing heard for too long")
	}
	if s.closing {
		return
	}
	if !s.expires.IsZero() && !s.warned && due(s.expires.Add(-s.core.Limits.TokenExpiring)) {
		s.warned = true
		s.send(wire.Begin("token_expiring").Int("in", int64(max(s.expires.Sub(now).Round(time.Second), 0)/time.Second)))
	}
	if s.opened && due(s.sentAt.Add(s.maxIdle())) {
		s.sentAt = now
		if s.opt.Format == SSE {
			s.put(wire.KeepAlive(s.ids, s.feed.Position()))
		} else {
			s.send(wire.Begin("heartbeat").ID("cursor", s.ids, s.feed.Position()))
		}
	} else if !s.opened {
		s.sentAt = now
	}
	if s.opt.Format == WebSocket && due(s.heardAt.Add(s.core.Limits.MaxIdle)) && !s.pingedAt.After(s.heardAt) {
		s.pingedAt = now
		s.put(wire.AppendControl(nil, wire.OpPing, nil))
	}
	s.rearm()
}

// drain says goaway and closes the session at some time within the window.
func (s *Session) drain(window time.Duration) {
	if s.closing || s.closed {
		return
	}
	wait := time.Duration(0)
	if window > 0 {
		wait = rand.N(window)
	}
	s.send(wire.Begin("goaway").Str("reason", "drain").Int("retry_after_ms", wait.Milliseconds()))
	s.drainAt = s.now().Add(wait)
	s.rearm()
}
