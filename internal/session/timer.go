package session

import "github.com/carillon-rt/carillon/internal/hub"

// Timer is a deadline of a transport's connection, in the wheel of its session's
// shard: see [hub.Shard.SetTimer].
type Timer = hub.Timer
