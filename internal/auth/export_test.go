package auth

import (
	"fmt"
	"slices"
)

// ParseSet names the keys that a JWK Set has for us, as "alg kid" and, for those
// that a token without kid may mean, "alg".
func ParseSet(text []byte, most int, allowed ...Algorithm) ([]string, error) {
	keys, err := parseSet(text, most, allowed)
	var names []string
	for name, k := range keys {
		switch {
		case k == nil:
			names = append(names, fmt.Sprintf("%s several", name.alg))
		case name.kid == "":
			names = append(names, string(name.alg))
		default:
			names = append(names, fmt.Sprintf("%s %s", name.alg, name.kid))
		}
	}
	slices.Sort(names)
	return names, err
}

// Late asks for a key as a token does that looked for it before it came.
func (a *Authenticator) Late(iss string, alg Algorithm, kid string, f func()) error {
	return (&unknownKeyError{a.issuers[iss].set, keyName{alg, kid}}).fetch(f)
}

// Retained is how many names and tokens an Authenticator holds on to, and how
// many used tickets it counts.
func (a *Authenticator) Retained() (unknown, waiting, tickets int) {
	for _, iss := range a.issuers {
		if s := iss.set; s != nil {
			s.mu.Lock()
			unknown += len(s.unknown)
			waiting += len(s.waiting)
			s.mu.Unlock()
		}
	}
	if t := a.tickets; t != nil {
		t.mu.Lock()
		tickets = t.used + t.old
		t.mu.Unlock()
	}
	return unknown, waiting, tickets
}

// Busy reports whether an issuer's keys are being fetched, or are about to be.
func (a *Authenticator) Busy(iss string) bool {
	s := a.issuers[iss].set
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted
}

// Remembered is how many tokens are.
func (a *Authenticator) Remembered() (n int) {
	for i := range a.verified.shelves {
		shelf := &a.verified.shelves[i]
		shelf.mu.Lock()
		n += shelf.n
		shelf.mu.Unlock()
	}
	return n
}

// Shared is how many permissions are.
func (a *Authenticator) Shared() int {
	a.shared.mu.Lock()
	defer a.shared.mu.Unlock()
	return len(a.shared.seen)
}
