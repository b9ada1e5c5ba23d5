package auth

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
)

// tokenSum is the first 128 bits of a token's SHA-256.
type tokenSum [2]uint64

func sumOf(token string) tokenSum {
	sum := sha256.Sum256([]byte(token))
	return tokenSum{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
}

// memory is what is remembered of a token. There may be a million of them: what many
// have in common is in kind.
type memory struct {
	sum   tokenSum
	user  string
	until int64 // the end of its life, when the principal expires, too; when that began its shelf knows
	kind  *kind
}

// principal is the token's, as verifying it has made it.
func (m *memory) principal() *carillon.Principal {
	return &carillon.Principal{
		Org: m.kind.org, User: m.user, Role: m.kind.role, Permissions: m.kind.permissions, Expires: time.Unix(0, m.until),
	}
}

// kind is what the tokens of many users have in common: whose they are, what they
// allow, and who has signed them.
type kind struct {
	org         carillon.OrgID
	role        carillon.Role
	permissions *carillon.Permissions
	signer
}

// kinds finds those that are in use, within a limit; when it is reached it forgets
// all, which costs less than choosing. Those that are in use stay with those that use
// them. The zero value is empty.
type kinds struct {
	mu   sync.Mutex // guards what follows
	seen map[kind]*kind
}

const maxKinds = 1024

// of is the kind of a proof.
func (k *kinds) of(p *proof) *kind {
	one := kind{p.principal.Org, p.principal.Role, p.principal.Permissions, p.signer}
	k.mu.Lock()
	defer k.mu.Unlock()
	if have := k.seen[one]; have != nil {
		return have
	}
	switch {
	case k.seen == nil:
		k.seen = map[kind]*kind{}
	case len(k.seen) >= maxKinds:
		clear(k.seen)
	}
	k.seen[one] = &one
	return &one
}
