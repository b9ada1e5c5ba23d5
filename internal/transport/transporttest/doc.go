// Package transporttest holds all doors to the same behaviour: it runs a node in
// memory behind a real server on the loopback, and clients of every transport
// that look alike.
package transporttest
