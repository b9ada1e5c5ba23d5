// Package listen makes connections of which the peer is known: it reads what
// proxies say in front of a client's bytes, ends TLS, and takes sockets over
// from a service manager.
//
// A [Listener] gives out a connection when its PROXY header and its TLS handshake
// are read, within a deadline, so nobody who is slow there delays another.
// [Proxies] says who is believed about a client's address: nobody who is not
// listed. [Files] and [ACME] are where certificates come from. [Inherit] and
// [Manager] are the two halves of what systemd and its like offer.
//
// What is asked on a connection is decided behind this package.
package listen
