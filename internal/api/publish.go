package api

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/answer"
	"github.com/carillon-rt/carillon/internal/front"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/wire"
)

// publish is POST /v1/events.
func (a *api) publish(w http.ResponseWriter, r *http.Request) error {
	p, err := a.caller(w, r)
	if err != nil {
		return err
	}
	if r.URL.RawQuery != "" {
		if _, err := query(r.URL, params{}); err != nil {
			return err
		}
	}
	drafts, err := a.drafts(r)
	if err != nil {
		a.limits.Add(carillon.AsError(err).Limit)
		return err
	}
	if x := front.Of(w); x != nil {
		a.submit(x, r, p, drafts)
		return nil
	}
	receipts, err := a.Gate.Publish(r.Context(), p, drafts)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", answer.JSON)
	answer.Write(w, http.StatusAccepted, a.accepted(p.Org, receipts), a.WriteTimeout)
	return nil
}

// accepted is the body of the answer.
func (a *api) accepted(org carillon.OrgID, receipts []carillon.Receipt) []byte {
	out := make([]byte, 0, 16+56*len(receipts))
	out = append(out, `{"events":`...)
	out = wire.AppendReceipts(out, a.IDs.Org(org), receipts)
	return append(out, '}')
}

// submitted is a publish on a loop, until it is answered. Of its request, which
// does not stay, it has what the answer needs.
type submitted struct {
	api    *api
	org    carillon.OrgID
	client string
	shard  *hub.Shard
	late   *front.Answer

	receipts []carillon.Receipt
	err      error
}

// submit has a publish answered once the log has it. Nobody waits for it.
func (a *api) submit(x *front.Exchange, r *http.Request, p *carillon.Principal, drafts []carillon.Draft) {
	s := &submitted{api: a, org: p.Org, client: r.RemoteAddr, shard: x.Shard(), late: x.Later(nil)}
	a.Gate.Submit(p, drafts, s.done)
}

// done is called on any goroutine.
func (s *submitted) done(receipts []carillon.Receipt, err error) {
	s.receipts, s.err = receipts, err
	s.shard.Post(s)
}

// Run answers, on the shard of the exchange.
func (s *submitted) Run() {
	if s.err != nil {
		r := http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/v1/events"}, RemoteAddr: s.client}
		s.api.problem(s.late, &r, s.err)
	} else {
		s.late.Header().Set("Content-Type", answer.JSON)
		s.late.WriteHeader(http.StatusAccepted)
		s.late.Body(s.api.accepted(s.org, s.receipts))
	}
	s.late.Send()
}

// form is how a body says its events.
type form uint8

const (
	ours       form = iota // application/json, one event or an array
	structured             // one CloudEvent
	batch                  // CloudEvents
	binary                 // the data of a CloudEvent, whose attributes are headers
)

// formOf says in which form the events of a request are, and refuses others.
func formOf(h http.Header) (form, error) {
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return 0, carillon.Errorf(carillon.CodeUnsupportedMedia, "Content-Encoding is not supported by this server; send the body as it is")
	}
	types := h["Content-Type"]
	if len(types) > 1 {
		return 0, carillon.BadRequest("%d Content-Type headers; send one", len(types))
	}
	const known = "it is application/json, " + wire.CloudEventsContentType + " or " + wire.CloudEventsBatchContentType
	f, t := ours, "application/json"
	if len(types) == 1 && types[0] != t {
		parsed, params, err := mime.ParseMediaType(types[0])
		if err != nil {
			return 0, carillon.Errorf(carillon.CodeUnsupportedMedia, "the Content-Type is not readable; %s", known)
		}
		if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
			return 0, carillon.Errorf(carillon.CodeUnsupportedMedia, "the charset is not supported; JSON is UTF-8")
		}
		t = parsed
	}
	switch {
	case t == wire.CloudEventsContentType:
		f = structured
	case t == wire.CloudEventsBatchContentType:
		f = batch
	case strings.HasPrefix(t, "application/cloudevents"):
		return 0, carillon.Errorf(carillon.CodeUnsupportedMedia, "CloudEvents are JSON here; the Content-Type is %s or %s", wire.CloudEventsContentType, wire.CloudEventsBatchContentType)
	case hasCloudEvent(h):
		f = binary
	case t != "application/json":
		return 0, carillon.Errorf(carillon.CodeUnsupportedMedia, "the Content-Type is not supported; %s", known)
	}
	return f, nil
}

func hasCloudEvent(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, wire.CloudEventHeader) {
			return true
		}
	}
	return false
}

// drafts reads the events, and the Idempotency-Key into them.
func (a *api) drafts(r *http.Request) ([]carillon.Draft, error) {
	f, err := formOf(r.Header)
	if err != nil {
		return nil, err
	}
	body, err := a.body(r)
	if err != nil {
		return nil, err
	}
	defer a.bodies.put(body)
	drafts, array, err := a.parse(f, r.Header, body.Bytes())
	if err != nil {
		return nil, err
	}
	return drafts, keyed(r.Header["Idempotency-Key"], drafts, array)
}

// parse reads events of a form; array says that they were one.
func (a *api) parse(f form, h http.Header, body []byte) (drafts []carillon.Draft, array bool, err error) {
	switch f {
	case structured:
		d, err := wire.ParseCloudEvent(body, a.CEBytes)
		return []carillon.Draft{d}, false, err
	case batch:
		drafts, err := wire.ParseCloudEvents(body, a.BatchEvents, a.CEBytes)
		return drafts, true, err
	case binary:
		d, err := wire.ParseBinaryCloudEvent(h, body, a.CEBytes)
		return []carillon.Draft{d}, false, err
	case ours:
	}
	return wire.ParseDrafts(body, a.BatchEvents)
}

// keyed gives events that have no id of their own the Idempotency-Key.
func keyed(keys []string, drafts []carillon.Draft, array bool) error {
	if len(keys) == 0 {
		return nil
	}
	key := keys[0]
	longest := carillon.MaxEventKey
	if array {
		longest -= len("/") + len(strconv.Itoa(len(drafts)-1))
	}
	if len(keys) > 1 {
		return carillon.BadRequest("%d Idempotency-Key headers; send one", len(keys))
	}
	if key == "" || len(key) > longest {
		return carillon.BadRequest("the Idempotency-Key has %d bytes; here it is 1–%d", len(key), longest)
	}
	for i := range drafts {
		d := &drafts[i]
		if d.ID != "" {
			return carillon.BadRequest("an Idempotency-Key and an id in the event (%q); use one of the two", clip(d.ID))
		}
		if d.ID = key; array {
			d.ID += "/" + strconv.Itoa(i)
		}
	}
	return nil
}

// body reads the whole body; give it back to a.bodies.
func (a *api) body(r *http.Request) (*bytes.Buffer, error) {
	if r.ContentLength > int64(a.RequestBytes) {
		return nil, a.tooLarge()
	}
	b := a.bodies.get()
	if r.ContentLength > 0 {
		b.Grow(min(int(r.ContentLength), maxTrusted) + bytes.MinRead)
	}
	// Not http.MaxBytesReader, which makes the server close the connection.
	n, err := b.ReadFrom(io.LimitReader(r.Body, int64(a.RequestBytes)+1))
	switch {
	case n > int64(a.RequestBytes):
		a.bodies.put(b)
		return nil, a.tooLarge()
	case err != nil:
		a.bodies.put(b)
		return nil, &carillon.Error{Code: carillon.CodeBadRequest, Message: "the body could not be read to its end, or not in the time that the server allows", Err: err}
	}
	return b, nil
}

func (a *api) tooLarge() error {
	return carillon.Errorf(carillon.CodeTooLarge, "the body is larger than %d bytes; send the events in parts", a.RequestBytes).Over("request_bytes")
}

const (
	// maxTrusted is how much memory a Content-Length gets before the bytes come.
	maxTrusted = 1 << 20
	// maxPooled is the largest buffer kept for the next request.
	maxPooled = 1 << 20
)

// bodyPool keeps buffers for bodies. Drafts hold no part of them.
type bodyPool struct{ pool sync.Pool }

func (p *bodyPool) get() *bytes.Buffer {
	if b, ok := p.pool.Get().(*bytes.Buffer); ok {
		return b
	}
	return new(bytes.Buffer)
}

func (p *bodyPool) put(b *bytes.Buffer) {
	if b.Cap() <= maxPooled {
		b.Reset()
		p.pool.Put(b)
	}
}

// params are the parameters that a route knows, beside the credential's, token.
type params struct{ once, repeated []string }

// query reads the parameters of a request and refuses those not known.
func query(u *url.URL, known params) (url.Values, error) {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, carillon.BadRequest("the query is not readable; percent-encode what is not a letter or digit")
	}
	for name, values := range q {
		switch {
		case name == "token" || slices.Contains(known.repeated, name):
		case !slices.Contains(known.once, name):
			return nil, carillon.BadRequest("the parameter %q is not known here%s", clip(name), known.list())
		case len(values) > 1:
			return nil, carillon.BadRequest("the parameter %q is there %d times; send it once", name, len(values))
		}
	}
	return q, nil
}

func (p params) list() string {
	names := slices.Concat(p.repeated, p.once)
	if len(names) == 0 {
		return ""
	}
	return "; there are " + strings.Join(names, ", ")
}
