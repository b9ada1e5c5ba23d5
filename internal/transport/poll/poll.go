// Package poll is the door for long polls and polls: GET, HEAD and POST /v1/poll.
//
// A poll keeps nothing between requests: the cursor it brings is the
// acknowledgement of all before it.
package poll

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/admission"
	"github.com/carillon-rt/carillon/internal/answer"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/front"
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

	WaitMax     time.Duration // the longest wait a request may ask for, whole seconds; DefaultWaitMax
	WaitDefault time.Duration // of a request that does not say; DefaultWait, at most WaitMax

	Page         int           // the most events a request may ask for; DefaultPage
	RequestBytes int           // of a request's body; DefaultRequestBytes
	WriteTimeout time.Duration // of an answer, without progress; loop.DefaultWriteTimeout
	Logger       *slog.Logger
}

// DefaultRequestBytes is how large a request's body may be: a thousand patterns
// fit well.
const DefaultRequestBytes = 1 << 20

// How long a poll waits.
const (
	DefaultWaitMax = 30 * time.Second
	DefaultWait    = 25 * time.Second
)

// How many events an answer has at most.
const (
	DefaultPage  = 1000 // that a request may ask for
	defaultLimit = 100  // where it does not say
)

type handler struct {
	Config
	compressor answer.Compressor
}

// Handler makes the door. It panics if a required field is missing.
func Handler(cfg Config) http.Handler {
	if cfg.Core == nil || cfg.Auth == nil {
		panic("poll: Config.Core and Auth are required")
	}
	if cfg.RequestBytes <= 0 {
		cfg.RequestBytes = DefaultRequestBytes
	}
	if cfg.WaitMax <= 0 {
		cfg.WaitMax = DefaultWaitMax
	}
	if cfg.WaitDefault <= 0 {
		cfg.WaitDefault = min(DefaultWait, cfg.WaitMax)
	}
	if cfg.Page <= 0 {
		cfg.Page = DefaultPage
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = loop.DefaultWriteTimeout
	}
	h := http.Handler(&handler{Config: cfg})
	if cfg.Origins != nil {
		return cfg.Origins.CORS(h)
	}
	return h
}

// ServeHTTP answers one poll, and waits for what it waits for. On a loop it returns
// at once, and the answer comes later.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.serve(w, r); err != nil {
		transport.Problem(w, r, h.Logger, err)
	}
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request) error {
	if err := transport.Method(w, r, http.MethodGet, http.MethodHead, http.MethodPost); err != nil {
		return err
	}
	if h.Core.Draining() {
		return transport.Draining()
	}
	addr := transport.Address(r)
	if err := h.Core.Reserve(addr); err != nil {
		return err
	}
	r, leave, err := transport.Admit(h.Admission, w, r)
	if err != nil {
		h.Core.Release(addr)
		return err
	}
	opt, err := h.options(w, r)
	leave()
	if err != nil {
		h.Core.Release(addr)
		return err
	}
	opt.Reserved, opt.Address = true, addr
	if x := front.Of(w); x != nil {
		h.hold(x, r, opt)
		return nil
	}
	answers := make(chan session.PollAnswer, 1)
	p := h.Core.Poll(opt, func(a session.PollAnswer) { answers <- a })
	select {
	case a := <-answers:
		if a.Err != nil {
			return a.Err
		}
		if status, body := h.answer(w.Header(), formOf(r, opt), a); body == nil {
			w.WriteHeader(status)
		} else {
			answer.Write(w, status, body, h.WriteTimeout)
		}
	case <-r.Context().Done():
		p.Cancel()
	}
	return nil
}

var parameters = map[string]bool{"ticket": false, "pattern": true, "room": true, "after": false, "cursor": false, "wait": false, "limit": false}

// options is what the request asks for, checked and granted.
func (h *handler) options(w http.ResponseWriter, r *http.Request) (opt session.PollOptions, err error) {
	q, err := transport.Query(r, parameters)
	if err != nil {
		return opt, err
	}
	if opt.Principal, err = transport.Caller(h.Auth, w, r, auth.TicketQuery); err != nil {
		return opt, err
	}
	if opt.CloudEvents, err = answer.TakesCloudEvents(r.Header); err != nil {
		return opt, err
	}
	patterns, rooms := q["pattern"], q["room"]
	after, err := transport.Alias(q, "after", "cursor")
	if err != nil {
		return opt, err
	}
	wait, err := transport.Int(q, "wait", 0, h.maxWait(), int(h.WaitDefault/time.Second))
	if err != nil {
		return opt, err
	}
	if opt.Limit, err = transport.Int(q, "limit", 1, h.Page, min(defaultLimit, h.Page)); err != nil {
		return opt, h.beyond(opt.Limit, err)
	}
	if r.Method == http.MethodPost {
		for name := range q {
			if name != "token" && name != "ticket" {
				return opt, carillon.BadRequest("with POST %s is a field of the body", name)
			}
		}
		if err := h.body(r, &patterns, &rooms, &after, &wait, &opt.Limit); err != nil {
			return opt, err
		}
	}
	opt.Wait = time.Duration(wait) * time.Second
	if opt.Patterns, err = transport.Patterns(patterns); err != nil {
		return opt, err
	}
	if err := transport.Rooms(rooms); err != nil {
		return opt, err
	}
	if opt.Cursor, err = h.Core.IDs.Org(opt.Principal.Org).ParseCursor(after); err != nil {
		return opt, err
	}
	return opt, h.Core.Admit(opt.Principal, opt.Patterns)
}

// maxWait is in seconds, as a request says it.
func (h *handler) maxWait() int { return int(h.WaitMax / time.Second) }

func (h *handler) body(r *http.Request, patterns, rooms *[]string, after *string, wait, limit *int) error {
	body, _, err := transport.Body(r, h.RequestBytes, "application/json")
	if err != nil {
		h.Core.Met(carillon.AsError(err).Limit)
		return err
	}
	if err := transport.Object(body, map[string]transport.Field{
		"patterns": {To: patterns, Kind: "a list of patterns, strings"},
		"rooms":    {To: rooms, Kind: "a list of rooms' names, strings"},
		"after":    {To: after, Kind: "a cursor, a string"},
		"wait":     {To: wait, Kind: "a whole number of seconds"},
		"limit":    {To: limit, Kind: "a whole number of events"},
	}); err != nil {
		return err
	}
	if err := transport.Between("wait", *wait, 0, h.maxWait()); err != nil {
		return err
	}
	return h.beyond(*limit, transport.Between("limit", *limit, 1, h.Page))
}

// beyond counts a number of events that is refused with err, if it is too large.
func (h *handler) beyond(limit int, err error) error {
	if limit > h.Page {
		h.Core.Met("history_page")
	}
	return err
}

// form is what a request says of how it is answered.
type form struct {
	encoding string
	tagged   bool     // the answer has a tag
	has      []string // If-None-Match, then
}

func formOf(r *http.Request, opt session.PollOptions) form {
	f := form{encoding: answer.Encoding(r.Header), tagged: opt.Wait == 0 && r.Method != http.MethodPost}
	if f.tagged {
		f.has = r.Header["If-None-Match"]
	}
	return f
}

// answer is the same as that of history. Without a body there is only the header.
func (h *handler) answer(header http.Header, f form, a session.PollAnswer) (status int, body []byte) {
	transport.Answers(header, transport.NoStore)
	header.Set("Vary", "Authorization, Cookie, Origin, Accept, Accept-Encoding")
	if f.tagged {
		tag := `"` + a.Cursor + `"`
		header.Set("ETag", tag)
		if len(a.Events) == 0 && a.Gap == nil && !a.More && len(f.has) > 0 && answer.Has(http.Header{"If-None-Match": f.has}, tag) {
			return http.StatusNotModified, nil
		}
	}
	header.Set("Content-Type", answer.JSON)
	return http.StatusOK, h.compressor.CompressAs(f.encoding, header, appendAnswer(a))
}

func appendAnswer(a session.PollAnswer) []byte {
	n := 128
	for _, e := range a.Events {
		n += len(e) + 1
	}
	b := append(make([]byte, 0, n), `{"events":[`...)
	for i, e := range a.Events {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e...)
	}
	b = append(b, `],"cursor":`...)
	b = wire.AppendString(b, a.Cursor)
	b = append(b, `,"more":`...)
	if a.More {
		b = append(b, "true"...)
	} else {
		b = append(b, "false"...)
	}
	if a.Gap != nil {
		b = append(append(b, `,"gap":`...), a.Gap...)
	}
	return append(b, '}')
}
