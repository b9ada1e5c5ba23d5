package loop

import "time"

// Bounds of a loop's turn.
const (
	turnEvents = 128                    // sockets served before other work gets its turn
	turnTime   = 500 * time.Microsecond // the same, in time
	readBytes  = 64 << 10               // read from one socket in a turn
	maxIOV     = 1024                   // buffers in one writev (IOV_MAX)
	forever    = time.Duration(-1)
	sendLowat  = 32 << 10 // unsent bytes from which on a socket counts as full
)

// Stats counts connections.
type Stats struct {
	Open int
	Full int   // those whose socket takes no more now
	Kept int64 // bytes that it did not take
}

// Add makes s count what other counts too.
func (s *Stats) Add(other Stats) {
	s.Open += other.Open
	s.Full += other.Full
	s.Kept += other.Kept
}
