// Package provider is what each provider of webhooks signs and says: how a request
// is proven to come from it, and what the delivery in it is called and contains.
//
// A delivery goes through it in two steps. [Provider.Look] refuses, before the body
// is read, what needs no body to be refused; [Claim.Verify] proves the raw bytes of
// the body. Only then may [Provider.Read] be believed.
//
// The package is pure: it keeps nothing between calls, asks no clock, and a Provider
// may be used from anywhere. No error and no refusal in it repeats a signature, one
// that was computed or one that came, or a secret.
package provider

import (
	"fmt"
	"net/http"
	"time"
)

// Kind is whose webhooks they are, as the configuration names it.
type Kind string

// The kinds.
const (
	KindGitHub   Kind = "github"
	KindStripe   Kind = "stripe"
	KindSlack    Kind = "slack"
	KindStandard Kind = "standard" // Standard Webhooks, and Svix
	KindGeneric  Kind = "generic"  // a header as Config.Generic says
)

// Kinds are all kinds there are.
func Kinds() []Kind { return []Kind{KindGitHub, KindStripe, KindSlack, KindStandard, KindGeneric} }

// How far a signed timestamp may be from now, in either direction.
const (
	DefaultTolerance = 300 * time.Second
	leastTolerance   = time.Second
	mostTolerance    = time.Hour
)

// Config of a Provider. Kind is required.
type Config struct {
	Kind      Kind
	Tolerance time.Duration // of signed timestamps, past and future; 0: DefaultTolerance
	SHA1      bool          // of KindGitHub: X-Hub-Signature will do where there is no X-Hub-Signature-256
	Generic   Generic       // of KindGeneric
}

// Provider verifies and reads the webhooks of one source. It is immutable.
type Provider struct {
	kind      Kind
	tolerance time.Duration
	dialect   dialect
}

// dialect is what the kinds do differently. Names of headers in it are canonical.
type dialect interface {
	// look reads the headers into c. Timestamps go through c.at.
	look(h http.Header, c *Claim) *Refusal
	// check says what is wrong with a secret, if anything. It has no prefix.
	check(secret string) error
	// id is what the provider calls the delivery, as it says it.
	id(h http.Header, form bool, body []byte) string
	// event is what the provider calls what happened, as it says it.
	event(h http.Header, d document) string
	// sign sets the headers of a request with the body.
	sign(h http.Header, body []byte, id, event string, key []byte, now time.Time) error
	// headers are those it reads, and whether they hold the secret itself.
	headers() (read, secret []string)
}

// New makes a provider. The error says which setting is wrong and what would be
// right.
func New(cfg Config) (*Provider, error) {
	p := &Provider{kind: cfg.Kind, tolerance: cfg.Tolerance}
	timed := true
	switch cfg.Kind {
	case KindGitHub:
		p.dialect, timed = github{sha1: cfg.SHA1}, false
	case KindStripe:
		p.dialect = stripe{}
	case KindSlack:
		p.dialect = slack{}
	case KindStandard:
		p.dialect = standard{}
	case KindGeneric:
		g, err := newGeneric(cfg.Generic)
		if err != nil {
			return nil, fmt.Errorf("provider: generic: %w", err)
		}
		p.dialect, timed = g, g.timestamp != ""
	default:
		return nil, fmt.Errorf("provider: kind %q is none of %q", clip(string(cfg.Kind)), Kinds())
	}
	switch {
	case cfg.SHA1 && cfg.Kind != KindGitHub:
		return nil, fmt.Errorf("provider: sha1 is a setting of kind %s; kind generic has algorithm: sha1", KindGitHub)
	case cfg.Generic != Generic{} && cfg.Kind != KindGeneric:
		return nil, fmt.Errorf("provider: generic settings belong to kind %s; kind %s has a form of its own", KindGeneric, cfg.Kind)
	case cfg.Tolerance != 0 && !timed:
		return nil, fmt.Errorf("provider: tolerance: kind %s signs no timestamp; leave it out", cfg.Kind)
	case cfg.Tolerance == 0:
		p.tolerance = DefaultTolerance
	case cfg.Tolerance < leastTolerance || cfg.Tolerance > mostTolerance:
		return nil, fmt.Errorf("provider: tolerance is from %s to %s, not %s; 0 is the default, %s", leastTolerance, mostTolerance, cfg.Tolerance, DefaultTolerance)
	}
	return p, nil
}

// Kind is the provider's kind.
func (p *Provider) Kind() Kind { return p.kind }

// Sign sets the headers that the provider would send with the body: for tests, and to
// try a source out. The id and the event are said where the provider says them in
// headers; elsewhere they stand in the body, and are not used. The secret is one
// that Verify accepts, or, for kind standard, the private key of one (whsk_).
func (p *Provider) Sign(h http.Header, body []byte, id, event string, secret Secret, now time.Time) error {
	if len(secret.Key) == 0 {
		return fmt.Errorf("provider: %s: the secret is empty", p.kind)
	}
	if err := p.dialect.sign(h, body, id, event, secret.Key, now); err != nil {
		return fmt.Errorf("provider: %s: %w", p.kind, err)
	}
	return nil
}
