package session

import (
	"net/netip"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/match"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Format is how a session's frames look.
type Format uint8

// The formats.
const (
	WebSocket Format = iota // text frames of subprotocol carillon.v1
	SSE                     // text/event-stream blocks
)

// Encodings that a delivery remembers.
const (
	formJSON hub.Form = iota
	formText
	formBlock
	formDeflated // text, compressed; empty: that is not smaller
)

// Conn is a session's transport. Its methods are called on the shard's
// goroutine and must not block.
type Conn interface {
	// Ready says that Pull has something, or that the session has ended.
	Ready()
}

// Options of a session.
type Options struct {
	Format    Format
	Conn      Conn
	Principal *carillon.Principal // nil: a connect frame is to come (WebSocket only)
	After     string              // the handshake's cursor, or ""
	Numbered  bool                // WebSocket: number the event frames
	Deflate   bool                // WebSocket: compressed event frames are taken, but not numbered ones
	Named     bool                // SSE: an event: line with the type
	Subscribe bool                // SSE: subscribe at once to
	Patterns  []carillon.Pattern  // these (none: only what is direct)
	Refuse    error               // say this error and close with code 4001, or 4103 if it is unavailable
	Reserved  bool                // it has the place that Reserve took for the address, and gives it back
	Address   netip.Addr          // the client's
	Leave     func()              // gives back the place that Enter took; nil: the session takes one itself
	Head      []byte              // goes out before everything: the answer to a handshake
}

// Session is one client's conversation. All methods but New and Post are for its
// shard's goroutine. Most sessions are idle, and there may be a million of them:
// what only the others need is in active.
type Session struct {
	hub.Member
	feed hub.Feed

	conn    Conn
	grant   *grant     // nil: it is not known who it is for
	active  *active    // nil: nothing goes on
	address addressKey // of which it has a place; 0: none

	serial          uint32 // see connectionID
	expires         uint32 // 1 + the tenth of a second, since the core was made, in which its token does, or somewhat before; 0: never
	leaveAt         uint32 // 1 + the tenth of a second, since the shard was made, in which it is to go; 0: it may stay
	sentAt, heardAt uint32 // see elapsed

	closeCode  wire.CloseCode
	parting    parting // what its client knows about the end
	format     Format
	asked      asked
	entered    bool // it has a place of its organization, as from Enter
	subscribed bool // the first subscribe has happened
	pulled     bool // in this turn
	warned     bool // that its token expires
	pinged     bool // since it was last heard
	closing    bool // nothing more is taken in; what is in out still goes
	closed     bool
}

// asked is which of Options a session goes on to need, in one byte.
type asked uint8

const (
	numbered asked = 1 << iota
	deflate
	named
	stream   // it has subscribed at once
	reserved // it has a place of the node
)

func (a asked) has(what asked) bool { return a&what != 0 }

func (o *Options) asked() (a asked) {
	for i, on := range []bool{o.Numbered, o.Deflate, o.Named, o.Subscribe, o.Reserved} {
		if on {
			a |= 1 << i
		}
	}
	return a
}

type waitingFrame struct {
	frame *wire.ClientFrame
	reply Reply
}

// Reply takes the answer to a frame; nil sends it on the session itself.
type Reply func(frame *wire.Frame)

// New makes a session on a shard. It sends welcome, or, without a principal,
// waits for a connect frame.
func (c *Core) New(opt Options) *Session {
	shard := c.Hub.Shard()
	s := c.made(shard, &opt)
	shard.Post(hub.TaskFunc(func() { s.open(&opt) }))
	return s
}

// NewOn is New for the goroutine of the shard on which the session is to live: it
// has begun when NewOn returns. Conn.Ready is not called before that.
func (c *Core) NewOn(shard *hub.Shard, opt Options) *Session {
	s := c.made(shard, &opt)
	s.open(&opt)
	return s
}

func (c *Core) made(shard *hub.Shard, opt *Options) *Session {
	s := &Session{conn: opt.Conn, format: opt.Format, asked: opt.asked()}
	if s.asked.has(reserved) {
		s.address = c.addressKey(opt.Address)
	}
	shard.Join(&s.Member, s)
	c.dir.sessions.Add(1)
	c.stats.opened.Add(1)
	return s
}

// ID is the connection id.
func (s *Session) ID() string {
	return s.core().ids.text(connectionID{shard: uint8(s.Shard().ID()), number: s.Number(), serial: s.serial})
}

// Post runs f on the session's shard. Safe from anywhere.
func (s *Session) Post(f func()) { s.Shard().Post(hub.TaskFunc(f)) }

func (s *Session) now() time.Time { return s.Shard().Now() }

func (s *Session) open(opt *Options) {
	if s.closed {
		if opt.Leave != nil {
			opt.Leave()
		}
		return
	}
	l := s.local()
	l.serial++
	s.serial = l.serial
	s.Number() // so that who walks finds it
	s.sentAt, s.heardAt = s.elapsed(), s.elapsed()
	s.setLifetime()
	if len(opt.Head) > 0 {
		s.put(opt.Head)
	}
	switch {
	case opt.Refuse != nil:
		s.send(wire.ErrorFrame(opt.Refuse, nil))
		if carillon.AsError(opt.Refuse).Code == carillon.CodeUnavailable {
			s.close(wire.CloseOverloaded, "overloaded")
		} else {
			s.close(wire.CloseBadToken, "the credential was refused")
		}
	case opt.Principal != nil:
		s.admit(opt.Principal, opt, nil, nil)
	default:
		a := s.act()
		a.after, a.connectBy = opt.After, s.now().Add(s.core().Limits.ConnectTimeout)
		s.rearm()
	}
	if d := s.core().leaving.Load(); d != nil {
		s.drain(d.late(s.now()))
	}
}

// admit begins the conversation proper: the session knows who it is for. ref is
// that of a connect frame.
func (s *Session) admit(p *carillon.Principal, opt *Options, ref []byte, reply Reply) {
	leave := opt.Leave
	if err := s.core().allowed(p); err != nil {
		if leave != nil {
			leave()
		}
		s.answer(wire.ErrorFrame(err, ref), reply)
		s.close(wire.CloseForbidden, "not allowed any more")
		return
	}
	if leave == nil {
		if _, err := s.core().Enter(p); err != nil {
			s.answer(wire.ErrorFrame(err, ref), reply)
			s.close(wire.CloseRateLimited, "too many connections")
			return
		}
	}
	s.entered = true
	s.known(p)
	cursor, err := s.core().enter(&s.Member, p.Org).ParseCursor(opt.After)
	if err != nil { // in a handshake unreadable text is a reset, never an error
		cursor = carillon.Cursor{Kind: carillon.CursorForeign}
	}
	a := s.act()
	a.connectBy, a.after = time.Time{}, ""
	a.pending, a.principal = true, p
	patterns := opt.Patterns
	s.Shard().Resolve(s.Realm(), cursor, func(start hub.Start, err error) {
		if s.closed {
			return
		}
		s.act().pending = false
		if err != nil {
			s.answer(wire.ErrorFrame(logError(err), ref), reply)
			s.close(wire.CloseOverloaded, "the log does not answer")
			return
		}
		s.welcome(start, cursor.Kind == carillon.CursorNone, patterns, ref, reply)
		s.next()
	})
}

// ids are those of the session's organization.
func (s *Session) ids() *wire.IDs { return s.tenant().ids }

func (s *Session) core() *Core { return s.tenant().core }

func (s *Session) tenant() *tenant { return s.Tag().(*tenant) } // the core has set it

func (s *Session) welcome(start hub.Start, live bool, patterns []carillon.Pattern, ref []byte, reply Reply) {
	a, ids := s.act(), s.ids()
	user := a.principal.User
	s.Shard().Open(&s.feed, &s.Member, start.Pos)
	s.feed.For(user)
	s.feed.Listen()
	a.startGap, a.principal = start.Gap, nil
	if s.format == SSE {
		s.put(wire.Priming(s.core().Limits.Retry, ids, start.Pos))
	}
	w := wire.Begin("welcome").
		Str("connection_id", s.ID()).
		Str("org", string(s.Org())).
		Str("user", user).
		ID("cursor", ids, start.Pos).
		Int("max_idle_ms", s.maxIdle().Milliseconds()).
		Str("server_time", wire.FormatTime(s.now())).
		Raw("ref", ref)
	s.answer(w, reply)
	switch {
	case s.asked.has(stream):
		all := make([]string, len(patterns))
		for i, p := range patterns {
			all[i] = string(p)
		}
		s.subscribe(&wire.ClientFrame{Type: "subscribe", Patterns: all, List: true}, nil)
	case live:
		s.feed.OpenInbox()
		s.feed.Release()
	}
	s.rearm()
}

func (s *Session) maxIdle() time.Duration {
	if s.format == SSE {
		return s.core().Limits.KeepAlive
	}
	return s.core().Limits.MaxIdle
}

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
	if s.closed || s.closing {
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
	return !s.closing && a != nil && (len(a.frames) >= maxWaitingFrames || a.flying >= s.core().Limits.PublishesFlying || a.outBytes > s.core().Limits.OutboxBytes)
}

func (s *Session) pause(resume func()) {
	if !s.closed && s.full() {
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
	if a == nil || len(a.paused) == 0 || !s.closed && s.full() {
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
func (s *Session) Heard() { s.heardAt, s.pinged = s.elapsed(), false }

// Pong answers a WebSocket ping; an older answer not yet sent is forgotten.
func (s *Session) Pong(payload []byte) {
	s.Heard()
	if !s.closing {
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
	for a := s.active; a != nil && !a.pending && !s.closed && len(a.frames) > 0; a = s.active {
		w := a.frames[0]
		a.frames = a.frames[1:]
		s.do(w.frame, w.reply)
	}
	s.unpause()
}

func (s *Session) do(f *wire.ClientFrame, reply Reply) {
	fail := func(err error) { s.answer(wire.ErrorFrame(err, f.Ref), reply) }
	if s.closing || s.closed {
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
			if !s.closed {
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
