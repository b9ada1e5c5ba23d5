// Package auth turns credentials into principals: it finds the credential of a
// request, verifies it, and says who is asking. It also decides which web
// origins may ask.
//
// What a principal may do is not decided here: package match holds the grants.
//
// Every refusal is a *[carillon.Error] that may be shown. Its message never says
// which secret check failed, and neither message nor cause holds the
// credential.
package auth

import (
	"errors"
	"fmt"
	"time"

	"github.com/carillon-rt/carillon"
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
	Keys          []Key
	Orgs          *org.Directory   // required
	MaxTokenBytes int              // 0: DefaultMaxTokenBytes
	Now           func() time.Time // nil: time.Now
}

// Issuer is somebody who signs tokens. The algorithm is HS256; a token cannot
// choose another.
type Issuer struct {
	Issuer   string           // the iss claim, compared exactly; "": tokens without iss
	Audience string           // one of the token's aud must be it; "": aud is not looked at
	Secrets  [][]byte         // any of them may have signed, so that they can be rotated
	Orgs     []carillon.OrgID // whom it may name
	Any      bool             // it may name every organization; Orgs must then be empty
	OrgClaim string           // "": DefaultOrgClaim
}

// Authenticator verifies credentials. It is immutable; its methods may be
// called from any goroutine, and do no I/O.
type Authenticator struct {
	issuers  map[string]*Issuer
	keys     map[string]Key
	orgs     *org.Directory
	maxBytes int
	now      func() time.Time
}

// New checks the configuration and makes an Authenticator. It refuses short
// secrets, an issuer or key that is there twice, an issuer that may name no
// organization, and a key or issuer of an organization that does not exist. The
// error names all of them.
func New(cfg Config) (*Authenticator, error) {
	a := &Authenticator{
		issuers:  make(map[string]*Issuer, len(cfg.Issuers)),
		keys:     make(map[string]Key, len(cfg.Keys)),
		orgs:     cfg.Orgs,
		maxBytes: cfg.MaxTokenBytes,
		now:      cfg.Now,
	}
	if a.orgs == nil {
		return nil, errors.New("auth: Config.Orgs is required")
	}
	if a.maxBytes <= 0 {
		a.maxBytes = DefaultMaxTokenBytes
	}
	if a.now == nil {
		a.now = time.Now
	}
	var errs []error
	for _, iss := range cfg.Issuers {
		if iss.OrgClaim == "" {
			iss.OrgClaim = DefaultOrgClaim
		}
		if a.issuers[iss.Issuer] != nil {
			errs = append(errs, fmt.Errorf("auth: issuer %q is there twice", iss.Issuer))
			continue
		}
		if err := a.checkIssuer(&iss); err != nil {
			errs = append(errs, fmt.Errorf("auth: issuer %q: %w", iss.Issuer, err))
		}
		a.issuers[iss.Issuer] = &iss
	}
	for _, k := range cfg.Keys {
		if _, twice := a.keys[k.ID]; twice {
			errs = append(errs, fmt.Errorf("auth: key %q is there twice", k.ID))
			continue
		}
		if !validKeyID(k.ID) {
			errs = append(errs, fmt.Errorf("auth: key %q: an id is 1–%d characters of a–z and 0–9", k.ID, maxKeyID))
		}
		if _, ok := a.orgs.Get(k.Org); !ok {
			errs = append(errs, fmt.Errorf("auth: key %q: there is no organization %q", k.ID, k.Org))
		}
		a.keys[k.ID] = k
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *Authenticator) checkIssuer(iss *Issuer) error {
	if len(iss.Secrets) == 0 {
		return errors.New("it has no secret")
	}
	for i, s := range iss.Secrets {
		if len(s) < MinSecretBytes {
			return fmt.Errorf("secret %d has %d bytes; HS256 needs at least %d", i+1, len(s), MinSecretBytes)
		}
	}
	switch {
	case iss.Any && len(iss.Orgs) > 0:
		return errors.New("it may name every organization, or those listed, not both")
	case !iss.Any && len(iss.Orgs) == 0:
		return errors.New("it may name no organization; list some")
	}
	for _, id := range iss.Orgs {
		if _, ok := a.orgs.Get(id); !ok {
			return fmt.Errorf("there is no organization %q", id)
		}
	}
	switch iss.OrgClaim {
	case "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "role", "permissions":
		return fmt.Errorf("the org claim cannot be %q, which means something else", iss.OrgClaim)
	}
	return nil
}

// VerifyBearer verifies what stood in an Authorization header: an API key or a
// JWT.
func (a *Authenticator) VerifyBearer(text string) (*carillon.Principal, error) {
	if IsKey(text) {
		return a.VerifyKey(text)
	}
	return a.VerifyToken(text)
}

// Verify verifies a credential that FromRequest found.
func (a *Authenticator) Verify(c Credential) (*carillon.Principal, error) {
	switch c.Where {
	case InHeader:
		return a.VerifyBearer(c.Text)
	case Nowhere:
		return nil, carillon.Errorf(carillon.CodeUnauthenticated, "this needs a token: send it as 'Authorization: Bearer <token>'")
	default:
		return a.VerifyToken(c.Text)
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
	return &carillon.Error{
		Code:    carillon.CodeUnauthenticated,
		Message: fmt.Sprintf("the token is not valid: it is longer than %d bytes", a.maxBytes),
		Err:     fmt.Errorf("auth: credential of %d bytes", len(text)),
	}
}
