// Package match says which patterns accept an event type, and which patterns
// contain which.
//
// [Match] and [Contains] compare two texts. A [Tree] holds the patterns of one
// organization, each with a value, and finds the values of all that match a
// type. Everything here is pure: no I/O, no goroutines, no locks, no clock.
//
// # The rules
//
// '*' stands for exactly one segment and a last '>' for one or more. A wildcard
// as first segment, either kind, does not match a type whose first segment is
// presence or carillon: those are asked for by name.
//
// Patterns and types are taken as [carillon.ParsePattern] and
// [carillon.ParseType] return them and are not checked again. Others do not
// panic, but what they match is not defined.
//
// # Costs
//
// The shape of a pattern is its wildcards and where they stand: orders.*.paid
// and users.*.left have one shape. For one type there is at most one pattern of
// each shape that can match it, so a Tree hashes that pattern and looks it up:
// one probe per shape, however many patterns there are, and one more for all
// patterns without wildcards together. The number of shapes in a Tree is
// limited, and so no set of patterns makes a match cost more than that many
// probes.
package match
