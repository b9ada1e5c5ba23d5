package front

import (
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/loop"
)

// Conn is a connection between requests, or one whose request waits for its
// answer. A door that takes the connection leaves nothing of this.
type Conn struct {
	loop.Link

	at         *place
	prev, next *Conn // of the place
	peer       netip.AddrPort
	timer      hub.Timer
	turn       hub.Moment // at the gate
	deadline   time.Time  // for a request to begin or to be whole; zero: there is none

	head   []byte // a request, as far as it has come
	need   int    // how long it is, where only the body is not whole
	path   string // of the request in hand
	gone   func() // to be called when its client has gone
	ended  func() // to be called when it has been answered, or will not be
	out    []byte // an answer
	fresh  bool   // no request was whole yet
	queued bool   // a request, which is in head, for its turn at the gate
	waits  bool   // a request for its answer
	behind bool   // the link keeps input for later
	last   bool   // the connection ends with this answer
}

// Input is called by the link.
func (c *Conn) Input(b []byte) int {
	if c.behind = c.queued || c.waits || c.Blocked(); c.behind {
		return 0 // one after the other
	}
	data, before := b, len(c.head)
	if before > 0 {
		c.head = append(c.head, b...)
		data = c.head
	}
	if len(data) < c.need {
		return len(b)
	}
	r := &c.at.request
	n, v := r.parse(data, c.at.front.bodies, c.at.front.cfg.HeaderBytes)
	switch v {
	case partial:
		if before == 0 {
			c.head = append(c.head, b...)
			if !c.fresh {
				c.wait(c.at.front.cfg.HeaderTimeout)
			}
		}
	case short:
		if before == 0 {
			c.head = append(make([]byte, 0, n), b...)
		}
		c.need = n
		c.wait(bodyPatience)
	case other:
		c.pass(data)
	case whole:
		c.head, c.need = nil, 0
		c.behind = n < len(data)
		c.arrive(&r.Request, data, n)
		return n - before // what came before was not whole
	}
	return len(b)
}

// arrive has the request that the first n bytes of data are answered when its turn
// has come.
func (c *Conn) arrive(r *http.Request, data []byte, n int) {
	if r.Method != http.MethodGet {
		c.serve(r, data, n, nil, false)
		return
	}
	wait, err := c.at.front.cfg.Admission.Ask(c.Now())
	if wait == 0 {
		c.serve(r, data, n, err, false)
		return
	}
	c.begun()
	c.wait(0)
	c.head, c.queued = append([]byte(nil), data[:n]...), true // what follows stays with the link
	c.at.shard.SetMoment(&c.turn, c, c.Now().Add(wait))
}

// turned is called when the turn of a request may have come.
func (c *Conn) turned() {
	if wait := c.at.front.cfg.Admission.Pass(c.Now()); wait > 0 {
		c.at.shard.SetMoment(&c.turn, c, c.Now().Add(wait))
		return
	}
	head, r := c.head, &c.at.request
	c.head, c.queued, c.behind = nil, false, len(c.Kept()) > 0
	n, _ := r.parse(head, c.at.front.bodies, len(head)) // as when it came
	c.serve(&r.Request, head, n, nil, true)
}

// serve has a door answer the request that the first n bytes of data are, or say
// err, which is the gate's. One that the door passes on meets the gate there: it is
// counted once.
func (c *Conn) serve(r *http.Request, data []byte, n int, err error, waited bool) {
	f, x := c.at.front, &c.at.exchange
	c.wait(0)
	c.path, c.last = r.URL.Path, r.Close || f.draining.Load()
	r.RemoteAddr = c.peer.String()
	if f.cfg.Client != nil {
		if told := f.cfg.Client(r); told != "" {
			r.RemoteAddr = told
		}
	}
	clear(x.header)
	*x = Exchange{conn: c, rest: data[n:], err: err, reply: reply{header: x.header, body: x.body[:0]}}
	if !c.handle(x, r) {
		c.settle()
		c.Abort()
		return
	}
	if x.state == passed {
		if err == nil && r.Method == http.MethodGet {
			f.cfg.Admission.Return(c.Now(), waited)
		}
		c.settle()
		c.pass(data)
		return
	}
	c.begun()
	switch x.state {
	case taken:
		c.settle()
		c.unlink()
		f.cfg.Answered(c.path, x.status)
	case deferred:
		c.waits = true
		f.waiting.Add(1)
	default:
		x.WriteHeader(http.StatusOK)
		c.answer(x.status, x.header, x.body)
	}
}

// handle is what net/http does around a handler: one that panics costs its client
// the connection, and nobody else anything.
func (c *Conn) handle(x *Exchange, r *http.Request) (ok bool) {
	defer func() {
		if e := recover(); e != nil {
			c.at.front.cfg.Logger.Error("front: a handler panicked", "path", c.path, "panic", e, "stack", string(debug.Stack()))
			ok = false
		}
	}()
	c.at.front.door(r.Method, r.URL.Path).ServeHTTP(x, r)
	return true
}

// settle says that nobody is at work on a request any more.
func (c *Conn) settle() {
	if c.waits {
		c.waits = false
		c.at.front.waiting.Add(-1)
	}
	c.gone = nil
	if ended := c.ended; ended != nil {
		c.ended = nil
		ended()
	}
}

// answer writes an answer out, and goes on with the next request.
func (c *Conn) answer(status int, header http.Header, body []byte) {
	c.settle()
	c.at.front.cfg.Answered(c.path, status)
	c.last = c.last || c.at.front.draining.Load()
	p := c.at
	out := message(p.out[:0], status, header, body, c.Now(), c.last)
	p.out, c.out = nil, out
	c.Ready()
	if c.out == nil && !c.Blocked() && cap(out) <= outKept {
		p.out = out // all of it is written
	}
	if !c.Waiting() && !c.Over() {
		c.idle()
	}
}

// Pull is called by the link.
func (c *Conn) Pull(dst [][]byte) ([][]byte, bool) {
	if c.out == nil {
		if !c.waits && len(c.head) == 0 && c.deadline.IsZero() { // an answer that had no room is out
			c.idle()
		}
		return dst, false
	}
	dst, c.out = append(dst, c.out), nil
	return dst, c.last
}

// idle waits for the next request.
func (c *Conn) idle() {
	c.wait(c.at.front.cfg.IdleTimeout)
	if c.behind {
		c.Again()
	}
}

// pass gives the connection to net/http, with what was read of it.
func (c *Conn) pass(data []byte) {
	c.begun()
	c.unlink()
	data = slices.Concat(data, c.Kept())
	c.wait(0)
	conn, err := c.Leave()
	if err != nil {
		c.at.front.cfg.Logger.Warn("front: a connection could not be passed on", "err", err)
		return
	}
	c.at.front.pass(conn, c.peer, data)
}

// begun ends the wait for a first request.
func (c *Conn) begun() {
	if c.fresh {
		c.fresh = false
		c.at.front.pending.Add(-1)
	}
}

// wait sets the deadline for what is to come; 0: there is none.
func (c *Conn) wait(d time.Duration) {
	c.deadline = time.Time{}
	if d > 0 {
		c.deadline = c.Now().Add(d)
	}
	c.Alarm(time.Time{})
}

// Now is called by the link.
func (c *Conn) Now() time.Time { return c.at.shard.Now() }

// Alarm is called by the link.
func (c *Conn) Alarm(at time.Time) {
	if at.IsZero() {
		at = c.deadline
	}
	if at.IsZero() || c.Over() {
		c.at.shard.StopTimer(&c.timer)
		return
	}
	c.at.shard.SetTimer(&c.timer, c, at)
}

// Timeout is called by the shard.
func (c *Conn) Timeout(time.Time) {
	switch {
	case c.queued:
		c.turned()
		return
	case c.Waiting():
		c.Link.Alarm()
		return
	case c.need > 0: // net/http has the patience, and the limits, for a body that takes its time
		data := c.head
		c.head, c.need = nil, 0
		c.pass(data)
		return
	}
	if c.fresh || len(c.head) > 0 {
		c.at.front.late.Add(1)
	}
	c.Abort()
}

// Gone is called by the link.
func (c *Conn) Gone() {
	c.begun()
	c.unlink()
	if c.queued {
		c.queued = false
		c.at.front.cfg.Admission.Gone()
	}
	gone := c.gone
	c.settle()
	if gone != nil {
		gone()
	}
}

func (c *Conn) link() {
	c.next = c.at.conns
	if c.next != nil {
		c.next.prev = c
	}
	c.at.conns = c
}

func (c *Conn) unlink() {
	switch {
	case c.prev != nil:
		c.prev.next = c.next
	case c.at.conns == c:
		c.at.conns = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	c.at.shard.StopTimer(&c.timer)
	c.at.shard.StopMoment(&c.turn)
}
