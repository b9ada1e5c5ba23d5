package session

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"

	"github.com/carillon-rt/carillon"
)

// grant is what principals may do, apart from who they are: many have the same.
type grant struct {
	role        carillon.Role
	permissions *carillon.Permissions
	keyID       string

	key  grantKey
	refs int // guarded by grants.mu
}

// grantKey is a digest of what a grant says.
type grantKey [sha256.Size]byte

// grants are those of the sessions that are here, each once.
type grants struct {
	mu    sync.Mutex // guards what follows
	byKey map[grantKey]*grant
	plain map[carillon.Role]*grant // of a role and nothing else; they stay
}

func (g *grants) init() {
	g.byKey, g.plain = map[grantKey]*grant{}, map[carillon.Role]*grant{}
}

// hold finds the grant of a principal; it is given back with drop.
func (g *grants) hold(p *carillon.Principal) *grant {
	if p.Permissions == nil && p.KeyID == "" {
		g.mu.Lock()
		defer g.mu.Unlock()
		if have := g.plain[p.Role]; have != nil {
			return have
		}
		switch p.Role {
		case carillon.RoleMember, carillon.RolePublisher, carillon.RoleAdmin:
			have := &grant{role: p.Role}
			g.plain[p.Role] = have
			return have
		}
		return &grant{role: p.Role}
	}
	key := keyOf(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	have := g.byKey[key]
	if have == nil {
		have = &grant{role: p.Role, permissions: p.Permissions, keyID: p.KeyID, key: key}
		g.byKey[key] = have
	}
	have.refs++
	return have
}

func (g *grants) drop(have *grant) {
	if have == nil || have.permissions == nil && have.keyID == "" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if have.refs--; have.refs == 0 {
		delete(g.byKey, have.key)
	}
}

func keyOf(p *carillon.Principal) (key grantKey) {
	h := sha256.New()
	text(h, string(p.Role))
	text(h, p.KeyID)
	if g := p.Permissions; g != nil {
		_, _ = h.Write([]byte{1}) // a hash takes everything, here and below
		texts(h, g.Subscribe)
		texts(h, g.Publish)
		texts(h, g.Rooms)
	}
	h.Sum(key[:0])
	return key
}

func texts[T ~string](h hash.Hash, list []T) {
	_, _ = h.Write(binary.AppendUvarint(nil, uint64(len(list))))
	for _, s := range list {
		text(h, string(s))
	}
}

// text writes its length too, so that no two lists look the same.
func text(h hash.Hash, s string) {
	_, _ = h.Write(append(binary.AppendUvarint(nil, uint64(len(s))), s...))
}

// known says who the session is for.
func (s *Session) known(p *carillon.Principal) {
	before := s.grant
	s.grant = s.core().grants.hold(p)
	s.core().grants.drop(before)
	s.setExpiry(p)
}

// principal is whom the session is for, as said by known; nil: nobody has said it.
func (s *Session) principal() *carillon.Principal {
	if s.grant == nil {
		return nil
	}
	if a := s.active; a != nil && a.principal != nil {
		return a.principal
	}
	p := &carillon.Principal{Org: s.Org(), User: s.feed.User(), Role: s.grant.role, Permissions: s.grant.permissions, KeyID: s.grant.keyID}
	if s.expires != 0 {
		p.Expires = s.ends()
	}
	return p
}
