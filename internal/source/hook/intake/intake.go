// Package intake is what webhooks brought, and what became of it, as entries of
// an organization's intake log (engine.Engine.Intake): every fact is one entry,
// and the state of a delivery is what its entries add up to.
//
// A [Received] is written before its sender is answered. Its body follows it in
// further entries where it is too large for one. All others name the place of the
// Received they are about.
//
// The package is pure: it makes events out of facts and facts out of entries.
package intake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/carillon-rt/carillon"
)

// The types of entries.
const (
	TypeReceived  carillon.Type = "hook.received"  // a delivery that was verified
	TypePart      carillon.Type = "hook.part"      // more of the body of the one before
	TypeRefused   carillon.Type = "hook.refused"   // a request that was not taken
	TypeDone      carillon.Type = "hook.done"      // a delivery needs nothing more
	TypeFailed    carillon.Type = "hook.failed"    // an attempt failed, and another follows
	TypeDead      carillon.Type = "hook.dead"      // the last attempt failed: a dead letter
	TypeRetry     carillon.Type = "hook.retry"     // it is to be processed again
	TypeDiscarded carillon.Type = "hook.discarded" // a dead letter nobody wants any more
)

// Part is how many bytes of a body one entry takes.
const Part = 768 << 10

// MaxBody is the largest body that can be written, in bytes.
const MaxBody = 25 << 20

// Received is a delivery as it came.
type Received struct {
	Source   string // the source's name
	Delivery string // the provider's id of it, or one made of its body
	Remote   string // the client's address
	At       time.Time
	Meta     Meta
	Body     []byte // raw; of an entry that was read, as it is stored: see Whole
}

// Meta is what a delivery has beside its body.
type Meta struct {
	Provider string      `json:"provider"`          // the kind of its source
	Event    string      `json:"event"`             // what the provider calls it, as the end of an event type
	Order    string      `json:"order,omitempty"`   // what keeps its order among others of its source
	Query    string      `json:"query,omitempty"`   // of the request's URL, without '?'
	Header   http.Header `json:"header"`            // those worth keeping, without credentials
	Size     int64       `json:"size"`              // of the body, in bytes
	Parts    int         `json:"parts,omitempty"`   // entries of TypePart that follow
	Packed   bool        `json:"packed,omitempty"`  // the body is stored in S2's block format
	Digest   string      `json:"digest"`            // SHA-256 of the body, hex
	Secret   string      `json:"secret,omitempty"`  // the id of the secret that it was signed with
	Spooled  bool        `json:"spooled,omitempty"` // it lay on the disk of a node that could not reach the log
}

// Refused is a request that was not taken. Nothing of its body is kept.
type Refused struct {
	Source   string    `json:"-"`
	Remote   string    `json:"-"`
	At       time.Time `json:"-"`
	Provider string    `json:"provider"`
	Delivery string    `json:"delivery,omitempty"` // as it was claimed
	Event    string    `json:"event,omitempty"`    // as it was claimed
	Size     int64     `json:"size"`               // as far as it was read or declared
	Status   int       `json:"status"`             // of the answer
	Reason   string    `json:"reason"`             // signature, stale, address, too_large, …
}

// The outcomes of a [Note] of TypeDone.
const (
	Published = "published" // as an event
	Filtered  = "filtered"  // the source's filter does not want it
	Ran       = "ran"       // its actions have run, and it is published nowhere
)

// Note is an entry about a delivery: what became of it, or what somebody wants of
// it. Which fields it has depends on its type.
type Note struct {
	Ref uint64 `json:"ref"` // sequence of the Received, in the same partition

	// Of TypeDone.
	Outcome string             `json:"outcome,omitempty"`
	Type    string             `json:"type,omitempty"`  // of the event
	Event   *carillon.Position `json:"event,omitempty"` // its place in the organization's log
	Text    string             `json:"text,omitempty"`  // what an action said, for who looks

	// Of TypeDone, TypeFailed and TypeDead.
	Attempts int    `json:"attempts,omitempty"` // since it was received, or since the retry
	Micros   int64  `json:"micros,omitempty"`   // since then
	Error    string `json:"error,omitempty"`    // of TypeFailed and TypeDead
	RetryMS  int64  `json:"retry_ms,omitempty"` // of TypeFailed: until the next attempt

	// Of TypeRetry and TypeDiscarded.
	By string `json:"by,omitempty"` // who asked for it: a user, or the id of an API key
}

// Events are the entries of a delivery, whose Body is whole, to be appended as one
// batch. They say of its size, its parts and its packing what is so. With buffers, none
// of them shares memory with a Body that these may have lent.
func (r *Received) Events(b *Buffers) ([]*carillon.Event, error) {
	if len(r.Body) > MaxBody {
		return nil, fmt.Errorf("intake: a body of %d bytes; at most %d", len(r.Body), MaxBody)
	}
	meta := r.Meta
	meta.Size, meta.Parts, meta.Packed = int64(len(r.Body)), 0, false
	stored := r.Body
	if len(stored) >= packFrom {
		room := b.Lend(s2.MaxEncodedLen(len(stored)))
		if packed := s2.Encode(room, stored); len(packed) < len(stored)-len(stored)/8 {
			stored, meta.Packed = bytes.Clone(packed), true
		}
		b.Return(room)
	}
	if b != nil && !meta.Packed && cap(stored) <= MaxLent {
		stored = bytes.Clone(stored)
	}
	if len(stored) > Part {
		meta.Parts = (len(stored) - 1) / Part
	}
	ce, err := json.Marshal(&meta)
	if err != nil {
		return nil, fmt.Errorf("intake: %w", err)
	}
	at := r.At.UTC().Truncate(time.Millisecond)
	first, rest := stored, []byte(nil)
	if len(first) > Part {
		first, rest = stored[:Part], stored[Part:]
	}
	events := []*carillon.Event{{
		Type: TypeReceived, Time: at, Source: r.Source, Delivery: r.Delivery, From: r.Remote, CE: ce, Data: first,
	}}
	for len(rest) > 0 {
		n := min(len(rest), Part)
		events = append(events, &carillon.Event{Type: TypePart, Time: at, Source: r.Source, Data: rest[:n]})
		rest = rest[n:]
	}
	return events, nil
}

// packFrom is how large a body is, in bytes, that is worth packing: what is stored is
// flushed, and read again, several times.
const packFrom = 512

// Whole makes Body, which is all that is stored of it, the body as it came. If it was
// packed, lent is to be returned to the buffers when nobody holds any of Body any more.
func (r *Received) Whole(b *Buffers) (lent []byte, err error) {
	if !r.Meta.Packed {
		return nil, nil
	}
	n, err := s2.DecodedLen(r.Body)
	if err != nil || int64(n) != r.Meta.Size || n > MaxBody {
		return nil, errors.New("intake: a packed body that is damaged")
	}
	lent = b.Lend(n)
	body, err := s2.Decode(lent, r.Body)
	if err != nil {
		b.Return(lent)
		return nil, fmt.Errorf("intake: a packed body that is damaged: %w", err)
	}
	r.Body, r.Meta.Packed = body, false
	return lent, nil
}

// ParseReceived reads an entry of TypeReceived. Body is the entry's: with those of the
// parts that follow it is what Whole takes.
func ParseReceived(e *carillon.Event) (*Received, error) {
	r := &Received{Source: e.Source, Delivery: e.Delivery, Remote: e.From, At: e.Time, Body: e.Data}
	if err := json.Unmarshal(e.CE, &r.Meta); err != nil {
		return nil, fmt.Errorf("intake: an entry of type %s: %w", e.Type, err)
	}
	return r, nil
}

// Entry is the entry of a refusal.
func (r *Refused) Entry() (*carillon.Event, error) {
	return event(TypeRefused, r.At, r.Source, r.Remote, r)
}

// ParseRefused reads an entry of TypeRefused.
func ParseRefused(e *carillon.Event) (*Refused, error) {
	r := &Refused{Source: e.Source, Remote: e.From, At: e.Time}
	if err := json.Unmarshal(e.Data, r); err != nil {
		return nil, fmt.Errorf("intake: an entry of type %s: %w", e.Type, err)
	}
	return r, nil
}

// Entry is the entry of a note of type t about a delivery of the source.
func (n *Note) Entry(t carillon.Type, at time.Time, source string) (*carillon.Event, error) {
	return event(t, at, source, "", n)
}

// ParseNote reads an entry of TypeDone, TypeFailed, TypeDead, TypeRetry or
// TypeDiscarded.
func ParseNote(e *carillon.Event) (*Note, error) {
	n := &Note{}
	if err := json.Unmarshal(e.Data, n); err != nil {
		return nil, fmt.Errorf("intake: an entry of type %s: %w", e.Type, err)
	}
	return n, nil
}

func event(t carillon.Type, at time.Time, source, remote string, v any) (*carillon.Event, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("intake: %w", err)
	}
	return &carillon.Event{Type: t, Time: at.UTC().Truncate(time.Millisecond), Source: source, From: remote, Data: data}, nil
}
