package session

import (
	"net/netip"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
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

	parting parting // what its client knows about the end
	format  Format
	state   state
}

// state is what is the case with a session, and which of Options it goes on to need.
type state uint16

const (
	numbered state = 1 << iota
	deflate
	named
	stream   // it has subscribed at once
	reserved // it has a place of the node

	entered    // it has a place of its organization, as from Enter
	subscribed // the first subscribe has happened
	pulled     // in this turn
	warned     // that its token expires
	pinged     // since it was last heard
	closing    // nothing more is taken in; what is in out still goes
	closed
)

// is reports whether one of these is the case.
func (s *Session) is(what state) bool { return s.state&what != 0 }

func (s *Session) set(what state)   { s.state |= what }
func (s *Session) unset(what state) { s.state &^= what }

// asked is what a session goes on to need of its options.
func (o *Options) asked() (a state) {
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
	s := &Session{conn: opt.Conn, format: opt.Format, state: opt.asked()}
	if s.is(reserved) {
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
	if s.is(closed) {
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
	s.set(entered)
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
		if s.is(closed) {
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
	case s.is(stream):
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
