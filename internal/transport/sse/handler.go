// Package sse is the door for server-sent events: GET and POST /v1/sse, a
// text/event-stream (HTML, section 9.2) over HTTP/1.1 and HTTP/2.
//
// Over HTTP/1 the door takes the connection over, so that a stream costs what a
// WebSocket costs: it ends with the connection. Over HTTP/2 the request's
// goroutine stays and writes. What the stream says is the session's affair.
package sse

import (
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/admission"
	"github.com/carillon-rt/carillon/internal/answer"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Config is what the door stands on. Core and Auth are required.
type Config struct {
	Core *session.Core
	Auth *auth.Authenticator

	// Admission lets requests through; nil: all at once.
	Admission *admission.Gate

	// Origins, if not nil, are checked here. Leave it nil where the caller does
	// so for the whole port.
	Origins *auth.Origins

	// Sockets are the connections this handler takes over, for who ends them;
	// nil: its own.
	Sockets *loop.Sockets

	// Loops, if there are any, are those of the shards, by number. A connection
	// in the clear lives on the loop of its session's shard, any other, or where
	// there are no loops, among Sockets.
	Loops []*loop.Loop

	RequestBytes int           // of a request's body; DefaultRequestBytes
	BodyTimeout  time.Duration // for it to arrive; DefaultBodyTimeout
	WriteTimeout time.Duration // without progress, over HTTP/2; loop.DefaultWriteTimeout
	Logger       *slog.Logger
}

// DefaultRequestBytes is how large a request's body may be: a thousand patterns
// fit well.
const DefaultRequestBytes = 1 << 20

// DefaultBodyTimeout is how long a request's body may take.
const DefaultBodyTimeout = time.Minute

type handler struct{ Config }

// Handler makes the door. It panics if a required field is missing.
func Handler(cfg Config) http.Handler {
	if cfg.Core == nil || cfg.Auth == nil {
		panic("sse: Config.Core and Auth are required")
	}
	if cfg.Sockets == nil {
		cfg.Sockets = new(loop.Sockets)
	}
	if cfg.RequestBytes <= 0 {
		cfg.RequestBytes = DefaultRequestBytes
	}
	if cfg.BodyTimeout <= 0 {
		cfg.BodyTimeout = DefaultBodyTimeout
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = loop.DefaultWriteTimeout
	}
	h := http.Handler(&handler{cfg})
	if cfg.Origins != nil {
		return cfg.Origins.CORS(h)
	}
	return h
}

// ServeHTTP answers a request. Over HTTP/1 it returns at once and the stream
// goes on; over HTTP/2 it returns when the stream has ended.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := transport.Method(w, r, http.MethodGet, http.MethodPost); err != nil {
		transport.Problem(w, r, h.Logger, err)
		return
	}
	if h.Core.Draining() {
		h.goaway(w, "drain", nil)
		return
	}
	addr := transport.Address(r)
	if err := h.Core.Reserve(addr); err != nil {
		h.overload(w, r, err)
		return
	}
	r, leave, err := transport.Admit(h.Admission, w, r)
	if err != nil {
		h.Core.Release(addr)
		h.overload(w, r, err)
		return
	}
	opt, err := h.options(w, r)
	leave()
	if err == nil {
		opt.Leave, err = h.Core.Enter(opt.Principal)
	}
	if opt.Principal == nil && err != nil && carillon.AsError(err).Code == carillon.CodeUnavailable {
		h.Core.Release(addr)
		h.goaway(w, "unavailable", err) // who it is cannot be told right now
		return
	}
	if err != nil {
		h.Core.Release(addr)
		transport.Problem(w, r, h.Logger, err)
		return
	}
	opt.Reserved, opt.Address = true, addr
	streamHeaders(w.Header())
	if r.ProtoMajor == 1 {
		h.takeOver(w, r, opt)
		return
	}
	h.stay(w, r, opt)
}

func streamHeaders(header http.Header) {
	transport.Answers(header, transport.NoTransform)
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no")
}

// leave gives back the places of a stream that did not come about.
func (h *handler) leave(opt session.Options) {
	opt.Leave()
	h.Core.Release(opt.Address)
}

// overload refuses a request that is not looked at.
func (h *handler) overload(w http.ResponseWriter, r *http.Request, err error) {
	if carillon.AsError(err).Code == carillon.CodeUnavailable {
		h.goaway(w, "overload", err)
		return
	}
	transport.Problem(w, r, h.Logger, err)
}

// goaway answers a client that is to come back, after what the error says at least:
// a native EventSource gives up for ever on any status but 200.
func (h *handler) goaway(w http.ResponseWriter, reason string, err error) {
	streamHeaders(w.Header())
	wait := h.Core.Limits.Retry
	if err != nil {
		wait = max(wait, carillon.AsError(err).RetryAfter)
	}
	wait += rand.N(wait)
	block := []byte("retry: ")
	block = strconv.AppendInt(block, wait.Milliseconds(), 10)
	block = append(block, "\n\n"...)
	block = append(block, wire.Begin("goaway").Str("reason", reason).Int("retry_after_ms", wait.Milliseconds()).Block()...)
	answer.Write(w, http.StatusOK, block, h.WriteTimeout)
}

var parameters = map[string]bool{"ticket": false, "pattern": true, "room": true, "after": false, "last_event_id": false, "named": false}

// options is what the request asks for, checked and granted.
func (h *handler) options(w http.ResponseWriter, r *http.Request) (session.Options, error) {
	opt := session.Options{Format: session.SSE, Subscribe: true}
	q, err := transport.Query(r, parameters)
	if err != nil {
		return opt, err
	}
	if opt.Principal, err = transport.Caller(h.Auth, w, r, auth.TicketQuery); err != nil {
		return opt, err
	}
	patterns, rooms := q["pattern"], q["room"]
	if opt.After, err = transport.Alias(q, "after", "last_event_id"); err != nil {
		return opt, err
	}
	if opt.Named, err = transport.Bool(q, "named"); err != nil {
		return opt, err
	}
	if r.Method == http.MethodPost {
		if len(patterns)+len(rooms) > 0 || q.Has("after") || q.Has("last_event_id") {
			return opt, carillon.BadRequest("with POST patterns, rooms and after are fields of the body")
		}
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now().Add(h.BodyTimeout)) // not every writer can
		body, _, err := transport.Body(r, h.RequestBytes, "application/json")
		if err != nil {
			h.Core.Met(carillon.AsError(err).Limit)
			return opt, err
		}
		_ = rc.SetReadDeadline(time.Time{}) // the stream may take as long as it likes
		if err := transport.Object(body, map[string]transport.Field{
			"patterns": {To: &patterns, Kind: "a list of patterns, strings"},
			"rooms":    {To: &rooms, Kind: "a list of rooms' names, strings"},
			"after":    {To: &opt.After, Kind: "a cursor, a string"},
		}); err != nil {
			return opt, err
		}
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		opt.After = last
	}
	if opt.Patterns, err = transport.Patterns(patterns); err != nil {
		return opt, err
	}
	if err := transport.Rooms(rooms); err != nil {
		return opt, err
	}
	return opt, h.Core.Admit(opt.Principal, opt.Patterns)
}
