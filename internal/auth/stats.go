package auth

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/carillon-rt/carillon"
)

// refusalsPerSecond is how many refusals a second the log gets.
const refusalsPerSecond = 10

// refusals counts what was refused, and keeps those who try many credentials
// from filling the log.
type refusals struct {
	limit    *rate.Limiter
	all      atomic.Uint64
	unlogged atomic.Uint64 // since the last that was
}

// refused notes why a credential was refused, and returns err as it is.
func (a *Authenticator) refused(err error) error {
	if err == nil {
		return nil
	}
	r := &a.refusals
	r.all.Add(1)
	if !r.limit.AllowN(a.now(), 1) {
		r.unlogged.Add(1)
		return err
	}
	e := carillon.AsError(err)
	reason := e.Message
	if e.Err != nil {
		reason = e.Err.Error()
	}
	a.log.Info("auth: a credential was refused", "code", e.Code, "reason", reason, "not_logged", r.unlogged.Swap(0))
	return err
}

// Stats are counters since the start.
type Stats struct {
	Refused uint64 // credentials
	Known   uint64 // tokens that were verified before
	Keys    []KeyStats
	Sets    []SetStats
}

// KeyStats is how often a key of an issuer was used. There is one for every key
// that counts now: what was used and is not any more can be removed.
type KeyStats struct {
	Issuer string
	Key    string // "secret 1", in the order of the configuration, or a thumbprint (RFC 7638)
	Tokens uint64 // that it verified
}

// SetStats is what is known of an issuer's published keys.
type SetStats struct {
	Issuer            string
	Keys              int           // now
	Age               time.Duration // since they were fetched; 0: never
	Fetches, Failures uint64
}

// Limits counts how often a limit of the config was met, by its name.
func (a *Authenticator) Limits() map[string]uint64 { return a.hits.Load() }

// Stats reads the counters.
func (a *Authenticator) Stats() Stats {
	s := Stats{Refused: a.refusals.all.Load(), Known: a.verified.hits.Load()}
	for _, iss := range a.issuers {
		keys := iss.keys
		if set := iss.set; set != nil {
			at := SetStats{Issuer: iss.name, Fetches: set.fetches.Load(), Failures: set.failures.Load()}
			if f := set.keys.Load(); f != nil {
				at.Keys, at.Age = len(f.all), a.now().Sub(f.at)
				keys = slices.Concat(keys, f.all)
			}
			s.Sets = append(s.Sets, at)
		}
		for _, k := range keys {
			i := slices.IndexFunc(s.Keys, func(o KeyStats) bool { return o.Issuer == iss.name && o.Key == k.label })
			if i < 0 { // one may be configured and published, too
				i, s.Keys = len(s.Keys), append(s.Keys, KeyStats{Issuer: iss.name, Key: k.label})
			}
			s.Keys[i].Tokens += k.used.Load()
		}
	}
	slices.SortFunc(s.Keys, func(a, b KeyStats) int { return cmp.Or(cmp.Compare(a.Issuer, b.Issuer), cmp.Compare(a.Key, b.Key)) })
	slices.SortFunc(s.Sets, func(a, b SetStats) int { return cmp.Compare(a.Issuer, b.Issuer) })
	return s
}
