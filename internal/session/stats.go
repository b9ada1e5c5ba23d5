package session

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/internal/limit"
	"github.com/carillon-rt/carillon/internal/wire"
)

// counters are shared by all sessions of a node.
type counters struct {
	opened, sent, ephemeral, received, bad, paused, gaps, dead, polls, attached atomic.Uint64
	limits                                                                      limit.Hits
	latency                                                                     latency
	inflated                                                                    inflated

	mu     sync.Mutex // guards closes
	closes map[wire.CloseCode]uint64
}

// The limits that sessions, polls and their doors count, as the config calls
// them.
const (
	limitConnections     = "connections"
	limitNode            = "connections_per_node"
	limitUser            = "connections_per_user"
	limitAddress         = "connections_per_address"
	limitSubscriptions   = "subscriptions_per_connection"
	limitPublishesFlying = "publishes_in_flight_per_connection"
	limitOutboxBytes     = "outbox_bytes"
	limitBadFrames       = "bad_frames_per_minute"
	limitPollSessions    = "poll_sessions"
	limitHistoryBytes    = "history_bytes"
	limitHistoryPage     = "history_page"
	limitRequestBytes    = "request_bytes"
	limitFrameBytes      = "frame_bytes"
	limitMessageTimeout  = "message_timeout"
	limitControlFrames   = "control_frames_per_minute"
	limitInflating       = "inflating"
	limitBatchEvents     = "batch_events"
)

func newLimits() limit.Hits {
	return limit.Of(limitConnections, limitNode, limitUser, limitAddress, limitSubscriptions, limitPublishesFlying, limitOutboxBytes, limitBadFrames,
		limitPollSessions, limitHistoryBytes, limitHistoryPage, limitRequestBytes, limitFrameBytes, limitMessageTimeout, limitControlFrames, limitInflating, limitBatchEvents)
}

// closed counts an ending by its code; codes that are not the server's own are
// one, so that clients cannot make up labels.
func (c *counters) closed(code wire.CloseCode) {
	if !code.Ours() {
		code = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closes == nil {
		c.closes = map[wire.CloseCode]uint64{}
	}
	c.closes[code]++
}

// LatencyBounds are the upper bounds of the latency histogram's buckets.
var latencyBounds = [...]time.Duration{
	250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 10 * time.Second,
}

// latency is a histogram of accepted → handed to the socket, sampled once per
// write by its oldest event.
type latency struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64
	sum     atomic.Int64
}

func (l *latency) observe(d time.Duration) {
	i := 0
	for i < len(latencyBounds) && d > latencyBounds[i] {
		i++
	}
	l.buckets[i].Add(1)
	l.sum.Add(int64(max(d, 0)))
}

// Stats are the counters of a node's sessions.
type Stats struct {
	Active                                                 int
	Opened, Sent, Received, Bad, Paused, Gaps, Dead, Polls uint64
	Ephemeral                                              uint64            // of those sent
	Attached                                               uint64            // polls that went on with the feed of the one before
	Lingering                                              int               // feeds that wait for a poll
	Limits                                                 map[string]uint64 // times each was met, by its name in the config
	Closes                                                 map[wire.CloseCode]uint64
	LatencyBounds                                          []time.Duration
	LatencyBuckets                                         []uint64 // one more than bounds; not cumulative
	LatencySum                                             time.Duration

	Deflated Compression // events
	Plain    uint64      // events that compression did not make smaller
	Inflated Compression // messages of clients
	Bombs    uint64      // that became too large
	Corrupt  uint64      // that could not be inflated
}

// Compression counts what was compressed, and its bytes as they are and as they
// are sent.
type Compression struct{ Count, Bytes, Sent uint64 }

// Stats reads the counters.
func (c *Core) Stats() Stats {
	s := &c.stats
	st := Stats{
		Active: c.Count(), Opened: s.opened.Load(), Sent: s.sent.Load(), Ephemeral: s.ephemeral.Load(), Received: s.received.Load(), Bad: s.bad.Load(),
		Paused: s.paused.Load(), Gaps: s.gaps.Load(), Dead: s.dead.Load(), Polls: s.polls.Load(), Attached: s.attached.Load(), Lingering: int(c.lingering.held.Load()), Limits: s.limits.Load(),
		Closes: map[wire.CloseCode]uint64{}, LatencyBounds: latencyBounds[:], LatencySum: time.Duration(s.latency.sum.Load()),
	}
	for i := range s.latency.buckets {
		st.LatencyBuckets = append(st.LatencyBuckets, s.latency.buckets[i].Load())
	}
	if z := c.deflaters; z != nil {
		st.Deflated, st.Plain = Compression{z.frames.Load(), z.before.Load(), z.after.Load()}, z.plain.Load()
	}
	in := &s.inflated
	st.Inflated = Compression{in.messages.Load(), in.bytes.Load(), in.sent.Load()}
	st.Bombs, st.Corrupt = in.bombs.Load(), in.corrupt.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(st.Closes, s.closes)
	return st
}
