package front

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/internal/admission"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/listen"
	"github.com/carillon-rt/carillon/internal/loop"
)

// Config of a Front. Loops, Shards and Doors are required.
type Config struct {
	Loops  []*loop.Loop
	Shards []*hub.Shard // whose loops they are

	// Doors are what answers a GET, by path. The request has no context, and is good
	// until the handler returns; the response writer is an Exchange.
	Doors map[string]http.Handler

	// Posts are what answers a POST with a body of at most BodyBytes, likewise.
	Posts map[string]http.Handler

	// BodyBytes is how large a body may be, which the loop waits for while nobody
	// has a goroutine; 0: DefaultBodyBytes. net/http takes larger ones.
	BodyBytes int

	// Admission lets the requests of Doors through, one after the other where they are too many;
	// nil: all at once. A handler learns by Refused that one was not.
	Admission *admission.Gate

	// Client, if not nil, tells the RemoteAddr that a trusted proxy reports, or
	// "".
	Client func(r *http.Request) string

	// Answered, if not nil, is told of every answer, on any goroutine.
	Answered func(path string, status int)

	HeaderBytes   int           // of a request; at most, and if it is 0, MaxHeaderBytes. net/http answers larger ones
	HeaderTimeout time.Duration // for the head of a request; DefaultHeaderTimeout
	IdleTimeout   time.Duration // between requests; DefaultIdleTimeout
	Pending       int           // connections whose first request is not whole, and those net/http has not taken yet; DefaultPending
	Logger        *slog.Logger
}

// Defaults and bounds of Config.
const (
	MaxHeaderBytes       = 8 << 10
	DefaultHeaderTimeout = 10 * time.Second
	DefaultIdleTimeout   = 2 * time.Minute
	DefaultPending       = 8192
	DefaultBodyBytes     = 16 << 10
)

// bodyPatience is how long a loop waits for the body of a request whose head has
// come: most come in the same packet.
const bodyPatience = time.Second

// Front is a port whose connections the loops read first. As a net.Listener it
// gives out those that net/http is to serve.
type Front struct {
	cfg    Config
	port   net.Listener
	places []*place
	next   atomic.Uint32 // place for a connection

	passed chan net.Conn // never closed
	closed chan struct{}
	close  func() error

	draining atomic.Bool
	pending  atomic.Int64
	waiting  atomic.Int64 // requests that are answered later
	late     atomic.Uint64
	refused  atomic.Uint64
}

// place is what a Front has on one shard.
type place struct {
	front *Front
	shard *hub.Shard
	loop  *loop.Loop
	timer hub.Timer // until the port is tried again

	conns    *Conn // all here
	request  request
	exchange Exchange
	spare    http.Header // for the next answer that comes later; or nil
	out      []byte      // room for the next answer's bytes; or nil
}

// outKept is the largest room for answers that is kept.
const outKept = 4 << 10

// New has the loops accept the connections of a TCP port, which is the Front's
// own from then on. It reports false, and has done nothing, when they cannot: the
// port is another kind of listener, or there are no loops. The shards may run
// already.
func New(port net.Listener, cfg Config) (f *Front, ok bool) {
	if cfg.HeaderBytes <= 0 || cfg.HeaderBytes > MaxHeaderBytes {
		cfg.HeaderBytes = MaxHeaderBytes
	}
	if cfg.HeaderTimeout <= 0 {
		cfg.HeaderTimeout = DefaultHeaderTimeout
	}
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = DefaultIdleTimeout
	}
	if cfg.Pending <= 0 {
		cfg.Pending = DefaultPending
	}
	if cfg.BodyBytes <= 0 {
		cfg.BodyBytes = DefaultBodyBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Answered == nil {
		cfg.Answered = func(string, int) {}
	}
	f = &Front{cfg: cfg, port: port, passed: make(chan net.Conn, cfg.Pending), closed: make(chan struct{})}
	f.close = sync.OnceValue(f.end)
	if len(cfg.Loops) == 0 {
		return nil, false
	}
	fds := make([]int, len(cfg.Loops))
	for i := range fds {
		if fds[i], ok = loop.DupPort(port); !ok {
			for _, fd := range fds[:i] {
				loop.Drop(fd)
			}
			return nil, false
		}
	}
	for i, l := range cfg.Loops {
		p := &place{front: f, shard: cfg.Shards[i], loop: l, exchange: Exchange{reply: reply{header: http.Header{}}}}
		f.places = append(f.places, p)
	}
	for i, p := range f.places {
		p.shard.Post(hub.TaskFunc(func() {
			if err := p.loop.Listen(fds[i], p); err != nil {
				cfg.Logger.Error("front: a loop does not accept", "err", err)
			}
		}))
	}
	return f, true
}

// door is what answers a request, or nil.
func (f *Front) door(method, path string) http.Handler {
	switch method {
	case http.MethodGet:
		return f.cfg.Doors[path]
	case http.MethodPost:
		return f.cfg.Posts[path]
	}
	return nil
}

// bodies is the lookup of what the doors take.
func (f *Front) bodies(method, path string) (bytes int, ok bool) {
	if method == http.MethodPost {
		bytes = f.cfg.BodyBytes
	}
	return bytes, f.door(method, path) != nil
}

// Accepted is called by the loop. The shards take connections in turn.
func (p *place) Accepted(fd int, peer netip.AddrPort) {
	f := p.front
	if f.pending.Add(1) > int64(f.cfg.Pending) {
		f.pending.Add(-1)
		f.refused.Add(1)
		loop.Drop(fd)
		return
	}
	to := f.places[int(f.next.Add(1)%uint32(len(f.places)))]
	if to == p {
		to.open(fd, peer)
		return
	}
	to.shard.Post(hub.TaskFunc(func() { to.open(fd, peer) }))
}

func (p *place) open(fd int, peer netip.AddrPort) {
	c := &Conn{at: p, peer: peer, fresh: true}
	c.link()
	c.deadline = p.shard.Now().Add(p.front.cfg.HeaderTimeout)
	c.Open(p.loop, fd, nil, c)
	c.Alarm(time.Time{})
}

// Full is called by the loop.
func (p *place) Full(err error) {
	p.front.cfg.Logger.Warn("front: connections wait to be accepted", "err", err)
	p.Timeout(p.shard.Now())
}

// Timeout tries the port again.
func (p *place) Timeout(now time.Time) {
	if wait := p.loop.Resume(now); wait > 0 {
		p.shard.SetTimer(&p.timer, p, now.Add(wait))
	}
}

// pass queues a connection for net/http.
func (f *Front) pass(conn net.Conn, peer netip.AddrPort, before []byte) {
	select {
	case f.passed <- listen.NewConn(&resumed{Conn: conn, before: before}, net.TCPAddrFromAddrPort(peer)):
	default:
		f.refused.Add(1)
		_ = conn.Close() // it is refused
	}
}

// Accept is net.Listener's.
func (f *Front) Accept() (net.Conn, error) {
	select {
	case conn := <-f.passed:
		return conn, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

// Addr is net.Listener's.
func (f *Front) Addr() net.Addr { return f.port.Addr() }

// Drain makes every answer from now on the last of its connection.
func (f *Front) Drain() { f.draining.Store(true) }

// Close ends the port, and the connections that wait for a request. It is
// net.Listener's; it does not wait for requests whose answers are to come.
func (f *Front) Close() error { return f.close() }

func (f *Front) end() error {
	f.Drain()
	err := f.port.Close()
	close(f.closed)
	for _, p := range f.places {
		p.shard.Post(hub.TaskFunc(p.end))
	}
	for {
		select {
		case conn := <-f.passed:
			_ = conn.Close() // nobody takes it any more
		default:
			return err
		}
	}
}

func (p *place) end() {
	p.loop.StopListening()
	p.shard.StopTimer(&p.timer)
	for c := p.conns; c != nil; {
		next := c.next
		if !c.waits && !c.Waiting() {
			c.Abort()
		}
		c = next
	}
}

// Wait waits until the requests are answered that a loop has in hand, or ctx ends. It
// is for the time after Close. A nil Front has none.
func (f *Front) Wait(ctx context.Context) error {
	if f == nil {
		return nil
	}
	const look = 2 * time.Millisecond // as net/http does
	for f.waiting.Load() > 0 {
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Late is how many requests did not come in time. A nil Front has none.
func (f *Front) Late() uint64 {
	if f == nil {
		return 0
	}
	return f.late.Load()
}

// Refused is how many connections were closed because Pending others waited. A nil
// Front has none.
func (f *Front) Refused() uint64 {
	if f == nil {
		return 0
	}
	return f.refused.Load()
}

// resumed is a connection of which something was read already.
type resumed struct {
	net.Conn

	before []byte
}

// Read is net.Conn's.
func (c *resumed) Read(b []byte) (int, error) {
	if len(c.before) > 0 {
		n := copy(b, c.before)
		if c.before = c.before[n:]; len(c.before) == 0 {
			c.before = nil
		}
		return n, nil
	}
	return c.Conn.Read(b)
}

// NetConn is the connection itself.
func (c *resumed) NetConn() net.Conn { return c.Conn }

// Bare is the same once everything that was read before has been read again.
func (c *resumed) Bare() net.Conn {
	if len(c.before) > 0 {
		return c
	}
	return c.Conn
}

// CloseWrite ends our direction.
func (c *resumed) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return net.ErrClosed
	}
	return half.CloseWrite()
}
