package wire

import (
	"fmt"
	"mime"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/carillon-rt/carillon"
)

// CloudEventsContentType is the media type of one CloudEvent as JSON, and
// CloudEventsBatchContentType that of several.
const (
	CloudEventsContentType      = "application/cloudevents+json"
	CloudEventsBatchContentType = "application/cloudevents-batch+json"
)

// DefaultCEBytes is how much an event may keep of a CloudEvent beside what
// becomes its own fields.
const DefaultCEBytes = 8000

// ParseCloudEvent reads one CloudEvent 1.0 in its JSON format. type, subject,
// time and data become the draft's; id and source make its publish idempotent;
// the extensions carillonroom and carillonuser are its audience. CE keeps source,
// dataschema, a datacontenttype that is not application/json, and all other
// extensions, in at most maxCE bytes: more are too_large. An event without data
// has null.
//
// Data that is not JSON, data_base64 too, is unsupported_media_type. Otherwise
// it refuses what ParseDraft refuses, and attributes that CloudEvents does not
// allow. The draft holds no part of raw.
func ParseCloudEvent(raw []byte, maxCE int) (carillon.Draft, error) {
	var d carillon.Draft
	s := newScanner(raw)
	if s.utf8() && s.space() && s.cloudEvent(&d, maxCE) && s.end() {
		return d, nil
	}
	return carillon.Draft{}, s.err
}

// ParseCloudEvents reads a batch, an array of 1 to max CloudEvents, each as
// ParseCloudEvent does, and errors as ParseDrafts.
func ParseCloudEvents(body []byte, max, maxCE int) ([]carillon.Draft, error) {
	s := newScanner(body)
	if !s.utf8() || !s.space() {
		return nil, s.err
	}
	if s.peek() != '[' {
		s.wrong("a batch, an array of CloudEvents; a single one is " + CloudEventsContentType)
		return nil, s.err
	}
	drafts, ok := s.list(max, func(d *carillon.Draft) bool { return s.cloudEvent(d, maxCE) })
	if !ok {
		return nil, s.err
	}
	return drafts, nil
}

// ParseBinaryCloudEvent reads a CloudEvent of HTTP's binary mode: the attributes
// are headers that begin with ce-, datacontenttype is Content-Type, and body is
// the data; without a body it is null. The keys of header are in canonical form.
// Otherwise it is as ParseCloudEvent, except that every extension is a text.
func ParseBinaryCloudEvent(header map[string][]string, body []byte, maxCE int) (carillon.Draft, error) {
	d := carillon.Draft{Data: []byte("null")}
	c := newCloudEvent(&d, maxCE)
	if err := c.header(header); err != nil {
		return carillon.Draft{}, err
	}
	if len(body) > 0 {
		s := newScanner(body)
		ok := s.utf8() && s.space()
		if ok {
			d.Data, ok = s.compact()
		}
		if !ok || !s.end() {
			return carillon.Draft{}, s.err
		}
	}
	if err := c.end(); err != nil {
		return carillon.Draft{}, err
	}
	return d, nil
}

// cloudEvent is a CloudEvent in the reading.
type cloudEvent struct {
	draft    *carillon.Draft
	seen     map[string]bool // every attribute; false where it is null
	schema   string          // dataschema
	dataType string          // datacontenttype, where it says more than JSON
	kept     []byte          // the extensions, each behind a comma
	max      int
}

func newCloudEvent(d *carillon.Draft, max int) *cloudEvent {
	return &cloudEvent{draft: d, seen: make(map[string]bool, 8), max: max}
}

// text takes an attribute that is a text.
func (c *cloudEvent) text(name, value string) *carillon.Error {
	if err := ceText(name, value); err != nil {
		return err
	}
	d := c.draft
	switch name {
	case "specversion":
		if value != "1.0" {
			return carillon.BadRequest("specversion is %q; this server reads CloudEvents 1.0", show(value))
		}
	case "type":
		d.Type = value
	case "source":
		d.Source = value
	case "id":
		d.ID = value
	case "time":
		d.Time = value
	case "subject":
		d.Subject = value
	case "dataschema":
		c.schema = value
	case "datacontenttype":
		return c.contentType(value)
	case "carillonroom":
		d.Room = value
	case "carillonuser":
		d.Users = []string{value}
	default:
		return c.extension(name, AppendString(nil, value))
	}
	if value == "" {
		return carillon.BadRequest("%s is empty; give it a value or leave it out", name)
	}
	return nil
}

// extension keeps one; value is JSON.
func (c *cloudEvent) extension(name string, value []byte) *carillon.Error {
	if core(name) {
		return carillon.BadRequest("%s is a text", name)
	}
	if strings.HasPrefix(name, "carillon") {
		return carillon.BadRequest("the extension %q is not known; of those that begin with carillon an event may have carillonroom and carillonuser", show(name))
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return carillon.BadRequest("the attribute %q: names have only a–z and 0–9", show(name))
		}
	}
	if name == "" {
		return carillon.BadRequest("an attribute without a name; names have only a–z and 0–9")
	}
	c.kept = append(c.kept, `,"`...)
	c.kept = append(c.kept, name...)
	c.kept = append(c.kept, `":`...)
	c.kept = append(c.kept, value...)
	return c.fits(len(c.kept))
}

// core reports whether an attribute has a meaning of its own here, and a text
// for a value.
func core(name string) bool {
	switch name {
	case "specversion", "type", "source", "id", "time", "subject", "dataschema", "datacontenttype", "carillonroom", "carillonuser":
		return true
	}
	return false
}

func (c *cloudEvent) fits(n int) *carillon.Error {
	if n > c.max {
		return carillon.Errorf(carillon.CodeTooLarge, "source and extensions of the CloudEvent take more than %d bytes; put what is large into the data", c.max).Over("ce_bytes")
	}
	return nil
}

// contentType refuses data that is not JSON.
func (c *cloudEvent) contentType(value string) *carillon.Error {
	t, params, err := mime.ParseMediaType(value)
	_, subtype, _ := strings.Cut(t, "/")
	if err != nil || subtype != "json" && !strings.HasSuffix(subtype, "+json") {
		return carillon.Errorf(carillon.CodeUnsupportedMedia, "the data of the CloudEvent is %q; it must be JSON: application/json or a type that ends in +json", show(value))
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return carillon.Errorf(carillon.CodeUnsupportedMedia, "the charset is not supported; JSON is UTF-8")
	}
	if t != "application/json" {
		c.dataType = value
	}
	return nil
}

// end completes the draft.
func (c *cloudEvent) end() *carillon.Error {
	d := c.draft
	for _, name := range []string{"specversion", "id", "source", "type"} {
		if !c.seen[name] {
			return carillon.BadRequest("the CloudEvent has no %s; specversion, id, source and type are required", name)
		}
	}
	if d.Room != "" && len(d.Users) > 0 {
		return carillon.BadRequest("the CloudEvent has carillonroom and carillonuser; it goes to one of them")
	}
	d.CE = AppendString([]byte(`{"source":`), d.Source)
	d.CE = appendField(d.CE, "dataschema", c.schema)
	d.CE = appendField(d.CE, "datacontenttype", c.dataType)
	d.CE = append(append(d.CE, c.kept...), '}')
	return c.fits(len(d.CE))
}

// ceText checks a text as CloudEvents defines it: UTF-8 without control
// characters and code points that are no characters.
func ceText(name, value string) *carillon.Error {
	for _, r := range value {
		if r == utf8.RuneError || unicode.IsControl(r) || r&0xfffe == 0xfffe || 0xfdd0 <= r && r <= 0xfdef {
			if r == utf8.RuneError && utf8.ValidString(value) {
				continue // the replacement character itself
			}
			return carillon.BadRequest("the attribute %q is not UTF-8 without control characters", show(name))
		}
	}
	return nil
}

// cloudEvent reads the object of a CloudEvent.
func (s *scanner) cloudEvent(d *carillon.Draft, maxCE int) bool {
	if s.peek() != '{' {
		return s.wrong("a CloudEvent, an object with specversion, id, source and type")
	}
	s.i++
	d.Data = []byte("null")
	c := newCloudEvent(d, maxCE)
	ok := s.members(func(key []byte, at int) bool {
		name := string(key)
		if _, twice := c.seen[name]; twice {
			return s.twice(key, at)
		}
		switch name {
		case "data":
			c.seen[name] = true
			var ok bool
			d.Data, ok = s.compact()
			return ok
		case "data_base64":
			s.err = carillon.Errorf(carillon.CodeUnsupportedMedia, "the CloudEvent has data_base64; its data must be JSON, in data")
			return false
		}
		set, ok := s.attribute(c, name, at)
		c.seen[name] = set
		return ok
	})
	return ok && s.refused(c.end(), -1)
}

// attribute reads the value of one; set is false for null, which is the same as
// its absence.
func (s *scanner) attribute(c *cloudEvent, name string, at int) (set, ok bool) {
	start := s.i
	switch b := s.peek(); {
	case b == '"':
		value, ok := s.text(show(name), "a text")
		return true, ok && s.refused(c.text(name, value), at)
	case b == 'n':
		return false, s.word("null")
	case b == 't', b == 'f':
		if !s.value() {
			return false, false
		}
	case b == '-', '0' <= b && b <= '9':
		if !s.number() {
			return false, false
		}
		if _, err := strconv.ParseInt(string(s.src[start:s.i]), 10, 32); err != nil {
			return false, s.failAt(start, "the attribute %q is not a whole number of 32 bits; send another number as a text", show(name))
		}
	default:
		return false, s.wrong("a text, a whole number, true, false or null for an attribute")
	}
	return true, s.refused(c.extension(name, s.src[start:s.i]), at)
}

// refused sets err to a refusal, if there is one, of what stands at a byte, or of
// the whole if at is negative.
func (s *scanner) refused(err *carillon.Error, at int) bool {
	if err != nil && at >= 0 {
		err.Message += fmt.Sprintf(" (at byte %d)", at)
	}
	s.err = err
	return err == nil
}

// header reads the attributes of binary mode, in the order of their names.
func (c *cloudEvent) header(header map[string][]string) *carillon.Error {
	var names []string
	for name := range header {
		if strings.HasPrefix(name, CloudEventHeader) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, h := range names {
		name, values := strings.ToLower(h[len(CloudEventHeader):]), header[h]
		switch {
		case len(values) != 1:
			return carillon.BadRequest("%d headers %s; send one", len(values), show(h))
		case name == "data", name == "datacontenttype":
			return carillon.BadRequest("there is no header %s; the data is the body, and its type is Content-Type", h)
		}
		value, ok := headerText(values[0])
		if !ok {
			return carillon.BadRequest("the header %s is not readable; percent-encode spaces, '\"', '%%' and what is not ASCII", show(h))
		}
		c.seen[name] = true
		if err := c.text(name, value); err != nil {
			return err
		}
	}
	if types := header["Content-Type"]; len(types) == 1 {
		return c.contentType(types[0])
	}
	return nil
}

// CloudEventHeader begins the name of every header of a CloudEvent in binary
// mode, in canonical form.
const CloudEventHeader = "Ce-"

// headerText is what the value of a CloudEvent's header stands for: quoted
// strings are opened (RFC 9110, section 5.6.4), then what is percent-encoded is
// decoded, once.
func headerText(raw string) (string, bool) {
	if strings.ContainsRune(raw, '"') {
		var ok bool
		if raw, ok = unquoted(raw); !ok {
			return "", false
		}
	}
	if strings.ContainsRune(raw, '%') {
		out := make([]byte, 0, len(raw))
		for i := 0; i < len(raw); i++ {
			b := raw[i]
			if b == '%' {
				if i+2 >= len(raw) {
					return "", false
				}
				n, err := strconv.ParseUint(raw[i+1:i+3], 16, 8)
				if err != nil {
					return "", false
				}
				b, i = byte(n), i+2
			}
			out = append(out, b)
		}
		raw = string(out)
	}
	return raw, utf8.ValidString(raw)
}

// unquoted takes the double quotes away, and the backslashes within them.
func unquoted(raw string) (string, bool) {
	out, quoted := make([]byte, 0, len(raw)), false
	for i := 0; i < len(raw); i++ {
		switch {
		case raw[i] == '"':
			quoted = !quoted
			continue
		case raw[i] == '\\' && quoted:
			if i++; i == len(raw) {
				return "", false
			}
		}
		out = append(out, raw[i])
	}
	return string(out), !quoted
}

// AppendCloudEvent appends an event as a CloudEvent in its JSON format: id is the
// event id, source the kept one or /orgs/<org>, and what CloudEvents has no word
// for is in extensions that begin with carillon.
func AppendCloudEvent(dst []byte, ids *IDs, e *carillon.Entry) []byte {
	dst = append(dst, `{"specversion":"1.0","id":"`...)
	dst = ids.Append(dst, e.Pos)
	dst = append(dst, `",`...)
	if len(e.CE) > 0 {
		dst = append(dst, e.CE[1:len(e.CE)-1]...)
	} else {
		dst = append(dst, `"source":"/orgs/`...)
		dst = append(dst, e.Org...)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"type":"`...)
	dst = append(dst, e.Type...)
	dst = append(dst, `","time":"`...)
	dst = e.Time.UTC().AppendFormat(dst, TimeFormat)
	dst = append(dst, '"')
	dst = appendField(dst, "subject", e.Subject)
	dst = appendField(dst, "carillonroom", e.To.Room)
	if e.To.Direct() {
		dst = append(dst, `,"carillondirect":true`...)
	}
	dst = appendField(dst, "carillonfrom", e.From)
	dst = appendField(dst, "carillonsource", e.Source)
	dst = appendField(dst, "carillondelivery", e.Delivery)
	dst = append(dst, `,"data":`...)
	if len(e.Data) == 0 {
		return append(dst, "null}"...)
	}
	return append(append(dst, e.Data...), '}')
}
