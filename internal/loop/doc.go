// Package loop moves bytes out of connections' owners into sockets. It knows
// connections and bytes, not what they mean.
//
// A [Port] is the sending side of one connection: its owner says that there is
// something, the port takes all of it and writes it, and asks again until there
// is nothing. A [Socket] is a port on a network connection, with the one
// goroutine that reads from it. [Sockets] are all of a node, so that it can end
// them.
//
// This is the portable part: it works for every net.Conn and every system.
//
// # Concurrency
//
// An owner has one goroutine (its shard's); Pull and Ready happen there and
// nowhere else. Writing happens elsewhere, and only while there is something to
// write: an idle connection costs its reader's goroutine and nothing more.
package loop
