package server

import (
	"context"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/admin"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/telemetry"
	"github.com/carillon-rt/carillon/internal/wire"
)

// closeReasons names the close codes that are errors.
func closeReasons() map[wire.CloseCode]string {
	return map[wire.CloseCode]string{
		wire.CloseProtocol:     "protocol",
		wire.CloseUnsupported:  "unsupported_data",
		wire.CloseInvalidData:  "invalid_data",
		wire.ClosePolicy:       "too_slow",
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
		Version: s.opt.Version, Durability: durability(s.cfg), Ready: state == stateReady,
		Requests: s.routes.sample(), Errors: map[string]uint64{}, Limits: map[string]uint64{},
	}
	if parts == nil {
		return m
	}
	c := parts.core.Stats()
	m.Connections, m.ConnectionsTotal, m.Polls = c.Active, c.Opened, c.Polls
	m.PollsAttached, m.PollsLingering = c.Attached, c.Lingering
	m.MessagesSent, m.MessagesReceived, m.Gaps, m.ReadingPaused = c.Sent, c.Received, c.Gaps, c.Paused
	sockets := s.connections()
	m.SocketsFull, m.SocketsKept = sockets.Full, sockets.Kept
	m.Deflated, m.Inflated = telemetry.Compression(c.Deflated), telemetry.Compression(c.Inflated)
	m.NotSmaller, m.InflateRefused = c.Plain, map[string]uint64{"too_large": c.Bombs, "not_deflate": c.Corrupt}
	m.Latency = telemetry.Histogram{Bounds: c.LatencyBounds, Buckets: c.LatencyBuckets, Sum: c.LatencySum}
	for code, reason := range closeReasons() {
		m.Errors[reason] = c.Closes[code]
	}
	m.Errors["bad_frame"], m.Errors["dead"] = c.Bad, c.Dead

	h := parts.hub.Stats(ctx)
	m.RingBytes, m.RingEntries, m.Feeds, m.Realms = h.RingBytes, h.RingEntries, h.Feeds, h.Realms
	m.FellBehind, m.Replayed, m.RingResumes, m.LogLookups = h.FellBehind, h.Replayed, h.RingResumes, h.LogLookups
	m.LeftOut = map[string]uint64{carillon.OverflowConflate.String(): h.Conflated, carillon.OverflowDropOldest.String(): h.DroppedOldest}
	m.TailEntries, m.TailReopened, m.TailResets = h.Entries, h.Reopened, h.Resets
	m.ScanPasses, m.ScanEntries, m.ScanStale, m.MailboxOverflows = h.Passes, h.Scanned, h.StalePasses, h.MailboxOverflows

	m.EphemeralDelivered = c.Ephemeral
	m.EphemeralDropped = map[string]uint64{
		"mailbox": h.EphemeralUnposted, "behind": h.EphemeralBehind, "superseded": h.EphemeralSuperseded, "queue": h.EphemeralFull,
	}

	g := parts.gate.Stats()
	m.Published, m.Duplicates, m.PublishedBytes, m.PublishedLarge, m.PublishFailed = g.Events, g.Duplicates, g.Bytes, g.Large, g.Failed
	m.InFlight, m.InFlightBytes = g.InFlight, g.InFlightBytes
	m.PublishRefused = make(map[string]uint64, len(g.Refused))
	for code, n := range g.Refused {
		m.PublishRefused[string(code)] = n
	}

	m.EphemeralPublished = g.Ephemeral

	e := parts.engine.Stats()
	m.EphemeralHeard, m.EphemeralDropped["buffer"] = e.SignalsHeard, e.SignalsDropped
	m.Appends, m.AppendFailures, m.AppendDuplicates = e.Appends, e.Failures, e.Duplicates
	m.TailCatchUps = e.TailCatchUps
	m.Flights, m.BatchFlights, m.QueueDepth, m.ReadEntries = e.Flights, e.BatchFlights, e.QueueDepth, e.ReadEntries
	m.AckCount, m.AckTotal = e.AckCount, time.Duration(e.AckNanosTotal)

	a := parts.auth.Stats()
	m.Refused, m.TokensKnown = a.Refused, a.Known
	for _, k := range a.Keys {
		m.TokenKeys = append(m.TokenKeys, telemetry.TokenKey{Issuer: k.Issuer, Key: k.Key, Used: k.Tokens})
	}
	for _, k := range a.Sets {
		m.KeySets = append(m.KeySets, telemetry.KeySet(k))
	}

	m.Hooks = parts.hooks.sample(ctx, m.Limits)

	// A limit that several stages know is met in each of them.
	for _, met := range []map[string]uint64{g.Limits, c.Limits, parts.history.Limits(), parts.api.Limits(), parts.auth.Limits()} {
		for limit, n := range met {
			m.Limits[limit] += n
		}
	}
	in := s.admission.Stats()
	m.Handshakes = map[string]uint64{"admitted": in.Admitted, "queued": in.Queued, "refused": in.Refused}
	m.HandshakesWaiting, m.HandshakesFullest = in.Waiting, in.Fullest
	m.Limits["handshakes"] = s.arrivals.Refused.Load() + s.front.Refused()
	m.Limits["handshake_timeout"] = s.arrivals.Late.Load()
	m.Limits["proxy_header_bytes"] = s.arrivals.Large.Load()
	m.Limits["body_timeout"] = s.bodies.hits.Load()
	m.Limits["requests_in_flight"] = s.crowd.hits.Load()
	m.Limits["memory_percent"] = s.memory.hits.Load()
	m.Limits["header_timeout"] = s.headers.Late() + s.front.Late()
	m.Limits["header_bytes"] = s.header.hits.Load()
	m.Limits["wildcard_shapes_per_org"] = h.TooManyShapes
	m.Limits["ring_bytes"] = h.Evictions
	m.Limits["feed_queue"] = h.FellBehind
	m.Limits["conflated_subjects"] = h.TooManySubjects
	m.Limits["mailbox"] = h.MailboxOverflows + h.EphemeralUnposted
	m.Limits["ephemeral_buffer"] = e.SignalsDropped
	m.Limits["ephemeral_bytes"] = h.EphemeralFull
	m.Limits["scan_workers"] = h.Queued
	m.Limits["bytes_per_org"] = e.Cuts
	return m
}

// durability is the setting of that name, unless others keep the log.
func durability(cfg *config.Config) string {
	if cfg.Engine.NATS.URL != "" {
		return "external"
	}
	return cfg.Engine.Durability
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
