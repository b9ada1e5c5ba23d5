// Package transport is what the doors of the public port have in common: who
// asks, what a request may say, and how it is refused. Each door is a package
// below it, and none knows another.
package transport

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/front"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Answers sets the headers that every answer of a door has.
func Answers(h http.Header, cache string) {
	h.Set("Cache-Control", cache)
	h.Set("Vary", "Authorization, Cookie, Origin")
	h.Set("X-Content-Type-Options", "nosniff")
}

// NoStore and NoTransform are the Cache-Control of answers and of streams.
const (
	NoStore     = "no-store"
	NoTransform = "no-cache, no-store, no-transform"
)

// errElsewhere is no refusal: an event loop would have to wait for the answer.
var errElsewhere = errors.New("transport: this is for net/http to answer")

// Problem answers with an error, as problem+json; one of Caller's it may pass on
// to net/http instead. What went wrong on our side
// goes to the log, without the query, which may hold a credential.
func Problem(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	if errors.Is(err, errElsewhere) {
		front.Of(w).Pass()
		return
	}
	e := carillon.AsError(err)
	h := w.Header()
	Answers(h, NoStore)
	h.Set("Content-Type", wire.ProblemContentType)
	h.Del("Content-Length")
	if s := wire.RetryAfter(e); s != "" {
		h.Set("Retry-After", s)
	}
	if e.Code == carillon.CodeUnauthenticated {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if log != nil && e.Code.Status() >= 500 && e.Err != nil && r.Context().Err() == nil {
		log.Error("transport: request failed", "method", r.Method, "path", r.URL.Path, "client", r.RemoteAddr, "code", e.Code, "err", e.Err)
	}
	w.WriteHeader(e.Code.Status())
	_, _ = w.Write(wire.AppendProblem(nil, e)) // the client may be gone
}

// Method refuses every method that is not one of these, and says which are.
func Method(w http.ResponseWriter, r *http.Request, methods ...string) error {
	if slices.Contains(methods, r.Method) {
		return nil
	}
	allow := strings.Join(methods, ", ")
	w.Header().Set("Allow", allow)
	return carillon.Errorf(carillon.CodeMethodNotAllowed, "this method is not possible here; possible are %s", allow)
}

// Caller is who asks. places are those, beside the usual ones, where the request
// may have its credential. It is called before anything has had an effect: where
// the answer takes waiting and a loop may not wait, the error says so to Problem.
func Caller(a *auth.Authenticator, w http.ResponseWriter, r *http.Request, places auth.Places) (*carillon.Principal, error) {
	c, err := a.FromRequest(r, places)
	if err != nil {
		return nil, err
	}
	return Verify(a, w, r, c)
}

// Verify is Caller for a credential that was found.
func Verify(a *auth.Authenticator, w http.ResponseWriter, r *http.Request, c auth.Credential) (*carillon.Principal, error) {
	v, _ := r.Context().Value(visitKey{}).(*visit)
	defer v.end()
	p, ok, err := a.VerifyNow(c)
	switch {
	case ok:
		return p, err
	case front.Of(w) != nil:
		return nil, errElsewhere
	}
	v.end() // waiting is no work
	return a.Verify(r.Context(), c)
}

// busyRetry is how long a client is told to stay away from a node that takes no
// more: elsewhere, or here, there is room then.
const busyRetry = 2 * time.Second

// Draining is the error of a node that takes nothing new.
func Draining() error {
	return carillon.Unavailable(busyRetry, nil, "this server is shutting down; connect again, another one will answer")
}

// Address is the client's, as the server knows it, or not valid where there is
// none: on a Unix socket.
func Address(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr()
}
