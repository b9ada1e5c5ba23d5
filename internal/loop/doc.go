// Package loop moves bytes between connections' owners and sockets. It knows
// connections and bytes, not what they mean. There are two ways.
//
// A [Loop] owns the sockets of one shard, on Linux, with epoll. The shard's
// goroutine waits in it, reads and writes; a [Link] is one connection there. No
// goroutine belongs to it, and while it is idle no buffer does.
//
// The portable way works for every net.Conn and every system, TLS and HTTP/2
// among them. A [Port] is the sending side of one connection: its owner says that
// there is something, the port takes all of it and writes it, and asks again
// until there is nothing. A [Socket] is a port on a network connection, with the
// one goroutine that reads from it. [Sockets] are all of a node, so that it can
// end them.
//
// # Concurrency
//
// An owner has one goroutine, its shard's: Pull and Ready happen there and
// nowhere else, and so does all that a Loop does. A Port writes elsewhere, and
// only while there is something to write.
package loop
