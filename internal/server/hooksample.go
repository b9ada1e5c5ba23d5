package server

import (
	"context"

	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
	"github.com/carillon-rt/carillon/internal/telemetry"
)

// maxDepths is how many sources the depths are told of by name; those beyond are
// told together, as "other".
const maxDepths = 1000

// sample reads the counters of webhooks; limits that were met are added.
func (h *hooks) sample(ctx context.Context, limits map[string]uint64) telemetry.HookSample {
	r, p, l := h.receiver.Stats(), h.processor.Stats(), h.ledger.Stats()
	for _, met := range []map[string]uint64{r.Limits, p.Limits, h.sources.Limits()} {
		for limit, n := range met {
			limits[limit] += n
		}
	}
	s := telemetry.HookSample{
		Received: counts(r.Received), SignatureFailures: counts(r.SignatureFailures), Outcomes: p.Outcomes, Retries: p.Retries,
		Durations: telemetry.Durations{Bounds: p.Bounds, Buckets: p.Buckets, Sum: p.Sum}, InMemory: p.Waiting, Lag: p.Lag, Leader: p.Leader,
		Folded: l.Applied, Duplicates: l.Duplicates, Rebuilt: l.Rebuilt,
		Spooled: r.Spooled, SpooledBytes: r.SpooledBytes, SpoolDamaged: r.SpoolDamaged, BodyBytes: r.BodyBytes, Unrecorded: r.Unrecorded,
	}
	actions := h.runner.Stats()
	s.Running, s.Waiting, s.Crowded = actions.Running, actions.Waiting, actions.Full
	if h.requests != nil {
		for of, n := range h.requests.Requests() {
			s.Files = append(s.Files, telemetry.HookCount{Source: of.Hook, Of: of.Status, Count: n})
		}
	}
	for _, k := range r.Secrets {
		if len(s.Secrets) == maxDepths {
			break
		}
		s.Secrets = append(s.Secrets, telemetry.HookSecret{Org: string(k.Org), Source: k.Source, Secret: k.Secret, Used: k.Count, Last: k.Last})
	}
	all, err := h.ledger.Counts(ctx)
	if err != nil {
		return s // the others are told all the same
	}
	s.Dead, s.Pending = depths(all, ledger.Dead), depths(all, ledger.Pending)
	return s
}

func counts(m map[hook.SourceStatus]uint64) (list []telemetry.HookCount) {
	for of, n := range m {
		list = append(list, telemetry.HookCount{Source: of.Source, Of: of.Status, Count: n})
	}
	return list
}

func depths(all []ledger.Count, of ledger.State) (list []telemetry.HookCount) {
	var others uint64
	for _, c := range all {
		switch {
		case c.State != of || c.N <= 0:
		case len(list) == maxDepths:
			others += uint64(c.N)
		default:
			list = append(list, telemetry.HookCount{Source: c.Source, Of: string(c.Org), Count: uint64(c.N)})
		}
	}
	if others > 0 {
		list = append(list, telemetry.HookCount{Source: "other", Of: "other", Count: others})
	}
	return list
}
