// Package server builds one node from its settings, runs it, and stops it in
// order. It is the only package that knows all others.
//
// A node starts as config → lock the store → engine → tails and rings warm →
// ready → listen. It stops the other way round: not ready, no new sessions,
// clients sent away spread over a window, HTTP, the hub, and the engine last,
// within one hard deadline. Whatever it has started it has waited for when Stop
// returns.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/carillon-rt/carillon/internal/api"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/gate"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Options are what a node is told beside its settings. The zero value works.
type Options struct {
	Logger  *slog.Logger // none
	Version string       // shown to the operator

	// Development, if not nil, makes the node one for trying things out.
	Development *Development
}

// Development is what `carillon dev` adds. It makes a node open: whoever signs
// tokens makes organizations, and whoever reaches the operations port, which is
// a loopback address, gets a token.
type Development struct {
	Org, User string // whom the token of the live page stands for
	Token     string // for the live page
}

// Server is one node. Make one with New, Start it once and Stop it; or Run it.
type Server struct {
	cfg    *config.Config
	opt    Options
	log    *slog.Logger
	health health
	routes routeCounts
	header headerLimit

	// Set by Start, in this order.
	started time.Time
	ops     *listener
	engine  engine.Engine
	ids     *wire.Keyring
	hub     *hub.Hub
	gate    *gate.Gate
	core    *session.Core
	history *hub.History
	orgs    orgs
	api     *api.API
	sockets loop.Sockets
	public  *listener

	stopKeys context.CancelFunc // ends the refresher of the issuers' keys
	keys     sync.WaitGroup     // and waits for it

	failed chan error // capacity 2: a listener ended by itself

	stop    sync.Once
	stopErr error
}

// New checks what can be checked without starting anything. The settings come
// from package config and are not changed afterwards.
func New(cfg *config.Config, opt Options) (*Server, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Version == "" {
		opt.Version = "unknown"
	}
	if err := checkOps(cfg.Ops.Listen); err != nil {
		return nil, err
	}
	if _, err := newAuth(cfg, opt.Development != nil, auth.Config{}); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, opt: opt, log: opt.Logger, failed: make(chan error, 2)}, nil
}

// Run runs a node until ctx ends or it fails, and stops it. onReady, if not nil,
// is called once, when the node takes clients.
func (s *Server) Run(ctx context.Context, onReady func() error) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	var err error
	if onReady != nil {
		err = onReady()
	}
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-s.failed:
		}
	}
	return errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
}

// Start returns when the node takes clients. If it cannot, or ctx ends first, it
// stops what it has started and returns why.
func (s *Server) Start(ctx context.Context) error {
	s.started = time.Now()
	err := s.start(ctx)
	if err != nil {
		// What ended the start must not cut the stop short.
		err = errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return err
}

func (s *Server) start(ctx context.Context) (err error) {
	// The operations port comes first: it says that the node is starting.
	s.ops, err = listen(ctx, s.cfg.Ops.Listen, "ops.listen", s.fail)
	if err != nil {
		return err
	}
	s.ops.serve(s.opsServer(), s.log)

	if s.engine, err = openEngine(ctx, s.cfg, s.log); err != nil {
		return err
	}
	key, err := installKey(ctx, s.engine.KV())
	if err != nil {
		return err
	}
	s.ids = wire.NewKeyring(key)
	h := hub.New(hub.Config{
		Engine: s.engine, Logger: s.log, RingBytes: int64(s.cfg.Limits.RingBytes), FeedQueue: s.cfg.Limits.FeedQueue,
		Mailbox: s.cfg.Limits.Mailbox, ScanWorkers: s.cfg.Limits.ScanWorkers, MaxShapes: s.cfg.Limits.WildcardShapesPerOrg,
	})
	if err := h.Start(ctx); err != nil {
		return err
	}
	s.hub = h
	tickets, err := tickets(s.cfg, key, s.engine.KV())
	if err != nil {
		return err
	}
	origins := auth.NewOrigins(s.origins())
	verifier, err := newAuth(s.cfg, s.opt.Development != nil, auth.Config{Origins: origins, Tickets: tickets, Logger: s.log})
	if err != nil {
		return err
	}
	s.refreshKeys(ctx, verifier.Authenticator)
	s.gate = newGate(s.cfg, s.engine, verifier.orgs)
	s.core = newCore(s.cfg, s.hub, s.ids, s.gate, verifier)
	if err := s.followOrgs(ctx, verifier.orgs); err != nil {
		return err
	}
	s.sockets.WriteTimeout = s.cfg.Connection.WriteTimeout.D()
	handler := s.publicHandler(verifier.Authenticator, origins)
	s.health.store(&progress{
		core: s.core, engine: s.engine, hub: s.hub, gate: s.gate,
		auth: verifier.Authenticator, history: s.history, api: s.api,
		orgs: api.NewManagement(s.orgs.api),
	})

	s.public, err = listen(ctx, s.cfg.Listen, "listen", s.fail)
	if err != nil {
		return err
	}
	s.public.serve(s.publicServer(handler), s.log)
	s.health.open(s.PublicURL())
	s.log.Info("server: ready", "public", s.public.addr(), "ops", s.ops.addr(),
		"durability", s.engine.Caps().Describe, "took_ms", time.Since(s.started).Milliseconds())
	return nil
}

// refreshKeys keeps the keys fresh that issuers publish, until the node stops.
func (s *Server) refreshKeys(ctx context.Context, a *auth.Authenticator) {
	ctx, s.stopKeys = context.WithCancel(context.WithoutCancel(ctx))
	s.keys.Go(func() { a.Run(ctx) })
}

// fail notes that a listener ended although nobody asked it to.
func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default: // two are noted already
	}
}

// closeReserve is what is kept of the deadline for the engine, to store what it
// has accepted.
const closeReserve = 3 * time.Second

// opsReserve is how long requests to the operations port may still take.
const opsReserve = 500 * time.Millisecond

// Stop ends the node in order, within the deadline of the settings and of ctx,
// and returns when everything has ended. Clients that are still there at the
// deadline are cut: they come back elsewhere, or here, and miss nothing. It may
// be called more than once.
func (s *Server) Stop(ctx context.Context) error {
	s.stop.Do(func() { s.stopErr = s.stopAll(ctx) })
	return s.stopErr
}

func (s *Server) stopAll(ctx context.Context) error {
	deadline := time.Now().Add(s.cfg.Drain.Deadline.D())
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	clients, cancel := context.WithDeadline(ctx, deadline.Add(-min(closeReserve, s.cfg.Drain.Deadline.D()/4)))
	defer cancel()
	var errs []error
	s.health.drain()
	if s.core != nil {
		s.log.Info("server: draining", "connections", s.core.Count(), "window", s.cfg.Drain.Window.D())
		if s.public != nil {
			s.public.server.SetKeepAlivesEnabled(false) // who asks again asks elsewhere
		}
		if err := s.core.Drain(clients, s.cfg.Drain.Window.D()); err != nil {
			s.log.Warn("server: clients are cut at the deadline", "connections", s.core.Count())
		}
	}
	if s.public != nil {
		s.public.stop(clients)
	}
	if err := s.sockets.Close(ctx); err != nil {
		errs = append(errs, fmt.Errorf("server: connections did not end: %w", err))
	}
	if s.core != nil {
		if err := s.core.Drain(ctx, 0); err != nil { // sessions whose sockets have just been closed
			errs = append(errs, fmt.Errorf("server: sessions did not end: %w", err))
		}
	}
	if s.stopKeys != nil {
		s.stopKeys()
		s.keys.Wait()
	}
	s.health.stopped()
	if s.ops != nil {
		short, cancel := context.WithTimeout(ctx, opsReserve)
		s.ops.stop(short) // nobody waits for a profile
		cancel()
	}
	s.orgs.stop()
	if s.hub != nil {
		s.hub.Stop()
	}
	if s.engine != nil {
		if err := s.engine.Close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("server: close the log: %w", err))
		}
	}
	s.log.Info("server: stopped")
	return errors.Join(errs...)
}

// PublicURL is where clients find the node, as seen from this machine, or ""
// before it listens.
func (s *Server) PublicURL() string {
	if s.public == nil {
		return ""
	}
	return "http://" + s.public.addr()
}

// OpsURL is where the operator finds it, or "" before it listens.
func (s *Server) OpsURL() string {
	if s.ops == nil {
		return ""
	}
	return "http://" + s.ops.addr()
}

// Durability says what an accepted event survives, once the log is open.
func (s *Server) Durability() string {
	if s.engine == nil {
		return ""
	}
	return s.engine.Caps().Describe
}

// listener is a port and the server behind it.
type listener struct {
	net.Listener
	setting string // that named the address
	failed  func(error)
	server  *http.Server
	done    chan struct{} // closed when the server has ended
}

func listen(ctx context.Context, addr, setting string, failed func(error)) (*listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, &ListenError{Setting: setting, Addr: addr, Err: err}
	}
	return &listener{Listener: l, setting: setting, failed: failed}, nil
}

// ListenError says which port could not be opened, and by which setting it was
// chosen.
type ListenError struct {
	Setting, Addr string
	Err           error
}

func (e *ListenError) Error() string {
	return fmt.Sprintf("%s: cannot listen on %s: %v", e.Setting, e.Addr, innermost(e.Err))
}

func (e *ListenError) Unwrap() error { return e.Err }

// innermost is the reason without the layers that repeat the address.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// serve runs the server on a goroutine that stop waits for.
func (l *listener) serve(srv *http.Server, log *slog.Logger) {
	l.server, l.done = srv, make(chan struct{})
	srv.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug) // what clients do wrong is not the operator's concern
	go func() {
		defer close(l.done)
		if err := srv.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
			l.failed(fmt.Errorf("server: %s: %w", l.setting, err))
		}
	}()
}

// stop waits for the requests in hand until ctx ends, and cuts the rest.
func (l *listener) stop(ctx context.Context) {
	if l.server == nil {
		_ = l.Close() // nobody was served yet
		return
	}
	if l.server.Shutdown(ctx) != nil {
		_ = l.server.Close() // whatever is left
	}
	<-l.done
}

// addr is the address as one on this machine can use it.
func (l *listener) addr() string {
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return l.Addr().String()
	}
	host := a.IP.String()
	if a.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, fmt.Sprint(a.Port))
}
