// Package engine is the port to the durable log: what "durable" means here.
//
// The log has a fixed number of partitions. Every organization lives in one of
// them, and its entries are ordered by sequence, strictly increasing and never
// reused without a change of [State.Identity] or of an entry's check. Package
// enginetest holds the promises as a test; engine/jetstream and engine/memory
// keep them.
//
// # Two logs
//
// Every organization has a second log, its intake: what came from outside and is
// not an event yet, and what became of it. It keeps every promise of a [Log], in
// partitions of its own, whose numbers follow those of events, and with retention,
// limits and budgets of its own. A key that one log knows is unknown to the other,
// and no position of one is of the other. What is appended to one does not wait for
// the other.
//
// # Isolation
//
// [Engine.Open] and [Engine.Intake] hand out a [Log], and [Engine.Signals] what is
// never logged, all bound to one organization. Nothing below takes an organization as an argument,
// so nobody can read another's entries by passing a wrong one.
//
// # Byte budgets
//
// An organization may have a budget of bytes, measured by [StoredSize]. It keeps
// its newest entries: soon after an append at most a tenth more than the budget,
// and always the newest entries that fit into nine tenths of it. Who stood below
// learns it from [Log.Resume]. Other organizations lose nothing.
//
// # Concurrency
//
// All methods may be called from any goroutine. Callbacks say what they may do.
package engine

import (
	"context"
	"time"

	"github.com/carillon-rt/carillon"
)

// Engine is one durable log, shared by all organizations of an install.
type Engine interface {
	// Partitions is the number of partitions of events, fixed when the log was made.
	// They are numbered from 0.
	Partitions() int

	// IntakePartitions is the number of those of intakes, also fixed. They are
	// [Partitions(), Partitions()+IntakePartitions()), and Tail, State, Check and
	// Head take their numbers as they take the others.
	IntakePartitions() int

	// Open returns the log of one organization's events. It does no I/O.
	Open(org carillon.OrgID) Log

	// Intake returns the organization's second log: what came from outside and is
	// not an event yet, and what became of it. Its entries' data is any bytes, none
	// at all too. A batch may be a body of 25 MiB in pieces of 768 KiB. An append
	// whose events have no keys may be there twice if the log did not answer in time:
	// who reads the intake recognises what it has read. It does no I/O.
	Intake(org carillon.OrgID) Log

	// Signals are the organization's ephemeral events. It does no I/O.
	Signals(org carillon.OrgID) Signals

	// Tail calls f for every entry of the partition with a sequence above
	// after, in order, each once, then for new ones as they are stored. It
	// never skips: it returns an error instead, and the caller looks at State
	// and Check before it opens again. f runs on one goroutine and must not
	// block; it may keep the entry. Of a new one Accepted may be when it was sent to
	// the log, a moment before what Read says. Tail returns ctx's error when ctx ends.
	Tail(ctx context.Context, partition int, after uint64, f func(*carillon.Entry)) error

	// State reads the partition's bounds, from the leader.
	State(ctx context.Context, partition int) (State, error)

	// Check reads the check of the entry at seq, whosever it is; found is
	// false when there is none.
	Check(ctx context.Context, partition int, seq uint64) (check uint32, found bool, err error)

	// Head is the highest position of the partition this process knows to be
	// stored: by an acknowledged append or by a tail. No I/O. A zero Seq means
	// it knows of none.
	Head(partition int) carillon.Position

	// KV is the small store for settings, keys and leases.
	KV() KV

	// Caps says what this engine promises.
	Caps() Caps

	// Healthy returns nil while appends are expected to work.
	Healthy(ctx context.Context) error

	// Stats are counters for the metrics page.
	Stats() Stats

	// Close flushes what was accepted and releases the store. Appends that come
	// later fail.
	Close(ctx context.Context) error
}

// Log is the log of one organization.
type Log interface {
	// Partition is where the organization lives.
	Partition() int

	// Append stores the events as one batch: all or none, consecutive among
	// themselves, and answers with a receipt for each, in order. It never
	// blocks. done is called exactly once, from an engine goroutine, and must
	// not block; with a nil error everything is durable as Caps promises.
	//
	// An event whose Key is already in the log (within Caps().DedupeWindow) is
	// not stored again: its receipt has the first one's position. The same key
	// twice in one batch counts once. Batches appended one after the other by
	// one goroutine keep their order, also through the engine's own retries.
	// Errors are *carillon.Error: unavailable after PublishTimeout, quota_exceeded, or
	// too_large for an event or a batch that it can never take.
	Append(batch []Append, done func([]carillon.Receipt, error))

	// Read calls f for the organization's entries in the range, oldest first.
	// f may keep the entry. An error from f ends Read with that error.
	Read(ctx context.Context, r Range, f func(*carillon.Entry) error) (End, error)

	// Resume says whether a reader who stands at pos can go on without having
	// lost an entry.
	Resume(ctx context.Context, pos carillon.Position) (Outcome, error)

	// Bounds reads the first and last kept entry of the organization, from the
	// leader; both have Seq 0 when none is kept.
	Bounds(ctx context.Context) (oldest, newest carillon.Position, err error)

	// At is a position such that what follows is exactly what was accepted at
	// or after t.
	At(ctx context.Context, t time.Time) (carillon.Position, error)

	// Purge removes the organization's entries up to and including seq.
	Purge(ctx context.Context, upTo uint64) error
}

// Append is one event to store. The engine keeps Event and its data: nobody may
// change them any more.
type Append struct {
	Event *carillon.Event
	// Key makes it idempotent within the organization; it is any text. Empty: the
	// engine makes one up.
	Key string
}

// StoredSize is what an event counts in its organization's byte budget: its data,
// its names, and a round figure for the rest of its record.
func StoredSize(ev *carillon.Event) int64 {
	n := storedEnvelope + len(ev.Type) + len(ev.Subject) + len(ev.Data) + len(ev.To.Room) + len(ev.From) +
		len(ev.Source) + len(ev.Delivery) + len(ev.CE)
	for _, user := range ev.To.Users {
		n += 1 + len(user)
	}
	return int64(n)
}

// storedEnvelope is what the log keeps of an event beside what the event has.
const storedEnvelope = 160

// Range is a part of one organization's log.
type Range struct {
	After    uint64 // exclusive
	UpTo     uint64 // inclusive; 0: the end
	Limit    int    // entries; 0: DefaultReadLimit
	MaxBytes int    // of event data, at least one entry is read; 0: DefaultReadBytes
	Leader   bool   // not from a replica that may lag
}

// Limits of one Read.
const (
	DefaultReadLimit = 256
	DefaultReadBytes = 1 << 20
)

// End says how far a Read has looked.
type End struct {
	// Seen: every entry of the organization in (After, Seen] was passed to f. It
	// may lie on or past other organizations' entries.
	Seen uint64
	// More entries of the organization are known to follow Seen within the range.
	More bool
}

// Status is the answer to "may I go on from here?".
type Status uint8

// The outcomes of Resume.
const (
	OK      Status = iota // nothing was lost
	Expired               // the log has dropped entries after the position; Oldest is what is left
	Reset                 // the position is not of this log
)

func (s Status) String() string { return [...]string{"ok", "expired", "reset"}[s] }

// Outcome of Log.Resume.
type Outcome struct {
	Status Status
	// From is, when Expired, the position just before the oldest kept entry
	// (or the log's end when none is kept).
	From carillon.Position
}

// State is what the leader knows of a partition.
type State struct {
	Identity string            // changes when the partition was made anew
	First    uint64            // sequence of the first kept entry; Last.Seq+1 when none
	Last     carillon.Position // of the last entry ever stored; its Check is 0 when that entry is gone
	Entries  uint64            // how many are kept, of all organizations
	Bytes    uint64
}

// Budget is how much of one organization's log is kept, where that is less than
// what is kept of everybody's. 0 is no limit of its own. An organization that is a
// tenth over its budget loses its oldest entries until it is not.
type Budget struct {
	Bytes  int64 // of entries, as StoredSize counts them
	Events int64
}

// Caps is what an engine promises.
type Caps struct {
	Durable        bool          // an acknowledged entry survives the process
	FsyncBeforeAck bool          // and the machine's power
	DedupeWindow   time.Duration // how long Append knows a key
	Retention      time.Duration // how long an event is kept
	Describe       string        // for the banner: "sync always" and the like

	IntakeRetention time.Duration // how long an entry of an intake is kept
}

// Stats are counters since the start, of both logs together.
type Stats struct {
	Appends       uint64 // events stored
	Duplicates    uint64
	Flights       uint64 // rounds of group commit
	BatchFlights  uint64 // of them atomic batches
	Failures      uint64 // events refused
	QueueDepth    int    // events waiting for a flight
	ReadEntries   uint64
	Cuts          uint64 // times an organization was cut back to its byte budget
	TailCatchUps  uint64 // times a tail read the log, because what was stored here did not reach it otherwise
	AckNanosTotal uint64 // time from Append to done, summed over batches
	AckCount      uint64

	SignalsHeard   uint64 // ephemeral events that came to those who listen here
	SignalsDropped uint64 // and those that found the buffer full
}

// PublishTimeout bounds how long an append waits for the log: longer than the
// election after a leader's death (4–9 s).
const PublishTimeout = 10 * time.Second
