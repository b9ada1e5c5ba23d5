package carillon

import "fmt"

// Position is a place in a partition of the log. A reader standing at a
// position has seen everything up to and including Seq.
//
// Check identifies the entry at Seq (ENGINE: the low 32 bits of a hash of its
// message id), so that a position from before the log lost its tail is not
// mistaken for the entry that took its number. Check is 0 only for a position
// in a partition that held no entry.
//
// Enciphered and printed, a position is the event id (package wire).
type Position struct {
	Partition uint16
	Seq       uint64
	Check     uint32
}

// IsZero reports whether p is before everything in partition 0.
func (p Position) IsZero() bool { return p == Position{} }

// String is for logs of the operator; clients never see it.
func (p Position) String() string { return fmt.Sprintf("%d/%d#%08x", p.Partition, p.Seq, p.Check) }
