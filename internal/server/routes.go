package server

import (
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/carillon-rt/carillon/internal/telemetry"
)

// routes are the paths that are counted one by one, those that end with '/' with all
// below them; any other is "other".
var routes = [...]string{"/v1/ws", "/v1/sse", "/v1/poll", "/v1/frames", "/v1/events", "/v1/openapi.json", "/v1/tickets", "/v1/hooks/", "/hooks/", "other"}

// webSocket is the index of its route.
const webSocket = 0

// firstStatus and lastStatus bound the statuses that are counted.
const (
	firstStatus = 100
	lastStatus  = 599
)

// routeCounts counts the public port's answers, by route and status.
type routeCounts [len(routes)][lastStatus - firstStatus + 1]atomic.Uint64

func (c *routeCounts) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(sw, r)
		i := route(r.URL.Path)
		status := sw.status
		switch {
		case status != 0:
		case i == webSocket: // it took the connection over
			status = http.StatusSwitchingProtocols
		default:
			status = http.StatusOK
		}
		c.add(i, status)
	})
}

// route is the index of a path.
func route(path string) int {
	for i, known := range routes {
		if path == known || strings.HasSuffix(known, "/") && strings.HasPrefix(path, known) {
			return i
		}
	}
	return len(routes) - 1
}

func (c *routeCounts) add(route, status int) {
	if status >= firstStatus && status <= lastStatus {
		c[route][status-firstStatus].Add(1)
	}
}

// answered counts an answer that did not come through count.
func (c *routeCounts) answered(path string, status int) { c.add(route(path), status) }

func (c *routeCounts) sample() (list []telemetry.Requests) {
	for i := range c {
		for j := range c[i] {
			if n := c[i][j].Load(); n > 0 {
				list = append(list, telemetry.Requests{Route: routes[i], Status: firstStatus + j, Count: n})
			}
		}
	}
	return list
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter

	status int
}

// WriteHeader is http.ResponseWriter's.
func (w *statusWriter) WriteHeader(status int) {
	if w.status < http.StatusOK { // after informational ones comes another
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write is http.ResponseWriter's.
func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status < http.StatusOK {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
