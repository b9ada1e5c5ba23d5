package auth

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/org"
)

// Where says where in a request a credential stood.
type Where uint8

// The places.
const (
	Nowhere       Where = iota
	InHeader            // Authorization: Bearer
	InSubprotocol       // Sec-WebSocket-Protocol: carillon.v1, bearer.<token>
	InQuery             // ?token=
	InTicket            // ?ticket=
	InCookie            // Cookie: carillon_token
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
	case InTicket:
		return "credential in ?ticket="
	case InCookie:
		return "credential in the cookie " + Cookie
	case Nowhere:
	}
	return "no credential"
}

// MarshalText is String, for encoders.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// bearerProtocol is how a browser's WebSocket carries a token.
const bearerProtocol = "bearer."

// Cookie is the name of the cookie that carries a token.
const Cookie = "carillon_token"

// Places says where a request may have its credential beside the places that
// every request has: Authorization, ?token= and the cookie.
type Places uint8

// The places that some requests have.
const (
	Subprotocol Places = 1 << iota // a WebSocket handshake; elsewhere the header means nothing
	TicketQuery                    // what begins to receive; elsewhere ?ticket= is bad_request
)

// FromRequest finds the credential of a request; without one it returns the
// zero Credential. The request's Origin must have been checked ([Origins]).
//
// The same credential in two places is one, in the order of [Where]. Two
// different ones, two Authorization headers and an unreadable query are
// bad_request. An API key outside Authorization is unauthenticated.
//
// The cookie counts where there is nothing else and the browser says that a page
// which may call has sent it: by an allowed Origin or, without one, as
// Sec-Fetch-Site: same-origin.
func (a *Authenticator) FromRequest(r *http.Request, places Places) (Credential, error) {
	var c finder
	if err := c.header(r.Header["Authorization"]); err != nil {
		return Credential{}, err
	}
	if places&Subprotocol != 0 {
		if err := c.subprotocol(r.Header["Sec-Websocket-Protocol"]); err != nil {
			return Credential{}, err
		}
	}
	if r.URL.RawQuery != "" {
		if err := c.query(r.URL.RawQuery, places&TicketQuery != 0); err != nil {
			return Credential{}, err
		}
	}
	if c.found.None() && a.origins.ours(r) {
		for _, cookie := range r.CookiesNamed(Cookie) {
			if err := c.add(cookie.Value, InCookie); err != nil {
				return Credential{}, err
			}
		}
	}
	return c.found, nil
}

// finder collects the credential of a request.
type finder struct{ found Credential }

func (c *finder) add(text string, where Where) error {
	switch {
	case where != InHeader && org.IsKey(text):
		return keyElsewhere()
	case text == "":
		return carillon.Errorf(carillon.CodeUnauthenticated, "the %s is empty", Credential{Where: where})
	case c.found.None():
		c.found = Credential{text, where}
	case c.found.Text != text:
		return carillon.BadRequest("two different credentials (%s and %s); send one", c.found, Credential{Where: where})
	}
	return nil
}

func (c *finder) header(values []string) error {
	switch len(values) {
	case 0:
		return nil
	case 1:
		scheme, text, _ := strings.Cut(values[0], " ")
		text = strings.TrimLeft(text, " ")
		if !strings.EqualFold(scheme, "Bearer") || text == "" || strings.ContainsAny(text, " \t,") {
			return carillon.Errorf(carillon.CodeUnauthenticated, "the Authorization header is not understood; it is 'Bearer <token>'")
		}
		return c.add(text, InHeader)
	default:
		return carillon.BadRequest("%d Authorization headers; send one", len(values))
	}
}

func (c *finder) subprotocol(values []string) error {
	for _, h := range values {
		for p := range strings.SplitSeq(h, ",") {
			text, ok := strings.CutPrefix(strings.Trim(p, " \t"), bearerProtocol)
			if !ok {
				continue
			}
			if err := c.add(text, InSubprotocol); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *finder) query(raw string, tickets bool) error {
	inQuery, inTicket, err := queried(raw)
	if err != nil {
		// err repeats a part of the query, which may be a part of a token.
		return carillon.BadRequest("the query is not readable; percent-encode what is not a letter or digit")
	}
	if len(inTicket) > 0 && !tickets {
		return carillon.BadRequest("?ticket= is for what begins to receive: WebSocket, SSE and poll")
	}
	for _, text := range inQuery {
		if err := c.add(text, InQuery); err != nil {
			return err
		}
	}
	for _, text := range inTicket {
		if err := c.add(text, InTicket); err != nil {
			return err
		}
	}
	return nil
}

// queried are the parameters token and ticket of a query, as url.ParseQuery finds
// them. Of one in which everything stands for itself, as it mostly does, no map is
// made.
func queried(raw string) (tokens, tickets []string, err error) {
	const few = 20
	if strings.ContainsAny(raw, "%+;") || strings.Count(raw, "&") > few {
		q, err := url.ParseQuery(raw)
		return q["token"], q["ticket"], err
	}
	for one := range strings.SplitSeq(raw, "&") {
		switch name, value, _ := strings.Cut(one, "="); name {
		case "token":
			tokens = append(tokens, value)
		case "ticket":
			tickets = append(tickets, value)
		}
	}
	return tokens, tickets, nil
}
