package gate

import (
	"sync/atomic"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/limit"
)

// largeEvent is from when on an event is counted as large, in bytes of data.
const largeEvent = 1000

// Stats are counters since the start, and what is in flight now.
type Stats struct {
	Events     uint64 // stored
	Duplicates uint64 // known already, not stored again
	Bytes      uint64 // of the data of stored events
	Large      uint64 // stored events of more than 1,000 bytes of data
	Ephemeral  uint64 // handed on, not stored
	Failed     uint64 // events that the log refused, or that could not be handed on
	// Refused counts batches by the code they were refused with.
	Refused map[carillon.Code]uint64
	// Limits counts those that met a limit of the config, by its name.
	Limits map[string]uint64

	InFlight      int64 // events that wait for the log now, or to be handed on
	InFlightBytes int64
}

// Stats reads the counters; they are not read at one moment.
func (g *Gate) Stats() Stats {
	c := &g.count
	s := Stats{
		Events:        c.events.Load(),
		Duplicates:    c.duplicates.Load(),
		Bytes:         c.bytes.Load(),
		Large:         c.large.Load(),
		Ephemeral:     c.ephemeral.Load(),
		Failed:        c.failed.Load(),
		InFlight:      c.inFlight.Load(),
		InFlightBytes: c.inFlightBytes.Load(),
		Refused:       make(map[carillon.Code]uint64, len(refusals)),
		Limits:        c.limits.Load(),
	}
	for i, code := range refusals {
		s.Refused[code] = c.refused[i].Load()
	}
	return s
}

// refusals are the codes with which the gate refuses.
var refusals = [...]carillon.Code{
	carillon.CodeBadRequest, carillon.CodeForbidden, carillon.CodeNotFound,
	carillon.CodeTooLarge, carillon.CodeRateLimited, carillon.CodeUnavailable,
}

type counters struct {
	events, duplicates, bytes, large, ephemeral, failed atomic.Uint64
	refused                                             [len(refusals)]atomic.Uint64
	limits                                              limit.Hits
	inFlight, inFlightBytes                             atomic.Int64
}

// newLimits are those that the gate refuses by.
func newLimits() limit.Hits {
	return limit.Of("event_bytes", "request_bytes", "batch_events", "users_per_event",
		"publish_per_second", "publish_burst", "publish_bytes_per_second", inFlight, inFlightBytes)
}

const (
	inFlight      = "publish_in_flight"
	inFlightBytes = "publish_in_flight_bytes"
)

func (c *counters) refuse(err *carillon.Error) {
	c.limits.Add(err.Limit)
	for i := range refusals {
		if refusals[i] == err.Code {
			c.refused[i].Add(1)
		}
	}
}

// enter counts events in, or returns the limit that they would be over. Alone
// they may be.
func (c *counters) enter(n, bytes, maxN, maxBytes int64) (over string) {
	all, allBytes := c.inFlight.Add(n), c.inFlightBytes.Add(bytes)
	switch {
	case all == n || all <= maxN && allBytes <= maxBytes:
		return ""
	case all > maxN:
		over = inFlight
	default:
		over = inFlightBytes
	}
	c.leave(n, bytes)
	return over
}

func (c *counters) leave(n, bytes int64) {
	c.inFlight.Add(-n)
	c.inFlightBytes.Add(-bytes)
}

func (c *counters) store(receipts []carillon.Receipt, batch []engine.Append) {
	var duplicates, bytes, large uint64
	for i := range receipts {
		if receipts[i].Duplicate {
			duplicates++
			continue
		}
		n := len(batch[i].Event.Data)
		bytes += uint64(n)
		if n > largeEvent {
			large++
		}
	}
	c.events.Add(uint64(len(receipts)) - duplicates)
	c.duplicates.Add(duplicates)
	c.bytes.Add(bytes)
	c.large.Add(large)
}
