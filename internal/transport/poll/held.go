package poll

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/carillon-rt/carillon/internal/front"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport"
)

// held is a poll on a loop, until it is answered. Of its request, which does not
// stay, it has what the answer needs.
type held struct {
	door   *handler
	poll   *session.Poll
	say    func(status int, header http.Header, body []byte)
	form   form
	header []field // that the answer has, whatever it is
	client string
}

// field is one of a header.
type field struct {
	name   string
	values []string
}

// hold has a poll answered later. Nothing waits for it but itself.
func (h *handler) hold(x *front.Exchange, r *http.Request, opt session.PollOptions) {
	p := &held{door: h, form: formOf(r, opt), client: r.RemoteAddr}
	p.form.has = slices.Clone(p.form.has)
	for name, values := range x.Header() {
		if name != "Vary" { // every answer says that anew
			p.header = append(p.header, field{name, values})
		}
	}
	p.say = x.Later(func() { p.poll.Cancel() })
	p.poll = h.Core.PollOn(x.Shard(), opt, p.answer)
}

// answer is called on the shard of the exchange.
func (p *held) answer(a session.PollAnswer) {
	l := late{header: make(http.Header, 8)}
	for _, f := range p.header {
		l.header[f.name] = f.values
	}
	if a.Err != nil {
		r := http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}, RemoteAddr: p.client}
		transport.Problem(&l, &r, p.door.Logger, a.Err)
	} else {
		l.status, l.body = p.door.answer(l.header, p.form, a)
	}
	p.say(l.status, l.header, l.body)
}

// path is the door's.
const path = "/v1/poll"

// late is an answer whose request has gone.
type late struct {
	header http.Header
	status int
	body   []byte
}

// Header is http.ResponseWriter's.
func (l *late) Header() http.Header { return l.header }

// WriteHeader is http.ResponseWriter's.
func (l *late) WriteHeader(status int) { l.status = status }

// Write is http.ResponseWriter's.
func (l *late) Write(b []byte) (int, error) {
	l.body = append(l.body, b...)
	return len(b), nil
}
