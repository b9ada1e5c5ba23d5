// Package transporttest holds all doors to the same behaviour: it runs a node in
// memory behind a real server on the loopback, in the clear and over TLS, and
// clients of every transport that look alike.
package transporttest
