package auth

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/carillon-rt/carillon"
)

// Where says where in a request a credential stood.
type Where uint8

// The places.
const (
	Nowhere       Where = iota
	InHeader            // Authorization: Bearer
	InSubprotocol       // Sec-WebSocket-Protocol: carillon.v1, bearer.<token>
	InQuery             // ?token=
)

// Credential is a token or API key as found in a request, not yet verified.
// Printing it shows where it stood, never its text.
type Credential struct {
	Text  string
	Where Where
}

// None reports whether the request had no credential.
func (c Credential) None() bool { return c.Where == Nowhere }

// Format keeps the text out of logs and errors, whatever the verb.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// String says where the credential stood.
func (c Credential) String() string {
	switch c.Where {
	case InHeader:
		return "credential in Authorization"
	case InSubprotocol:
		return "credential in Sec-WebSocket-Protocol"
	case InQuery:
		return "credential in ?token="
	case Nowhere:
	}
	return "no credential"
}

// MarshalText is String, for encoders.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// bearerProtocol is how a browser's WebSocket carries a token.
const bearerProtocol = "bearer."

// FromRequest finds the credential of a request; without one it returns the
// zero Credential. A WebSocket handshake passes allowSubprotocol; for other
// requests the header means nothing.
//
// The same credential in two places is one, in the order of [Where]. Two
// different ones, two Authorization headers and an unreadable query are
// bad_request. An API key outside Authorization is unauthenticated. Tickets are
// not known yet; a request with one is bad_request.
func FromRequest(r *http.Request, allowSubprotocol bool) (Credential, error) {
	var c Credential
	add := func(text string, where Where) error {
		switch {
		case where != InHeader && IsKey(text):
			return keyElsewhere()
		case c.None():
			c = Credential{text, where}
		case c.Text != text:
			return carillon.BadRequest("two different credentials (%s and %s); send one", c, Credential{Where: where})
		}
		return nil
	}

	switch h := r.Header["Authorization"]; {
	case len(h) > 1:
		return Credential{}, carillon.BadRequest("%d Authorization headers; send one", len(h))
	case len(h) == 1:
		scheme, text, _ := strings.Cut(h[0], " ")
		text = strings.TrimLeft(text, " ")
		if !strings.EqualFold(scheme, "Bearer") || text == "" || strings.ContainsAny(text, " \t,") {
			return Credential{}, carillon.Errorf(carillon.CodeUnauthenticated, "the Authorization header is not understood; it is 'Bearer <token>'")
		}
		if err := add(text, InHeader); err != nil {
			return Credential{}, err
		}
	}
	if allowSubprotocol {
		for _, h := range r.Header["Sec-Websocket-Protocol"] {
			for p := range strings.SplitSeq(h, ",") {
				text, ok := strings.CutPrefix(strings.Trim(p, " \t"), bearerProtocol)
				if !ok {
					continue
				}
				if text == "" {
					return Credential{}, carillon.Errorf(carillon.CodeUnauthenticated, "the subprotocol 'bearer.' has no token; it is 'bearer.<token>'")
				}
				if err := add(text, InSubprotocol); err != nil {
					return Credential{}, err
				}
			}
		}
	}
	if r.URL.RawQuery == "" {
		return c, nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		// err repeats a part of the query, which may be a part of a token.
		return Credential{}, carillon.BadRequest("the query is not readable; percent-encode what is not a letter or digit")
	}
	if q.Has("ticket") {
		return Credential{}, carillon.BadRequest("?ticket= is not supported by this server; use ?token=")
	}
	for _, text := range q["token"] {
		if text == "" {
			return Credential{}, carillon.Errorf(carillon.CodeUnauthenticated, "?token= is empty")
		}
		if err := add(text, InQuery); err != nil {
			return Credential{}, err
		}
	}
	return c, nil
}
