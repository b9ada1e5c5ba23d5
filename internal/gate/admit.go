package gate

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/match"
)

// admit checks and stamps a batch; bytes is what its events have together.
func (g *Gate) admit(p *publisher, drafts []carillon.Draft, now time.Time) (batch []engine.Append, bytes int, err *carillon.Error) {
	switch {
	case len(drafts) == 0:
		return nil, 0, carillon.BadRequest("there are no events; send 1–%d", g.cfg.BatchEvents)
	case len(drafts) > g.cfg.BatchEvents:
		return nil, 0, carillon.Errorf(carillon.CodeTooLarge, "%d events at once; at most %d are allowed, send them in parts", len(drafts), g.cfg.BatchEvents).Over("batch_events")
	}
	// One piece of memory for both; the engine copies the events.
	events := make([]carillon.Event, len(drafts))
	batch = make([]engine.Append, len(drafts))
	now = now.UTC().Truncate(time.Millisecond)
	who := "" // whose ids they are, once one is needed
	for i := range drafts {
		e, d := &events[i], &drafts[i]
		if d.Ephemeral != drafts[0].Ephemeral {
			return nil, 0, carillon.BadRequest("event %d: some events here are ephemeral and others are not; publish the two kinds apart", i)
		}
		if who == "" && d.ID != "" {
			who = p.ids()
		}
		key, err := g.stamp(e, p, d, who, now)
		if err != nil {
			refusal := *carillon.AsError(err)
			if len(drafts) > 1 {
				refusal.Message = fmt.Sprintf("event %d: %s", i, refusal.Message)
			}
			return nil, 0, &refusal
		}
		batch[i] = engine.Append{Event: e, Key: key}
		bytes += size(e)
	}
	if bytes > g.cfg.BatchBytes {
		return nil, 0, carillon.Errorf(carillon.CodeTooLarge, "the events have %d bytes together; at most %d are allowed, send them in parts", bytes, g.cfg.BatchBytes).Over("request_bytes")
	}
	return batch, bytes, nil
}

// stamp fills e from a draft that may be published as it is.
func (g *Gate) stamp(e *carillon.Event, p *publisher, d *carillon.Draft, who string, now time.Time) (key string, err error) {
	if e.Type, err = g.eventType(p, d.Type); err != nil {
		return "", err
	}
	if n := len(d.Data) + len(d.CE); n > g.cfg.EventBytes {
		return "", carillon.Errorf(carillon.CodeTooLarge, "the data has %d bytes; at most %d are allowed", n, g.cfg.EventBytes).Over("event_bytes")
	}
	e.Data, e.CE = d.Data, d.CE
	if e.Subject, err = carillon.ParseSubject(d.Subject); err != nil {
		return "", err
	}
	if e.Time, err = eventTime(d.Time, now); err != nil {
		return "", err
	}
	if key, err = eventKey(who, d.Source, d.ID); err != nil {
		return "", err
	}
	if e.To, err = g.audience(d); err != nil {
		return "", err
	}
	if d.Ephemeral && d.ID != "" {
		return "", carillon.BadRequest("an ephemeral event is never stored and so has no id; leave out its id or the Idempotency-Key, or ephemeral")
	}
	e.From, e.Source, e.Delivery = p.User, p.source, p.delivery
	return key, nil
}

// eventType checks the type and whether the caller may publish it.
func (g *Gate) eventType(p *publisher, s string) (carillon.Type, error) {
	t, err := carillon.ParseType(s)
	if err != nil {
		return "", err
	}
	if p.source != "" {
		if t.First() != p.source {
			return "", carillon.Errorf(carillon.CodeForbidden, "event type %q: those of the source %q begin with its name", t, p.source)
		}
		return t, nil
	}
	if t.Reserved() {
		return "", carillon.Errorf(carillon.CodeForbidden, "event type %q: types that begin with %q come from the server only; choose another first word", t, t.First())
	}
	if g.cfg.Source != nil && g.cfg.Source(p.Org, t.First()) {
		return "", carillon.Errorf(carillon.CodeForbidden, "event type %q: %q is a webhook source, whose types come from there only; choose another first word", t, t.First())
	}
	if !match.MayPublish(p.Principal, t) {
		return "", carillon.Errorf(carillon.CodeForbidden, "this credential may not publish event type %q; it needs a role or permissions that allow it", t)
	}
	return t, nil
}

// eventTime reads RFC 3339; empty text is the time of acceptance.
func eventTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return now, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	t = t.UTC().Truncate(time.Millisecond)
	if err != nil || !strict(s) || t.Year() < 0 || t.Year() > 9999 {
		if len(s) > 40 {
			s = s[:40] + "…"
		}
		return time.Time{}, carillon.BadRequest("time %q is not RFC 3339, such as 2025-07-09T10:30:00.000Z", s)
	}
	return t, nil
}

// strict refuses what time.Parse takes for RFC 3339 and is none: an hour of one
// digit, a comma before the fraction, an offset of a day or more.
func strict(s string) bool {
	const colon, fraction = len("2025-07-09T10"), len("2025-07-09T10:30:00")
	if len(s) <= fraction || s[colon] != ':' || s[fraction] == ',' {
		return false
	}
	if s[len(s)-1] == 'Z' {
		return true
	}
	offset := s[len(s)-len("02:00"):]
	return offset[:2] <= "23" && offset[3:] <= "59"
}

// eventKey is the key that makes publishing idempotent, or "". None of its parts
// can hold the NUL between them, so no two keys meet. A source, which may be
// long, is there by its hash.
func eventKey(who, source, id string) (string, error) {
	if id == "" {
		return "", nil
	}
	if len(id) > carillon.MaxEventKey {
		return "", carillon.BadRequest("an event's own id is 1–%d bytes, not %d", carillon.MaxEventKey, len(id))
	}
	if _, err := carillon.ParseSubject(id); err != nil { // the same alphabet
		return "", carillon.BadRequest("an event's own id is UTF-8 without control characters")
	}
	if source != "" {
		hash := sha256.Sum256([]byte(source))
		who += "\x00" + base64.RawURLEncoding.EncodeToString(hash[:])
	}
	return who + "\x00" + id, nil
}

// audience checks whom the event is for.
func (g *Gate) audience(d *carillon.Draft) (carillon.Audience, error) {
	switch {
	case d.Room != "" && len(d.Users) > 0:
		return carillon.Audience{}, carillon.BadRequest("an event goes to a room or to users, not to both")
	case d.Room != "":
		room, err := carillon.ParseRoom(d.Room)
		if err != nil {
			return carillon.Audience{}, err
		}
		return carillon.Audience{}, carillon.Errorf(carillon.CodeNotFound, "room %q is not known here", room)
	case len(d.Users) == 0:
		return carillon.Audience{}, nil
	}
	users := make([]string, 0, min(len(d.Users), g.cfg.UsersPerEvent))
	known := make(map[string]struct{}, cap(users))
	for _, s := range d.Users {
		u, err := carillon.ParseUser(s)
		if err != nil {
			return carillon.Audience{}, err
		}
		if _, twice := known[u]; twice {
			continue
		}
		if len(users) == g.cfg.UsersPerEvent {
			return carillon.Audience{}, carillon.BadRequest("the event names more than %d users; name fewer, or publish it several times", g.cfg.UsersPerEvent).Over("users_per_event")
		}
		known[u] = struct{}{}
		users = append(users, u)
	}
	return carillon.Audience{Users: slices.Clip(users)}, nil
}

// size is what an event counts for in limits of bytes.
func size(e *carillon.Event) int {
	n := len(e.Type) + len(e.Subject) + len(e.Data) + len(e.CE)
	for _, u := range e.To.Users {
		n += len(u)
	}
	return n
}
