package session

import "github.com/carillon-rt/carillon/internal/hub"

// Member is a connection's place on a shard, for one that has no session: see
// [hub.Member].
type Member = hub.Member

// Join makes m a member of a shard, which calls t when it is due.
func (c *Core) Join(m *Member, t hub.Turner) { c.Hub.Shard().Join(m, "", t) }
