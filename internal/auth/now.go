package auth

import (
	"errors"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/org"
)

// VerifyNow is Verify for those who cannot wait at all: the event loops. Where ok
// is false the credential cannot be judged by what is at hand, a ticket or a token
// whose key has to be fetched: then nothing has had an effect, and Verify is to be
// asked. It does no I/O, and takes no longer than the signatures to be checked.
func (a *Authenticator) VerifyNow(c Credential) (p *carillon.Principal, ok bool, err error) {
	switch {
	case c.Where == InTicket: // only the engine knows whether it was used
		return nil, false, nil
	case c.Where == Nowhere:
		return nil, true, noCredential()
	case c.Where == InHeader && org.IsKey(c.Text):
		p, err = a.VerifyKey(c.Text)
		return p, true, err
	}
	p, err = a.verify(c.Text)
	var unknown *unknownKeyError
	if errors.As(err, &unknown) {
		if !unknown.known(a.now()) {
			return nil, false, nil
		}
		err = notValid(unknown)
	}
	return p, true, a.refused(err)
}

func noCredential() error {
	return carillon.Errorf(carillon.CodeUnauthenticated, "this needs a token: send it as 'Authorization: Bearer <token>'")
}

// known reports whether the issuer is known not to have the key.
func (e *unknownKeyError) known(now time.Time) bool {
	e.set.mu.Lock()
	defer e.set.mu.Unlock()
	until, known := e.set.unknown[e.name]
	return known && now.Before(until)
}
