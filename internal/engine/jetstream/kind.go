package jetstream

import (
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// kind is one of the two logs that every organization has: its events, or its
// intake. Each has its own streams, records, limits and connections, so that
// neither waits for what the other carries.
type kind struct {
	engine *Engine
	stream string // in the names of its streams
	branch string // in the subjects of its entries
	record string // begins the keys of its records

	perOrg int64 // entries kept per organization; unlimited: as many as there are
	budget func(carillon.OrgID) engine.Budget
	bytes  int64 // of all its streams
	chosen bool  // somebody has chosen bytes

	// forgets: the server does not remember ids that were made up. It keeps each of them
	// in memory for DedupeWindow, in some 120 bytes, only for an append that had no answer
	// and is sent again.
	forgets bool

	window  int           // entries a consumer's tail asks for at a time
	silence time.Duration // after which it is broken

	parts   []*partition
	firsts  *firsts
	tails   *nats.Conn // for consumers
	publish publishLink
}

// unlimited is what the server calls no limit.
const unlimited = -1

// intakePartitions is how many partitions the intake has, in every store.
const intakePartitions = 1

// Records of an organization, its id behind them.
const (
	recordFirst  = "first."  // sequence of its first ever entry
	recordPurged = "purged." // up to where it was purged
	recordBytes  = "bytes."  // the sizes of its newest entries
)

func (e *Engine) makeKinds() {
	c := e.config
	e.events = &kind{
		engine: e, stream: "_EV_", branch: "ev.", record: "log.",
		perOrg: c.MaxPerOrg, budget: c.OrgBudget, chosen: c.MaxBytes != 0, window: tailBatch, silence: tailSilence,
	}
	e.intake = &kind{
		engine: e, stream: "_IN_", branch: "in.", record: "log.intake.",
		perOrg: unlimited, budget: c.IntakeBudget, chosen: c.IntakeMaxBytes != 0, window: intakeTailBatch, silence: intakeTailSilence,
		forgets: c.NATS == nil,
	}
	if c.IntakeMaxPerOrg > 0 {
		e.intake.perOrg = c.IntakeMaxPerOrg
	}
}

// kinds are both.
func (e *Engine) kinds() [2]*kind { return [2]*kind{e.events, e.intake} }

// log is the log of one organization.
func (k *kind) log(org carillon.OrgID) *log {
	p := k.parts[xxhash.Sum64String(string(org))%uint64(len(k.parts))]
	return &log{engine: k.engine, part: p, org: p.committer.org(org)}
}

// key is the key of one of an organization's records.
func (k *kind) key(record string, org carillon.OrgID) string {
	return k.record + record + string(org)
}

// below reports whether an organization with n entries is below the limit of them.
func (k *kind) below(n uint64) bool { return k.perOrg == unlimited || n < uint64(k.perOrg) }

// streamOf is the name of the stream of its partition i.
func (k *kind) streamOf(i int) string {
	return k.engine.config.streamPrefix() + k.stream + strconv.Itoa(i)
}

// partition is its partition i, whose number in positions is number.
func (k *kind) partition(i, number int) *partition {
	return &partition{kind: k, number: number, branch: k.branch + strconv.Itoa(i), stream: k.streamOf(i)}
}
