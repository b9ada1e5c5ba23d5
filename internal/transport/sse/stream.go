package sse

import (
	"bytes"
	"net"
	"net/http"
	"time"

	"github.com/carillon-rt/carillon/internal/front"
	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport"
)

// writeBudget is about how many bytes one write takes.
const writeBudget = 64 << 10

// stream is a session's way out, over either version of HTTP.
type stream struct {
	port    *loop.Port
	session *session.Session // owned by the shard; nil until it begins
}

// begin lets the session's blocks out, on its shard.
func (c *stream) begin(s *session.Session) {
	c.session = s
	c.Ready()
}

// Ready is called by the session.
func (c *stream) Ready() {
	if c.session != nil {
		c.port.Ready()
	}
}

// Pull is called by the port.
func (c *stream) Pull(dst [][]byte) ([][]byte, bool) { return c.session.Pull(dst, writeBudget) }

// Post is called by the port.
func (c *stream) Post(f func()) { c.session.Post(f) }

// Due is called by the port.
func (c *stream) Due() { c.session.Due() }

// taken is a stream on a connection of its own.
type taken struct {
	stream
	socket loop.Socket
}

// takeOver answers by hand on the request's connection, which ends with the
// stream.
func (h *handler) takeOver(w http.ResponseWriter, r *http.Request, opt session.Options) {
	if x := front.Of(w); x != nil {
		t := new(looped)
		opt.Conn, opt.Head = t, head(w.Header())
		from, before := x.Take(http.StatusOK)
		t.session = h.Core.NewOn(x.Shard(), opt)
		t.Inherit(from, before, t)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		h.leave(opt)
		transport.Problem(w, r, h.Logger, err)
		return
	}
	if !begin(conn, w.Header()) {
		h.leave(opt)
		_ = conn.Close() // the client is gone
		return
	}
	if len(h.Loops) > 0 {
		if fd, ok := loop.Adopt(conn, h.Sockets.SendBuffer); ok {
			t := new(looped)
			opt.Conn = t
			s := h.Core.New(opt)
			s.Post(func() { t.begin(s, h.Loops[s.Shard().ID()], fd) })
			return
		}
	}
	t := new(taken)
	t.port = &t.socket.Port
	h.Sockets.Init(&t.socket, conn, t)
	opt.Conn = t
	s := h.Core.New(opt)
	s.Post(func() { t.begin(s) })
	h.Sockets.Go(&t.socket, t.watch, func() { s.Post(s.Gone) })
}

// head is that of the answer.
func head(header http.Header) []byte {
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\nDate: ")
	head.WriteString(time.Now().UTC().Format(http.TimeFormat))
	head.WriteString("\r\n")
	_ = header.Write(&head) // a buffer takes everything
	head.WriteString("\r\n")
	return head.Bytes()
}

// begin writes the head of the answer.
func begin(conn net.Conn, header http.Header) bool {
	_ = conn.SetDeadline(time.Now().Add(loop.DefaultWriteTimeout)) // if it fails so does the write
	if _, err := conn.Write(head(header)); err != nil {
		return false
	}
	return conn.SetDeadline(time.Time{}) == nil
}

// chatter is how much a client may send behind its request before it is taken
// for broken.
const chatter = 64 << 10

// watch waits for the client's end.
func (t *taken) watch() {
	var b [64]byte
	for got := 0; got < chatter; {
		n, err := t.socket.Read(b[:])
		if err != nil {
			return
		}
		got += n
	}
}

// kept is a stream that the request's goroutine writes.
type kept struct {
	stream
	out   loop.Port
	w     http.ResponseWriter
	rc    *http.ResponseController
	wait  time.Duration
	work  chan func()   // capacity 1, as the port has one thing to write at a time; never closed
	ended chan struct{} // closed when nothing more is written
}

// stay answers on the request's own goroutine.
func (h *handler) stay(w http.ResponseWriter, r *http.Request, opt session.Options) {
	k := &kept{
		w: w, rc: http.NewResponseController(w), wait: h.WriteTimeout,
		work: make(chan func(), 1), ended: make(chan struct{}),
	}
	k.port = &k.out
	k.out.Init(k, k, func(f func()) { k.work <- f })
	opt.Conn = k
	w.WriteHeader(http.StatusOK)
	if k.flush() != nil {
		h.leave(opt)
		return
	}
	s := h.Core.New(opt)
	defer s.Post(s.Gone)
	s.Post(func() { k.begin(s) })
	for {
		select {
		case f := <-k.work:
			f()
		case <-k.ended:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// pieceBytes is about how much is written with one deadline.
const pieceBytes = 16 << 10

// WriteAll is for the port.
func (k *kept) WriteAll(bufs [][]byte) error {
	written := pieceBytes
	for _, b := range bufs {
		for len(b) > 0 {
			if written >= pieceBytes {
				k.deadline()
				written = 0
			}
			n, err := k.w.Write(b[:min(len(b), pieceBytes)])
			if err != nil {
				return err
			}
			written, b = written+n, b[n:]
		}
	}
	return k.flush()
}

func (k *kept) deadline() {
	_ = k.rc.SetWriteDeadline(time.Now().Add(k.wait)) // not every writer can
}

// flush ends the deadline too: over HTTP/2 one that passes ends the stream, also
// when nothing is being written.
func (k *kept) flush() error {
	k.deadline()
	if err := k.rc.Flush(); err != nil {
		return err
	}
	_ = k.rc.SetWriteDeadline(time.Time{}) // not every writer can
	return nil
}

// Finish is for the port: the answer ends.
func (k *kept) Finish() { close(k.ended) }

// Abort is for the port.
func (k *kept) Abort() { close(k.ended) }
