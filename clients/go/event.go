package carillon

import (
	"crypto/rand"
	"encoding/json"
	"time"
)

// Event is something that happened, as it is received.
type Event struct {
	ID       string          // opaque, unique in the organization; "" for an event that is never stored
	Type     string          // such as workflow.step.completed
	Time     time.Time       // when it happened; UTC, milliseconds
	Data     json.RawMessage // one JSON value, as published
	Subject  string          // the entity it is about, or ""
	Room     string          // the room whose members receive it, or ""
	Direct   bool            // it was sent to named users
	From     string          // the publishing user, or "" for a server or source
	Source   string          // the webhook source it came through, or ""
	Delivery string          // the provider's delivery id, or ""
	CE       json.RawMessage // kept CloudEvents attributes, or nil
}

// timeFormat is how the server writes timestamps.
const timeFormat = "2006-01-02T15:04:05.000Z"

// eventJSON is an event on the wire.
type eventJSON struct {
	Type      string          `json:"type"`
	ID        string          `json:"id,omitempty"`
	EventType string          `json:"event_type"`
	Timestamp string          `json:"timestamp"`
	Payload   json.RawMessage `json:"payload"`
	Subject   string          `json:"subject,omitempty"`
	Room      string          `json:"room,omitempty"`
	Direct    bool            `json:"direct,omitempty"`
	From      string          `json:"from,omitempty"`
	Source    string          `json:"source,omitempty"`
	Delivery  string          `json:"delivery,omitempty"`
	CE        json.RawMessage `json:"ce,omitempty"`
}

func (w *eventJSON) event() (Event, error) {
	t, err := time.Parse(time.RFC3339, w.Timestamp)
	if err != nil {
		return Event{}, err
	}
	return Event{
		ID: w.ID, Type: w.EventType, Time: t.UTC(), Data: w.Payload, Subject: w.Subject, Room: w.Room,
		Direct: w.Direct, From: w.From, Source: w.Source, Delivery: w.Delivery, CE: w.CE,
	}, nil
}

// MarshalJSON writes the event as the server sends it.
func (e Event) MarshalJSON() ([]byte, error) {
	return encode(eventJSON{
		Type: "event", ID: e.ID, EventType: e.Type, Timestamp: e.Time.UTC().Format(timeFormat), Payload: e.Data,
		Subject: e.Subject, Room: e.Room, Direct: e.Direct, From: e.From, Source: e.Source, Delivery: e.Delivery, CE: e.CE,
	})
}

// UnmarshalJSON reads an event as the server sends it.
func (e *Event) UnmarshalJSON(b []byte) error {
	var w eventJSON
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	event, err := w.event()
	if err != nil {
		return err
	}
	*e = event
	return nil
}

// Draft is an event to be published.
type Draft struct {
	// Type is the event type: 1–16 segments of letters, digits, '_' and '-'
	// with dots between.
	Type string

	// Data is the payload. It is written by encoding/json; a json.RawMessage is
	// sent as it is, nil is null.
	Data any

	// Subject is the entity the event is about, or "".
	Subject string

	// Time is when it happened. Zero means when the server accepts it.
	Time time.Time

	// ID makes the publish idempotent: the same ID again, within the server's
	// window of some minutes, stores nothing and gets the first event's
	// receipt. It is not the event's id. Publish fills an empty one with NewID,
	// unless the draft is ephemeral.
	ID string

	// To is who may receive it. Zero means the whole organization.
	To Audience

	// Ephemeral events are delivered live and never stored.
	Ephemeral bool
}

// Audience says who may receive an event: the members of a room, or named
// users, or, when zero, the whole organization by pattern.
type Audience struct {
	Room  string
	Users []string
}

// Receipt answers one published draft.
type Receipt struct {
	ID        string `json:"id,omitempty"` // the event's id; "" for an ephemeral one
	Duplicate bool   `json:"duplicate"`    // a draft with this ID was stored before, and this is its receipt
}

// NewID returns a random ID for a Draft.
func NewID() string { return rand.Text() }

// draftJSON is a draft on the wire.
type draftJSON struct {
	Type      string     `json:"type"`
	Data      any        `json:"data"`
	Subject   string     `json:"subject,omitempty"`
	Time      *time.Time `json:"time,omitempty"`
	ID        string     `json:"id,omitempty"`
	To        *toJSON    `json:"to,omitempty"`
	Ephemeral bool       `json:"ephemeral,omitempty"`
}

type toJSON struct {
	Room  string   `json:"room,omitempty"`
	User  string   `json:"user,omitempty"`
	Users []string `json:"users,omitempty"`
}

func (d *Draft) wire() draftJSON {
	w := draftJSON{Type: d.Type, Data: d.Data, Subject: d.Subject, ID: d.ID, Ephemeral: d.Ephemeral}
	if !d.Time.IsZero() {
		w.Time = &d.Time
	}
	if d.To.Room != "" || len(d.To.Users) > 0 {
		w.To = &toJSON{Room: d.To.Room}
		if len(d.To.Users) == 1 {
			w.To.User = d.To.Users[0]
		} else {
			w.To.Users = d.To.Users
		}
	}
	return w
}
