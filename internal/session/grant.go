package session

import (
	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
)

// Admit checks the patterns that a request wants to begin with, before it is
// answered: it is accepted or refused whole. The error may be shown.
func (c *Core) Admit(p *carillon.Principal, patterns []carillon.Pattern) error {
	if len(patterns) > c.Limits.Subscriptions {
		c.stats.limits.Add(limitSubscriptions)
		return carillon.Errorf(carillon.CodeQuotaExceeded, "a connection has at most %d subscriptions; these are %d", c.Limits.Subscriptions, len(patterns)).Over(limitSubscriptions)
	}
	for _, pattern := range patterns {
		if !match.MaySubscribe(p, pattern) {
			return carillon.Errorf(carillon.CodeForbidden, "the token does not cover the pattern %q", pattern)
		}
	}
	return nil
}
