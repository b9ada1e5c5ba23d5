package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/admin"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/telemetry"
	"github.com/carillon-rt/carillon/internal/transport"
)

// checkOps refuses an operations port that strangers could reach and no key
// protects, and one that could be reached of a node for trying things out: whoever
// reaches that one gets a token.
func (s *Server) checkOps(addr string) error {
	switch {
	case local(addr), len(s.operators) > 0 && s.opt.Development == nil:
		return nil
	case s.opt.Development != nil:
		return fmt.Errorf("ops.listen: %s can be reached from other machines; for development use a loopback address such as 127.0.0.1:8081", addr)
	}
	return fmt.Errorf("ops.listen: %s can be reached from other machines, and there is no operator's key; put one into 'ops.keys' or use a loopback address such as 127.0.0.1:8081", addr)
}

// local reports whether only this machine reaches an address: one of loopback, or
// a Unix socket.
func local(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err != nil || loopback(host)
}

// operators are the keys of the operator, by id.
type operators map[string]org.Key

func newOperators(lines []string) (operators, error) {
	keys := make(operators, len(lines))
	for _, line := range lines {
		k, err := org.ParseKey("", line)
		if err != nil {
			return nil, fmt.Errorf("server: ops.keys: %w", err)
		}
		keys[k.ID] = k
	}
	return keys, nil
}

// check takes a request that has a key.
func (o operators) check(r *http.Request) error {
	if h := r.Header["Authorization"]; len(h) == 1 {
		scheme, text, _ := strings.Cut(h[0], " ")
		id, secret, ok := org.SplitKey(text)
		k, known := o[id]
		if proved := k.Proves(secret); strings.EqualFold(scheme, "Bearer") && ok && known && proved {
			return nil
		}
	}
	return carillon.Errorf(carillon.CodeUnauthenticated, "the operations port needs a key of the operator here, as Authorization: Bearer; 'carillon keys new --ops' makes one")
}

func loopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

func (s *Server) opsServer() *http.Server {
	return &http.Server{
		Handler:           s.headers.Handler(s.guard(s.opsHandler())),
		ReadHeaderTimeout: s.cfg.Connection.HeaderTimeout.D(), IdleTimeout: idleTimeout, MaxHeaderBytes: s.cfg.Limits.HeaderBytes.N(),
		ConnContext: s.headers.Context, ConnState: s.headers.State,
	}
}

func (s *Server) opsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, http.StatusOK, "alive", "") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", telemetry.NewMetrics(s.sample))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/v1/orgs", s.manageOrgs)
	mux.HandleFunc("/v1/orgs/", s.manageOrgs)
	mux.HandleFunc("POST /v1/drain", s.askDrain)
	if s.opt.DebugEcho {
		mux.HandleFunc("/debug/echo", s.serveWith(func(p *progress) http.Handler { return p.echo }))
	}
	page := admin.Config{Status: s.status}
	if dev := s.opt.Development; dev != nil {
		page.Live = func() *admin.Live {
			url := s.health.url()
			if url == "" {
				return nil
			}
			return &admin.Live{URL: url, Org: dev.Org, User: dev.User, Token: dev.Token}
		}
	}
	mux.Handle("/", admin.New(page))
	return mux
}

// manageOrgs is the API of organizations, once there is a store to keep them in.
// It takes a key of the operator from everybody: on loopback there may be others.
func (s *Server) manageOrgs(w http.ResponseWriter, r *http.Request) {
	if err := s.checkOperator(r, "organizations are managed"); err != nil {
		transport.Problem(w, r, s.log, err)
		return
	}
	s.serveWith(func(p *progress) http.Handler { return p.orgs })(w, r)
}

// serveWith serves with a part of the node, once it is there.
func (s *Server) serveWith(part func(*progress) http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		parts, _, _ := s.health.load()
		if parts == nil {
			transport.Problem(w, r, s.log, carillon.Unavailable(time.Second, nil, "the node is starting or stopping; try again"))
			return
		}
		part(parts).ServeHTTP(w, r)
	}
}

// checkOperator takes a key of the operator; what says what that is for.
func (s *Server) checkOperator(r *http.Request, what string) error {
	switch {
	case s.opt.Development != nil:
		return nil
	case len(s.operators) == 0:
		return carillon.Errorf(carillon.CodeForbidden, "%s with a key of the operator, and there is none; 'carillon keys new --ops' makes one and its line for 'ops.keys'", what)
	}
	return s.operators.check(r)
}

// guard answers only those who may be here: nobody by the name of another host,
// which would be a web page that made its name point to this machine, no page of
// another origin, and from other machines nobody without a key.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.checkCaller(r); err != nil {
			transport.Problem(w, r, s.log, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) checkCaller(r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(r.Host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	known := slices.ContainsFunc(s.cfg.Ops.Hosts, func(h string) bool { return strings.EqualFold(strings.Trim(h, "[]"), host) })
	if !known && !loopback(host) {
		return carillon.Errorf(carillon.CodeForbidden, "the operations port does not answer to this Host; the operator can add it to 'ops.hosts'")
	}
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return carillon.Errorf(carillon.CodeForbidden, "the operations port does not answer to pages of other sites; type its address yourself")
	}
	for _, origin := range r.Header["Origin"] {
		if origin != "http://"+r.Host && origin != "https://"+r.Host {
			return carillon.Errorf(carillon.CodeForbidden, "the operations port does not answer to pages of other origins")
		}
	}
	if local(s.ops.Addr().String()) || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
		return nil
	}
	return s.operators.check(r)
}

// opsOrigins are the origins that the live page may have.
func (s *Server) opsOrigins() []string {
	_, port, err := net.SplitHostPort(s.ops.addr())
	if err != nil {
		return nil
	}
	return []string{"http://" + s.ops.addr(), "http://127.0.0.1:" + port, "http://localhost:" + port}
}

// healthTimeout bounds the question to the log.
const healthTimeout = 2 * time.Second

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	state, reason := s.health.ready(ctx)
	if state == stateReady {
		answerHealth(w, http.StatusOK, state, "")
		return
	}
	w.Header().Set("Retry-After", "1")
	answerHealth(w, http.StatusServiceUnavailable, state, reason)
}

func answerHealth(w http.ResponseWriter, status int, state, reason string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct { // the caller may be gone
		Status string `json:"status"`
		Reason string `json:"reason,omitempty"`
	}{state, reason})
}
