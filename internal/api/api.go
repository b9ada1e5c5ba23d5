// Package api is the REST part of the public port: publishing and history.
//
// routes.go is its whole surface. Every error is application/problem+json
// (RFC 9457); no answer may be stored by a cache.
package api

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/answer"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/front"
	"github.com/carillon-rt/carillon/internal/gate"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/limit"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Config is what the API stands on.
type Config struct {
	Auth    *auth.Authenticator // required
	Gate    *gate.Gate          // required
	History *hub.History        // required
	IDs     *wire.Keyring       // required

	// Origins, if not nil, is put in front of every route. Leave it nil where
	// the caller does so for the whole port.
	Origins *auth.Origins

	RequestBytes int           // of a request's body; DefaultRequestBytes
	BatchEvents  int           // in an array; gate.DefaultBatchEvents
	CEBytes      int           // that an event keeps of a CloudEvent; wire.DefaultCEBytes
	WriteTimeout time.Duration // of an answer, without progress; DefaultWriteTimeout
	Logger       *slog.Logger  // of what went wrong on our side; none
}

// DefaultRequestBytes is how large a request's body may be.
const DefaultRequestBytes = 10_000_000

// DefaultWriteTimeout is how long a client may take nothing of its answer.
const DefaultWriteTimeout = 10 * time.Second

// API is the handler of everything under /v1/ that routes.go names; other paths
// under it are 404.
type API struct {
	http.Handler

	publish http.Handler
	limits  limit.Hits
}

// Publish is the handler of POST /v1/events alone, for those who have found it: it
// may be called by a loop ([front.Exchange]).
func (a *API) Publish() http.Handler { return a.publish }

// Limits counts the requests that met a limit of the config before gate or hub saw
// them, by its name.
func (a *API) Limits() map[string]uint64 { return a.limits.Load() }

type api struct {
	Config
	limits     limit.Hits
	bodies     bodyPool
	compressor answer.Compressor
}

// New makes an API. It panics if a required field is missing.
func New(cfg Config) *API {
	if cfg.Auth == nil || cfg.Gate == nil || cfg.History == nil || cfg.IDs == nil {
		panic("api: Config.Auth, Gate, History and IDs are required")
	}
	if cfg.RequestBytes <= 0 {
		cfg.RequestBytes = DefaultRequestBytes
	}
	if cfg.BatchEvents <= 0 {
		cfg.BatchEvents = gate.DefaultBatchEvents
	}
	if cfg.CEBytes <= 0 {
		cfg.CEBytes = wire.DefaultCEBytes
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = DefaultWriteTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &api{Config: cfg, limits: limit.Of("request_bytes", "batch_events", "ce_bytes")}
	mux := http.NewServeMux()
	allow := map[string][]string{}
	for _, r := range routes() {
		mux.Handle(r.method+" "+r.path, a.handler(r.handle))
		allow[r.path] = append(allow[r.path], r.method)
		if r.method == http.MethodGet {
			allow[r.path] = append(allow[r.path], http.MethodHead)
		}
	}
	for path, methods := range allow {
		slices.Sort(methods)
		mux.Handle(path, a.handler(methodNotAllowed(strings.Join(methods, ", "))))
	}
	mux.Handle("/", a.handler(notFound))
	all := &API{Handler: mux, publish: a.handler((*api).publish), limits: a.limits}
	if cfg.Origins != nil {
		all.Handler, all.publish = cfg.Origins.CORS(all.Handler), cfg.Origins.CORS(all.publish)
	}
	return all
}

// handler puts around a route what all have in common.
func (a *api) handler(handle func(*api, http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Vary", "Authorization, Cookie, Origin")
		h.Set("X-Content-Type-Options", "nosniff")
		switch err := handle(a, w, r); {
		case err == nil:
		case errors.Is(err, errElsewhere):
			front.Of(w).Pass()
		default:
			a.problem(w, r, err)
		}
	})
}

func (a *api) problem(w http.ResponseWriter, r *http.Request, err error) {
	answerProblem(a.Logger, w, r, err)
}

// answerProblem answers with an error.
func answerProblem(log *slog.Logger, w http.ResponseWriter, r *http.Request, err error) {
	e := carillon.AsError(err)
	h := w.Header()
	h.Set("Content-Type", wire.ProblemContentType)
	if s := wire.RetryAfter(e); s != "" {
		h.Set("Retry-After", s)
	}
	if e.Code == carillon.CodeUnauthenticated {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if e.Code.Status() >= 500 && r.Context().Err() == nil {
		log.Error("api: request failed", "method", r.Method, "path", r.URL.Path, "client", r.RemoteAddr, "code", e.Code, "err", err)
	}
	w.WriteHeader(e.Code.Status())
	_, _ = w.Write(wire.AppendProblem(nil, e)) // the client may be gone
}

// errElsewhere is no refusal: a loop would have to wait for the answer.
var errElsewhere = errors.New("api: this is for net/http to answer")

// caller is who asks. It is called before anything has had an effect.
func (a *api) caller(w http.ResponseWriter, r *http.Request) (*carillon.Principal, error) {
	c, err := a.Auth.FromRequest(r, 0)
	if err != nil {
		return nil, err
	}
	p, ok, err := a.Auth.VerifyNow(c)
	switch {
	case ok:
		return p, err
	case front.Of(w) != nil:
		return nil, errElsewhere
	}
	return a.Auth.Verify(r.Context(), c)
}

func methodNotAllowed(allow string) func(*api, http.ResponseWriter, *http.Request) error {
	return func(_ *api, w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", allow)
		return carillon.Errorf(carillon.CodeMethodNotAllowed, "%s is not possible here; possible are %s", method(r), allow)
	}
}

func notFound(_ *api, _ http.ResponseWriter, _ *http.Request) error {
	return carillon.Errorf(carillon.CodeNotFound, "there is nothing at this path; events are at /v1/events")
}

// method is the request's method, short enough for an error.
func method(r *http.Request) string {
	if len(r.Method) > 20 {
		return "this method"
	}
	return r.Method
}
