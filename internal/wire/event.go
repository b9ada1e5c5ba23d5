package wire

import (
	"time"
	"unicode/utf8"

	"github.com/carillon-rt/carillon"
)

// eventHead begins every event's JSON. A numbered connection puts its number
// right after it (see AppendNumbered).
const eventHead = `{"type":"event",`

// TimeFormat is RFC 3339 in UTC with milliseconds, as every timestamp is sent.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// AppendEvent appends the JSON of an event, the same in a frame, an SSE data
// line, a poll and history: one line, absent fields left out, the publisher's
// data as it was stored.
func AppendEvent(dst []byte, ids *IDs, e *carillon.Entry) []byte {
	dst = append(dst, eventHead...)
	if !e.Ephemeral() {
		dst = append(dst, `"id":"`...)
		dst = ids.Append(dst, e.Pos)
		dst = append(dst, `",`...)
	}
	dst = append(dst, `"event_type":"`...)
	dst = append(dst, e.Type...) // its alphabet needs no escape
	dst = append(dst, `","timestamp":"`...)
	dst = e.Time.UTC().AppendFormat(dst, TimeFormat)
	dst = append(dst, `","payload":`...)
	if len(e.Data) == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, e.Data...)
	}
	dst = appendField(dst, "subject", e.Subject)
	dst = appendField(dst, "room", e.To.Room)
	if e.To.Direct() {
		dst = append(dst, `,"direct":true`...)
	}
	dst = appendField(dst, "from", e.From)
	dst = appendField(dst, "source", e.Source)
	dst = appendField(dst, "delivery", e.Delivery)
	if len(e.CE) > 0 {
		dst = append(dst, `,"ce":`...)
		dst = append(dst, e.CE...)
	}
	return append(dst, '}')
}

func appendField(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return AppendString(dst, value)
}

// AppendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD, and
// U+2028 and U+2029 are escaped, so that the text is safe in a script too.
func AppendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\ufffd"...)
			i += size
			start = i
		case r == '\u2028' || r == '\u2029':
			dst = append(dst, s[start:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hex[r&15])
			i += size
			start = i
		default:
			i += size
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// FormatTime prints a timestamp as events carry it.
func FormatTime(t time.Time) string { return t.UTC().Format(TimeFormat) }
