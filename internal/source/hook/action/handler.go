package action

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
)

// The answers that adnanh/webhook gives, and those that it has no cause for.
const (
	answerUnknown  = "Hook not found."
	answerMismatch = "Hook rules were not satisfied."
	answerRules    = "Error occurred while evaluating hook rules."
	answerCommand  = "Error occurred while executing the hook's command. Please check your logs for more details."
	answerUnsigned = "The signature is missing or wrong."
	answerTooLarge = "The body is too large."
	answerUnread   = "The body could not be read."
	answerBusy     = "Too much is running. Please try again later."
	answerCut      = "\n[truncated]\n"
)

// HandlerConfig of a Handler. Runner is required.
type HandlerConfig struct {
	Runner  *Runner
	Prefix  string   // of paths, before the id; /hooks/
	Methods []string // of hooks that name none; nil: any

	// Strict answers 401 where a signature is missing or wrong, and 403 where a rule
	// does not want the request, instead of 500 and 200.
	Strict bool

	MaxBody     int64         // 1 MiB; a larger one is refused
	ReadTimeout time.Duration // of a body; 10 s

	Remote func(*http.Request) string // the client as ip:port; nil: who is connected
	Verify Verifier                   // nil: no signature of a provider is good
	Logger *slog.Logger               // nil: nothing is logged
	Done   func(Ran)                  // is told of each command that has ended; nil: nobody is
}

// Ran is a command of a hook that has ended, or could not begin.
type Ran struct {
	Hook, Request, Remote string
	Result                Result
	Err                   error
}

// Handler answers requests to hooks. A command runs to its end, whether or not the
// client waits: closing the runner is what ends it.
type Handler struct {
	cfg HandlerConfig
	set atomic.Pointer[Set]

	mu     sync.Mutex // guards counts
	counts map[HookStatus]uint64
}

// HookStatus is what became of a request to a hook.
type HookStatus struct{ Hook, Status string }

// What becomes of requests.
const (
	StatusRan      = "ran"        // its command ended well
	StatusFailed   = "failed"     // it did not, or could not begin
	StatusBusy     = "busy"       // there was no place for it
	StatusUnwanted = "unwanted"   // by the rule
	StatusUnsigned = "unsigned"   // the same, for want of a signature; where Strict
	StatusRule     = "rule_error" // the rule cannot be judged
	StatusMethod   = "method"     // not one of the hook's
	StatusBody     = "body"       // too large, too slow, or cut off
)

// Requests counts those to hooks, by what became of them.
func (h *Handler) Requests() map[HookStatus]uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.counts)
}

func (h *Handler) count(hook *hook, status string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[HookStatus{hook.id, status}]++
}

// NewHandler makes a handler of a set.
func NewHandler(set *Set, cfg HandlerConfig) *Handler {
	if cfg.Runner == nil {
		panic("action: HandlerConfig.Runner is required")
	}
	cfg.Prefix = cmp.Or(cfg.Prefix, "/hooks/")
	cfg.MaxBody = cmp.Or(cfg.MaxBody, 1<<20)
	cfg.ReadTimeout = cmp.Or(cfg.ReadTimeout, 10*time.Second)
	if cfg.Remote == nil {
		cfg.Remote = func(r *http.Request) string { return r.RemoteAddr }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Done == nil {
		cfg.Done = func(Ran) {}
	}
	h := &Handler{cfg: cfg, counts: map[HookStatus]uint64{}}
	h.set.Store(set)
	return h
}

// Replace changes the set. Requests that are in hand go on with the one before.
func (h *Handler) Replace(set *Set) { h.set.Store(set) }

// ServeHTTP answers a request to a hook.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	id, ok := strings.CutPrefix(r.URL.Path, h.cfg.Prefix)
	hook := h.set.Load().hooks[id]
	if !ok || hook == nil {
		say(w, http.StatusNotFound, answerUnknown)
		return
	}
	methods := hook.methods
	if len(methods) == 0 {
		methods = h.cfg.Methods
	}
	if len(methods) > 0 && !slices.Contains(methods, r.Method) {
		h.count(hook, StatusMethod)
		h.cfg.Logger.Info("a method is refused", "hook", hook.id, "remote", h.cfg.Remote(r), "method", r.Method)
		w.Header().Set("Allow", strings.Join(methods, ", "))
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	body, code, text := h.read(w, r)
	if code != 0 {
		h.count(hook, StatusBody)
		h.cfg.Logger.Warn("a body is refused", "hook", hook.id, "remote", h.cfg.Remote(r), "status", code)
		w.Header().Set("Connection", "close") // what is left of the body is not waited for
		say(w, code, text)
		return
	}
	req := &Request{
		ID: rand.Text(), Method: r.Method, Remote: h.cfg.Remote(r), Header: r.Header.Clone(), Query: r.URL.Query(),
		Body: body, Verify: h.cfg.Verify,
	}
	log := h.cfg.Logger.With("hook", hook.id, "request", req.ID, "remote", req.Remote)
	errs := hook.prepare(req)
	if err := errors.Join(errs...); err != nil {
		log.Warn("a parameter is not readable", "error", err)
	}
	if h.wants(w, hook, req, log) {
		h.trigger(context.WithoutCancel(r.Context()), w, hook, req, log)
	}
}

// read reads the body, within its limits. code is the answer if it cannot be read.
func (h *Handler) read(w http.ResponseWriter, r *http.Request) (body []byte, code int, text string) {
	if r.ContentLength > h.cfg.MaxBody {
		return nil, http.StatusRequestEntityTooLarge, answerTooLarge
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(h.cfg.ReadTimeout)) // not every writer can
	var b bytes.Buffer
	_, err := io.Copy(&b, http.MaxBytesReader(w, r.Body, h.cfg.MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, http.StatusRequestEntityTooLarge, answerTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, http.StatusRequestTimeout, answerUnread
	case err != nil:
		return nil, http.StatusBadRequest, answerUnread
	}
	_ = rc.SetReadDeadline(time.Time{}) // the next request has its own
	return b.Bytes(), 0, ""
}

// wants judges a request, and answers one that is not wanted.
func (h *Handler) wants(w http.ResponseWriter, hook *hook, req *Request, log *slog.Logger) bool {
	if hook.rule == nil {
		return true
	}
	v := hook.rule.judge(req, hook.soft)
	if err := req.ParseError(); err != nil {
		log.Warn("the body is not readable", "error", err)
	}
	switch {
	case v.err != nil && h.cfg.Strict && errors.Is(v.err, ErrSignature):
		h.count(hook, StatusUnsigned)
		log.Warn("a request is refused", "error", v.err)
		say(w, http.StatusUnauthorized, answerUnsigned)
	case v.err != nil:
		h.count(hook, StatusRule)
		log.Error("a rule cannot be judged", "error", v.err)
		say(w, http.StatusInternalServerError, answerRules)
	case v.ok:
		return true
	case hook.mismatch != 0:
		h.count(hook, StatusUnwanted)
		log.Info("a request is not wanted")
		say(w, status(hook.mismatch), answerMismatch)
	case h.cfg.Strict && v.unsigned:
		h.count(hook, StatusUnsigned)
		log.Warn("a request is refused", "error", ErrSignature)
		say(w, http.StatusUnauthorized, answerUnsigned)
	case h.cfg.Strict:
		h.count(hook, StatusUnwanted)
		log.Info("a request is not wanted")
		say(w, http.StatusForbidden, answerMismatch)
	default:
		h.count(hook, StatusUnwanted)
		log.Info("a request is not wanted")
		say(w, http.StatusOK, answerMismatch)
	}
	return false
}

// trigger runs the hook's command, and answers before or after it.
func (h *Handler) trigger(ctx context.Context, w http.ResponseWriter, hook *hook, req *Request, log *slog.Logger) {
	at, err := h.cfg.Runner.places.take(hook.id)
	if err != nil {
		h.count(hook, StatusBusy)
		log.Warn("a command has no place", "error", err)
		retry := carillon.AsError(err).RetryAfter
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(retry.Seconds()))))
		say(w, http.StatusServiceUnavailable, answerBusy)
		return
	}
	for _, header := range hook.headers {
		w.Header().Set(header.name, header.value)
	}
	if !hook.output {
		go func() { // closing the runner waits for it
			_, _ = h.run(ctx, at, hook, req, log) // it has told of both
		}()
		say(w, status(hook.success), hook.message)
		return
	}
	res, err := h.run(ctx, at, hook, req, log)
	out := string(res.Output)
	if res.Truncated {
		out += answerCut
	}
	switch {
	case err == nil:
		say(w, status(hook.success), out)
	case hook.outputError:
		say(w, http.StatusInternalServerError, out)
	default:
		say(w, http.StatusInternalServerError, answerCommand)
	}
}

// run runs the command of a hook that has a place, and leaves it.
func (h *Handler) run(ctx context.Context, at *place, hook *hook, req *Request, log *slog.Logger) (Result, error) {
	done := func(res Result, err error) {
		if err != nil {
			h.count(hook, StatusFailed)
			log.Error("a command failed", "status", res.Exit, "took", res.Took, "error", err)
		} else {
			h.count(hook, StatusRan)
			log.Info("a command ended", "status", res.Exit, "took", res.Took)
		}
		h.cfg.Done(Ran{Hook: hook.id, Request: req.ID, Remote: req.Remote, Result: res, Err: err})
	}
	c, missing, err := hook.build(req)
	if len(missing) > 0 {
		log.Warn("a command gets less than the hook names", "error", errors.Join(append(missing, req.ParseError())...))
	}
	if err == nil {
		err = c.check()
	}
	if err != nil {
		res := Result{Exit: -1}
		done(res, err)
		at.leave()
		return res, err
	}
	return h.cfg.Runner.run(ctx, at, c, done)
}

func say(w http.ResponseWriter, code int, text string) {
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text) // nobody is left to tell
}
