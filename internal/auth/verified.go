package auth

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
)

// verified remembers what good tokens came to, so that a client that comes again
// costs no signature. A token is named by 128 bits of its SHA-256: who can make
// another one with the same for one that is remembered need not forge anything.
//
// What is remembered counts only as long as verifying the token would give the same
// principal again. Everything that can change meanwhile is looked at each time: the
// time, the key, the organization. So there is nothing that would have to be told of
// a change. A refused token is not remembered: it would take the place of a good one,
// and whoever makes up tokens makes up new ones.
type verified struct {
	most    int    // of a shelf; 0: nothing is remembered
	met     func() // most
	hits    atomic.Uint64
	kinds   kinds
	shelves []shelf // of a length that is a power of two
}

// mostOfShelf is how many tokens share a lock and a table, which is small so that
// its growth stops nobody for long.
const mostOfShelf = 4096

// proof is what verifying a token came to.
type proof struct {
	principal *carillon.Principal
	signer
	life life
}

// signer is who has signed a token.
type signer struct {
	key *tokenKey
	set *keySet // in which that is; nil: it was configured
	kid string  // by which the token names it there
}

// life is when a principal is what it is: from the first until before the second, in
// nanoseconds since 1970.
type life struct{ from, until int64 }

func always() life { return life{math.MinInt64, math.MaxInt64} }

// after and before are what is left of a life.
func (l life) after(t time.Time) life  { return life{max(l.from, nanos(t)), l.until} }
func (l life) before(t time.Time) life { return life{l.from, min(l.until, nanos(t))} }

// nanos is UnixNano, for times too late for that the last it has.
func nanos(t time.Time) int64 {
	if t.Unix() > math.MaxInt64/int64(time.Second)-1 {
		return math.MaxInt64
	}
	return t.UnixNano()
}

// stands reports whether the token would still be verified by the same key.
func (s *signer) stands() bool {
	if s.set == nil {
		return true
	}
	k, err := s.set.find(keyName{s.key.alg, s.kid})
	return err == nil && k == s.key
}

func newVerified(most int, met func()) *verified {
	v := &verified{most: max(most, 0), met: met}
	n := 1
	for v.most/n > mostOfShelf {
		n *= 2
	}
	v.most, v.shelves = v.most/n, make([]shelf, n)
	return v
}

func (v *verified) shelf(sum *tokenSum) *shelf { return &v.shelves[int(sum[1]%uint64(len(v.shelves)))] }

// find is the principal of a token that is remembered, or nil.
func (a *Authenticator) find(sum *tokenSum) *carillon.Principal {
	now := a.now().UnixNano()
	shelf := a.verified.shelf(sum)
	shelf.mu.Lock()
	if now < shelf.from { // the clock was set back, to before some of their lives
		shelf.forget()
	}
	m, found := shelf.get(sum)
	shelf.mu.Unlock()
	if !found {
		return nil
	}
	if now >= m.until || !m.kind.stands() {
		shelf.mu.Lock()
		shelf.remove(sum)
		shelf.mu.Unlock()
		return nil
	}
	if _, err := a.organization(m.kind.org); err != nil {
		return nil
	}
	m.kind.key.used.Add(1)
	a.verified.hits.Add(1)
	return m.principal()
}

// remember keeps a proof, in the place of any other where there is no room.
func (v *verified) remember(sum *tokenSum, p *proof) {
	if v.most == 0 || p.life.until == math.MaxInt64 { // of which it does not say when it ends
		return
	}
	m := memory{sum: *sum, user: p.principal.User, until: p.life.until, kind: v.kinds.of(p)}
	shelf := v.shelf(sum)
	shelf.mu.Lock()
	shelf.from = max(shelf.from, p.life.from)
	full := shelf.put(&m, v.most)
	shelf.mu.Unlock()
	if full {
		v.met()
	}
}
