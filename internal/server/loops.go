package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/front"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/loop"
)

// newLoops makes the event loops of n shards, or none where the system has no
// such.
func newLoops(n int, all *loop.Sockets) (loops []*loop.Loop, err error) {
	for range n {
		l, err := loop.NewLoop(all)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil, nil
		}
		if err != nil {
			for _, l := range loops {
				l.End()
			}
			return nil, fmt.Errorf("server: %w", err)
		}
		loops = append(loops, l)
	}
	return loops, nil
}

// unanswered is how long a peer's machine may say nothing to what was sent. A
// stream that is idle is sent something each keep-alive: so a dead peer is found
// within the time that it has on a WebSocket.
func unanswered(cfg *config.Config) time.Duration {
	return max(cfg.Connection.DeadAfter.D()-cfg.SSE.Keepalive.D(), cfg.Connection.WriteTimeout.D())
}

// pollers are the loops as the hub's shards wait in them, and end them.
func pollers(loops []*loop.Loop) func(shard int) hub.Poller {
	if len(loops) == 0 {
		return nil
	}
	return func(shard int) hub.Poller { return loops[shard] }
}

// openFront has the loops read the requests of a port, where they can.
func (s *Server) openFront(port net.Listener) bool {
	front, ok := front.New(port, front.Config{
		Loops: s.loops, Shards: s.hub.Shards(), Doors: s.doors, Posts: s.posts, Admission: s.admission, Client: s.proxies.Client, Answered: s.routes.answered,
		HeaderBytes: s.cfg.Limits.HeaderBytes.N(), HeaderTimeout: s.cfg.Connection.HeaderTimeout.D(), IdleTimeout: idleTimeout, Pending: s.cfg.Limits.Handshakes, Logger: s.log,
	})
	if ok {
		s.front = front
	}
	return ok
}

// connections counts those of all kinds.
func (s *Server) connections() loop.Stats {
	all := s.sockets.Stats()
	for _, l := range s.loops {
		all.Add(l.Stats())
	}
	return all
}

// closeConnections cuts what is still connected.
func (s *Server) closeConnections(ctx context.Context) error {
	err := s.sockets.Close(ctx)
	if s.hub == nil { // nothing ran in the loops
		for _, l := range s.loops {
			l.End()
		}
		return err
	}
	for _, l := range s.loops {
		err = errors.Join(err, l.Close(ctx))
	}
	return err
}
