package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon"
)

// Issuer is somebody who signs tokens. It has Secrets, Keys or a set of keys at
// a URL; all of them count together, so that they can be rotated.
type Issuer struct {
	Issuer   string           // the iss claim, compared exactly; "": tokens without iss
	Audience string           // one of the token's aud must be it; "": aud is not looked at
	Type     string           // the typ that its tokens must have, such as at+jwt; "": none, JWT or at+jwt
	Orgs     []carillon.OrgID // whom it may name
	Any      bool             // it may name every organization; Orgs must then be empty
	OrgClaim string           // "": DefaultOrgClaim

	Secrets [][]byte // for HS256
	Keys    []any    // for the others: *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey
	JWKS    *JWKS    // where it publishes its keys; nil: nowhere
}

// issuer is an Issuer that was checked.
type issuer struct {
	name, audience, typ string
	orgs                []carillon.OrgID
	any                 bool
	orgClaim            string
	keys                []*tokenKey
	set                 *keySet // nil: none
}

// maxKeys bounds the secrets and keys of one issuer: a forged token is tried
// with each that it could be signed with.
const maxKeys = 16

// newIssuer checks an issuer. The error does not name it.
func (a *Authenticator) newIssuer(cfg Issuer, jwks jwksConfig) (*issuer, error) {
	iss := &issuer{name: cfg.Issuer, audience: cfg.Audience, typ: mediaType(cfg.Type), orgs: cfg.Orgs, any: cfg.Any, orgClaim: cfg.OrgClaim}
	if iss.orgClaim == "" {
		iss.orgClaim = DefaultOrgClaim
	}
	if n := len(cfg.Secrets) + len(cfg.Keys); n > maxKeys {
		return nil, fmt.Errorf("it has %d secrets and keys; more than %d would make forged tokens expensive", n, maxKeys)
	}
	for i, s := range cfg.Secrets {
		k, err := newSecret(s, i+1)
		if err != nil {
			return nil, err
		}
		iss.keys = append(iss.keys, k)
	}
	for i, public := range cfg.Keys {
		k, err := newPublicKey(public)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		iss.keys = append(iss.keys, k)
	}
	if cfg.JWKS != nil {
		set, err := newKeySet(cfg.Issuer, *cfg.JWKS, jwks)
		if err != nil {
			return nil, err
		}
		iss.set = set
	}
	switch {
	case len(iss.keys) == 0 && iss.set == nil:
		return nil, errors.New("it has no secret, no key and no URL of keys")
	case iss.any && len(iss.orgs) > 0:
		return nil, errors.New("it may name every organization, or those listed, not both")
	case !iss.any && len(iss.orgs) == 0:
		return nil, errors.New("it may name no organization; list some")
	}
	for _, id := range iss.orgs {
		if _, ok := a.orgs.Get(id); !ok {
			return nil, fmt.Errorf("there is no organization %q", id)
		}
	}
	switch iss.orgClaim {
	case "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "role", "permissions":
		return nil, fmt.Errorf("the org claim cannot be %q, which means something else", iss.orgClaim)
	}
	return iss, nil
}

// mediaType is a typ as it is compared (RFC 7515 §4.1.9).
func mediaType(typ string) string { return strings.TrimPrefix(strings.ToLower(typ), "application/") }

// checkType refuses a token that was made for another purpose (RFC 8725 §3.11).
func (iss *issuer) checkType(typ string) error {
	switch {
	case iss.typ != "" && typ != iss.typ:
		return fmt.Errorf("header: typ is not %s", iss.typ)
	case iss.typ == "" && typ != "" && typ != "jwt" && typ != "at+jwt":
		return errors.New("header: typ says that it is no access token")
	}
	return nil
}

// verify checks a signature with the issuer's keys that are for the header's
// algorithm, and says with which it is good. An *unknownKeyError says that the key may
// be one that the issuer publishes and we do not know.
func (iss *issuer) verify(h header, signed string, sig []byte) (proof, error) {
	err := fmt.Errorf("header: the issuer has no key for %s", h.alg)
	for _, k := range iss.keys {
		if k.alg != h.alg {
			continue
		}
		if err = k.verify(signed, sig); err == nil {
			return proof{signer: signer{key: k}}, nil
		}
	}
	if iss.set == nil || !slices.Contains(iss.set.allowed, h.alg) {
		return proof{}, err
	}
	k, err := iss.set.find(keyName{h.alg, h.kid})
	if err != nil {
		return proof{}, err
	}
	return proof{signer: signer{k, iss.set, h.kid}}, k.verify(signed, sig)
}
