package auth

import (
	"errors"
	"fmt"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/org"
)

// VerifyKey verifies an API key. Its principal has no user and does not expire.
func (a *Authenticator) VerifyKey(text string) (*carillon.Principal, error) {
	p, err := a.verifyKey(text)
	return p, a.refused(err)
}

func (a *Authenticator) verifyKey(text string) (*carillon.Principal, error) {
	if err := a.tooLong(text); err != nil {
		return nil, err
	}
	id, secret, ok := org.SplitKey(text)
	if !ok {
		return nil, badKey(errors.New("auth: not of the form ck_<id>_<secret>"))
	}
	k, known := a.orgs.Key(id)
	if !k.Proves(secret) || !known {
		return nil, badKey(fmt.Errorf("auth: key %q: known %t, secret wrong", id, known))
	}
	o, err := a.organization(k.Org)
	if err != nil {
		return nil, badKey(fmt.Errorf("auth: key %q: %w", id, err))
	}
	return &carillon.Principal{Org: o.ID, Role: carillon.RoleAdmin, KeyID: k.ID}, nil
}

func badKey(err error) error {
	return &carillon.Error{Code: carillon.CodeUnauthenticated, Message: "the API key is not valid", Err: err}
}
