package server

import (
	"net/http"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/api"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/source/hook/manage"
	"github.com/carillon-rt/carillon/internal/transport"
	"github.com/carillon-rt/carillon/internal/transport/frames"
	"github.com/carillon-rt/carillon/internal/transport/poll"
	"github.com/carillon-rt/carillon/internal/transport/sse"
	"github.com/carillon-rt/carillon/internal/transport/ws"
)

// idleTimeout is the longest time between two requests.
const idleTimeout = 2 * time.Minute

// publicServer speaks HTTP/1.1 and HTTP/2: over TLS as it was agreed on there, in
// the clear with prior knowledge.
func (s *Server) publicServer(h http.Handler) *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(!s.cfg.TLS.On())
	return &http.Server{
		Handler: s.headers.Handler(s.proxies.Handler(h)), Protocols: p,
		ReadHeaderTimeout: s.cfg.Connection.HeaderTimeout.D(), IdleTimeout: idleTimeout, MaxHeaderBytes: s.cfg.Limits.HeaderBytes.N() + headerSlack,
		ConnContext: s.headers.Context, ConnState: s.headers.State,
	}
}

// publicHandler is everything of the public port.
func (s *Server) publicHandler(a *auth.Authenticator, origins *auth.Origins) http.Handler {
	cfg, l := s.cfg, &s.cfg.Limits
	s.bodies.within, s.crowd.most = cfg.Connection.BodyTimeout.D(), int64(l.RequestsInFlight)
	write, body := cfg.Connection.WriteTimeout.D(), cfg.Connection.BodyTimeout.D()
	s.history = hub.NewHistory(hub.HistoryConfig{
		Open: s.engine.Open, Head: s.engine.Head, Retention: cfg.Engine.Retention.Age.D(),
		Page: l.HistoryPage, Bytes: l.HistoryBytes.N(), Concurrent: l.HistoryConcurrent,
	})
	// The WebSocket door looks at the Origin itself: it is no subject of CORS.
	socket := ws.Handler(ws.Config{
		Core: s.core, Auth: a, Origins: origins, Admission: s.admission, Sockets: &s.sockets, Loops: s.loops,
		FrameBytes: l.FrameBytes.N(), MessageTimeout: cfg.Connection.MessageTimeout.D(), ControlFrames: l.ControlFramesPerMinute,
		Inflating: l.Inflating, Logger: s.log,
	})
	mux := http.NewServeMux()
	stream := sse.Handler(sse.Config{
		Core: s.core, Auth: a, Admission: s.admission, Sockets: &s.sockets, Loops: s.loops, RequestBytes: l.RequestBytes.N(), BodyTimeout: body, WriteTimeout: write, Logger: s.log,
	})
	polls := poll.Handler(poll.Config{
		Core: s.core, Auth: a, Admission: s.admission, WaitMax: cfg.Poll.WaitMax.D(), WaitDefault: cfg.Poll.WaitDefault.D(),
		Page: l.HistoryPage, RequestBytes: l.RequestBytes.N(), WriteTimeout: write, Logger: s.log,
	})
	s.doors = map[string]http.Handler{"/v1/ws": socket, "/v1/sse": origins.CORS(stream), "/v1/poll": origins.CORS(polls)}
	mux.Handle("/v1/sse", s.bodies.count(stream))
	mux.Handle("/v1/poll", s.bodies.bound(polls))
	mux.Handle("/v1/frames", s.crowd.guard(s.bodies.bound(frames.Handler(frames.Config{
		Core: s.core, Auth: a, FrameBytes: l.FrameBytes.N(), RequestBytes: l.RequestBytes.N(), WriteTimeout: write, Logger: s.log,
	}))))
	s.api = api.New(api.Config{
		Auth: a, Gate: s.gate, History: s.history, IDs: s.ids, RequestBytes: l.RequestBytes.N(), BatchEvents: l.BatchEvents,
		CEBytes: l.CEBytes.N(), WriteTimeout: write, Logger: s.log,
	})
	s.posts = map[string]http.Handler{"/v1/events": origins.CORS(s.crowd.guard(s.api.Publish()))}
	mux.Handle("/v1/", s.crowd.guard(s.bodies.bound(s.api)))
	mux.Handle("/v1/hooks/", s.crowd.guard(s.bodies.bound(manage.Handler(manage.Config{
		Auth: a, Sources: s.hooks.sources, Ledger: s.hooks.ledger, Intake: s.engine.Intake, IDs: s.hooks.ids, Events: s.ids, Logger: s.log,
	}))))
	mux.Handle("/hooks/", s.crowd.guard(s.hooks.door(cfg, s.log)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		transport.Problem(w, r, s.log, carillon.Errorf(carillon.CodeNotFound, "there is nothing at this path; everything is under /v1/, and webhooks are sent to /hooks/"))
	})
	others := origins.CORS(mux)
	s.header.most = l.HeaderBytes.N()
	return s.routes.count(s.header.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/ws" {
			socket.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})))
}

// echo is the door for conformance suites, which the operations port has if it is
// asked for.
func (s *Server) echo() http.Handler {
	return ws.Echo(ws.Config{
		Core: s.core, Sockets: &s.sockets, Loops: s.loops,
		FrameBytes: s.cfg.Limits.FrameBytes.N(), MessageTimeout: s.cfg.Connection.MessageTimeout.D(), Logger: s.log,
	})
}

// origins are those of the settings and, for development, the live page's.
func (s *Server) origins() []string {
	all := append([]string(nil), s.cfg.Origins...)
	if s.opt.Development != nil {
		all = append(all, s.opsOrigins()...)
	}
	return all
}
