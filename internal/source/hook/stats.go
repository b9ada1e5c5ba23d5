package hook

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/limit"
)

// maxCounted is how many organizations' sources are counted by name; those beyond
// are counted together, as "other".
const maxCounted = 1000

// SourceStatus is a source, across all organizations that have one of this name,
// with what became of a request to it.
type SourceStatus struct{ Source, Status string }

// counters count what comes in.
type counters struct {
	limits     limit.Hits
	unrecorded atomic.Uint64

	mu         sync.Mutex
	status     map[SourceStatus]uint64
	signatures map[SourceStatus]uint64 // failures, by reason
	names      map[string]struct{}
}

func newCounters() counters {
	return counters{
		limits: limit.Of("hook_bytes_in_flight", "hook_spool_bytes", "hook_refusals_per_second"),
		status: map[SourceStatus]uint64{}, signatures: map[SourceStatus]uint64{}, names: map[string]struct{}{},
	}
}

// label bounds the names. mu is held.
func (c *counters) label(source string) string {
	if _, ok := c.names[source]; !ok {
		if len(c.names) >= maxCounted {
			return "other"
		}
		c.names[source] = struct{}{}
	}
	return source
}

func (c *counters) received(s *Source, status string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status[SourceStatus{c.label(s.Name), status}]++
}

func (c *counters) refused(s *Source, reason string, e *carillon.Error) {
	c.limits.Add(e.Limit)
	source := "unknown"
	c.mu.Lock()
	defer c.mu.Unlock()
	if s != nil {
		source = c.label(s.Name)
	}
	c.status[SourceStatus{source, reason}]++
	if e.Code == carillon.CodeUnauthenticated {
		c.signatures[SourceStatus{source, reason}]++
	}
}

// SecretUse is how a secret of a source is used.
type SecretUse struct {
	Org    carillon.OrgID
	Source string
	Secret string
	Count  uint64
	Last   time.Time // zero: never, since the node started
}

// ReceiverStats are counters since the start.
type ReceiverStats struct {
	Received          map[SourceStatus]uint64
	SignatureFailures map[SourceStatus]uint64
	Unrecorded        uint64 // refusals that the log did not take
	Spooled           int64  // deliveries on this node's disk
	SpooledBytes      int64
	SpoolDamaged      int64 // files there that could not be read
	BodyBytes         int64 // of requests in hand
	Secrets           []SecretUse
	Limits            map[string]uint64
}

// Stats reads them.
func (r *Receiver) Stats() ReceiverStats {
	s := ReceiverStats{Unrecorded: r.count.unrecorded.Load(), Limits: r.count.limits.Load(), BodyBytes: r.InFlightBytes - r.bodies.left.Load()}
	if r.spool != nil {
		s.Spooled, s.SpooledBytes, s.SpoolDamaged = r.spool.files.Load(), r.spool.bytes.Load(), r.spool.damaged.Load()
	}
	for _, one := range r.Sources.All() {
		for i := range one.Secrets {
			use := SecretUse{Org: one.Org, Source: one.Name, Secret: one.Secrets[i].ID, Count: one.Secrets[i].use.count.Load()}
			if last := one.Secrets[i].use.last.Load(); last != 0 {
				use.Last = time.Unix(last, 0).UTC()
			}
			s.Secrets = append(s.Secrets, use)
		}
	}
	r.count.mu.Lock()
	defer r.count.mu.Unlock()
	s.Received, s.SignatureFailures = maps.Clone(r.count.status), maps.Clone(r.count.signatures)
	return s
}
