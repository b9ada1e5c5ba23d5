package session

import (
	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/wire"
)

func (c *Core) allowed(p *carillon.Principal) error {
	if c.Allowed == nil {
		return nil
	}
	return c.Allowed(p)
}

// Revoke asks Allowed again for everybody of the organization who is here, and
// ends, with the reason, those who may not be any more. Whoever comes meanwhile
// is asked when the conversation begins, so that nobody slips through. Safe from
// anywhere.
func (c *Core) Revoke(org carillon.OrgID) {
	c.each(func(s *Session) { s.revoke(org) })
	c.eachFollower(func(f *follower) { f.revoke(org) })
}

func (s *Session) revoke(org carillon.OrgID) {
	if s.grant == nil || s.Org() != org || s.is(closing|closed) {
		return
	}
	if err := s.core().allowed(s.principal()); err != nil {
		s.send(wire.ErrorFrame(err, nil))
		s.close(wire.CloseForbidden, "not allowed any more")
	}
}
