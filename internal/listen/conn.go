package listen

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
)

// Conn is a connection whose RemoteAddr is the client's, where a trusted proxy
// has said so.
type Conn struct {
	net.Conn

	remote net.Addr

	late  atomic.Bool // a read has not come in time
	stage atomic.Int32
}

// Where an http.Server is with a connection.
const (
	header  = iota // it waits for a request's header, or reads it
	request        // it has one
	between        // it waits for another one
)

// NewConn makes a Conn of one whose client is known by other means.
func NewConn(conn net.Conn, client net.Addr) *Conn { return &Conn{Conn: conn, remote: client} }

// RemoteAddr is the client's.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// NetConn is the connection to the peer.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Bare is the same, for whoever takes the connection over and no longer asks who
// the client is: on the two the same bytes come and go.
func (c *Conn) Bare() net.Conn {
	if inner, ok := c.Conn.(interface{ Bare() net.Conn }); ok {
		return inner.Bare()
	}
	return c.Conn
}

// CloseWrite ends our direction.
func (c *Conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return net.ErrClosed
	}
	return half.CloseWrite()
}

// Read is net.Conn's.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.stage.CompareAndSwap(between, header)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.late.Store(true)
	}
	return n, err
}

// Headers counts the connections of an http.Server that are closed because a
// request's header did not come in time. Set its three methods there. The zero
// value works.
type Headers struct{ late atomic.Uint64 }

type connKey struct{}

// Context is for http.Server.ConnContext.
func (*Headers) Context(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, below(conn))
}

// Handler is around all of the server.
func (*Headers) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, _ := r.Context().Value(connKey{}).(*Conn); c != nil {
			c.stage.Store(request)
		}
		next.ServeHTTP(w, r)
	})
}

// State is for http.Server.ConnState.
func (h *Headers) State(conn net.Conn, state http.ConnState) {
	c := below(conn)
	switch {
	case c == nil:
	case state == http.StateIdle:
		c.late.Store(false)
		c.stage.Store(between)
	case state == http.StateClosed && c.late.Load() && c.stage.Load() == header:
		h.late.Add(1)
	}
}

// Late is how many there were.
func (h *Headers) Late() uint64 { return h.late.Load() }

// below is the Conn in a connection, or nil.
func below(conn net.Conn) *Conn {
	for {
		if c, ok := conn.(*Conn); ok {
			return c
		}
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = inner.NetConn()
	}
}
