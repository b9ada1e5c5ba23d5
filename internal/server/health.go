package server

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/carillon-rt/carillon/internal/api"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/gate"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
)

// What /readyz says of a node.
const (
	stateStarting = "starting"
	stateReady    = "ready"
	stateDraining = "draining"
	stateFailing  = "failing"
)

// progress is what there is of a node, as the operations port may see it.
type progress struct {
	core    *session.Core
	engine  engine.Engine
	hub     *hub.Hub
	gate    *gate.Gate
	auth    *auth.Authenticator
	history *hub.History
	api     *api.API
	hooks   *hooks
	orgs    http.Handler // the management of organizations
	echo    http.Handler // sends back what it gets
}

// health is how far a node has come. The operations port reads it while the node
// starts and stops.
type health struct {
	mu       sync.Mutex // guards what follows
	parts    *progress  // nil: not there yet, or not any more
	public   string     // the public port's URL once it is open
	draining bool
}

func (h *health) store(p *progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parts = p
}

func (h *health) open(url string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.public = url
}

func (h *health) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
}

// stopped takes the parts away before they end.
func (h *health) stopped() { h.store(nil) }

func (h *health) url() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.public
}

func (h *health) load() (parts *progress, public string, draining bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.parts, h.public, h.draining
}

// ready says whether the node takes clients, and if not, why.
func (h *health) ready(ctx context.Context) (state, reason string) {
	parts, public, draining := h.load()
	switch {
	case draining:
		return stateDraining, "the node is shutting down"
	case parts == nil, public == "":
		return stateStarting, "the log is being opened"
	}
	if err := parts.engine.Healthy(ctx); err != nil {
		return stateFailing, fmt.Sprintf("the log does not take events: %v", err)
	}
	return stateReady, ""
}
