package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/internal/listen"
)

// Names of the ports that a service manager may have opened; the public one may
// have another.
const (
	publicPort = "public"
	opsPort    = "ops"
)

// listener is a port and the server behind it.
type listener struct {
	net.Listener

	setting string // that named the address
	scheme  string
	failed  func(error)
	server  *http.Server
	done    chan struct{} // closed when the server has ended
}

// openOps opens the operations port.
func (s *Server) openOps(ctx context.Context) error {
	raw, err := s.port(ctx, opsPort, s.cfg.Ops.Listen, "ops.listen")
	if err != nil {
		return err
	}
	s.ops = &listener{
		Listener: listen.New(context.WithoutCancel(ctx), raw, listen.Config{}), setting: "ops.listen", scheme: "http://", failed: s.fail,
	}
	if err := s.checkOps(s.ops.Addr().String()); err != nil { // an inherited one is where somebody else has put it
		return err
	}
	s.ops.serve(s.opsServer(), s.log)
	return nil
}

// openPublic opens the public port.
func (s *Server) openPublic(ctx context.Context, h http.Handler) error {
	raw, err := s.port(ctx, publicPort, s.cfg.Listen, "listen")
	if err != nil {
		return err
	}
	l := &s.cfg.Limits
	cfg := listen.Config{
		TLS: s.certs.tls(), HeaderBytes: l.ProxyHeaderBytes.N(), Timeout: s.cfg.Connection.HandshakeTimeout.D(), Handshakes: l.Handshakes,
		Counts: &s.arrivals, Logger: s.log,
	}
	if s.cfg.Proxy.Protocol {
		cfg.Proxies = s.proxies
	}
	s.sockets.Prepare(raw)
	s.public = &listener{setting: "listen", scheme: "http://", failed: s.fail}
	if cfg.TLS == nil && cfg.Proxies == nil && s.openFront(raw) {
		s.public.Listener = s.front
	} else {
		s.public.Listener = listen.New(context.WithoutCancel(ctx), raw, cfg)
	}
	if cfg.TLS != nil {
		s.public.scheme = "https://"
	}
	srv := s.publicServer(h)
	srv.TLSConfig = cfg.TLS
	s.public.serve(srv, s.log)
	return nil
}

// checkInherited refuses more ports than a node has.
func checkInherited(names []string) error {
	public := slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == opsPort })
	if len(public) <= 1 {
		return nil
	}
	return fmt.Errorf("server: the service manager has opened %s; a node has one public port, and one named %s", strings.Join(names, ", "), opsPort)
}

// port is the one that a service manager has opened by this name, or a new one.
func (s *Server) port(ctx context.Context, name, addr, setting string) (net.Listener, error) {
	if names := s.opt.Inherited.Names(); name == publicPort && len(names) == 1 {
		name = names[0] // whatever it is called: the other one is taken
	}
	if l := s.opt.Inherited.Take(name); l != nil {
		s.log.Info("server: the port was open already", "setting", setting, "addr", l.Addr())
		return l, nil
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // its connections inherit less, and few clients have it
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, &ListenError{Setting: setting, Addr: addr, Err: err}
	}
	return l, nil
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

// url is the address as one on this machine can use it.
func (l *listener) url() string { return l.scheme + l.addr() }

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

// PublicURL is where clients find the node, as seen from this machine, or ""
// before it listens.
func (s *Server) PublicURL() string {
	if s.public == nil {
		return ""
	}
	return s.public.url()
}

// OpsURL is where the operator finds it, or "" before it listens.
func (s *Server) OpsURL() string {
	if s.ops == nil {
		return ""
	}
	return s.ops.url()
}
