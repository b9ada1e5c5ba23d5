package session

import (
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Message is what a client sent, read but not yet acted on.
type Message struct {
	raw   []byte // when it has yet to be parsed
	frame *wire.ClientFrame
	err   error
}

// longMessage is from how many bytes a message is parsed by its reader. Shorter
// ones are parsed on the shard: that costs it a few microseconds, and parsing
// would double the stack of every connection's reader for good.
const longMessage = 2 << 10

// Read reads a message's frame. Safe from anywhere: a transport does it on its
// own goroutine, so that a long message costs the shard nothing.
func (s *Session) Read(raw []byte) Message {
	if len(raw) < longMessage {
		return Message{raw: raw}
	}
	return s.parse(raw)
}

func (s *Session) parse(raw []byte) Message {
	frame, err := s.core().ParseFrame(raw)
	return Message{frame: frame, err: err}
}

// ParseFrame reads one frame of a client, with the limits of the node. With an
// error the returned frame still has what Ref and Type could be read.
func (c *Core) ParseFrame(raw []byte) (*wire.ClientFrame, error) {
	frame, err := wire.ParseClientFrame(raw, c.Limits.BatchEvents)
	if err != nil {
		c.Met(carillon.AsError(err).Limit)
	}
	return frame, err
}

// Receive takes one message from the client. resume is called, on the shard's
// goroutine, when the next may be read: at once, or when the session can take
// more.
func (s *Session) Receive(m Message, resume func()) {
	s.Heard()
	s.core().stats.received.Add(1)
	if s.is(closing | closed) {
		resume()
		return
	}
	if m.frame == nil {
		m = s.parse(m.raw)
	}
	if m.err != nil {
		s.badFrame()
		s.answer(wire.ErrorFrame(m.err, m.frame.Ref), nil)
	} else {
		s.Handle(m.frame, nil)
	}
	s.pause(resume)
}

// maxWaitingFrames bounds the frames that wait for one before them.
const maxWaitingFrames = 16

func (s *Session) full() bool {
	a := s.active
	return !s.is(closing) && a != nil && (len(a.frames) >= maxWaitingFrames || a.flying >= s.core().Limits.PublishesFlying || a.outBytes > s.core().Limits.OutboxBytes)
}

func (s *Session) pause(resume func()) {
	if !s.is(closed) && s.full() {
		a := s.active
		s.core().stats.paused.Add(1)
		if a.flying >= s.core().Limits.PublishesFlying {
			s.core().stats.limits.Add(limitPublishesFlying)
		}
		if a.outBytes > s.core().Limits.OutboxBytes {
			s.core().stats.limits.Add(limitOutboxBytes)
		}
		a.paused = append(a.paused, resume)
		return
	}
	resume()
}

func (s *Session) unpause() {
	a := s.active
	if a == nil || len(a.paused) == 0 || !s.is(closed) && s.full() {
		return
	}
	waiting := a.paused
	a.paused = nil
	for _, resume := range waiting {
		resume()
	}
}

// badFrame counts a frame that made no sense, and closes when there are too many.
func (s *Session) badFrame() {
	s.core().stats.bad.Add(1)
	a := s.act()
	if s.now().Sub(a.badSince) > time.Minute {
		a.badSince, a.bad = s.now(), 0
	}
	if a.bad++; a.bad > s.core().Limits.BadFrames {
		s.core().stats.limits.Add(limitBadFrames)
		s.close(wire.CloseBadFrames, "too many bad frames")
	}
}

// Heard notes that the client is there: it answered a ping.
func (s *Session) Heard() {
	s.heardAt = s.elapsed()
	s.unset(pinged)
}

// Pong answers a WebSocket ping; an older answer not yet sent is forgotten.
func (s *Session) Pong(payload []byte) {
	s.Heard()
	if !s.is(closing) {
		s.act().pong = wire.AppendControl(nil, wire.OpPong, payload)
		s.Due()
	}
}

// Handle does what a frame asks. Frames take effect in the order given; while
// one waits for its completion only publishes go on.
func (s *Session) Handle(f *wire.ClientFrame, reply Reply) {
	if f.Type == "publish" && s.feed.Open() {
		s.publish(f, reply)
		return
	}
	if s.waits() {
		s.active.frames = append(s.active.frames, waitingFrame{f, reply})
		return
	}
	s.do(f, reply)
}

// next goes on with the frames that waited.
func (s *Session) next() {
	for a := s.active; a != nil && !a.pending && !s.is(closed) && len(a.frames) > 0; a = s.active {
		w := a.frames[0]
		a.frames = a.frames[1:]
		s.do(w.frame, w.reply)
	}
	s.unpause()
}

func (s *Session) do(f *wire.ClientFrame, reply Reply) {
	fail := func(err error) { s.answer(wire.ErrorFrame(err, f.Ref), reply) }
	if s.is(closing | closed) {
		fail(carillon.Errorf(carillon.CodeGone, "the connection is closing"))
		return
	}
	if s.grant == nil && f.Type != "connect" {
		fail(carillon.Errorf(carillon.CodeUnauthenticated, "the first frame is connect, with a token"))
		s.close(wire.CloseBadToken, "the first frame is connect")
		return
	}
	switch f.Type {
	case "connect":
		s.connect(f, reply)
	case "subscribe":
		s.subscribe(f, reply)
	case "unsubscribe":
		s.unsubscribe(f, reply)
	case "refresh":
		s.refresh(f, reply)
	case "publish":
		s.publish(f, reply)
	case "ping":
		s.answer(wire.Begin("pong").Raw("ref", f.Ref), reply)
	}
}

func (s *Session) connect(f *wire.ClientFrame, reply Reply) {
	if s.grant != nil {
		s.answer(wire.ErrorFrame(carillon.BadRequest("the connection is authenticated already; use refresh for a new token"), f.Ref), reply)
		return
	}
	s.await(f, reply)
	s.verify(f.Token, func(p *carillon.Principal, err error) {
		s.completed()
		if err != nil {
			s.answer(wire.ErrorFrame(err, f.Ref), reply)
			s.close(closeFor(err))
			return
		}
		opt := Options{After: f.After}
		if !f.HasAfter {
			opt.After = s.act().after
		}
		s.admit(p, &opt, f.Ref, reply)
		s.next()
	})
}

// closeFor is how a connection ends whose token was not taken: for good if it is
// bad, for now if it could not be judged.
func closeFor(err error) (wire.CloseCode, string) {
	if carillon.AsError(err).Code == carillon.CodeUnavailable {
		return wire.CloseOverloaded, "the token cannot be checked right now"
	}
	return wire.CloseBadToken, "the token was refused"
}

// await makes the frames that follow wait for the completion of this one.
func (s *Session) await(f *wire.ClientFrame, reply Reply) {
	a := s.act()
	a.pending = true
	a.unanswered = append(a.unanswered, waitingFrame{f, reply})
}

// completed ends await.
func (s *Session) completed() { s.active.pending, s.active.unanswered = false, nil }

// verify calls done on the shard, unless the session is gone by then.
func (s *Session) verify(token string, done func(*carillon.Principal, error)) {
	s.core().Verifier.Verify(token, func(p *carillon.Principal, err error) {
		s.Post(func() {
			if !s.is(closed) {
				done(p, err)
			}
		})
	})
}

func (s *Session) refresh(f *wire.ClientFrame, reply Reply) {
	s.await(f, reply)
	s.verify(f.Token, func(p *carillon.Principal, err error) {
		s.completed()
		switch {
		case err != nil:
			s.answer(wire.ErrorFrame(err, f.Ref), reply)
		case p.Org != s.Org() || p.User != s.feed.User():
			s.answer(wire.ErrorFrame(carillon.Errorf(carillon.CodeForbidden, "a new token is for the same org and user; open another connection for another one"), f.Ref), reply)
		default:
			s.known(p)
			r := wire.Begin("refreshed").Raw("ref", f.Ref)
			if s.expires != 0 {
				r.Int("expires_in", int64(s.lasts()/time.Second))
			}
			s.answer(r, reply)
			s.reauthorize()
			s.rearm()
		}
		s.next()
	})
}

// reauthorize ends what the current token no longer covers.
func (s *Session) reauthorize() {
	p := s.principal()
	for sub := range s.feed.Subs {
		if !match.MaySubscribe(p, sub.Pattern()) {
			s.drop(sub)
			s.send(wire.Begin("unsubscribed").Str("pattern", spelled(sub)).Str("subject", sub.Subject()).Str("reason", "forbidden"))
		}
	}
}

func (s *Session) publish(f *wire.ClientFrame, reply Reply) {
	s.act().flying++
	s.core().Publisher.Submit(s.principal(), f.Drafts, func(receipts []carillon.Receipt, err error) {
		s.Post(func() {
			if s.active != nil { // it is not closed
				s.active.flying--
			}
			if err != nil {
				s.answer(wire.ErrorFrame(err, f.Ref), reply)
			} else {
				s.answer(wire.Begin("published").Raw("events", wire.AppendReceipts(nil, s.ids(), receipts)).Raw("ref", f.Ref), reply)
			}
			s.unpause()
		})
	})
}

// logError is what a client sees when the log could not be asked.
func logError(err error) error {
	return carillon.Unavailable(time.Second, err, "the log does not answer right now; try again")
}
