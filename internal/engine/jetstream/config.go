package jetstream

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// Durability says what an acknowledged event survives.
type Durability string

// The durabilities.
const (
	// Strict: on disk before the acknowledgement; it survives power loss if the
	// disk honours a flush.
	Strict Durability = "strict"
	// Relaxed: flushed every second; the last second may be gone after power
	// loss. The end of the process loses nothing.
	Relaxed Durability = "relaxed"
)

// Defaults of Config.
const (
	DefaultPartitions   = 8
	DefaultRetention    = 7 * 24 * time.Hour
	DefaultMaxPerOrg    = 1_000_000
	DefaultMaxBytes     = 10 << 30
	DefaultDedupeWindow = 5 * time.Minute
	DefaultPrefix       = "car"

	DefaultIntakeRetention = 30 * 24 * time.Hour
	DefaultIntakeMaxBytes  = 4 << 30
)

// Config sets up an Engine. Only Dir is required, or NATS.
type Config struct {
	Dir        string     // the store; made if missing, one engine at a time
	Durability Durability // default Strict; what NATS promises is for those to say who run it

	// NATS keeps the log elsewhere; Dir is not used then.
	NATS *NATS

	// Partitions is fixed when the store is made: 0 takes the store's number, or
	// DefaultPartitions for a new one; another number is an error.
	Partitions int

	Retention    time.Duration // how long an entry is kept; default 7 days
	MaxPerOrg    int64         // entries kept per organization; default 1,000,000
	DedupeWindow time.Duration // how long a key is known; default 5 minutes

	// OrgBudget is an organization's own; it may change, which counts from the next
	// entry on. Nil: nobody has one.
	OrgBudget func(carillon.OrgID) engine.Budget

	// MaxBytes is the disk budget of all partitions together; when it is used up
	// the oldest entries go. 0: 10 GiB, or what the disk has if that is less. A
	// number the disk has no room for is an error.
	MaxBytes int64

	// The same of the organizations' intakes.
	IntakeRetention time.Duration                      // how long an entry is kept; default 30 days
	IntakeMaxPerOrg int64                              // entries kept per organization; 0: no limit
	IntakeBudget    func(carillon.OrgID) engine.Budget // as OrgBudget
	// IntakeMaxBytes is beside MaxBytes, and both have to fit the disk. 0: two fifths
	// of what events have, 4 GiB at most, or what they leave of the disk if that is
	// less.
	IntakeMaxBytes int64

	SignalBuffer   int           // ephemeral events that wait for who listens; default engine.DefaultSignalBuffer
	Prefix         string        // of subjects and of stream names; default "car"
	PublishTimeout time.Duration // how long an append waits; default engine.PublishTimeout
	Logger         *slog.Logger  // default: silent
}

// minBudget is the least disk budget of one partition: two blocks of the
// server's store. minIntake is that of all intakes: it takes the largest body.
const (
	minBudget = 16 << 20
	minIntake = 32 << 20
)

func (c Config) withDefaults() (Config, error) {
	if c.NATS != nil {
		n := *c.NATS
		setDefault(&n.Replicas, DefaultReplicas)
		if err := n.check(); err != nil {
			return c, err
		}
		c.NATS = &n
	} else if c.Dir == "" {
		return c, errors.New("jetstream: Config.Dir is empty; it is the directory of the store")
	}
	if c.Durability == "" {
		c.Durability = Strict
	}
	if c.Durability != Strict && c.Durability != Relaxed {
		return c, fmt.Errorf("jetstream: durability %q: it is %q or %q", c.Durability, Strict, Relaxed)
	}
	if c.Partitions < 0 || c.Partitions > 4096 {
		return c, fmt.Errorf("jetstream: %d partitions: 1 to 4096", c.Partitions)
	}
	if c.Retention < 0 || c.MaxPerOrg < 0 || c.MaxBytes < 0 || c.DedupeWindow < 0 || c.PublishTimeout < 0 || c.SignalBuffer < 0 ||
		c.IntakeRetention < 0 || c.IntakeMaxPerOrg < 0 || c.IntakeMaxBytes < 0 {
		return c, errors.New("jetstream: a limit in the config is negative")
	}
	setDefault(&c.Retention, DefaultRetention)
	setDefault(&c.MaxPerOrg, DefaultMaxPerOrg)
	setDefault(&c.IntakeRetention, DefaultIntakeRetention)
	setDefault(&c.DedupeWindow, min(DefaultDedupeWindow, c.Retention, c.IntakeRetention))
	setDefault(&c.PublishTimeout, engine.PublishTimeout)
	setDefault(&c.Prefix, DefaultPrefix)
	setDefault(&c.SignalBuffer, engine.DefaultSignalBuffer)
	if strings.Trim(c.Prefix, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		return c, fmt.Errorf("jetstream: prefix %q: a–z, 0–9, _ and - only", c.Prefix)
	}
	if c.DedupeWindow > c.Retention {
		return c, fmt.Errorf("jetstream: the dedupe window %v is longer than the retention %v", c.DedupeWindow, c.Retention)
	}
	if c.DedupeWindow > c.IntakeRetention {
		return c, fmt.Errorf("jetstream: the dedupe window %v is longer than the retention of the intake %v", c.DedupeWindow, c.IntakeRetention)
	}
	for _, budget := range []*func(carillon.OrgID) engine.Budget{&c.OrgBudget, &c.IntakeBudget} {
		if *budget == nil {
			*budget = func(carillon.OrgID) engine.Budget { return engine.Budget{} }
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func setDefault[T comparable](value *T, or T) {
	var zero T
	if *value == zero {
		*value = or
	}
}

// replicas is how many copies of a stream there are.
func (c Config) replicas() int {
	if c.NATS != nil {
		return c.NATS.Replicas
	}
	return 1
}

// place is where the log is, for messages.
func (c Config) place() string {
	if c.NATS != nil {
		return c.NATS.URL
	}
	return c.Dir
}

// streamPrefix begins the names of streams and buckets.
func (c Config) streamPrefix() string {
	return strings.ToUpper(strings.ReplaceAll(c.Prefix, "-", "_"))
}
