// Package hub carries entries from the log to the sessions of this node.
//
// One tail per partition appends to a ring of recent entries, matches each
// entry once in its organization's realm, and posts one notice to every shard
// that has a feed there. A shard is one goroutine that owns feeds and their
// sessions: nothing else touches them, so they need no lock. A feed is one
// cursor in one organization's log. It is live (a short queue of places in the
// ring) or behind (no queue: it takes what its socket has room for, from shared
// scans of the log and then from the ring), and it moves between the two
// without losing or repeating an entry. An entry for very many is offered to them in
// parts; others have their turns in between.
//
// While its client is slow, a feed leaves out what the overflow of its
// subscriptions lets it: an entry only for newer ones that it knows to wait.
//
// Ephemeral events go past all this, from the engine's signals to the shards'
// mailboxes. A feed keeps a few aside while it is live, and loses them when it is
// not.
//
// # Memory
//
// Most sessions are idle, and there may be a million of them. What a shard calls is a
// member with a number; members of one organization on a shard share a branch. Lists
// that may be long, those of subscriptions, of timers and of who is due, hold numbers.
// A feed has what only one that is behind or has something to give needs in a piece of
// its own, which it gives back. Tables grow piece by piece, so that no growth moves all
// there is.
//
// # Concurrency
//
// The methods of [Shard], [Member], [Feed] and [Timer] are for the shard's goroutine
// only, except [Shard.Post], [Shard.Walk], [Shard.Join] and [Member.Shard]. The methods
// of [Hub] may be called from anywhere. Entries and deliveries are immutable and
// shared.
//
// # Failure
//
// Nothing is skipped in silence. A feed that cannot go on from where it stands
// gets a gap: expired when the log dropped what it wanted, reset when its
// position is not of this log.
package hub
