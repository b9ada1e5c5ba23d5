package server

import (
	"context"
	"net/http"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/admin"
	"github.com/carillon-rt/carillon/internal/telemetry"
	"github.com/carillon-rt/carillon/internal/wire"
)

// closeReasons names the close codes that are errors.
func closeReasons() map[wire.CloseCode]string {
	return map[wire.CloseCode]string{
		wire.CloseProtocol:     "protocol",
		wire.CloseUnsupported:  "unsupported_data",
		wire.CloseInvalidData:  "invalid_utf8",
		wire.CloseTooBig:       "too_large",
		wire.CloseInternal:     "internal",
		wire.CloseBadFrames:    "bad_frames",
		wire.CloseBadToken:     "bad_token",
		wire.CloseForbidden:    "forbidden",
		wire.CloseRateLimited:  "rate_limited",
		wire.CloseSlowConsumer: "slow_consumer",
		wire.CloseOverloaded:   "overloaded",
		wire.CloseNoConnect:    "no_connect",
		wire.CloseTokenExpired: "token_expired",
	}
}

// sample reads every counter of the node. While it starts and stops there is
// less to read.
func (s *Server) sample(ctx context.Context) telemetry.Sample {
	parts, _, _ := s.health.load()
	state, _ := s.health.ready(ctx)
	m := telemetry.Sample{
		Version: s.opt.Version, Durability: s.cfg.Engine.Durability, Ready: state == stateReady,
		Requests: s.routes.sample(), Errors: map[string]uint64{}, Limits: map[string]uint64{},
	}
	if parts == nil {
		return m
	}
	c := parts.core.Stats()
	m.Connections, m.ConnectionsTotal, m.Polls = c.Active, c.Opened, c.Polls
	m.MessagesSent, m.MessagesReceived, m.Gaps, m.ReadingPaused = c.Sent, c.Received, c.Gaps, c.Paused
	m.Latency = telemetry.Histogram{Bounds: c.LatencyBounds, Buckets: c.LatencyBuckets, Sum: c.LatencySum}
	for code, reason := range closeReasons() {
		m.Errors[reason] = c.Closes[code]
	}
	m.Errors["bad_frame"], m.Errors["dead"] = c.Bad, c.Dead

	h := parts.hub.Stats(ctx)
	m.RingBytes, m.RingEntries, m.Feeds, m.Realms = h.RingBytes, h.RingEntries, h.Feeds, h.Realms
	m.FellBehind, m.Replayed, m.RingResumes, m.LogLookups = h.FellBehind, h.Replayed, h.RingResumes, h.LogLookups
	m.TailEntries, m.TailReopened, m.TailResets = h.Entries, h.Reopened, h.Resets
	m.ScanPasses, m.ScanEntries, m.ScanStale, m.MailboxOverflows = h.Passes, h.Scanned, h.StalePasses, h.MailboxOverflows

	g := parts.gate.Stats()
	m.Published, m.Duplicates, m.PublishedBytes, m.PublishedLarge, m.PublishFailed = g.Events, g.Duplicates, g.Bytes, g.Large, g.Failed
	m.InFlight, m.InFlightBytes = g.InFlight, g.InFlightBytes
	m.PublishRefused = make(map[string]uint64, len(g.Refused))
	for code, n := range g.Refused {
		m.PublishRefused[string(code)] = n
	}

	e := parts.engine.Stats()
	m.Appends, m.AppendFailures, m.AppendDuplicates = e.Appends, e.Failures, e.Duplicates
	m.Flights, m.BatchFlights, m.QueueDepth, m.ReadEntries = e.Flights, e.BatchFlights, e.QueueDepth, e.ReadEntries
	m.AckCount, m.AckTotal = e.AckCount, time.Duration(e.AckNanosTotal)

	m.Limits["connections"] = c.Full
	m.Limits["mailbox"] = h.MailboxOverflows
	m.Limits["feed_queue"] = h.FellBehind
	m.Limits["frame_bytes"] = c.Closes[wire.CloseTooBig]
	m.Limits["bad_frames_per_minute"] = c.Closes[wire.CloseBadFrames]
	m.Limits["connect_timeout"] = c.Closes[wire.CloseNoConnect]
	m.Limits["subscriptions_per_connection"] = c.Subscriptions
	m.Limits["publishes_in_flight_per_connection"] = c.PublishesFlying
	m.Limits["outbox_bytes"] = c.OutboxBytes
	m.Limits["event_or_batch_size"] = g.Refused[carillon.CodeTooLarge]
	m.Limits["publish_rate"] = g.Refused[carillon.CodeRateLimited]
	m.Limits["publish_in_flight"] = g.Refused[carillon.CodeUnavailable]
	m.Limits["request_bytes"] = s.routes.sum(http.StatusRequestEntityTooLarge)
	return m
}

// status is what the page of the operations port shows.
func (s *Server) status(ctx context.Context) admin.Status {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	state, reason := s.health.ready(ctx)
	parts, public, _ := s.health.load()
	st := admin.Status{Version: s.opt.Version, Ready: state == stateReady, Reason: reason, Public: public, Started: s.started}
	if parts == nil {
		return st
	}
	c, h := parts.core.Stats(), parts.hub.Stats(ctx)
	st.Durability, st.Connections, st.Sent = parts.engine.Caps().Describe, c.Active, c.Sent
	st.Published, st.RingBytes, st.RingEntries = parts.gate.Stats().Events, h.RingBytes, h.RingEntries
	return st
}
