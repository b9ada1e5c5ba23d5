package front

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/loop"
)

// Exchange is a request that a loop has read, and its answer. It is the
// http.ResponseWriter that a door's handler is given; the door finds out with Of.
//
// A handler either answers, as any other, or calls exactly one of Take, Later and
// Pass, and then nothing else. It runs on the shard's goroutine and must not wait.
// The exchange, and the request, are good until it returns.
type Exchange struct {
	reply

	conn  *Conn
	rest  []byte // what followed the request
	err   error  // of the gate
	state state
}

// reply is an answer as it is made, which it keeps whole.
type reply struct {
	header http.Header
	status int
	body   []byte
}

// Header is http.ResponseWriter's.
func (r *reply) Header() http.Header { return r.header }

// WriteHeader is http.ResponseWriter's.
func (r *reply) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
}

// Write is http.ResponseWriter's.
func (r *reply) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	r.body = append(r.body, b...)
	return len(b), nil
}

// state is what a handler has done.
type state uint8

const (
	open     state = iota // it may still answer
	taken                 // it has the connection
	deferred              // it answers later
	passed                // net/http answers
)

// Of is the exchange that a response writer is, or nil where the request came
// from net/http.
func Of(w http.ResponseWriter) *Exchange {
	x, _ := w.(*Exchange)
	return x
}

// Shard is where the connection lives.
func (x *Exchange) Shard() *hub.Shard { return x.conn.at.shard }

// Refused is why the gate did not let the request through, or nil. Then the handler
// says so.
func (x *Exchange) Refused() error { return x.err }

// Take gives the connection to a door: to.Inherit(from, before, …) makes it that
// of another owner. Whatever is to be written to answer the request the owner
// writes. status is what it will be, to be counted.
func (x *Exchange) Take(status int) (from *loop.Link, before []byte) {
	x.state, x.status = taken, status
	return &x.conn.Link, slices.Concat(x.rest, x.conn.Kept())
}

// Pass has net/http answer the request. Nothing may have had an effect yet.
func (x *Exchange) Pass() { x.state = passed }

// Later keeps the exchange open when the handler returns, and has it answered by
// what is returned. The header is that of the exchange. gone, if not nil, is called
// when the client has gone before.
func (x *Exchange) Later(gone func()) *Answer {
	x.state = deferred
	x.conn.gone = gone
	a := &Answer{conn: x.conn, fields: make([]field, 0, len(x.header))}
	for name, values := range x.header {
		a.fields = append(a.fields, field{name, values})
	}
	return a
}

// Answer is one that comes later. It is used on the shard's goroutine.
type Answer struct {
	reply

	conn   *Conn
	fields []field // of the header, until somebody asks for it: a map is large
}

// field is one of a header.
type field struct {
	name   string
	values []string
}

// Header is http.ResponseWriter's.
func (a *Answer) Header() http.Header {
	if a.header == nil {
		if a.header = a.conn.at.spare; a.header == nil {
			a.header = make(http.Header, len(a.fields)+1)
		}
		a.conn.at.spare = nil
		for _, f := range a.fields {
			a.header[f.name] = f.values
		}
	}
	return a.header
}

// Body is Write for all of the body, which is the answer's from then on.
func (a *Answer) Body(b []byte) { a.body = b }

// Send answers with what was written, once. Where the client has gone, nothing
// happens.
func (a *Answer) Send() {
	c, h := a.conn, a.Header()
	if c.waits {
		a.WriteHeader(http.StatusOK)
		c.answer(a.status, h, a.body)
	}
	clear(h)
	a.header, c.at.spare = nil, h
}

// Ended has f called, on the shard's goroutine, once nobody is at work on the request
// any more: it is answered, or passed on, or its client has gone. It may be called
// once.
func (x *Exchange) Ended(f func()) { x.conn.ended = f }

// message appends an answer to b. The date is that of the turn.
func message(b []byte, status int, header http.Header, body []byte, now time.Time, last bool) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(status)...)
	b = append(b, "\r\nDate: "...)
	b = now.UTC().AppendFormat(b, http.TimeFormat)
	if status != http.StatusNoContent && status != http.StatusNotModified { // RFC 9110, section 8.6
		b = append(b, "\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
	}
	if last {
		b = append(b, "\r\nConnection: close"...)
	}
	b = append(b, "\r\n"...)
	for name, values := range header {
		if name == "Connection" && last || name == "Content-Length" || name == "Date" {
			continue
		}
		for _, v := range values {
			b = append(append(append(append(b, name...), ": "...), oneLine(v)...), "\r\n"...)
		}
	}
	return append(append(b, "\r\n"...), body...)
}

// oneLine is v without what would end its line.
func oneLine(v string) string {
	for i := range len(v) {
		if v[i] == '\r' || v[i] == '\n' {
			return v[:i]
		}
	}
	return v
}
