// Package testkit has parts that the tests of several packages share.
package testkit
