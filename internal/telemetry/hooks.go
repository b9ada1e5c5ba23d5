package telemetry

import "github.com/prometheus/client_golang/prometheus"

// hooks writes the metrics of webhooks.
func (e emitter) hooks(s *HookSample) {
	for _, c := range s.Received {
		e.counter("webhook_deliveries_received_total", "Requests to webhook sources, by what became of them: accepted, duplicate, spooled, challenge, or why not.", c.Count, "source", c.Source, "status", c.Of)
	}
	for _, c := range s.SignatureFailures {
		e.counter("webhook_signature_failures_total", "Webhooks whose signature was missing, wrong or too old, by reason.", c.Count, "source", c.Source, "reason", c.Of)
	}
	for outcome, n := range s.Outcomes {
		e.counter("webhook_processed_total", "Webhooks that need nothing more, by outcome.", n, "outcome", outcome)
	}
	e.counter("webhook_retry_count", "Attempts to process a webhook that failed and were followed by another.", s.Retries)
	e.seconds("webhook_processing_duration_seconds", "From the receipt of a webhook, or its retry, to its outcome.", s.Durations)
	for _, c := range s.Dead {
		e.gauge("webhook_dlq_depth", "Dead letters, now, by source and organization.", float64(c.Count), "source", c.Source, "org", c.Of)
	}
	for _, c := range s.Pending {
		e.gauge("webhook_pending", "Webhooks that wait to be processed, now, by source and organization.", float64(c.Count), "source", c.Source, "org", c.Of)
	}
	e.gauge("webhook_in_memory", "Webhooks that are processed or wait for it in memory, now.", float64(s.InMemory))
	e.gauge("webhook_ledger_lag", "Entries that the ledger of webhooks has not taken up yet, now.", float64(s.Lag))
	e.counter("webhook_ledger_entries_total", "Entries that it has taken up.", s.Folded)
	e.counter("webhook_ledger_rebuilt_total", "Times it was made anew.", s.Rebuilt)
	e.counter("webhook_duplicates_total", "Webhooks that were there before, as the ledger says.", s.Duplicates)
	e.gauge("webhook_spooled", "Webhooks on this node's disk because the log was away, now.", float64(s.Spooled))
	e.gauge("webhook_spooled_bytes", "Bytes of webhooks on this node's disk, with those that could not be read.", float64(s.SpooledBytes))
	e.gauge("webhook_spool_damaged", "Files on this node's disk that held a webhook and could not be read: they lie there, named .damaged, until somebody removes them and the node starts again.", float64(s.SpoolDamaged))
	e.gauge("webhook_body_bytes", "Bytes of webhooks that are being read and stored, now.", float64(s.BodyBytes))
	e.counter("webhook_unrecorded_total", "Refusals and duplicates that the log did not take for the record.", s.Unrecorded)
	e.gauge("webhook_processing", "1 while this node processes webhooks.", boolean(s.Leader))
	for _, c := range s.Files {
		e.counter("webhook_file_requests_total", "Requests to hooks of hooks files, by what became of them: ran, failed, busy, unwanted, unsigned, rule_error, method or body.", c.Count, "hook", c.Source, "status", c.Of)
	}
	e.gauge("webhook_actions_running", "Commands and forwarded requests that run, now.", float64(s.Running))
	e.counter("webhook_actions_crowded_total", "Those that found no room, not even to wait (hooks.commands).", s.Crowded)
	e.gauge("webhook_actions_waiting", "Those that wait for a place, now.", float64(s.Waiting))
	for _, k := range s.Secrets {
		labels := []string{"org", k.Org, "source", k.Source, "secret", k.Secret}
		e.counter("webhook_secret_used_total", "Webhooks signed with a secret, by its id.", k.Used, labels...)
		last := 0.0
		if !k.Last.IsZero() {
			last = float64(k.Last.Unix())
		}
		e.gauge("webhook_secret_last_used_seconds", "When the last of them came, in Unix time; 0: none since the start.", last, labels...)
	}
}

func (e emitter) seconds(name, help string, h Durations) {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var count uint64
	for i, n := range h.Buckets {
		count += n
		if i < len(h.Bounds) {
			buckets[h.Bounds[i]] = count
		}
	}
	e.ch <- prometheus.MustNewConstHistogram(prometheus.NewDesc(name, help, nil, nil), count, h.Sum, buckets)
}
