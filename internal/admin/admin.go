// Package admin is the web page of the operations port: one set of files, built
// into the program, that needs nothing from elsewhere.
//
// Under `carillon dev` the page shows events as they come: it is a client like
// any other, of the public port, with a token that the operations port gives it.
// Otherwise it shows how the node does.
package admin

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"
)

//go:embed static
var files embed.FS

// Live is what the page needs to be a client of the public port.
type Live struct {
	URL   string `json:"url"` // of the public port, without a path
	Org   string `json:"org"`
	User  string `json:"user"`
	Token string `json:"token"`
}

// Status is how the node does, as the page shows it.
type Status struct {
	Version     string    `json:"version"`
	Ready       bool      `json:"ready"`
	Reason      string    `json:"reason,omitempty"` // why it is not ready
	Durability  string    `json:"durability"`
	Public      string    `json:"public"`
	Started     time.Time `json:"started"`
	Connections int       `json:"connections"`
	Published   uint64    `json:"published"`
	Sent        uint64    `json:"sent"`
	RingBytes   uint64    `json:"ring_bytes"`
	RingEntries uint64    `json:"ring_entries"`
}

// Config of the page. Who may see it is decided in front of the handler.
type Config struct {
	// Status is asked at every look. Required.
	Status func(context.Context) Status
	// Live returns what the page needs to show events, or nil while there is
	// nothing to connect to. A nil func: the node is not for development, and
	// no token leaves it.
	Live func() *Live
}

// New makes the handler of /, the page's files, /status.json and, for
// development, /dev/config.json.
func New(cfg Config) http.Handler {
	static, err := fs.Sub(files, "static")
	if err != nil {
		panic("admin: " + err.Error()) // the directory is embedded
	}
	p := &page{cfg: cfg, static: http.FileServerFS(static)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.file)
	mux.HandleFunc("GET /app.js", p.file)
	mux.HandleFunc("GET /style.css", p.file)
	mux.HandleFunc("GET /status.json", p.status)
	if cfg.Live != nil {
		mux.HandleFunc("GET /dev/config.json", p.live)
	}
	return mux
}

type page struct {
	cfg    Config
	static http.Handler
}

func (p *page) file(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", p.policy())
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	protect(h)
	p.static.ServeHTTP(w, r)
}

// policy lets the page talk to itself and to the public port, and to nobody else.
func (p *page) policy() string {
	connect := "'self'"
	if p.cfg.Live != nil {
		if l := p.cfg.Live(); l != nil {
			if u, err := url.Parse(l.URL); err == nil {
				connect += " " + u.Scheme + "://" + u.Host + " " + strings.Replace(u.Scheme, "http", "ws", 1) + "://" + u.Host
			}
		}
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src " + connect +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

func (p *page) status(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, p.cfg.Status(r.Context()))
}

func (p *page) live(w http.ResponseWriter, r *http.Request) {
	// It holds a token: a page of another origin must not even try. A program that
	// is no browser does not send the header.
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		http.Error(w, "only the page of this port may ask for this", http.StatusForbidden)
		return
	}
	l := p.cfg.Live()
	if l == nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the public port is not open yet", http.StatusServiceUnavailable)
		return
	}
	writeJSON(w, l)
}

func writeJSON(w http.ResponseWriter, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	protect(h)
	_ = json.NewEncoder(w).Encode(v) // the page may be gone
}

// protect keeps browsers from letting other pages in.
func protect(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}
