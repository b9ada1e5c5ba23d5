package ledger

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/carillon-rt/carillon"
)

// State is where a delivery stands.
type State uint8

// The states. Their numbers are in the file.
const (
	Pending   State = iota // it waits for its first attempt or another one
	Published              // it is an event
	Filtered               // the source's filter does not want it
	Ran                    // its actions have run, and it is published nowhere
	Duplicate              // it was there before
	Dead                   // its last attempt failed
	Discarded              // a dead letter, or a waiting one, that nobody wants any more
	Refused                // a request that was not taken
)

var states = [...]string{"pending", "published", "filtered", "ran", "duplicate", "dead", "discarded", "refused"}

// ParseState reads a state by its name.
func ParseState(s string) (State, error) {
	for i, name := range states {
		if s == name {
			return State(i), nil
		}
	}
	return 0, carillon.BadRequest("%q is not a state of a delivery: it is one of %s", clip(s, 40), strings.Join(states[:], ", "))
}

func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Signed is the Signature of a delivery that was taken.
const Signed = "ok"

// Delivery is one row: a delivery, or a request that was refused. Texts that are
// longer than the ledger keeps are cut.
type Delivery struct {
	// As it came.
	Pos       carillon.Position // of its first entry
	Org       carillon.OrgID
	Source    string
	Provider  string // the kind of its source
	Event     string // what the provider calls it
	Delivery  string // the provider's id of it
	Digest    string // SHA-256 of the body, hex; "" of a refused one
	Remote    string // the client's address, without its port
	Size      int64  // of the body, in bytes
	Received  time.Time
	Signature string // Signed, or why it was refused
	Secret    string // the id of the secret it was signed with
	Order     string // what keeps its order among others of its source; "": nothing does
	Spooled   bool   // it lay on a node's disk before it came to the log
	Status    int    // of the answer to a refused one

	// What became of it.
	State       State
	DuplicateOf carillon.Position // the one it repeats, or repeated before it was retried; or none
	Attempts    int               // since it was received, or retried last
	Total       int               // attempts since it was received
	Again       int               // how often it was retried
	Took        time.Duration     // since it was received, or retried last, until its last attempt ended; microseconds
	Due         time.Time         // of a pending one: not before this; zero: at once
	Error       string            // of the last attempt
	Text        string            // what an action said
	Type        carillon.Type     // of the event it became
	Published   carillon.Position
}

// Attempt is what one note said about a delivery.
type Attempt struct {
	Seq      uint64 // of the note's entry, in the delivery's partition
	At       time.Time
	Kind     carillon.Type // of the entry: intake.TypeDone and so on
	Outcome  string        // of intake.TypeDone
	Attempts int           // so many since it was received, or retried
	Took     time.Duration // since then; microseconds
	Retry    time.Duration // until the next one
	Error    string
	Text     string
	By       string // who wanted it, of a retry or a discarding
}

// MaxAttempts is how many notes of a delivery are kept, the newest ones.
const MaxAttempts = 50

// What is kept of texts, in bytes.
const (
	maxName = 256
	maxText = 4096
)

// clip makes s valid UTF-8 of at most n bytes.
func clip(s string, n int) string {
	if len(s) <= n && utf8.ValidString(s) {
		return s
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// maxSeq is the highest sequence that fits into a place beside its partition.
const maxSeq = 1<<47 - 1

// placeOf is the row of a sequence in a partition; seq is at most maxSeq.
func placeOf(partition int, seq uint64) int64 {
	return int64(partition)<<47 | int64(seq)
}

// bounds are the places that a partition's rows lie between, inclusive.
func bounds(partition int) (first, last int64) {
	return placeOf(partition, 0), placeOf(partition, maxSeq)
}

func seqOf(place int64) uint64 { return uint64(place) & maxSeq }

// row reads and writes a Delivery's columns: what a column holds differs from
// what a field does.
type row struct {
	Delivery
	place, received, micros, due, duplicateOf, pubSeq int64
	notes                                             int
}

// scan are where the columns go.
func (r *row) scan() []any {
	d := &r.Delivery
	return []any{
		&r.place, &d.Pos.Check, &d.Org, &d.Source, &d.Provider, &d.Event, &d.Delivery, &d.Digest, &d.Remote, &d.Size, &r.received,
		&d.Signature, &d.Secret, &d.Order, &d.Spooled, &d.Status, &r.duplicateOf, &d.DuplicateOf.Check, &d.State, &d.Attempts, &d.Total, &r.micros, &r.due,
		&d.Error, &d.Text, &d.Type, &d.Published.Partition, &r.pubSeq, &d.Published.Check, &d.Again,
	}
}

// delivery is what was scanned.
func (r *row) delivery() Delivery {
	d := r.Delivery
	d.Pos.Partition, d.Pos.Seq = uint16(r.place>>47), seqOf(r.place)
	d.Received = time.UnixMilli(r.received).UTC()
	d.Took = time.Duration(r.micros) * time.Microsecond
	if r.duplicateOf != 0 {
		d.DuplicateOf = position(r.duplicateOf, d.DuplicateOf.Check)
	}
	d.Published.Seq = uint64(r.pubSeq)
	if r.due != 0 {
		d.Due = time.UnixMilli(r.due).UTC()
	}
	return d
}

// values are the columns of a delivery as it is stored first.
func (r *row) values() []any {
	d := &r.Delivery
	return []any{
		r.place, int64(d.Pos.Check), string(d.Org), d.Source, d.Provider, d.Event, d.Delivery, d.Digest, d.Remote, d.Size, r.received,
		d.Signature, d.Secret, d.Order, d.Spooled, d.Status, r.duplicateOf, int64(d.DuplicateOf.Check), int64(d.State), d.Attempts, d.Total, r.micros, r.due,
		d.Error, d.Text, string(d.Type), int64(d.Published.Partition), r.pubSeq, int64(d.Published.Check), d.Again,
	}
}
