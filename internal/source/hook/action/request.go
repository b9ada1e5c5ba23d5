package action

import (
	"net/http"
	"net/url"
	"time"
)

// Request is a webhook as rules see it and commands get it. Its parts are read
// when they are first asked for; it belongs to one goroutine.
type Request struct {
	ID          string // for logs, and CARILLON_DELIVERY of commands
	Method      string
	Remote      string // ip:port of the client, behind the proxies that are trusted
	Header      http.Header
	Query       url.Values
	Body        []byte // as it came
	ContentType string // how Body is read; "": as Header says

	// Env are further variables of the commands of actions, NAME to value: what the
	// caller knows beside the request.
	Env map[string]string

	// Verify judges the signatures of providers. nil: none is good.
	Verify Verifier
	// Now is the time by which signatures are judged; zero: the present.
	Now time.Time

	forced []string // parts of a multipart body that are JSON, whatever they say

	payload, headers, query map[string]any // nil: not made yet, or empty
	parsed                  bool
	parseErr                error
}

// Verifier says whether a signature of a provider is good. kind is github, stripe,
// slack or standard; body is as it came. It tries all secrets, and compares in
// constant time.
type Verifier func(kind string, secrets []string, h http.Header, body []byte, now time.Time) bool

// ParseError says why the body could not be read by its content type, if it was
// tried and failed. Rules and commands then see no payload.
func (r *Request) ParseError() error { return r.parseErr }

func (r *Request) now() time.Time {
	if r.Now.IsZero() {
		return time.Now()
	}
	return r.Now
}

func (r *Request) contentType() string {
	if r.ContentType != "" {
		return r.ContentType
	}
	return r.Header.Get("Content-Type")
}

// payloadMap is the body as its content type says; nil: it is not readable.
func (r *Request) payloadMap() map[string]any {
	if !r.parsed {
		r.parsed = true
		r.payload, r.parseErr = parse(r.contentType(), r.Body, r.forced)
	}
	return r.payload
}

func (r *Request) headerMap() map[string]any {
	if r.headers == nil {
		r.headers = firsts(r.Header)
	}
	return r.headers
}

func (r *Request) queryMap() map[string]any {
	if r.query == nil {
		r.query = firsts(r.Query)
	}
	return r.query
}

// firsts has the first value of each name.
func firsts(values map[string][]string) map[string]any {
	m := make(map[string]any, len(values))
	for name, v := range values {
		if len(v) > 0 {
			m[name] = v[0]
		}
	}
	return m
}
