package carillon

import "time"

// Role says what a principal without explicit permissions may do.
type Role string

// The roles, from least to most.
const (
	RoleMember    Role = "member"    // subscribes to everything, chats
	RolePublisher Role = "publisher" // also publishes
	RoleAdmin     Role = "admin"     // also manages
)

// Permissions decide alone when a token has them: a missing list grants
// nothing. The role still decides management.
type Permissions struct {
	Subscribe []Pattern
	Publish   []Pattern
	Rooms     []string // globs
}

// Principal is who a credential stands for. It is immutable; a refreshed token
// makes a new one.
type Principal struct {
	Org         OrgID
	User        string // "" for an API key: no inbox, no rooms, no from
	Role        Role
	Permissions *Permissions // nil: the role decides
	Expires     time.Time    // zero: never (an API key)
	KeyID       string       // which API key, or ""
}

// Server reports whether the principal is an API key, one of the org's servers.
func (p *Principal) Server() bool { return p.User == "" }

// Admin reports whether the principal may manage the organization.
func (p *Principal) Admin() bool { return p.Server() || p.Role == RoleAdmin }

// Publisher names whose idempotency keys the principal's are: the user's, or
// the org's servers' together. The two never meet.
func (p *Principal) Publisher() string {
	if p.Server() {
		return "k"
	}
	return "u." + p.User
}
