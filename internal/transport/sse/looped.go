package sse

import (
	"time"

	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/session"
)

// looped is a stream on its shard's loop: no goroutine waits for it. Everything
// happens on the shard.
type looped struct {
	loop.Link

	session *session.Session // nil until it begins
	timer   *session.Timer   // nil: it is not set
	chatted uint32           // bytes that the client had nothing to say in
}

// begin takes the descriptor into the loop of the session's shard.
func (t *looped) begin(s *session.Session, l *loop.Loop, fd int) {
	t.session = s
	t.Open(l, fd, nil, t)
}

// Ready is called by the session.
func (t *looped) Ready() {
	if t.session != nil {
		t.Link.Ready()
	}
}

// Pull is called by the link.
func (t *looped) Pull(dst [][]byte) ([][]byte, bool) { return t.session.Pull(dst, writeBudget) }

// Input is called by the link: the client has nothing to say.
func (t *looped) Input(b []byte) int {
	if t.chatted += uint32(len(b)); t.chatted > chatter {
		t.Abort()
	}
	return len(b)
}

// Now is called by the link.
func (t *looped) Now() time.Time { return t.session.Shard().Now() }

// Alarm is called by the link.
func (t *looped) Alarm(at time.Time) {
	t.timer = t.session.Shard().Rearm(t.timer, t, at)
}

// Timeout is called by the shard.
func (t *looped) Timeout(time.Time) { t.Link.Alarm() }

// Gone is called by the link.
func (t *looped) Gone() { t.session.Gone() }
