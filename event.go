package carillon

import "time"

// Event is something that happened. It is immutable once accepted.
type Event struct {
	Type     Type
	Time     time.Time // when it happened; UTC, milliseconds
	Subject  string    // the entity it is about, or ""
	Data     []byte    // one JSON value without whitespace outside strings; never parsed again
	To       Audience
	From     string // the publishing user, or "" for a server or source
	Source   string // the webhook source or connector it came through, or ""
	Delivery string // the provider's delivery id, or ""
	CE       []byte // what a CloudEvent keeps, a JSON object whose first member is source; or nil
}

// Audience says who may receive an event. The zero value is the whole
// organization, by pattern.
type Audience struct {
	Room  string   // the members of this room
	Users []string // or these users, on all their connections
}

// Whole reports whether the event goes to the whole organization.
func (a Audience) Whole() bool { return a.Room == "" && len(a.Users) == 0 }

// Direct reports whether the event goes to named users.
func (a Audience) Direct() bool { return len(a.Users) > 0 }

// Draft is an event as a publisher wrote it, before the gate has looked at it.
// Nothing in it has been checked.
type Draft struct {
	Type      string
	Time      string // RFC 3339, or "" for the time of acceptance
	Subject   string
	Data      []byte // JSON as sent
	Room      string
	Users     []string
	ID        string // the publisher's own id, which makes the publish idempotent; or ""
	Source    string // of a CloudEvent, whose ID is unique within it; or ""
	CE        []byte // of a CloudEvent: see Event
	Ephemeral bool   // delivered live, never stored; it has no ID
}

// Entry is an event at its place in the log, or an ephemeral one, which has no
// place. It is immutable and may be shared.
type Entry struct {
	Event
	Org      OrgID
	Pos      Position  // zero: ephemeral
	Accepted time.Time // when the log took it
}

// Ephemeral reports whether the event is in no log: it is delivered live, and
// has no id.
func (e *Entry) Ephemeral() bool { return e.Pos.Seq == 0 }

// Size is roughly how many bytes of memory the entry holds.
func (e *Entry) Size() int {
	n := 320 + len(e.Type) + len(e.Subject) + len(e.Data) + len(e.To.Room) + len(e.From) + len(e.Source) + len(e.Delivery) + len(e.CE)
	for _, u := range e.To.Users {
		n += 16 + len(u)
	}
	return n
}

// Receipt answers one published event.
type Receipt struct {
	Pos       Position // zero: it is ephemeral
	Duplicate bool     // it was already in the log, at Pos
}
