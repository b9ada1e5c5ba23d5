package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
)

// Config of a Listener. The zero value gives out connections as they come.
type Config struct {
	// TLS, if not nil, is what every connection begins with, after its PROXY
	// header.
	TLS *tls.Config

	// Proxies, if not nil, are who begins each connection with a PROXY header,
	// version 1 or 2. One of theirs without is closed; a header of anybody else
	// is a part of what they say.
	Proxies     *Proxies
	HeaderBytes int // of such a header; DefaultHeaderBytes

	Timeout    time.Duration // for both together; DefaultTimeout
	Handshakes int           // at the same time; DefaultHandshakes

	Counts *Counts      // where they are counted; its own
	Logger *slog.Logger // none
}

// Defaults of Config.
const (
	DefaultHeaderBytes = 4 << 10
	DefaultTimeout     = 10 * time.Second
	DefaultHandshakes  = 8192
)

// Counts are the connections that a Listener has closed. The zero value works.
type Counts struct {
	Late    atomic.Uint64 // Timeout had passed
	Refused atomic.Uint64 // there were Handshakes already
	Large   atomic.Uint64 // the PROXY header was larger than HeaderBytes
	Failed  atomic.Uint64 // because of anything else they said
}

// Listener gives out connections whose peer is known and, where there is TLS, has
// shaken hands. Make one with New, and Close it.
//
// Nobody waits for somebody else's handshake: each has a goroutine of its own, as
// long as it takes. Where there is nothing to read first there is none.
type Listener struct {
	net.Listener // its Addr

	// Set once.
	cfg     Config
	arrived chan arrival // never closed
	closed  chan struct{}
	running sync.WaitGroup
	close   func() error

	mu      sync.Mutex // guards what follows
	pending map[net.Conn]struct{}
	ended   bool
}

// arrival is what Accept returns.
type arrival struct {
	conn net.Conn
	err  error
}

// New makes a Listener of l, which is its own from then on. When ctx ends nobody's
// handshake comes to its end any more; Close is what stops it.
func New(ctx context.Context, l net.Listener, cfg Config) *Listener {
	if cfg.HeaderBytes <= 0 {
		cfg.HeaderBytes = DefaultHeaderBytes
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Handshakes <= 0 {
		cfg.Handshakes = DefaultHandshakes
	}
	if cfg.Counts == nil {
		cfg.Counts = new(Counts)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	x := &Listener{
		Listener: l, cfg: cfg, arrived: make(chan arrival), closed: make(chan struct{}), pending: map[net.Conn]struct{}{},
	}
	x.close = sync.OnceValue(x.end)
	if cfg.TLS != nil || cfg.Proxies != nil {
		ctx, cancel := context.WithCancel(ctx)
		x.running.Go(func() { defer cancel(); x.run(ctx) })
	}
	return x
}

// Accept returns the next connection. It is net.Listener's.
func (l *Listener) Accept() (net.Conn, error) {
	if l.cfg.TLS == nil && l.cfg.Proxies == nil {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		return &Conn{Conn: conn, remote: conn.RemoteAddr()}, nil
	}
	select {
	case a := <-l.arrived:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the port and whoever has not finished the handshake, and waits for
// them. Connections that were given out are not touched.
func (l *Listener) Close() error { return l.close() }

func (l *Listener) end() error {
	err := l.Listener.Close()
	close(l.closed)
	l.mu.Lock()
	l.ended = true
	for conn := range l.pending {
		_ = conn.Close() // it is given up
	}
	l.mu.Unlock()
	l.running.Wait()
	return err
}

// run accepts until the port is closed.
func (l *Listener) run(ctx context.Context) {
	for {
		conn, err := l.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			l.deliver(arrival{err: err}) // who serves decides whether it goes on
		case l.begin(conn):
			l.running.Go(func() { l.arrive(ctx, conn) })
		default:
			_ = conn.Close() // it is refused
		}
	}
}

// begin counts a connection among those that are not finished.
func (l *Listener) begin(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	if len(l.pending) >= l.cfg.Handshakes {
		l.cfg.Counts.Refused.Add(1)
		return false
	}
	l.pending[conn] = struct{}{}
	return true
}

// finish ends that, and returns false if the port has been closed meanwhile.
func (l *Listener) finish(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, conn)
	return !l.ended
}

func (l *Listener) deliver(a arrival) bool {
	select {
	case l.arrived <- a:
		return true
	case <-l.closed:
		return false
	}
}

// arrive reads what comes first, and gives the connection out.
func (l *Listener) arrive(ctx context.Context, raw net.Conn) {
	conn, err := l.handshake(ctx, raw)
	open := l.finish(raw)
	switch {
	case err == nil && open && l.deliver(arrival{conn: conn}):
		return
	case err == nil, !open, errors.Is(err, errChallenge):
	case errors.Is(err, os.ErrDeadlineExceeded):
		l.cfg.Counts.Late.Add(1)
		l.cfg.Logger.Debug("listen: a connection took too long to begin", "peer", raw.RemoteAddr(), "timeout", l.cfg.Timeout)
	default:
		failed := &l.cfg.Counts.Failed
		if errors.Is(err, errLarge) {
			failed = &l.cfg.Counts.Large
		}
		failed.Add(1)
		l.cfg.Logger.Debug("listen: a connection did not begin as it should", "peer", raw.RemoteAddr(), "err", err)
	}
	_ = raw.Close() // it is given up
}

// errChallenge ends a connection on which a certificate authority has seen what
// it wanted to see.
var errChallenge = errors.New("listen: a challenge of ACME, which is answered")

func (l *Listener) handshake(ctx context.Context, raw net.Conn) (net.Conn, error) {
	if err := raw.SetDeadline(time.Now().Add(l.cfg.Timeout)); err != nil {
		return nil, err
	}
	conn := &Conn{Conn: raw, remote: raw.RemoteAddr()}
	if l.cfg.Proxies.Trusts(peer(raw)) {
		client, err := readProxy(raw, l.cfg.HeaderBytes)
		if err != nil {
			return nil, err
		}
		if client.IsValid() {
			conn.remote = net.TCPAddrFromAddrPort(client)
		}
	}
	var whole net.Conn = conn
	if l.cfg.TLS != nil {
		secure := tls.Server(conn, l.cfg.TLS)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		if secure.ConnectionState().NegotiatedProtocol == acme.ALPNProto {
			return nil, errChallenge
		}
		whole = secure
	}
	return whole, raw.SetDeadline(time.Time{})
}

// peer is the address at the other end, which is not valid for a Unix socket.
func peer(conn net.Conn) netip.Addr {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr()
}
