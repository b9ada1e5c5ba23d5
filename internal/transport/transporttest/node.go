package transporttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/front"
	"github.com/carillon-rt/carillon/internal/gate"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/listen"
	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport/frames"
	"github.com/carillon-rt/carillon/internal/transport/poll"
	"github.com/carillon-rt/carillon/internal/transport/sse"
	"github.com/carillon-rt/carillon/internal/transport/ws"
	"github.com/carillon-rt/carillon/internal/wire"
)

// patience is how long a test waits for something that should come at once.
const patience = 60 * time.Second

// Config of a node. The zero value works.
type Config struct {
	Engine        *memory.Engine // nil: its own, closed with the node
	Limits        session.Limits
	Hub           hub.Config
	FrameBytes    int
	ControlFrames int
	DeflateFrom   int // bytes of an event that is compressed for who wants it; 0: of any size, negative: none is
	Origins       []string

	MaxConnections int
	Allowed        func(*carillon.Principal) error // as session.Config has it

	WriteTimeout time.Duration
	Portable     bool // without event loops
}

// Node is a gateway in memory.
type Node struct {
	Engine *memory.Engine
	Core   *session.Core
	Gate   *gate.Gate
	IDs    *wire.Keyring

	addr    string // in the clear
	secure  string // over TLS
	roots   *x509.CertPool
	secret  []byte
	ahead   atomic.Int64 // how far the clock of auth is ahead
	ctx     context.Context
	servers []*http.Server
	sockets *loop.Sockets
	loops   []*loop.Loop
	doors   map[string]http.Handler // that a loop may answer
	hub     *hub.Hub
	served  chan error
	own     bool
	stopped bool
}

// New starts a node and stops it with the test.
func New(t testing.TB, cfg Config) *Node {
	t.Helper()
	if cfg.DeflateFrom == 0 {
		cfg.DeflateFrom = 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	n := &Node{
		Engine: cfg.Engine, ctx: ctx, secret: []byte("a secret that only this test knows"),
		IDs: wire.NewKeyring([]byte("0123456789abcdef0123456789abcdef")), sockets: &loop.Sockets{WriteTimeout: cfg.WriteTimeout}, served: make(chan error, 2),
	}
	if n.Engine == nil {
		n.Engine, n.own = memory.New(memory.Config{}), true
	}
	orgs, err := org.NewDirectory(org.Config{Open: true})
	must(t, err)
	authn, err := auth.New(auth.Config{
		Issuers: []auth.Issuer{{Secrets: [][]byte{n.secret}, Any: true}},
		Orgs:    orgs, Verified: 1000,
		Now: func() time.Time { return time.Now().Add(time.Duration(n.ahead.Load())) },
	})
	must(t, err)
	cfg.Hub.Engine = n.Engine
	n.loops = loops(t, &cfg, n.sockets)
	n.hub = hub.New(cfg.Hub)
	must(t, n.hub.Start(ctx))
	n.Gate = gate.New(gate.Config{Open: n.Engine.Open, Signals: n.Engine.Signals, Orgs: orgs})
	n.Core = session.NewCore(session.Config{Hub: n.hub, IDs: n.IDs, Publisher: n.Gate, Verifier: verifier{authn}, Limits: cfg.Limits, MaxConnections: cfg.MaxConnections, Allowed: cfg.Allowed, DeflateFrom: cfg.DeflateFrom})
	origins := auth.NewOrigins(cfg.Origins)
	mux := http.NewServeMux()
	n.doors = map[string]http.Handler{}
	mux.Handle("/v1/ws", n.door("/v1/ws", ws.Handler(ws.Config{
		Core: n.Core, Auth: authn, Origins: origins, Sockets: n.sockets, Loops: n.loops, FrameBytes: cfg.FrameBytes, ControlFrames: cfg.ControlFrames,
	})))
	mux.Handle("/v1/sse", n.door("/v1/sse", sse.Handler(sse.Config{
		Core: n.Core, Auth: authn, Origins: origins, Sockets: n.sockets, Loops: n.loops, WriteTimeout: cfg.WriteTimeout,
	})))
	mux.Handle("/v1/poll", n.door("/v1/poll", poll.Handler(poll.Config{Core: n.Core, Auth: authn, Origins: origins})))
	mux.Handle("/v1/frames", frames.Handler(frames.Config{Core: n.Core, Auth: authn, Origins: origins}))
	n.addr = n.serve(t, mux, nil)
	secure, roots := certificate(t)
	n.secure, n.roots = n.serve(t, mux, secure), roots
	t.Cleanup(func() { n.Stop(t) })
	return n
}

// loops makes one for each shard, where there are such, unless the node is to be
// portable.
func loops(t testing.TB, cfg *Config, sockets *loop.Sockets) (all []*loop.Loop) {
	t.Helper()
	if cfg.Portable || os.Getenv("CARILLON_PORTABLE") != "" {
		return nil
	}
	if cfg.Hub.Shards == 0 {
		cfg.Hub.Shards = 2
	}
	for range cfg.Hub.Shards {
		l, err := loop.NewLoop(sockets)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		must(t, err)
		all = append(all, l)
	}
	cfg.Hub.Poller = func(shard int) hub.Poller { return all[shard] }
	return all
}

// serve opens a port, as a server does, over TLS if there are settings for it.
func (n *Node) serve(t testing.TB, h http.Handler, secure *tls.Config) (addr string) {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	raw, err := lc.Listen(n.ctx, "tcp", "127.0.0.1:0")
	must(t, err)
	addr = raw.Addr().String()
	n.sockets.Prepare(raw)
	var l net.Listener
	if secure == nil && len(n.loops) > 0 {
		f, ok := front.New(raw, front.Config{Loops: n.loops, Shards: n.hub.Shards(), Doors: n.doors, HeaderTimeout: patience})
		if !ok {
			t.Fatal("the loops do not accept")
		}
		l = f
	} else {
		l = listen.New(n.ctx, raw, listen.Config{TLS: secure, Timeout: patience})
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols), ReadHeaderTimeout: patience, TLSConfig: secure}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(secure != nil)
	s.Protocols.SetUnencryptedHTTP2(secure == nil)
	n.servers = append(n.servers, s)
	go func() { n.served <- s.Serve(l) }()
	return addr
}

// door is one that the loops' own requests come to, too.
func (n *Node) door(path string, h http.Handler) http.Handler {
	n.doors[path] = h
	return h
}

// certificate makes one for 127.0.0.1, and who trusts it.
func certificate(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}, roots
}

// Stop ends the node, in the order a server does.
func (n *Node) Stop(t testing.TB) {
	t.Helper()
	if n.stopped {
		return
	}
	n.stopped = true
	must(t, n.Core.Drain(n.ctx, 0, 0))
	must(t, n.sockets.Close(n.ctx))
	for _, l := range n.loops {
		must(t, l.Close(n.ctx))
	}
	for _, s := range n.servers {
		must(t, s.Shutdown(n.ctx))
	}
	for range n.servers {
		if err := <-n.served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}
	n.hub.Stop()
	if n.own {
		must(t, n.Engine.Close(n.ctx))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type verifier struct{ auth *auth.Authenticator }

func (v verifier) Verify(token string, done func(*carillon.Principal, error)) {
	v.auth.Submit(token, done)
}

// URL of a path of the node.
func (n *Node) URL(path string) string { return "http://" + n.addr + path }

func (n *Node) url(secure bool, path string) string {
	if secure {
		return "https://" + n.secure + path
	}
	return n.URL(path)
}

// Addr is where the node listens.
func (n *Node) Addr() string { return n.addr }

// Portable reports whether it has no loops.
func (n *Node) Portable() bool { return len(n.loops) == 0 }

// Secure is where it listens over TLS, for a client with these settings.
func (n *Node) Secure() (addr string, settings *tls.Config) {
	return n.secure, &tls.Config{RootCAs: n.roots, MinVersion: tls.VersionTLS12}
}

// Ahead moves the clock that tokens are checked by.
func (n *Node) Ahead(d time.Duration) { n.ahead.Store(int64(d)) }

// Token is one of a user, good for an hour, or as changed.
func (n *Node) Token(t testing.TB, org, user string, change ...func(*auth.Claims)) string {
	t.Helper()
	c := auth.Claims{Org: org, User: user, Role: carillon.RoleAdmin, Expires: time.Now().Add(time.Hour)}
	for _, f := range change {
		f(&c)
	}
	token, err := auth.Sign(n.secret, c)
	must(t, err)
	return token
}

// Publish stores events of one type, one after the other, whose data are the
// numbers from first to last, and returns their ids.
func (n *Node) Publish(t testing.TB, org, typ string, first, last int) []string {
	t.Helper()
	drafts := make([]carillon.Draft, 0, last-first+1)
	for i := first; i <= last; i++ {
		drafts = append(drafts, carillon.Draft{Type: typ, Data: fmt.Append(nil, i)})
	}
	return n.PublishDrafts(t, org, drafts...)
}

// PublishDrafts stores events as one batch and returns their ids.
func (n *Node) PublishDrafts(t testing.TB, org string, drafts ...carillon.Draft) []string {
	t.Helper()
	receipts, err := n.Gate.Publish(n.ctx, &carillon.Principal{Org: carillon.OrgID(org), KeyID: "test"}, drafts)
	must(t, err)
	ids := make([]string, len(receipts))
	for i, r := range receipts {
		ids[i] = n.IDs.Org(carillon.OrgID(org)).String(r.Pos)
	}
	return ids
}

// Message is what a client got: an event or a control frame.
type Message struct {
	Type         string          `json:"type"`
	ID           string          `json:"id"`
	EventType    string          `json:"event_type"`
	Payload      json.RawMessage `json:"payload"`
	Direct       bool            `json:"direct"`
	CE           json.RawMessage `json:"ce"`
	N            int             `json:"n"`
	Ref          json.RawMessage `json:"ref"`
	Cursor       string          `json:"cursor"`
	ConnectionID string          `json:"connection_id"`
	Pattern      string          `json:"pattern"`
	Patterns     []string        `json:"patterns"`
	Backfill     bool            `json:"backfill"`
	Reason       string          `json:"reason"`
	Code         string          `json:"code"`
	Text         string          `json:"message"`
	RetryAfterMS *int            `json:"retry_after_ms"`
	Gap          *Gap            `json:"gap"`
	Events       json.RawMessage `json:"events"`
}

// Gap as clients see it.
type Gap struct {
	Reason string `json:"reason"`
	Cursor string `json:"cursor"`
}
