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
	Refuse    error               // say this error and close with code 4001
	Reserved  bool                // it has the place that Reserve took for the address, and gives it back
	Address   netip.Addr          // the client's
	Leave     func()              // gives back the place that Enter took; nil: the session takes one itself
	Head      []byte              // goes out before everything: the answer to a handshake
}

// Session is one client's conversation. All methods but New, ID and Post are for
// its shard's goroutine.
type Session struct {
	hub.Member
	timer hub.Timer
	feed  hub.Feed

	core *Core
	id   string
	opt  Options

	principal *carillon.Principal
	leave     func() // gives its place back; nil: it has none
	realm     *hub.Realm
	ids       *wire.IDs

	subs       []*subscription
	backfills  []*backfill
	startGap   *carillon.Gap
	subscribed bool // the first subscribe has happened
	opened     bool // the feed is
	pulled     bool // in this turn

	out      [][]byte // answers and control frames, in order
	outBytes int
	pong     []byte // only the newest
	number   uint64

	frames   []waitingFrame // behind one that has not taken effect yet
	pending  bool           // a frame waits for its completion
	flying   int            // publishes
	paused   []func()       // readers to resume
	badSince time.Time
	bad      int

	sentAt, heardAt, pingedAt time.Time
	expires                   time.Time
	warned                    bool
	drainAt                   time.Time
	connectBy                 time.Time
	late                      *time.Duration // it came while the node drained: the window
	unanswered                []waitingFrame // a frame that waits for its completion

	closing     bool // nothing more is taken in; what is in out still goes
	closed      bool
	closeCode   wire.CloseCode
	closeReason string
}

// subscription is one (pattern, subject) of a session.
type subscription struct {
	hub.Sub
	text string // the pattern as the client wrote it
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
	s := c.made(shard, opt)
	shard.Post(hub.TaskFunc(s.open))
	return s
}

// NewOn is New for the goroutine of the shard on which the session is to live: it
// has begun when NewOn returns. Conn.Ready is not called before that.
func (c *Core) NewOn(shard *hub.Shard, opt Options) *Session {
	s := c.made(shard, opt)
	s.open()
	return s
}

func (c *Core) made(shard *hub.Shard, opt Options) *Session {
	s := &Session{core: c, id: newConnectionID(), opt: opt, leave: opt.Leave}
	shard.Join(&s.Member, "", s)
	c.dir.add(s)
	c.stats.opened.Add(1)
	return s
}

// ID is the connection id. Safe from anywhere.
func (s *Session) ID() string { return s.id }

// Post runs f on the session's shard. Safe from anywhere.
func (s *Session) Post(f func()) { s.Shard().Post(hub.TaskFunc(f)) }

func (s *Session) now() time.Time { return s.Shard().Now() }

func (s *Session) open() {
	if s.closed {
		return
	}
	s.sentAt, s.heardAt = s.now(), s.now()
	if len(s.opt.Head) > 0 {
		s.put(s.opt.Head)
	}
	switch {
	case s.opt.Refuse != nil:
		s.send(wire.ErrorFrame(s.opt.Refuse, nil))
		s.close(wire.CloseBadToken, "the credential was refused")
	case s.opt.Principal != nil:
		s.admit(s.opt.Principal, s.opt.After, nil, nil)
	default:
		s.connectBy = s.now().Add(s.core.Limits.ConnectTimeout)
		s.rearm()
	}
	if s.late != nil {
		s.drain(*s.late)
	}
}

// admit begins the conversation proper: the session knows who it is for. ref is
// that of a connect frame.
func (s *Session) admit(p *carillon.Principal, after string, ref []byte, reply Reply) {
	if err := s.core.allowed(p); err != nil {
		s.answer(wire.ErrorFrame(err, ref), reply)
		s.close(wire.CloseForbidden, "not allowed any more")
		return
	}
	if s.leave == nil {
		leave, err := s.core.Enter(p)
		if err != nil {
			s.answer(wire.ErrorFrame(err, ref), reply)
			s.close(wire.CloseRateLimited, "too many connections")
			return
		}
		s.leave = leave
	}
	s.principal = p
	s.connectBy = time.Time{}
	s.setExpiry(p)
	s.SetOrg(p.Org)
	s.realm = s.core.Hub.Enter(p.Org)
	s.ids = s.core.IDs.Org(p.Org)
	cursor, err := s.ids.ParseCursor(after)
	if err != nil { // in a handshake unreadable text is a reset, never an error
		cursor = carillon.Cursor{Kind: carillon.CursorForeign}
	}
	s.pending = true
	s.Shard().Resolve(s.realm, cursor, func(start hub.Start, err error) {
		if s.closed {
			return
		}
		s.pending = false
		if err != nil {
			s.answer(wire.ErrorFrame(logError(err), ref), reply)
			s.close(wire.CloseOverloaded, "the log does not answer")
			return
		}
		s.welcome(start, cursor.Kind == carillon.CursorNone, ref, reply)
		s.next()
	})
}

func (s *Session) welcome(start hub.Start, live bool, ref []byte, reply Reply) {
	s.Shard().Open(&s.feed, s.realm, s, start.Pos)
	s.feed.Listen()
	s.opened = true
	s.startGap = start.Gap
	if s.opt.Format == SSE {
		s.put(wire.Priming(s.core.Limits.Retry, s.ids, start.Pos))
	}
	w := wire.Begin("welcome").
		Str("connection_id", s.id).
		Str("org", string(s.principal.Org)).
		Str("user", s.principal.User).
		ID("cursor", s.ids, start.Pos).
		Int("max_idle_ms", s.maxIdle().Milliseconds()).
		Str("server_time", wire.FormatTime(s.now())).
		Raw("ref", ref)
	s.answer(w, reply)
	switch {
	case s.opt.Subscribe:
		s.subscribe(&wire.ClientFrame{Type: "subscribe", Patterns: texts(s.opt.Patterns), List: true}, nil)
	case live:
		s.begin()
		s.feed.Release()
	}
	s.rearm()
}

func texts(patterns []carillon.Pattern) []string {
	all := make([]string, len(patterns))
	for i, p := range patterns {
		all[i] = string(p)
	}
	return all
}

// begin lets the inbox follow from where the feed stands.
func (s *Session) begin() {
	if s.principal.User != "" {
		_ = s.feed.Add(hub.NewInbox(s.principal.User), s.feed.Seq()) // an inbox is never refused
	}
}

func (s *Session) maxIdle() time.Duration {
	if s.opt.Format == SSE {
		return s.core.Limits.KeepAlive
	}
	return s.core.Limits.MaxIdle
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
	frame, err := s.core.ParseFrame(raw)
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
	s.heardAt = s.now()
	s.core.stats.received.Add(1)
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
	return !s.closing && (len(s.frames) >= maxWaitingFrames || s.flying >= s.core.Limits.PublishesFlying || s.outBytes > s.core.Limits.OutboxBytes)
}

func (s *Session) pause(resume func()) {
	if !s.closed && s.full() {
		s.core.stats.paused.Add(1)
		if s.flying >= s.core.Limits.PublishesFlying {
			s.core.stats.limits.Add(limitPublishesFlying)
		}
		if s.outBytes > s.core.Limits.OutboxBytes {
			s.core.stats.limits.Add(limitOutboxBytes)
		}
		s.paused = append(s.paused, resume)
		return
	}
	resume()
}

func (s *Session) unpause() {
	if len(s.paused) == 0 || !s.closed && s.full() {
		return
	}
	waiting := s.paused
	s.paused = nil
	for _, resume := range waiting {
		resume()
	}
}

// badFrame counts a frame that made no sense, and closes when there are too many.
func (s *Session) badFrame() {
	s.core.stats.bad.Add(1)
	if s.now().Sub(s.badSince) > time.Minute {
		s.badSince, s.bad = s.now(), 0
	}
	if s.bad++; s.bad > s.core.Limits.BadFrames {
		s.core.stats.limits.Add(limitBadFrames)
		s.close(wire.CloseBadFrames, "too many bad frames")
	}
}

// Heard notes that the client is there: it answered a ping.
func (s *Session) Heard() { s.heardAt = s.now() }

// Pong answers a WebSocket ping; an older answer not yet sent is forgotten.
func (s *Session) Pong(payload []byte) {
	s.heardAt = s.now()
	if !s.closing {
		s.pong = wire.AppendControl(nil, wire.OpPong, payload)
		s.Due()
	}
}

// Handle does what a frame asks. Frames take effect in the order given; while
// one waits for its completion only publishes go on.
func (s *Session) Handle(f *wire.ClientFrame, reply Reply) {
	if f.Type == "publish" && s.opened {
		s.publish(f, reply)
		return
	}
	if s.pending || len(s.frames) > 0 {
		s.frames = append(s.frames, waitingFrame{f, reply})
		return
	}
	s.do(f, reply)
}

// next goes on with the frames that waited.
func (s *Session) next() {
	for !s.pending && !s.closed && len(s.frames) > 0 {
		w := s.frames[0]
		s.frames = s.frames[1:]
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
	if s.principal == nil && f.Type != "connect" {
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
	if s.principal != nil {
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
		after := f.After
		if !f.HasAfter {
			after = s.opt.After
		}
		s.admit(p, after, f.Ref, reply)
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
	s.pending = true
	s.unanswered = append(s.unanswered, waitingFrame{f, reply})
}

// completed ends await.
func (s *Session) completed() { s.pending, s.unanswered = false, nil }

// verify calls done on the shard, unless the session is gone by then.
func (s *Session) verify(token string, done func(*carillon.Principal, error)) {
	s.core.Verifier.Verify(token, func(p *carillon.Principal, err error) {
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
		case p.Org != s.principal.Org || p.User != s.principal.User:
			s.answer(wire.ErrorFrame(carillon.Errorf(carillon.CodeForbidden, "a new token is for the same org and user; open another connection for another one"), f.Ref), reply)
		default:
			s.principal = p
			s.setExpiry(p)
			r := wire.Begin("refreshed").Raw("ref", f.Ref)
			if !s.expires.IsZero() {
				r.Int("expires_in", int64(max(s.expires.Sub(s.now()), 0)/time.Second))
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
	for _, sub := range append([]*subscription(nil), s.subs...) {
		if !match.MaySubscribe(s.principal, sub.Pattern) {
			s.drop(sub)
			s.send(wire.Begin("unsubscribed").Str("pattern", sub.text).Str("subject", sub.Subject).Str("reason", "forbidden"))
		}
	}
}

func (s *Session) publish(f *wire.ClientFrame, reply Reply) {
	s.flying++
	s.core.Publisher.Submit(s.principal, f.Drafts, func(receipts []carillon.Receipt, err error) {
		s.Post(func() {
			s.flying--
			if err != nil {
				s.answer(wire.ErrorFrame(err, f.Ref), reply)
			} else {
				s.answer(wire.Begin("published").Raw("events", wire.AppendReceipts(nil, s.ids, receipts)).Raw("ref", f.Ref), reply)
			}
			s.unpause()
		})
	})
}

// logError is what a client sees when the log could not be asked.
func logError(err error) error {
	return carillon.Unavailable(time.Second, err, "the log does not answer right now; try again")
}
