// Package bench loads a Carillon server and checks every message it sends.
//
// A [Scenario] says what to do, a [Config] says to whom: by default to a server
// that [Run] starts itself as a child process, on its own CPUs and with its own
// empty store, and stops again. The answer is a [Report].
//
// # What it promises
//
// Rates are open loop where a scenario has a rate: latency counts from the time
// at which an event should have been sent, so a server that stalls pays for what
// waited meanwhile. Every event received is checked for loss, duplication, order
// and misrouting; a run with any of them fails. Cost is the server's, read from
// /proc, beside a bare write(2) loop measured by the same client in the same run.
//
// # How it stays cheap
//
// One goroutine per client CPU owns all its sockets through epoll: subscribers
// are a record and a shared read buffer, whether they read WebSocket frames, an
// SSE stream or answers to polls; publishers are raw HTTP/1.1 on the same loop, and
// the clock of the open loop is a timerfd in the same epoll set. So the client
// needs Linux; elsewhere Run says so.
package bench
