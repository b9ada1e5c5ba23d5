package wire

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/carillon-rt/carillon"
)

// Frame is one control frame of the server in the making: its type, and its JSON
// with every field so far. Begin starts one, End closes it.
type Frame struct {
	Type string
	json []byte // behind room for the header of a text frame
}

const (
	headerRoom  = 10
	commonFrame = 320 // bytes of memory that are enough for most
)

// Begin starts a frame of the given type.
func Begin(typ string) *Frame {
	b := append(make([]byte, headerRoom, commonFrame), `{"type":`...)
	return &Frame{Type: typ, json: AppendString(b, typ)}
}

func (f *Frame) name(name string) {
	f.json = append(f.json, ',', '"')
	f.json = append(f.json, name...)
	f.json = append(f.json, '"', ':')
}

// Str adds a text field; an empty one is left out.
func (f *Frame) Str(name, value string) *Frame {
	f.json = appendField(f.json, name, value)
	return f
}

// Strs adds a list of texts, also an empty one.
func (f *Frame) Strs(name string, values []string) *Frame {
	f.name(name)
	f.json = append(f.json, '[')
	for i, v := range values {
		if i > 0 {
			f.json = append(f.json, ',')
		}
		f.json = AppendString(f.json, v)
	}
	f.json = append(f.json, ']')
	return f
}

// Int adds a number.
func (f *Frame) Int(name string, value int64) *Frame {
	f.name(name)
	f.json = strconv.AppendInt(f.json, value, 10)
	return f
}

// True adds the field with the value true, or nothing.
func (f *Frame) True(name string, value bool) *Frame {
	if value {
		f.name(name)
		f.json = append(f.json, "true"...)
	}
	return f
}

// Raw adds a field whose value is JSON already; an empty one is left out.
func (f *Frame) Raw(name string, value []byte) *Frame {
	if len(value) > 0 {
		f.name(name)
		f.json = append(f.json, value...)
	}
	return f
}

// ID adds a position as an event id.
func (f *Frame) ID(name string, ids *IDs, p carillon.Position) *Frame {
	f.name(name)
	f.json = append(f.json, '"')
	f.json = ids.Append(f.json, p)
	f.json = append(f.json, '"')
	return f
}

// Gap adds a gap as an object; a nil one is left out.
func (f *Frame) Gap(name string, ids *IDs, g *carillon.Gap) *Frame {
	if g != nil {
		f.name(name)
		f.json = AppendGap(f.json, ids, g)
	}
	return f
}

// JSON ends the frame and returns it; nothing may be added any more.
func (f *Frame) JSON() []byte {
	f.json = append(f.json, '}')
	js := f.json[headerRoom:]
	f.json = f.json[:len(f.json)-1] // it may be asked for again
	return js
}

// AppendGap appends a gap as a JSON object {reason, cursor}.
func AppendGap(dst []byte, ids *IDs, g *carillon.Gap) []byte {
	dst = append(dst, `{"reason":"`...)
	dst = append(dst, g.Reason...)
	dst = append(dst, `","cursor":"`...)
	dst = ids.Append(dst, g.Pos)
	return append(dst, `"}`...)
}

// AppendReceipts appends the receipts of a publish as a JSON array of
// {id, duplicate}; those of ephemeral events have no id.
func AppendReceipts(dst []byte, ids *IDs, receipts []carillon.Receipt) []byte {
	dst = append(dst, '[')
	for i, r := range receipts {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		if r.Pos.Seq != 0 {
			dst = append(dst, `"id":"`...)
			dst = ids.Append(dst, r.Pos)
			dst = append(dst, `",`...)
		}
		dst = append(dst, `"duplicate":`...)
		dst = strconv.AppendBool(dst, r.Duplicate)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// ErrorFrame is an error as a frame; ref may be empty.
func ErrorFrame(err error, ref []byte) *Frame {
	e := carillon.AsError(err)
	f := Begin("error").Str("code", string(e.Code)).Str("message", e.Message).Raw("ref", ref)
	if e.RetryAfter > 0 {
		f.Int("retry_after_ms", e.RetryAfter.Milliseconds())
	}
	return f
}

// ClientFrame is what a client sent, checked for form: field names and their
// JSON types. What the values mean is for the session to say.
type ClientFrame struct {
	Type     string
	Ref      []byte // JSON, echoed in the answer
	Token    string
	After    string
	HasAfter bool
	Patterns []string
	List     bool // patterns, not pattern
	Subject  string
	Overflow carillon.Overflow
	Drafts   []carillon.Draft
}

// fieldsOf says which fields a frame of each type may have, besides type and ref.
var fieldsOf = map[string][]string{
	"connect":     {"token", "after"},
	"subscribe":   {"pattern", "patterns", "after", "subject", "overflow", "ack", "durable"},
	"unsubscribe": {"pattern", "subject"},
	"publish":     {"event", "events"},
	"refresh":     {"token"},
	"ping":        {},
}

// later are the frames of the protocol that this server does not speak yet.
var later = map[string]bool{"ack": true, "chat": true, "join_room": true, "leave_room": true, "status_update": true, "typing": true}

// ParseClientFrame reads one frame. maxEvents bounds an array of events. With an
// error the returned frame still has what Ref and Type could be read.
func ParseClientFrame(raw []byte, maxEvents int) (*ClientFrame, error) {
	f := new(ClientFrame)
	fields, err := members(raw)
	for _, m := range fields { // ref and type first, for the answer
		switch m.name {
		case "ref":
			if len(m.value) > 0 && (m.value[0] == '"' || m.value[0] == '-' || '0' <= m.value[0] && m.value[0] <= '9') && len(m.value) <= maxRef {
				f.Ref = m.value
			} else if err == nil {
				err = carillon.BadRequest("ref is a string or a number of at most %d bytes", maxRef)
			}
		case "type":
			if e := unmarshalString(m, &f.Type); e != nil && err == nil {
				err = e
			}
		}
	}
	if err != nil {
		return f, err
	}
	if f.Type == "" {
		return f, carillon.BadRequest(`a frame has a "type": connect, subscribe, unsubscribe, publish, refresh or ping`)
	}
	allowed, ok := fieldsOf[f.Type]
	if !ok {
		if later[f.Type] {
			return f, carillon.BadRequest("frame type %q is not available on this server yet", f.Type)
		}
		return f, carillon.BadRequest("unknown frame type %q; it is connect, subscribe, unsubscribe, publish, refresh or ping", clip(f.Type))
	}
	for i, m := range fields {
		if has(fields[:i], m.name) { // they are few: a name that is not allowed ends it
			return f, carillon.BadRequest("field %q is there twice", clip(m.name))
		}
		if m.name == "type" || m.name == "ref" {
			continue
		}
		if !contains(allowed, m.name) {
			return f, carillon.BadRequest("a %s frame has no field %q", f.Type, clip(m.name))
		}
		if err := f.set(m, maxEvents); err != nil {
			return f, err
		}
	}
	return f, f.complete(fields)
}

// maxRef bounds the ref of a frame, in bytes of JSON.
const maxRef = 256

func (f *ClientFrame) set(m member, maxEvents int) (err error) {
	switch m.name {
	case "token":
		return unmarshalString(m, &f.Token)
	case "after":
		f.HasAfter = true
		return unmarshalString(m, &f.After)
	case "subject":
		return unmarshalString(m, &f.Subject)
	case "pattern":
		f.Patterns = []string{""}
		return unmarshalString(m, &f.Patterns[0])
	case "patterns":
		f.List = true
		var list []*string // a null among them is nil, not an empty text
		if err := json.Unmarshal(m.value, &list); err != nil || list == nil || slices.Contains(list, nil) {
			return carillon.BadRequest("patterns is a list of strings")
		}
		f.Patterns = make([]string, len(list))
		for i, s := range list {
			f.Patterns[i] = *s
		}
	case "overflow":
		var policy string
		if err := unmarshalString(m, &policy); err != nil {
			return err
		}
		f.Overflow, err = carillon.ParseOverflow(policy)
		return err
	case "ack", "durable":
		return carillon.BadRequest("%s is not available on this server yet", m.name)
	case "event":
		d, err := ParseDraft(m.value)
		f.Drafts = []carillon.Draft{d}
		return err
	case "events":
		if m.value[0] != '[' {
			return carillon.BadRequest("events is a list; one event goes into \"event\"")
		}
		f.Drafts, _, err = ParseDrafts(m.value, maxEvents)
		return err
	}
	return nil
}

func (f *ClientFrame) complete(fields []member) error {
	switch f.Type {
	case "connect", "refresh":
		if f.Token == "" {
			return carillon.BadRequest("a %s frame has a token", f.Type)
		}
	case "subscribe":
		if has(fields, "pattern") == has(fields, "patterns") {
			return carillon.BadRequest("a subscribe frame has either pattern or patterns")
		}
	case "unsubscribe":
		if !has(fields, "pattern") {
			return carillon.BadRequest("an unsubscribe frame has a pattern")
		}
	case "publish":
		if has(fields, "event") == has(fields, "events") {
			return carillon.BadRequest("a publish frame has either event (an object) or events (a list)")
		}
	}
	return nil
}

type member struct {
	name  string
	value json.RawMessage
}

var errNotObject = carillon.BadRequest("a frame is one JSON object")

// members splits a JSON object into its members, in order, repeated ones too. The
// values are parts of raw.
func members(raw []byte) ([]member, error) {
	if !utf8.Valid(raw) {
		return nil, carillon.BadRequest("a frame is UTF-8")
	}
	s := scanner{src: raw}
	if s.space(); s.peek() != '{' {
		return nil, errNotObject
	}
	s.i++
	all := make([]member, 0, 4) // most have no more
	ok := s.members(func(key []byte, _ int) bool {
		from := s.i
		if !s.value() {
			return false
		}
		all = append(all, member{name: nameOf(key), value: raw[from:s.i:s.i]})
		return true
	})
	switch {
	case !ok && s.i >= len(raw):
		return all, carillon.BadRequest("a frame is one JSON object; this one ends in the middle")
	case !ok:
		return all, s.err
	}
	if s.space(); s.i < len(raw) {
		return all, carillon.BadRequest("a frame is one JSON object; there is more after it")
	}
	return all, nil
}

// nameOf is the name of a field, without memory of its own for those that there
// are.
func nameOf(key []byte) string {
	for _, name := range [...]string{"type", "ref", "pattern", "patterns", "after", "subject", "overflow", "event", "events", "token"} {
		if string(key) == name {
			return name
		}
	}
	return string(key)
}

func unmarshalString(m member, s *string) error {
	if n := len(m.value); n >= 2 && m.value[0] == '"' && bytes.IndexByte(m.value, '\\') < 0 {
		*s = string(m.value[1 : n-1]) // it is UTF-8, and stands for itself
		return nil
	}
	if len(m.value) == 0 || m.value[0] != '"' || json.Unmarshal(m.value, s) != nil {
		return carillon.BadRequest("%s is a string", clip(m.name))
	}
	return nil
}

func has(fields []member, name string) bool {
	return slices.ContainsFunc(fields, func(m member) bool { return m.name == name })
}

func contains(list []string, s string) bool {
	return slices.Contains(list, s)
}

// clip shortens what a client sent for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
