package jetstream

import (
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/internal/engine"
)

// publishLink is the connection appends go through. It does not come back by
// itself: on one that does, an event can be lost with the old socket while a
// later one is stored through the new one.
type publishLink struct {
	dial  dialer
	mu    sync.Mutex
	conn  *nats.Conn
	gone  chan struct{} // closed when conn is
	ended bool
}

// get returns the connection that works, or makes one.
func (l *publishLink) get() (*nats.Conn, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, nil, engine.ErrClosed
	}
	if l.conn != nil && !l.conn.IsClosed() {
		return l.conn, l.gone, nil
	}
	gone := make(chan struct{})
	conn, err := l.dial("publish", nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(gone) }))
	if err != nil {
		return nil, nil, err
	}
	l.conn, l.gone = conn, gone
	return conn, gone, nil
}

func (l *publishLink) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.conn != nil {
		l.conn.Close()
	}
}
