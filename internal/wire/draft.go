package wire

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/carillon-rt/carillon"
)

// MaxDepth is how deep arrays and objects may nest in the data of an event.
const MaxDepth = 128

// ParseDraft reads one event as publishers write it. The fields are type, data,
// subject, time, id, to and ephemeral, spelled exactly so; type and data are
// required. What it checks is the form: the gate judges the values.
//
// It refuses with bad_request, saying where and what would be right: text that
// is not JSON (RFC 8259) in UTF-8, half a surrogate pair in a string, a field it
// does not know, a key that is there twice in any object, nesting beyond
// MaxDepth, and a field of the wrong kind. Positions are bytes of raw, the first
// is 0.
//
// The draft holds no part of raw. Its Data has no whitespace outside strings;
// numbers, escapes and the order of keys are as sent.
func ParseDraft(raw []byte) (carillon.Draft, error) {
	var d carillon.Draft
	s := newScanner(raw)
	if s.utf8() && s.space() && s.draft(&d) && s.end() {
		return d, nil
	}
	return carillon.Draft{}, s.err
}

// ParseDrafts reads one event, or an array of 1 to max of them; array says
// which it was. An error in an array names the event's index, from 0. More than
// max are too_large; otherwise everything ParseDraft says holds.
func ParseDrafts(body []byte, max int) (drafts []carillon.Draft, array bool, err error) {
	s := newScanner(body)
	if !s.utf8() || !s.space() {
		return nil, false, s.err
	}
	if s.peek() != '[' {
		drafts = make([]carillon.Draft, 1)
		if s.draft(&drafts[0]) && s.end() {
			return drafts, false, nil
		}
		return nil, false, s.err
	}
	drafts, ok := s.list(max, s.draft)
	if !ok {
		return nil, true, s.err
	}
	return drafts, true, nil
}

// list reads an array of 1 to max drafts, each by one, and the end of the text.
func (s *scanner) list(max int, one func(*carillon.Draft) bool) (drafts []carillon.Draft, ok bool) {
	s.i++
	if s.space(); s.peek() == ']' {
		s.err = carillon.BadRequest("the array is empty; it has 1–%d events", max)
		return nil, false
	}
	for n := 0; ; n++ {
		if n == max {
			s.err = carillon.Errorf(carillon.CodeTooLarge, "the array has more than %d events; send several arrays", max).Over("batch_events")
			return nil, false
		}
		drafts = append(drafts, carillon.Draft{})
		if s.space(); !one(&drafts[n]) {
			s.err.Message = fmt.Sprintf("event %d: %s", n, s.err.Message)
			return nil, false
		}
		s.space()
		if s.peek() == ',' {
			s.i++
			continue
		}
		return drafts, s.take(']', "',' or ']' after an event of the array") && s.end()
	}
}

// The fields of an event, as bits of what has been seen.
const (
	fieldType = 1 << iota
	fieldData
	fieldSubject
	fieldTime
	fieldID
	fieldTo
	fieldEphemeral
)

// draft reads the object of an event.
func (s *scanner) draft(d *carillon.Draft) bool {
	if s.peek() != '{' {
		return s.wrong("an event, an object such as {\"type\":\"order.paid\",\"data\":{}}")
	}
	s.i++
	seen := 0
	ok := s.members(func(key []byte, at int) bool {
		var field int
		switch string(key) {
		case "type":
			field = fieldType
		case "data":
			field = fieldData
		case "subject":
			field = fieldSubject
		case "time":
			field = fieldTime
		case "id":
			field = fieldID
		case "to":
			field = fieldTo
		case "ephemeral":
			field = fieldEphemeral
		default:
			return s.failAt(at, "the field %q is not known; an event has type, data, subject, time, id, to and ephemeral", show(key))
		}
		if seen&field != 0 {
			return s.twice(key, at)
		}
		seen |= field
		return s.field(d, field)
	})
	switch {
	case !ok:
		return false
	case seen&fieldType == 0:
		return s.fail(`the field "type" is missing; it is the event's type, such as "order.paid"`)
	case seen&fieldData == 0:
		return s.fail(`the field "data" is missing; it is any JSON value, null too`)
	}
	return true
}

// field reads the value of one field of an event.
func (s *scanner) field(d *carillon.Draft, field int) (ok bool) {
	at := s.i
	switch field {
	case fieldType:
		d.Type, ok = s.text("type", `a string such as "order.paid"`)
	case fieldData:
		d.Data, ok = s.compact()
	case fieldSubject:
		d.Subject, ok = s.text("subject", "a string; leave it out if there is none")
	case fieldTime:
		if d.Time, ok = s.text("time", `a string such as "2025-07-09T10:30:00Z"; leave it out for the time of acceptance`); ok && d.Time == "" {
			return s.failAt(at, "time is empty; leave it out for the time of acceptance")
		}
	case fieldID:
		if d.ID, ok = s.text("id", "a string; leave it out if there is none"); ok && d.ID == "" {
			return s.failAt(at, "id is empty; it is 1–%d bytes, or left out", carillon.MaxEventKey)
		}
	case fieldTo:
		return s.audience(d)
	case fieldEphemeral:
		switch s.peek() {
		case 't':
			d.Ephemeral = true
			return s.word("true")
		case 'f':
			return s.word("false")
		}
		return s.wrong("true or false for ephemeral")
	}
	return ok
}

const audienceForm = `"to" is exactly one of {"room":"ops"}, {"user":"alice"} and {"users":["alice","bob"]}; leave it out for the whole organization`

// audience reads the value of "to".
func (s *scanner) audience(d *carillon.Draft) bool {
	start := s.i
	if s.peek() != '{' {
		return s.fail("%s", audienceForm)
	}
	s.i++
	n := 0
	ok := s.members(func(key []byte, at int) (ok bool) {
		if n++; n > 1 {
			return s.failAt(at, "%s", audienceForm)
		}
		at = s.i
		switch string(key) {
		case "room":
			if d.Room, ok = s.text("to.room", "a room's name, a string"); ok && d.Room == "" {
				return s.failAt(at, "to.room is empty; it is a room's name")
			}
			return ok
		case "user":
			var user string
			if user, ok = s.text("to.user", "a user's name, a string"); ok {
				d.Users = []string{user}
			}
			return ok
		case "users":
			return s.users(d)
		}
		return s.failAt(at, "the field %q is not known in \"to\"; %s", show(key), audienceForm)
	})
	if ok && n == 0 {
		return s.failAt(start, "%s", audienceForm)
	}
	return ok
}

// users reads the list of to.users.
func (s *scanner) users(d *carillon.Draft) bool {
	const form = "a list of users' names, strings, such as [\"alice\",\"bob\"]"
	if s.peek() != '[' {
		return s.wrong(form + " for to.users")
	}
	at := s.i
	s.i++
	if s.space(); s.peek() == ']' {
		return s.failAt(at, "to.users is empty; name at least one user")
	}
	for {
		s.space()
		user, ok := s.text("to.users", form)
		if !ok {
			return false
		}
		d.Users = append(d.Users, user)
		if s.space(); s.peek() != ',' {
			return s.take(']', "',' or ']' in to.users")
		}
		s.i++
	}
}

// text reads a string that is the value of a field.
func (s *scanner) text(field, form string) (string, bool) {
	if s.peek() != '"' {
		return "", s.fail("%s is not a string; it is %s", field, form)
	}
	start := s.i + 1
	escaped, ok := s.string()
	if !ok {
		return "", false
	}
	raw := s.src[start : s.i-1]
	if escaped {
		raw = appendUnescaped(make([]byte, 0, len(raw)), raw)
	}
	return string(raw), true
}

// compact reads any value and returns it without whitespace outside strings, in
// memory of its own.
func (s *scanner) compact() ([]byte, bool) {
	start, blanks := s.i, s.blanks
	if !s.value() {
		return nil, false
	}
	raw := s.src[start:s.i]
	blanks = s.blanks - blanks
	if blanks == 0 {
		return bytes.Clone(raw), true
	}
	out := make([]byte, 0, len(raw)-blanks)
	from := 0
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			for i++; raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		case ' ', '\t', '\r', '\n':
			out = append(out, raw[from:i]...)
			from = i + 1
		}
	}
	return append(out, raw[from:]...), true
}

func show[S string | []byte](s S) string {
	const shown = 80
	if len(s) <= shown {
		return string(s)
	}
	return strings.ToValidUTF8(string(s[:shown]), "") + "…"
}
