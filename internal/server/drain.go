package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/transport"
)

// drainPlan is how the clients of a node that stops are sent away.
type drainPlan struct {
	window   time.Duration // they are spread over this
	rate     int           // at most so many in a second; 0: no limit
	deadline time.Duration // for the whole stop
	asked    bool          // for over the operations port
}

// drainPlan is the operator's, or that of the settings.
func (s *Server) drainPlan() drainPlan {
	if p := s.plan.Load(); p != nil {
		return *p
	}
	d := &s.cfg.Drain
	return drainPlan{window: d.Window.D(), rate: d.Rate, deadline: d.Deadline.D()}
}

// lasts is how long it takes with so many clients.
func (p *drainPlan) lasts(clients int) time.Duration {
	if p.rate == 0 {
		return p.window
	}
	return max(p.window, time.Duration(clients)*time.Second/time.Duration(p.rate))
}

// Bounds of what an operator may ask for, and of the request.
const (
	longestWindow  = 24 * time.Hour
	highestRate    = 1_000_000
	drainBodyBytes = 4096
)

// askDrain takes POST /v1/drain: the node sends its clients away and ends, as after
// a signal. Run returns then. The first request counts.
func (s *Server) askDrain(w http.ResponseWriter, r *http.Request) {
	plan, err := s.planFor(r)
	if err != nil {
		transport.Problem(w, r, s.log, err)
		return
	}
	clients := s.core.Count()
	// The deadline is there to end what does not end by itself. It gives a drain that
	// was asked for the time that it takes.
	d := &s.cfg.Drain
	plan.deadline = max(plan.deadline, plan.lasts(clients)+max(d.Deadline.D()-d.Window.D(), 2*closeReserve))
	if s.plan.CompareAndSwap(nil, &plan) {
		s.health.drain()
		close(s.asked)
	} else {
		plan = s.drainPlan()
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(struct { // the caller may be gone
		Status      string `json:"status"`
		Connections int    `json:"connections"`
		Window      string `json:"window"`
		Rate        int    `json:"rate"`
		Deadline    string `json:"deadline"`
	}{stateDraining, clients, config.Duration(plan.window).String(), plan.rate, config.Duration(plan.deadline.Round(time.Second)).String()})
}

// planFor is what a request asks for: window and rate, where it has them, instead of
// those of the settings.
func (s *Server) planFor(r *http.Request) (plan drainPlan, err error) {
	if err := s.checkOperator(r, "a node is drained"); err != nil {
		return plan, err
	}
	if parts, public, _ := s.health.load(); parts == nil || public == "" {
		return plan, carillon.Unavailable(time.Second, nil, "the node is starting or stopping; try again")
	}
	d := &s.cfg.Drain
	plan = drainPlan{window: d.Window.D(), rate: d.Rate, deadline: d.Deadline.D(), asked: true}
	body, _, err := transport.Body(r, drainBodyBytes, "application/json")
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return plan, err
	}
	window := d.Window.String()
	if err := transport.Object(body, map[string]transport.Field{
		"window": {To: &window, Kind: `a duration, a string like "1m"`},
		"rate":   {To: &plan.rate, Kind: "a whole number of connections a second"},
	}); err != nil {
		return plan, err
	}
	told, err := config.ParseDuration(window)
	if plan.window = told.D(); err != nil || plan.window > longestWindow {
		return plan, carillon.BadRequest("window is a duration up to %s, like 1m", longestWindow)
	}
	return plan, transport.Between("rate", plan.rate, 0, highestRate)
}
