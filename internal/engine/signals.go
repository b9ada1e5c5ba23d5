package engine

import "github.com/carillon-rt/carillon"

// Signals carry one organization's ephemeral events from whoever publishes them
// to whoever listens now, in this process or another: at most once, past the log,
// also while that cannot be written.
type Signals interface {
	// Publish hands the events on, in order. It never blocks and waits for nobody
	// who listens. done is called exactly once, possibly before Publish returns,
	// and must not block. With a nil error all were handed on. Errors are
	// *carillon.Error: too_large, and then none was, or unavailable. The events are
	// not changed afterwards.
	Publish(events []*carillon.Event, done func(error))

	// Listen calls f for each event that is handed on from now on, and perhaps for
	// some that are on their way, in the order of their publisher, until stop is
	// called; one call may be going on then. It does not block. f runs on one
	// goroutine for all organizations and must not block: of what comes meanwhile,
	// more than the engine's buffer has room for is dropped, and Stats counts it.
	// The entry is f's to keep.
	Listen(f func(*carillon.Entry)) (stop func())
}

// DefaultSignalBuffer is how many ephemeral events wait for those who listen in
// this process.
const DefaultSignalBuffer = 8192
