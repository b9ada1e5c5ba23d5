package telemetry

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// scrapeTimeout bounds how long the counters are read for one scrape.
const scrapeTimeout = 5 * time.Second

// NewMetrics makes the handler of the metrics page, in the format of Prometheus.
// read is called at each scrape, possibly by several at once, and says what it
// knows when ctx ends.
func NewMetrics(read func(ctx context.Context) Sample) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collector{read},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// collector turns a sample into metrics, freshly at each scrape.
type collector struct {
	read func(context.Context) Sample
}

// Describe describes nothing: which series there are is known only at a scrape.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads a sample.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout) //nolint:forbidigo // the interface of a collector has no context to take
	defer cancel()
	s := c.read(ctx)
	e := emitter{ch}
	e.gauge("carillon_build_info", "1; its labels say what runs.", 1, "version", s.Version, "durability", s.Durability)
	e.gauge("carillon_ready", "1 while the node takes clients.", boolean(s.Ready))

	e.gauge("ws_connections_active", "Connections that stay, WebSocket and SSE, now.", float64(s.Connections))
	e.counter("ws_connections_total", "Connections that stay, since the start.", s.ConnectionsTotal)
	for outcome, n := range s.Handshakes {
		e.counter("carillon_handshakes_total", "WebSocket handshakes, requests for streams and polls: let through at once, after a wait in the queue, or refused because too many came.", n, "outcome", outcome)
	}
	e.gauge("carillon_handshakes_waiting", "Those that wait in the queue, now.", float64(s.HandshakesWaiting))
	e.gauge("carillon_handshakes_fullest", "The most that were let through within 100 ms, since the start.", float64(s.HandshakesFullest))
	e.counter("carillon_polls_total", "Polls, long or not.", s.Polls)
	e.counter("carillon_polls_attached_total", "Polls that went on with the feed of the one before.", s.PollsAttached)
	e.gauge("carillon_polls_lingering", "Feeds of polls that wait for the next, now.", float64(s.PollsLingering))
	e.counter("ws_messages_sent_total", "Events sent to clients.", s.MessagesSent)
	e.counter("ws_messages_received_total", "Frames received from clients.", s.MessagesReceived)
	e.milliseconds("ws_message_latency_ms", "From an event's acceptance until it is written to a client, in milliseconds.", s.Latency)
	for reason, n := range s.Errors {
		e.counter("ws_errors_total", "Connections that ended badly, and frames that made no sense, by reason.", n, "reason", reason)
	}
	e.counter("carillon_deflated_total", "Events compressed, each once for all connections that want it.", s.Deflated.Count)
	e.counter("carillon_deflated_bytes_total", "Their bytes, plain and as they are sent.", s.Deflated.Bytes, "form", "plain")
	e.counter("carillon_deflated_bytes_total", "Their bytes, plain and as they are sent.", s.Deflated.Sent, "form", "deflated")
	e.counter("carillon_deflated_not_smaller_total", "Events sent plainly because compression did not make them smaller.", s.NotSmaller)
	e.counter("carillon_inflated_total", "Compressed messages of clients.", s.Inflated.Count)
	e.counter("carillon_inflated_bytes_total", "Their bytes, plain and as they came.", s.Inflated.Bytes, "form", "plain")
	e.counter("carillon_inflated_bytes_total", "Their bytes, plain and as they came.", s.Inflated.Sent, "form", "deflated")
	for reason, n := range s.InflateRefused {
		e.counter("carillon_inflate_refused_total", "Compressed messages refused: inflated they are too large, or they are no deflate data.", n, "reason", reason)
	}
	e.counter("carillon_gaps_total", "Gap notices sent to clients.", s.Gaps)
	e.gauge("carillon_sockets_full", "Connections whose socket takes no more until the client does, now.", float64(s.SocketsFull))
	e.gauge("carillon_sockets_kept_bytes", "Bytes kept for them.", float64(s.SocketsKept))
	e.counter("carillon_reading_paused_total", "Times a connection was not read because too much of it was unanswered.", s.ReadingPaused)

	e.gauge("carillon_ring_bytes", "Memory of the newest events, with their encodings.", float64(s.RingBytes))
	e.gauge("carillon_ring_entries", "Newest events in memory.", float64(s.RingEntries))
	e.gauge("carillon_feeds", "Cursors of clients in the log, now.", float64(s.Feeds))
	e.gauge("carillon_realms", "Organizations with clients here, now.", float64(s.Realms))
	e.counter("carillon_feed_fell_behind_total", "Times a client was too slow for its queue and went on from the log.", s.FellBehind)
	for policy, n := range s.LeftOut {
		e.counter("carillon_events_left_out_total", "Events not given to clients that were slow, by the overflow of their subscriptions.", n, "policy", policy)
	}
	e.counter("carillon_replayed_total", "Events given to clients that were behind.", s.Replayed)
	e.counter("carillon_resumes_total", "Cursors of clients, by where they could be verified.", s.RingResumes, "from", "ring")
	e.counter("carillon_resumes_total", "Cursors of clients, by where they could be verified.", s.LogLookups, "from", "log")
	e.counter("carillon_tail_entries_total", "Events read from the ends of the log.", s.TailEntries)
	e.counter("carillon_tail_reopened_total", "Times the end of a partition had to be opened again.", s.TailReopened)
	e.counter("carillon_tail_catch_ups_total", "Times the end of a partition was read from the log, because what this node stored did not reach its tail otherwise.", s.TailCatchUps)
	e.counter("carillon_tail_resets_total", "Times a partition turned out to be another one than before.", s.TailResets)
	e.counter("carillon_scan_passes_total", "Reads of the log for clients below the ring.", s.ScanPasses)
	e.counter("carillon_scan_entries_total", "Events read by them.", s.ScanEntries)
	e.counter("carillon_scan_stale_total", "Reads that met a replica that was late.", s.ScanStale)
	e.counter("carillon_mailbox_overflows_total", "Times a shard had to read the ring because its mailbox was full.", s.MailboxOverflows)

	e.counter("carillon_ephemeral_published_total", "Ephemeral events handed on.", s.EphemeralPublished)
	e.counter("carillon_ephemeral_heard_total", "Ephemeral events that came for organizations with clients here.", s.EphemeralHeard)
	e.counter("carillon_ephemeral_delivered_total", "Ephemeral events sent to clients; ws_messages_sent_total has them too.", s.EphemeralDelivered)
	for reason, n := range s.EphemeralDropped {
		e.counter("carillon_ephemeral_dropped_total", "Ephemeral events dropped: on their way (buffer), for a shard (mailbox), for a client (all else).", n, "reason", reason)
	}

	e.counter("carillon_publish_events_total", "Events accepted.", s.Published)
	e.counter("carillon_publish_duplicates_total", "Events that had been accepted before.", s.Duplicates)
	e.counter("carillon_publish_bytes_total", "Bytes of data in accepted events.", s.PublishedBytes)
	e.counter("carillon_publish_large_total", "Accepted events with more than 1,000 bytes of data.", s.PublishedLarge)
	e.counter("carillon_publish_failed_total", "Events that the log did not take.", s.PublishFailed)
	for code, n := range s.PublishRefused {
		e.counter("carillon_publish_refused_total", "Publishes refused, by code.", n, "code", code)
	}
	e.gauge("carillon_publish_in_flight", "Events that wait for the log, now.", float64(s.InFlight))
	e.gauge("carillon_publish_in_flight_bytes", "Their bytes.", float64(s.InFlightBytes))

	e.counter("carillon_engine_appends_total", "Events stored.", s.Appends)
	e.counter("carillon_engine_append_failures_total", "Events not stored.", s.AppendFailures)
	e.counter("carillon_engine_duplicates_total", "Events found stored already.", s.AppendDuplicates)
	e.counter("carillon_engine_flights_total", "Rounds of group commit.", s.Flights-min(s.BatchFlights, s.Flights), "kind", "single")
	e.counter("carillon_engine_flights_total", "Rounds of group commit.", s.BatchFlights, "kind", "batch")
	e.gauge("carillon_engine_queue_depth", "Events that wait for a round of group commit, now.", float64(s.QueueDepth))
	e.counter("carillon_engine_read_entries_total", "Events read from the log.", s.ReadEntries)
	e.summary("carillon_engine_ack_seconds", "From an append until it is acknowledged.", s.AckCount, s.AckTotal)

	e.counter("carillon_credentials_refused_total", "Tokens, keys and tickets that were refused.", s.Refused)
	e.counter("carillon_tokens_known_total", "Tokens that had been verified before.", s.TokensKnown)
	for _, k := range s.TokenKeys {
		e.counter("carillon_token_key_used_total", "Tokens verified with a key of an issuer, by its place among the secrets or its thumbprint.", k.Used, "issuer", k.Issuer, "key", k.Key)
	}
	for _, k := range s.KeySets {
		e.gauge("carillon_jwks_keys", "Keys that an issuer publishes, now.", float64(k.Keys), "issuer", k.Issuer)
		e.gauge("carillon_jwks_age_seconds", "Time since they were last fetched.", k.Age.Seconds(), "issuer", k.Issuer)
		e.counter("carillon_jwks_fetches_total", "Times they were fetched.", k.Fetches-min(k.Failures, k.Fetches), "issuer", k.Issuer, "result", "ok")
		e.counter("carillon_jwks_fetches_total", "Times they were fetched.", k.Failures, "issuer", k.Issuer, "result", "failed")
	}

	e.hooks(&s.Hooks)

	for _, r := range s.Requests {
		e.counter("carillon_http_requests_total", "Requests answered, by route and status.", r.Count, "route", r.Route, "code", strconv.Itoa(r.Status))
	}
	for limit, n := range s.Limits {
		e.counter("carillon_limit_hits_total", "Times a limit was met, by its name.", n, "limit", limit)
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// emitter writes metrics. Labels are given as name, value, name, value.
type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) send(kind prometheus.ValueType, name, help string, v float64, labels []string) {
	names, values := split(labels)
	e.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, v, values...)
}

func (e emitter) gauge(name, help string, v float64, labels ...string) {
	e.send(prometheus.GaugeValue, name, help, v, labels)
}

func (e emitter) counter(name, help string, n uint64, labels ...string) {
	e.send(prometheus.CounterValue, name, help, float64(n), labels)
}

func (e emitter) summary(name, help string, count uint64, sum time.Duration) {
	e.ch <- prometheus.MustNewConstSummary(prometheus.NewDesc(name, help, nil, nil), count, sum.Seconds(), nil)
}

func (e emitter) milliseconds(name, help string, h Histogram) {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var count uint64
	for i, n := range h.Buckets {
		count += n
		if i < len(h.Bounds) {
			buckets[float64(h.Bounds[i])/float64(time.Millisecond)] = count
		}
	}
	sum := float64(h.Sum) / float64(time.Millisecond)
	e.ch <- prometheus.MustNewConstHistogram(prometheus.NewDesc(name, help, nil, nil), count, sum, buckets)
}

func split(labels []string) (names, values []string) {
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	return names, values
}
