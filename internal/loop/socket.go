package loop

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Sockets.
const (
	DefaultWriteTimeout = 10 * time.Second
	DefaultLinger       = 2 * time.Second
	DefaultSendBuffer   = 256 << 10
)

// Sockets are the connections of a node. The zero value works; set the fields
// before the first Go.
type Sockets struct {
	WriteTimeout time.Duration // without progress; DefaultWriteTimeout
	Linger       time.Duration // for the peer's end after ours; DefaultLinger
	SendBuffer   int           // the most the kernel may hold of one TCP connection; DefaultSendBuffer

	// UnansweredTimeout is how long a peer's machine may not confirm what was sent,
	// before the connection is taken for dead (TCP_USER_TIMEOUT), for the ports
	// that Prepare gets; 0: as long as the kernel likes.
	UnansweredTimeout time.Duration

	full atomic.Int64 // those that are being written to
	kept atomic.Int64 // bytes that are

	mu     sync.Mutex // guards what follows
	open   map[*Socket]struct{}
	closed bool
	empty  chan struct{} // closed when closed and nothing is open
}

func (s *Sockets) writeTimeout() time.Duration { return or(s.WriteTimeout, DefaultWriteTimeout) }

func (s *Sockets) linger() time.Duration { return or(s.Linger, DefaultLinger) }

// or is n, or what holds where nothing was said.
func or[T int | time.Duration](n, otherwise T) T {
	if n > 0 {
		return n
	}
	return otherwise
}

// Socket is a network connection: a port, and a goroutine that reads.
type Socket struct {
	Port

	// Set once.
	conn net.Conn
	all  *Sockets

	end   sync.Once
	ended chan struct{} // closed when nothing more is written
}

// Init sets k up for conn, which is its own from then on.
func (s *Sockets) Init(k *Socket, conn net.Conn, owner Owner) {
	if c, ok := conn.(interface{ Bare() net.Conn }); ok {
		conn = c.Bare() // around it is nothing that is needed here
	}
	k.conn, k.all, k.ended = conn, s, make(chan struct{})
	k.Port.Init(owner, k, nil)
	if tcp, ok := netConn(conn).(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(or(s.SendBuffer, DefaultSendBuffer)) // a bound on memory, nothing that has to be
	}
}

// netConn is the connection below what is around it, such as TLS.
func netConn(conn net.Conn) net.Conn {
	for {
		around, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = around.NetConn()
	}
}

// Go runs read on a new goroutine. When it returns the connection is drained, as
// long as that is orderly, and closed, and then gone is called. If the sockets
// have been closed meanwhile the connection is closed at once and read is not
// called, but gone is.
func (s *Sockets) Go(k *Socket, read, gone func()) {
	s.mu.Lock()
	if !s.closed {
		if s.open == nil {
			s.open = map[*Socket]struct{}{}
		}
		s.open[k] = struct{}{}
		s.mu.Unlock()
		go k.serve(read, gone)
		return
	}
	s.mu.Unlock()
	k.Abort()
	gone()
}

func (k *Socket) serve(read, gone func()) {
	read()
	_ = k.conn.Close()
	gone()
	s := k.all
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, k)
	if s.empty != nil && len(s.open) == 0 {
		close(s.empty)
		s.empty = nil
	}
}

// Stats counts the connections.
func (s *Sockets) Stats() Stats {
	s.mu.Lock()
	open := len(s.open)
	s.mu.Unlock()
	return Stats{Open: open, Full: int(s.full.Load()), Kept: s.kept.Load()}
}

// Close ends all connections without ceremony and waits for their readers, or
// for ctx. From then on new ones are closed at once.
func (s *Sockets) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	open := make([]*Socket, 0, len(s.open))
	for k := range s.open {
		open = append(open, k)
	}
	var empty chan struct{}
	if len(open) > 0 {
		if s.empty == nil {
			s.empty = make(chan struct{})
		}
		empty = s.empty
	}
	s.mu.Unlock()
	for _, k := range open {
		k.Abort()
	}
	if empty == nil {
		return nil
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Read reads from the connection.
func (k *Socket) Read(b []byte) (int, error) { return k.conn.Read(b) }

// Ended is closed when nothing more will be written. Whoever waits for anything
// but the connection itself waits for this too.
func (k *Socket) Ended() <-chan struct{} { return k.ended }

// Drain reads what still comes and forgets it, until the peer ends. It takes no
// longer than Linger after the last byte was written.
func (k *Socket) Drain() {
	b := discard.Get().(*[]byte)
	defer discard.Put(b)
	for {
		if _, err := k.conn.Read(*b); err != nil {
			return
		}
	}
}

var discard = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }} //nolint:gochecknoglobals // as spare

// WriteAll is for the port.
func (k *Socket) WriteAll(bufs [][]byte) error {
	var bytes int64
	for _, b := range bufs {
		bytes += int64(len(b))
	}
	k.all.full.Add(1)
	k.all.kept.Add(bytes)
	defer func() { k.all.full.Add(-1); k.all.kept.Add(-bytes) }()
	if _, ok := k.conn.(*net.TCPConn); ok {
		return k.writev(bufs)
	}
	return k.gather(bufs)
}

func (k *Socket) deadline() {
	_ = k.conn.SetWriteDeadline(time.Now().Add(k.all.writeTimeout())) // if it fails so does the write
}

// writev writes everything in one call. A deadline that passes counts only if
// nothing went out since it was set.
func (k *Socket) writev(bufs [][]byte) error {
	for rest := net.Buffers(bufs); ; {
		k.deadline()
		var n int64
		var err error
		if len(rest) == 1 {
			var some int
			some, err = k.conn.Write(rest[0])
			rest[0], n = rest[0][some:], int64(some)
		} else {
			n, err = rest.WriteTo(k.conn)
		}
		if err == nil || n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// gather writes in pieces, with a deadline for each: after one that passed such a
// connection (TLS) cannot go on. A reader that takes less than a piece in that
// time is cut.
func (k *Socket) gather(bufs [][]byte) error {
	piece := discard.Get().(*[]byte)
	defer discard.Put(piece)
	return Gather(bufs, (*piece)[:0], func(b []byte) error {
		k.deadline()
		_, err := k.conn.Write(b)
		return err
	})
}

// Gather hands the bytes of bufs to write in pieces of up to cap(piece), whose
// memory it uses.
func Gather(bufs [][]byte, piece []byte, write func([]byte) error) error {
	for _, b := range bufs {
		for len(b) > 0 {
			n := min(len(b), cap(piece)-len(piece))
			piece, b = append(piece, b[:n]...), b[n:]
			if len(piece) == cap(piece) {
				if err := write(piece); err != nil {
					return err
				}
				piece = piece[:0]
			}
		}
	}
	if len(piece) == 0 {
		return nil
	}
	return write(piece)
}

// Finish is for the port: it ends our direction, and gives the peer some time
// to end its own, for a reader that drains.
func (k *Socket) Finish() {
	half, ok := k.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		k.Abort()
		return
	}
	_ = k.conn.SetReadDeadline(time.Now().Add(k.all.linger())) // if it fails so does the read
	k.end.Do(func() { close(k.ended) })
}

// Abort closes the connection now. It may be called from anywhere, more than
// once.
func (k *Socket) Abort() {
	_ = k.conn.Close() // it is given up
	k.end.Do(func() { close(k.ended) })
}
