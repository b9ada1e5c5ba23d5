package auth

import (
	"sync"

	"github.com/carillon-rt/carillon"
)

// shared are the permissions that many tokens have: those of them that say the same in
// the same words have one. A nil shared has none.
type shared struct {
	mu   sync.Mutex // guards what follows
	seen map[string]*carillon.Permissions
}

// What is shared is bounded: so many claims, each of so many bytes.
const (
	maxShared      = 1024
	maxSharedBytes = 1 << 10
)

// permissions reads the permissions claim.
func (s *shared) permissions(v []byte) (*carillon.Permissions, error) {
	if s == nil || len(v) > maxSharedBytes {
		return parsePermissions(v)
	}
	s.mu.Lock()
	p := s.seen[string(v)]
	s.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p, err := parsePermissions(v)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) >= maxShared {
		for some := range s.seen { // which one is chance
			delete(s.seen, some)
			break
		}
	}
	s.seen[string(v)] = p
	return p, nil
}
