// Package hook takes webhooks in: it verifies who sent them, stores them before it
// answers, and makes events of them afterwards.
//
// A [Receiver] is the door. What it accepts is an entry of the organization's intake
// log (package intake). A [Processor] reads that log behind a ledger (package
// ledger), which knows what was there before, and publishes each delivery once,
// runs its actions, and tries again what fails until it is a dead letter.
//
// What each provider signs and says is in package provider, what is done to a
// payload in package shape, and what may be run in package action.
package hook

import (
	"context"
	"log/slog"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/source/hook/action"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

// Log is what the package needs of the engine.
type Log interface {
	Partitions() int
	IntakePartitions() int
	Intake(org carillon.OrgID) engine.Log
	Open(org carillon.OrgID) engine.Log
	Tail(ctx context.Context, partition int, after uint64, f func(*carillon.Entry)) error
	State(ctx context.Context, partition int) (engine.State, error)
	Check(ctx context.Context, partition int, seq uint64) (check uint32, found bool, err error)
	Caps() engine.Caps
	KV() engine.KV
}

// IDs print a place in an organization's intake as the id of a delivery, and read
// such an id.
type IDs interface {
	ID(org carillon.OrgID, pos carillon.Position) string
	Position(org carillon.OrgID, id string) (carillon.Position, bool)
}

// Config is what receiver and processor stand on. Zero fields mean the defaults.
type Config struct {
	Log     Log            // required
	Sources *Sources       // required
	Ledger  *ledger.Ledger // required
	IDs     IDs            // required

	// Usable reports whether an organization exists and may be used. Required.
	Usable func(carillon.OrgID) bool
	// Publish appends an event that a source made. Required.
	Publish func(org carillon.OrgID, source, delivery string, d carillon.Draft, done func([]carillon.Receipt, error))
	// Actions do what sources want done beside publishing. Nil: nothing can be.
	Actions *action.Runner

	// Full returns why nothing is taken now; nil, or a nil function: it is.
	Full func() error

	EventBytes    int           // of an event's data; a larger payload is stored apart
	BodyTimeout   time.Duration // until the body of a request is there
	AnswerWithin  time.Duration // how long the log may take before the sender is told to come back
	InFlightBytes int64         // of bodies that are being read and stored
	Refusals      int           // that are recorded in a second; those beyond are only counted

	SpoolDir   string // where deliveries of providers that never retry lie while the log is away; "": nowhere
	SpoolBytes int64  // at most

	Workers int // deliveries that are processed at the same time
	// Busy reports whether so much is being received that processing has to wait: few
	// are processed meanwhile. Nil: never.
	Busy    func() bool
	Waiting int // deliveries in memory that wait to be processed; others wait in the ledger
	Backlog int // entries in memory that wait for the ledger; beyond, the intake is read again later
	// BacklogBytes is how much memory they take, without the bodies that are kept.
	BacklogBytes int64

	Lease bool // several nodes share the log: one of them processes

	Logger *slog.Logger
	Now    func() time.Time
}

// Defaults of Config and of sources.
const (
	DefaultBodyBytes     = 1 << 20
	DefaultTries         = 6
	DefaultEventBytes    = 200_000
	DefaultBodyTimeout   = 10 * time.Second
	DefaultAnswerWithin  = 800 * time.Millisecond
	DefaultInFlightBytes = 64 << 20
	DefaultRefusals      = 100
	DefaultSpoolBytes    = 1 << 30
	DefaultWorkers       = 64
	DefaultWaiting       = 10_000
	DefaultBacklog       = 20_000
	DefaultBacklogBytes  = 4 << 20

	maxBody = 25 << 20

	// busyRequests in hand are more than usual.
	busyRequests = 16
)

func (c *Config) defaults() {
	if c.Log == nil || c.Sources == nil || c.Ledger == nil || c.IDs == nil || c.Usable == nil || c.Publish == nil {
		panic("hook: Config.Log, Sources, Ledger, IDs, Usable and Publish are required")
	}
	or(&c.EventBytes, DefaultEventBytes)
	or(&c.BodyTimeout, DefaultBodyTimeout)
	or(&c.AnswerWithin, DefaultAnswerWithin)
	or(&c.InFlightBytes, DefaultInFlightBytes)
	or(&c.Refusals, DefaultRefusals)
	or(&c.SpoolBytes, DefaultSpoolBytes)
	or(&c.Workers, DefaultWorkers)
	or(&c.Waiting, DefaultWaiting)
	or(&c.Backlog, DefaultBacklog)
	or(&c.BacklogBytes, DefaultBacklogBytes)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

func or[T int | int64 | time.Duration](v *T, standard T) {
	if *v <= 0 {
		*v = standard
	}
}
