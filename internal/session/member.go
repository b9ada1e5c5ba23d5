package session

import (
	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Member is a connection's place on a shard, for one that has no session: see
// [hub.Member].
type Member = hub.Member

// Join makes m a member of a shard, which calls its owner.
func (c *Core) Join(m *Member, owner hub.Owner) { c.Hub.Shard().Join(m, owner) }

// tenant is what the members of an organization on a shard share, as their tag, and
// those that have no organization yet.
type tenant struct {
	core *Core
	ids  *wire.IDs // nil: of those
}

// enter moves a member to its organization, and returns the ids of that.
func (c *Core) enter(m *Member, org carillon.OrgID) *wire.IDs {
	m.Enter(org)
	t, ok := m.Tag().(*tenant)
	if !ok { // it is the first
		t = &tenant{core: c, ids: c.IDs.Org(org)}
		m.SetTag(t)
	}
	return t.ids
}
