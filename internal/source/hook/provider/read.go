package provider

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
)

// Delivery is what a verified request says.
type Delivery struct {
	ID        string // the provider's, 1 to MaxID bytes without control characters; "": it has none
	Event     string // what happened, as the end of an event type; Unnamed if the provider does not say
	Payload   []byte // compact JSON
	Challenge string // what the answer has to repeat, if anything: Slack tries the address out
	Retry     int    // which retry it is, from 1; 0: the first attempt, or the provider does not say
}

// maxChallenge is how long a challenge may be, in bytes: the answer repeats it.
const maxChallenge = 1024

// document is a body as JSON.
type document struct {
	json  []byte
	form  bool // it was one
	inner bool // and the JSON is that of its field payload
}

// text is the string at a path, otherwise "".
func (d document) text(path ...string) string {
	s, _ := unquote(find(d.json, path...))
	return s
}

// ID is what Read says the ID is, for a body that can be read; of any other it is the
// provider's id or "". It does not parse more than it needs.
func (p *Provider) ID(h http.Header, contentType string, body []byte) string {
	return identify(p.dialect.id(h, isForm(contentType), body))
}

// Read reads a delivery whose body has been verified. An error says why it can not be
// an event; nothing that is done again helps. Besides what is not JSON or a form,
// that is a key twice in one object, half a surrogate pair, or nesting beyond 128:
// the log of events takes none of them.
//
// A form becomes an object, with a string for each field and an array of strings for
// one that comes more than once. Of GitHub and Slack, the field payload is the
// payload. An empty body of kind generic is null.
func (p *Provider) Read(h http.Header, contentType string, body []byte) (*Delivery, error) {
	doc, err := p.document(isForm(contentType), body)
	if err != nil {
		return nil, fmt.Errorf("provider: the body of a delivery of kind %s: %w", p.kind, err)
	}
	d := &Delivery{
		ID:      p.ID(h, contentType, body),
		Event:   eventName(p.dialect.event(h, doc)),
		Payload: doc.json,
	}
	if s, ok := p.dialect.(slack); ok {
		if d.Challenge = s.challenge(doc); len(d.Challenge) > maxChallenge {
			return nil, fmt.Errorf("provider: the challenge is at most %d bytes, not %d", maxChallenge, len(d.Challenge))
		}
		if n, ok := digits(h.Get(slackRetry), 3); ok {
			d.Retry = int(n)
		}
	}
	return d, nil
}

// Peek is Read without the payload, and without a look at more of the body than it
// takes. Of a body that Read refuses it says what it looks like, and no challenge.
func (p *Provider) Peek(h http.Header, contentType string, body []byte) *Delivery {
	if isForm(contentType) || p.kind == KindSlack { // these are small
		if d, err := p.Read(h, contentType, body); err == nil {
			return d
		}
		return &Delivery{ID: p.ID(h, contentType, body), Event: Unnamed}
	}
	return &Delivery{ID: p.ID(h, contentType, body), Event: eventName(p.dialect.event(h, document{json: body}))}
}

// document makes a body into JSON.
func (p *Provider) document(form bool, body []byte) (document, error) {
	if !form {
		if p.kind == KindGeneric && len(bytes.TrimSpace(body)) == 0 {
			return document{json: []byte("null")}, nil
		}
		text, err := compact(body)
		return document{json: text}, err
	}
	name := ""
	if p.kind == KindGitHub || p.kind == KindSlack {
		name = "payload"
	}
	text, inner, err := formObject(body, name)
	switch {
	case err != nil:
		return document{}, err
	case p.kind == KindGitHub && !inner:
		return document{}, errors.New("the form has no field payload")
	case inner:
		if text, err = compact(text); err != nil {
			return document{}, fmt.Errorf("the field %s: %w", name, err)
		}
	}
	return document{json: text, form: true, inner: inner}, nil
}

// Claimed is what the headers say the id and the event are, before anything is proven:
// to note with a request that is refused. Either may be "".
func (p *Provider) Claimed(h http.Header) (id, event string) {
	id = identify(p.dialect.id(h, false, nil))
	if said := p.dialect.event(h, document{}); said != "" {
		event = eventName(said)
	}
	return id, event
}
