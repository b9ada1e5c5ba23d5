package session

import (
	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
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
	c.dir.mu.Lock()
	sessions := make([]*Session, 0, len(c.dir.sessions))
	for _, s := range c.dir.sessions {
		sessions = append(sessions, s)
	}
	polls := make([]*Poll, 0, len(c.dir.polls))
	for p := range c.dir.polls {
		if p.opt.Principal.Org == org {
			polls = append(polls, p)
		}
	}
	c.dir.mu.Unlock()
	for _, s := range sessions {
		s.Post(func() { s.revoke(org) })
	}
	for _, p := range polls {
		p.Shard().Post(hub.TaskFunc(func() {
			if err := c.allowed(p.opt.Principal); err != nil && !p.done {
				p.fail(err)
			}
		}))
	}
}

func (s *Session) revoke(org carillon.OrgID) {
	if s.principal == nil || s.principal.Org != org {
		return
	}
	if err := s.core.allowed(s.principal); err != nil && !s.closing && !s.closed {
		s.send(wire.ErrorFrame(err, nil))
		s.close(wire.CloseForbidden, "not allowed any more")
	}
}
