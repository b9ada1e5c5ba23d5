package auth

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/carillon-rt/carillon"
)

// Origins says which web pages may call. The zero value allows the server's own
// origin only. It is immutable; its methods may be called from any goroutine.
type Origins struct {
	allowed map[string]struct{}
}

// NewOrigins allows these origins beside the server's own, each written exactly
// as a browser sends it, such as https://app.example.com. There are no
// wildcards, and null is refused even when listed.
func NewOrigins(allowed []string) *Origins {
	o := &Origins{allowed: make(map[string]struct{}, len(allowed))}
	for _, s := range allowed {
		o.allowed[s] = struct{}{}
	}
	return o
}

// Check refuses a request from a web page of another origin that is not allowed
// with forbidden. A request without Origin is not from such a page.
//
// The server's own origin is the scheme and host that were asked for. Without
// TLS the scheme is not known, since a proxy may have ended TLS: then both http
// and https count as its own.
func (o *Origins) Check(r *http.Request) error {
	h := r.Header["Origin"]
	if len(h) == 0 {
		return nil
	}
	if len(h) == 1 && h[0] != "null" {
		if _, ok := o.allowed[h[0]]; ok || own(h[0], r) {
			return nil
		}
	}
	return carillon.Errorf(carillon.CodeForbidden, "this origin may not call; the operator can add it to 'origins'")
}

// ours reports whether the browser says that a page which may call has sent the
// request, so that its cookies can count.
func (o *Origins) ours(r *http.Request) bool {
	if len(r.Header["Origin"]) > 0 {
		return o.Check(r) == nil
	}
	site := r.Header["Sec-Fetch-Site"]
	return len(site) == 1 && site[0] == "same-origin"
}

func own(origin string, r *http.Request) bool {
	scheme, host, ok := strings.Cut(origin, "://")
	if !ok || host == "" || strings.ContainsAny(host, "/?#@") {
		return false
	}
	if scheme != "https" && (scheme != "http" || r.TLS != nil) {
		return false
	}
	return strings.EqualFold(trimPort(scheme, host), trimPort(scheme, r.Host))
}

// trimPort removes the port that the scheme has anyway.
func trimPort(scheme, host string) string {
	switch scheme {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
}

// What a page of an allowed origin may send and see.
const (
	corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"
	corsHeaders = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Carillon-Connection, If-None-Match"
	corsExpose  = "ETag, Retry-After"
	corsMaxAge  = "600" // seconds; so long a browser may not see a change of the policy
)

// CORS puts the policy in front of a whole handler: it refuses other origins
// with 403, answers preflights with 204, and lets a page of an allowed origin
// send its cookie and read the answer. Every answer gets Vary: Authorization,
// Cookie, Origin.
func (o *Origins) CORS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Authorization, Cookie, Origin")
		if err := o.Check(r); err != nil {
			refuseOrigin(w, carillon.AsError(err))
			return
		}
		origin := r.Header.Get("Origin")
		if origin != "" {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Set("Access-Control-Expose-Headers", corsExpose)
		}
		if origin != "" && r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", corsMethods)
			h.Set("Access-Control-Allow-Headers", corsHeaders)
			h.Set("Access-Control-Max-Age", corsMaxAge)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func refuseOrigin(w http.ResponseWriter, e *carillon.Error) {
	body, _ := json.Marshal(struct { // strings and a number always encode
		Type   string        `json:"type"`
		Title  string        `json:"title"`
		Status int           `json:"status"`
		Code   carillon.Code `json:"code"`
		Detail string        `json:"detail"`
	}{"about:blank", http.StatusText(e.Code.Status()), e.Code.Status(), e.Code, e.Message})
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(e.Code.Status())
	_, _ = w.Write(body)
}
