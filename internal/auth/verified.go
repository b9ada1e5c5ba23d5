package auth

import (
	"crypto/sha256"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
)

// verified remembers the principals of good tokens, so that a client that comes
// again costs no signature. A token is named by its SHA-256: who can make another
// one with the same need not forge anything.
//
// What is remembered counts only as long as verifying the token would give the same
// principal again. Everything that can change meanwhile is looked at each time: the
// time, the key, the organization. So there is nothing that would have to be told of
// a change. A refused token is not remembered: it would take the place of a good one,
// and whoever makes up tokens makes up new ones.
type verified struct {
	most  int    // of a part; 0: nothing is remembered
	met   func() // most
	hits  atomic.Uint64
	parts []verifiedPart // of a length that divides 256
}

// verifiedPart is those whose sums begin alike.
type verifiedPart struct {
	mu     sync.Mutex // guards what follows
	tokens map[tokenSum]proof
}

const (
	verifiedParts = 16
	minPart       = 64 // tokens; with fewer there is one part
)

type tokenSum [sha256.Size]byte

// proof is what verifying a token came to.
type proof struct {
	principal *carillon.Principal // shared by all who come with the token
	key       *tokenKey           // that it is signed with
	set       *keySet             // in which that is; nil: it was configured
	kid       string              // by which the token names it there
	life      life
}

// life is when a principal is what it is: from the first until before the second, in
// nanoseconds since 1970.
type life struct{ from, until int64 }

func always() life { return life{math.MinInt64, math.MaxInt64} }

func (l life) has(now time.Time) bool { return l.from <= now.UnixNano() && now.UnixNano() < l.until }

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
func (p *proof) stands() bool {
	if p.set == nil {
		return true
	}
	k, err := p.set.find(keyName{p.key.alg, p.kid})
	return err == nil && k == p.key
}

func newVerified(most int, met func()) *verified {
	v := &verified{most: max(most, 0), met: met, parts: make([]verifiedPart, 1)}
	if most >= verifiedParts*minPart {
		v.most, v.parts = most/verifiedParts, make([]verifiedPart, verifiedParts)
	}
	return v
}

func (v *verified) part(sum *tokenSum) *verifiedPart { return &v.parts[int(sum[0])%len(v.parts)] }

// find is the principal of a token that is remembered, or nil.
func (a *Authenticator) find(sum *tokenSum) *carillon.Principal {
	part := a.verified.part(sum)
	part.mu.Lock()
	proof, found := part.tokens[*sum]
	part.mu.Unlock()
	if !found {
		return nil
	}
	if !proof.life.has(a.now()) || !proof.stands() {
		part.mu.Lock()
		delete(part.tokens, *sum)
		part.mu.Unlock()
		return nil
	}
	if _, err := a.organization(proof.principal.Org); err != nil {
		return nil
	}
	proof.key.used.Add(1)
	a.verified.hits.Add(1)
	return proof.principal
}

// remember keeps a proof, in the place of any other where there is no room.
func (v *verified) remember(sum *tokenSum, p proof) {
	if v.most == 0 {
		return
	}
	part := v.part(sum)
	part.mu.Lock()
	defer part.mu.Unlock()
	if part.tokens == nil {
		part.tokens = map[tokenSum]proof{}
	}
	if _, there := part.tokens[*sum]; !there && len(part.tokens) >= v.most {
		for some := range part.tokens { // which one is chance
			delete(part.tokens, some)
			break
		}
		v.met()
	}
	part.tokens[*sum] = p
}
