// Package front reads requests on the event loops: those that a door answers
// without a goroutine, a WebSocket handshake, a stream's, a poll's and a publish. It accepts
// the connections of a port, reads the head of the first request, and hands it to
// the door of its path, as net/http would.
//
// It understands a strict subset of HTTP/1.1 only: one whole GET without a body, or
// POST with a short one, of a path it knows, as browsers and libraries write it (see
// [request.parse]). Any
// other connection goes to net/http with every byte that was read of it: a Front
// is the net.Listener of an http.Server. So do the requests that a door cannot
// answer without waiting (see [Exchange.Pass]). Both ways run the same doors.
//
// # Concurrency
//
// A connection belongs to one shard, which may not be the one that accepted it.
// What a door does with an [Exchange] happens on that shard's goroutine.
package front
