package session

import (
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/wire"
)

// active is what a session needs only while something goes on in it. An idle one has
// none.
type active struct {
	out      [][]byte // answers and control frames, in order
	outBytes int
	pong     []byte // only the newest
	number   uint64 // of the last event frame, if they are numbered

	pending    bool           // a frame waits for its completion
	unanswered []waitingFrame // that one
	frames     []waitingFrame // behind it
	flying     int            // publishes
	paused     []func()       // readers to resume
	bad        int            // frames that made no sense
	badSince   time.Time

	backfills []*backfill
	startGap  *carillon.Gap

	connectBy   time.Time
	after       string              // of the handshake, for a connect frame
	principal   *carillon.Principal // before the session has a feed
	closeCode   wire.CloseCode
	closeReason string
}

// local is what the sessions of one shard share. Its goroutine owns it.
type local struct {
	spare  []*active
	serial uint32
}

// Bounds of what is kept for sessions to come.
const (
	maxSpareActive = 4096 // by a shard
	maxSpareOut    = 64   // in one of them
)

func (s *Session) local() *local { return &s.core().locals[s.Shard().ID()] }

// act is s.active, made if need be.
func (s *Session) act() *active {
	if s.active != nil {
		return s.active
	}
	l := s.local()
	if i := len(l.spare) - 1; i >= 0 {
		s.active, l.spare = l.spare[i], l.spare[:i]
	} else {
		s.active = new(active)
	}
	return s.active
}

// rest gives active back when nothing goes on. Whoever has it does not use it any
// more.
func (s *Session) rest() {
	a := s.active
	switch {
	case a == nil:
	case len(a.out) > 0, a.pong != nil, a.number > 0, a.pending, len(a.unanswered) > 0, len(a.frames) > 0, a.flying > 0, len(a.paused) > 0,
		len(a.backfills) > 0, a.startGap != nil, !a.connectBy.IsZero(), a.after != "", a.principal != nil, a.closeCode != 0:
	case a.bad > 0 && s.now().Sub(a.badSince) <= time.Minute:
	default:
		s.dropActive()
	}
}

func (s *Session) dropActive() {
	a := s.active
	if a == nil {
		return
	}
	s.active = nil
	clear(a.out)
	out := a.out[:0]
	if cap(out) > maxSpareOut {
		out = nil
	}
	*a = active{out: out}
	if l := s.local(); len(l.spare) < maxSpareActive {
		l.spare = append(l.spare, a)
	}
}

// waits reports whether a frame waits for its completion, or others behind it.
func (s *Session) waits() bool {
	return s.active != nil && (s.active.pending || len(s.active.frames) > 0)
}

// backfilling is the backfill that runs, or nil.
func (s *Session) backfilling() *backfill {
	if a := s.active; a != nil && len(a.backfills) > 0 {
		return a.backfills[0]
	}
	return nil
}
