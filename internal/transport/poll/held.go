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
	late   *front.Answer
	form   form
	client string
}

// hold has a poll answered later. Nothing waits for it but itself.
func (h *handler) hold(x *front.Exchange, r *http.Request, opt session.PollOptions) {
	p := &held{door: h, form: formOf(r, opt), client: r.RemoteAddr}
	p.form.has = slices.Clone(p.form.has)
	p.late = x.Later(func() { p.poll.Cancel() })
	p.poll = h.Core.PollOn(x.Shard(), opt, p.answer)
}

// answer is called on the shard of the exchange.
func (p *held) answer(a session.PollAnswer) {
	if a.Err != nil {
		r := http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}, RemoteAddr: p.client}
		transport.Problem(p.late, &r, p.door.Logger, a.Err)
	} else {
		status, body := p.door.answer(p.late.Header(), p.form, a)
		p.late.WriteHeader(status)
		p.late.Body(body)
	}
	p.late.Send()
}

// path is the door's.
const path = "/v1/poll"
