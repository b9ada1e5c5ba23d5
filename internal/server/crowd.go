package server

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/front"
	"github.com/carillon-rt/carillon/internal/transport"
)

// crowd limits the requests that are answered at the same time.
type crowd struct {
	most int64
	now  atomic.Int64
	hits atomic.Uint64
}

// crowdRetry is how long a client is told to wait: requests that do not wait for
// events are short.
const crowdRetry = time.Second

func (c *crowd) guard(next http.Handler) http.Handler {
	leave := func() { c.now.Add(-1) }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if x := front.Of(w); x != nil {
			x.Ended(leave) // which may be later
		} else {
			defer leave()
		}
		if c.now.Add(1) > c.most {
			c.hits.Add(1)
			transport.Problem(w, r, nil, carillon.Unavailable(crowdRetry, nil, "this server answers as many requests as it can; send it again later"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// patience gives a request's body a time to arrive in, and counts those that do
// not.
type patience struct {
	within time.Duration
	hits   atomic.Uint64
}

// bound is not for handlers that take the connection over; they set the deadline
// themselves.
func (p *patience) bound(next http.Handler) http.Handler {
	next = p.count(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hasBody(r) {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(p.within)) // not every writer can
		}
		next.ServeHTTP(w, r)
	})
}

func (p *patience) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hasBody(r) {
			r.Body = &awaited{ReadCloser: r.Body, hits: &p.hits}
		}
		next.ServeHTTP(w, r)
	})
}

func hasBody(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }

// awaited is a body.
type awaited struct {
	io.ReadCloser

	hits *atomic.Uint64
	late bool
}

// Read is io.Reader's.
func (b *awaited) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if !b.late && errors.Is(err, os.ErrDeadlineExceeded) {
		b.late = true
		b.hits.Add(1)
	}
	return n, err
}
