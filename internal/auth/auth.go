// Package auth turns credentials into principals: it finds the credential of a
// request, verifies it, and says who is asking. It also decides which web
// origins may ask, and hands out tickets.
//
// What a principal may do is not decided here: package match holds the grants.
//
// Every refusal is a *[carillon.Error] that may be shown. Its message never says
// which secret check failed, and neither message nor cause holds the
// credential. The reason goes to the log, at most some a second.
package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/limit"
	"github.com/carillon-rt/carillon/internal/org"
)

const (
	// Leeway is how far clocks may be apart: a token is taken until this long
	// after its exp, and from this long before its nbf.
	Leeway = 30 * time.Second

	// MinSecretBytes is the least length of an HS256 secret (RFC 7518 §3.2).
	MinSecretBytes = 32

	// DefaultMaxTokenBytes bounds a credential where Config says nothing.
	DefaultMaxTokenBytes = 8 << 10

	// MaxPatterns bounds the patterns and globs in a token's permissions.
	MaxPatterns = 1000

	// DefaultOrgClaim is the claim that names the organization.
	DefaultOrgClaim = "org"
)

// Config is what an Authenticator needs.
type Config struct {
	Issuers       []Issuer
	Orgs          *org.Directory   // required
	Origins       *Origins         // whose cookies count; nil: the server's own origin only
	MaxTokenBytes int              // 0: DefaultMaxTokenBytes
	JWKS          JWKSPolicy       // of the issuers that publish keys
	Tickets       *Tickets         // nil: there are none
	Verified      int              // good tokens that are remembered; 0: none
	Logger        *slog.Logger     // of what was refused, and why; nil: none
	Now           func() time.Time // nil: time.Now
}

// Authenticator verifies credentials. Its methods may be called from any
// goroutine. Where an issuer publishes its keys, Run must be running.
type Authenticator struct {
	issuers  map[string]*issuer
	orgs     *org.Directory
	origins  *Origins
	tickets  *tickets
	verified *verified
	shared   shared
	maxBytes int
	log      *slog.Logger
	now      func() time.Time

	refusals refusals
	hits     limit.Hits
}

// New checks the configuration and makes an Authenticator. It refuses secrets
// and keys that are too weak, an issuer that is there twice, and one that may
// name no organization, or one that does not exist. The error names all of them.
func New(cfg Config) (*Authenticator, error) {
	a := &Authenticator{
		issuers:  make(map[string]*issuer, len(cfg.Issuers)),
		orgs:     cfg.Orgs,
		origins:  cfg.Origins,
		maxBytes: cfg.MaxTokenBytes,
		log:      cfg.Logger,
		now:      cfg.Now,
		hits:     limit.Of("token_bytes", "jwks_bytes", "jwks_keys", "jwks_unknown", "jwks_waiting", "tickets", "verified_tokens"),
	}
	if a.orgs == nil {
		return nil, errors.New("auth: Config.Orgs is required")
	}
	if a.origins == nil {
		a.origins = new(Origins)
	}
	if a.maxBytes <= 0 {
		a.maxBytes = DefaultMaxTokenBytes
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	a.shared.seen = map[string]*carillon.Permissions{}
	a.verified = newVerified(cfg.Verified, func() { a.hits.Add("verified_tokens") })
	a.refusals.limit = rate.NewLimiter(refusalsPerSecond, refusalsPerSecond)
	jwks := jwksConfig{JWKSPolicy: cfg.JWKS.withDefaults(), now: a.now, log: a.log, hits: a.hits}
	var errs []error
	var err error
	if a.tickets, err = newTickets(cfg.Tickets); err != nil {
		errs = append(errs, err)
	}
	for _, c := range cfg.Issuers {
		if a.issuers[c.Issuer] != nil {
			errs = append(errs, fmt.Errorf("auth: issuer %q is there twice", c.Issuer))
			continue
		}
		iss, err := a.newIssuer(c, jwks)
		if err != nil {
			errs = append(errs, fmt.Errorf("auth: issuer %q: %w", c.Issuer, err))
			continue
		}
		a.issuers[c.Issuer] = iss
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return a, nil
}

// Run keeps the keys fresh that issuers publish, until ctx ends. It returns at
// once where none does. An issuer that does not answer is no error: its last
// keys count, and the other issuers notice nothing.
func (a *Authenticator) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, iss := range a.issuers {
		if iss.set != nil {
			all.Go(func() { iss.set.run(ctx) })
		}
	}
	all.Wait()
}

// VerifyBearer verifies what stood in an Authorization header: an API key or a
// JWT.
func (a *Authenticator) VerifyBearer(ctx context.Context, text string) (*carillon.Principal, error) {
	if org.IsKey(text) {
		return a.VerifyKey(text)
	}
	return a.VerifyToken(ctx, text)
}

// Verify verifies a credential that FromRequest found. A ticket is good once.
func (a *Authenticator) Verify(ctx context.Context, c Credential) (*carillon.Principal, error) {
	switch c.Where {
	case InHeader:
		return a.VerifyBearer(ctx, c.Text)
	case InTicket:
		return a.redeem(ctx, c.Text)
	case Nowhere:
		return nil, noCredential()
	default:
		return a.VerifyToken(ctx, c.Text)
	}
}

// organization looks an organization up and refuses a disabled one.
func (a *Authenticator) organization(id carillon.OrgID) (*org.Org, error) {
	o, ok := a.orgs.Get(id)
	if !ok {
		return nil, fmt.Errorf("there is no organization %q", id)
	}
	if o.Disabled {
		return nil, fmt.Errorf("organization %q is disabled", id)
	}
	return o, nil
}

func (a *Authenticator) tooLong(text string) error {
	if len(text) <= a.maxBytes {
		return nil
	}
	a.hits.Add("token_bytes")
	return &carillon.Error{
		Code:    carillon.CodeUnauthenticated,
		Message: fmt.Sprintf("the token is not valid: it is longer than %d bytes", a.maxBytes),
		Limit:   "token_bytes",
		Err:     fmt.Errorf("auth: credential of %d bytes", len(text)),
	}
}
