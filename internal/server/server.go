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
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/internal/admission"
	"github.com/carillon-rt/carillon/internal/api"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/front"
	"github.com/carillon-rt/carillon/internal/gate"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/listen"
	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Options are what a node is told beside its settings. The zero value works.
type Options struct {
	Logger  *slog.Logger // none
	Version string       // shown to the operator

	// Manager, if not nil, is told when the node is ready, reloads and stops, and
	// as long as it is alive.
	Manager *listen.Manager

	// Inherited are ports that are there already, instead of those of the settings:
	// the one named "ops", and another one, which is public.
	Inherited listen.Inherited

	// DebugEcho has the operations port serve a WebSocket at /debug/echo that sends
	// back what it gets, for conformance suites.
	DebugEcho bool

	// Alone says that there is no other node in the process: this one may tell Go's
	// collector how much memory to hold.
	Alone bool

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
	cfg       *config.Config
	opt       Options
	log       *slog.Logger
	proxies   *listen.Proxies
	operators operators
	health    health
	routes    routeCounts
	header    headerLimit
	crowd     crowd
	bodies    patience
	memory    memoryGuard
	admission *admission.Gate // nil: all are let in
	garbage   collector
	headers   listen.Headers
	arrivals  listen.Counts
	doors     map[string]http.Handler // that need no goroutine, by path
	posts     map[string]http.Handler // likewise, of requests with a body

	// Set by Start, in this order.
	started time.Time
	ops     *listener
	certs   certificates
	engine  engine.Engine
	ids     *wire.Keyring
	hub     *hub.Hub
	gate    *gate.Gate
	core    *session.Core
	history *hub.History
	orgs    orgs
	api     *api.API
	hooks   hooks
	loops   []*loop.Loop // of the hub's shards; none where the system has no such
	sockets loop.Sockets
	front   *front.Front // nil: net/http reads every request
	public  *listener
	alive   watchdog

	stopKeys context.CancelFunc // ends the refresher of the issuers' keys
	keys     sync.WaitGroup     // and waits for it

	failed chan error // capacity 2: a listener ended by itself

	plan  atomic.Pointer[drainPlan] // the operator's; nil: there is none
	asked chan struct{}             // closed when there is one

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
	s := &Server{cfg: cfg, opt: opt, log: opt.Logger, failed: make(chan error, 2), asked: make(chan struct{})}
	var err error
	if s.operators, err = newOperators(cfg.Ops.OperatorKeys()); err != nil {
		return nil, err
	}
	if err := s.checkOps(cfg.Ops.Listen); err != nil {
		return nil, err
	}
	if err := checkInherited(opt.Inherited.Names()); err != nil {
		return nil, err
	}
	if s.proxies, err = listen.NewProxies(cfg.Proxy.Trusted, cfg.Proxy.Header); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	dir, err := newDirectory(cfg, opt.Development != nil)
	if err != nil {
		return nil, err
	}
	if _, err := newAuth(cfg, dir, auth.Config{}); err != nil {
		return nil, err
	}
	if err := Check(cfg); err != nil {
		return nil, err
	}
	return s, nil
}

// Run runs a node until ctx ends, the operator has it drain, or it fails, and stops
// it. onReady, if not nil,
// is called once, when the node takes clients.
func (s *Server) Run(ctx context.Context, onReady func() error) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	s.told(s.opt.Manager.Ready("serving on " + s.PublicURL()))
	var err error
	if onReady != nil {
		err = onReady()
	}
	if err == nil {
		select {
		case <-ctx.Done():
		case <-s.asked:
		case err = <-s.failed:
		}
	}
	s.stop.Do(func() { s.stopErr = s.stopAll(context.WithoutCancel(ctx), ctx) })
	return errors.Join(err, s.stopErr)
}

// Reload reads the files of the certificate and of webhooks' secrets again. The rest of
// the settings is as it was at the start. A node that does not serve yet has just read
// them.
func (s *Server) Reload() {
	if s.health.url() == "" {
		return
	}
	s.told(s.opt.Manager.Reloading())
	s.certs.reload()
	if err := s.hooks.sources.Reload(); err != nil {
		s.log.Error("server: secrets of webhooks could not be read again; they stay as they were", "err", err)
	}
	s.told(s.opt.Manager.Ready("serving on " + s.PublicURL()))
}

// told notes that the service manager did not hear something.
func (s *Server) told(err error) {
	if err != nil {
		s.log.Warn("server: the service manager was not told", "err", err)
	}
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
	if err := s.openOps(ctx); err != nil {
		return err
	}
	if err := s.certs.open(ctx, &s.cfg.TLS, s.log); err != nil {
		return err
	}
	dir, err := newDirectory(s.cfg, s.opt.Development != nil)
	if err != nil {
		return err
	}
	if s.engine, err = openEngine(ctx, s.cfg, dir, s.log); err != nil {
		return err
	}
	key, err := installKey(ctx, s.engine.KV())
	if err != nil {
		return err
	}
	s.ids = wire.NewKeyring(key)
	if s.loops, err = newLoops(runtime.GOMAXPROCS(0), &s.sockets); err != nil {
		return err
	}
	h := hub.New(hub.Config{
		Shards: len(s.loops), Poller: pollers(s.loops),
		Engine: s.engine, Logger: s.log, RingBytes: int64(s.cfg.Limits.RingBytes), FeedQueue: s.cfg.Limits.FeedQueue, Conflated: s.cfg.Limits.ConflatedSubjects,
		Mailbox: s.cfg.Limits.Mailbox, Ephemeral: s.cfg.Limits.EphemeralBytes.N(), ScanWorkers: s.cfg.Limits.ScanWorkers, MaxShapes: s.cfg.Limits.WildcardShapesPerOrg,
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
	verifier, err := newAuth(s.cfg, dir, auth.Config{Origins: origins, Tickets: tickets, Logger: s.log})
	if err != nil {
		return err
	}
	s.refreshKeys(ctx, verifier.Authenticator)
	available := memoryAvailable(os.DirFS("/"))
	s.memory.limit(available, s.cfg.Limits.MemoryPercent, memoryUsed)
	s.garbage.alone = s.opt.Alone
	s.garbage.start(ctx, uint64(s.cfg.Memory.Garbage), available)
	if err := s.openSources(); err != nil {
		return err
	}
	s.gate = newGate(s.cfg, s.engine, verifier.orgs, s.hooks.sources.Has, s.memory.full)
	s.admission = newAdmission(&s.cfg.Handshakes)
	s.core = newCore(s.cfg, s.hub, s.ids, s.gate, verifier, s.memory.full)
	if err := s.followOrgs(ctx, dir); err != nil {
		return err
	}
	if err := s.startHooks(ctx, dir, key); err != nil {
		return err
	}
	s.sockets.WriteTimeout, s.sockets.SendBuffer = s.cfg.Connection.WriteTimeout.D(), s.cfg.Connection.SendBuffer.N()
	s.sockets.UnansweredTimeout = unanswered(s.cfg)
	handler := s.publicHandler(verifier.Authenticator, origins)
	s.health.store(&progress{
		core: s.core, engine: s.engine, hub: s.hub, gate: s.gate,
		auth: verifier.Authenticator, history: s.history, api: s.api, hooks: &s.hooks,
		orgs: api.NewManagement(s.orgs.api), echo: s.echo(),
	})

	if err := s.openPublic(ctx, handler); err != nil {
		return err
	}
	s.health.open(s.PublicURL())
	s.alive.start(ctx, s.opt.Manager, s.hub, s.log)
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
	s.stop.Do(func() { s.stopErr = s.stopAll(ctx, nil) })
	return s.stopErr
}

// stopAll stops the node. Where the operator has asked for it, the end of signal, if
// that is not nil, cuts the clients that are left.
func (s *Server) stopAll(ctx, signal context.Context) error {
	plan := s.drainPlan()
	deadline := time.Now().Add(plan.deadline)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	clients, cancel := context.WithDeadline(ctx, deadline.Add(-min(closeReserve, plan.deadline/4)))
	defer cancel()
	var errs []error
	s.health.drain()
	if !plan.asked { // the manager's own deadline begins with this
		s.told(s.opt.Manager.Stopping("draining"))
	} else if signal != nil {
		defer context.AfterFunc(signal, cancel)()
	}
	if s.core != nil {
		s.log.Info("server: draining", "connections", s.core.Count(), "window", plan.window, "rate", plan.rate, "deadline", plan.deadline)
		if lasts := plan.lasts(s.core.Count()); time.Now().Add(lasts).After(deadline) {
			s.log.Warn("server: not all clients can be sent away at this rate before the deadline", "rate", plan.rate, "would_take", lasts)
		}
		if s.public != nil {
			s.public.server.SetKeepAlivesEnabled(false) // who asks again asks elsewhere
			if s.front != nil {
				s.front.Drain()
			}
		}
		if err := s.core.Drain(clients, plan.window, plan.rate); err != nil {
			s.log.Warn("server: clients are cut at the deadline", "connections", s.core.Count())
		}
	}
	if plan.asked {
		s.told(s.opt.Manager.Stopping("drained"))
	}
	s.certs.stop() // nobody waits for a certificate any more
	if s.public != nil {
		s.public.stop(clients)
		if s.front.Wait(clients) != nil {
			s.log.Warn("server: requests are cut at the deadline")
		}
	}
	s.opt.Inherited.Close()
	if err := s.closeConnections(ctx); err != nil {
		errs = append(errs, fmt.Errorf("server: connections did not end: %w", err))
	}
	if s.core != nil {
		if err := s.core.Drain(ctx, 0, 0); err != nil { // sessions whose sockets have just been closed
			errs = append(errs, fmt.Errorf("server: sessions did not end: %w", err))
		}
	}
	if s.stopKeys != nil {
		s.stopKeys()
		s.keys.Wait()
	}
	if err := s.hooks.stop(ctx); err != nil {
		errs = append(errs, fmt.Errorf("server: the ledger of webhooks: %w", err))
	}
	s.garbage.stop()
	s.health.stopped()
	if s.ops != nil {
		short, cancel := context.WithTimeout(ctx, opsReserve)
		s.ops.stop(short) // nobody waits for a profile
		cancel()
	}
	s.orgs.stop()
	s.alive.stop()
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

// Durability says what an accepted event survives, once the log is open.
func (s *Server) Durability() string {
	if s.engine == nil {
		return ""
	}
	return s.engine.Caps().Describe
}
