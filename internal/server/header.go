package server

import (
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/carillon-rt/carillon/internal/transport"
	"github.com/carillon-rt/carillon/internal/wire"
)

// headerSlack is how much larger than the limit a request's header is still read,
// so that it gets an answer that says why, and is counted. Beyond, net/http itself
// answers 431 and ends the connection, and no handler or hook hears of it.
const headerSlack = 64 << 10

// headerLimit refuses requests for the size of their header.
type headerLimit struct {
	most int
	hits atomic.Uint64
}

func (l *headerLimit) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := headerBytes(r); n > l.most {
			l.hits.Add(1)
			l.refuse(w, n)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// headerBytes is what a request's header takes as text of HTTP/1.1; in a later
// version it is sent in fewer.
func headerBytes(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len("  HTTP/1.1\r\nHost: \r\n\r\n") + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(": \r\n") + len(v)
		}
	}
	return n
}

// refuse answers 431, which no code of carillon's has.
func (l *headerLimit) refuse(w http.ResponseWriter, n int) {
	h := w.Header()
	transport.Answers(h, transport.NoStore)
	h.Set("Content-Type", wire.ProblemContentType)
	w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
	body := []byte(`{"type":"about:blank","title":"Request Header Fields Too Large","status":431,"code":"too_large","detail":`)
	detail := "the header of the request has " + strconv.Itoa(n) + " bytes; at most " + strconv.Itoa(l.most) + " are allowed"
	_, _ = w.Write(append(wire.AppendString(body, detail), '}')) // the client may be gone
}
