package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// maxFields is how many fields a form has at most.
const maxFields = 1000

// isForm reports whether a body of that type is a form. Any other is taken for JSON.
func isForm(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.Trim(media, " \t"), "application/x-www-form-urlencoded")
}

// formObject is a form as a JSON object: its fields in the order in which they first
// come, each a string, or an array of strings where the field comes more than once.
// If it has the field inner, that one's value is given instead, as it is.
func formObject(body []byte, inner string) (object []byte, isInner bool, err error) {
	fields, err := formFields(string(body))
	if err != nil {
		return nil, false, err
	}
	for _, f := range fields {
		if inner == "" || f.name != inner {
			continue
		}
		if len(f.values) > 1 {
			return nil, false, fmt.Errorf("the form has the field %s more than once", inner)
		}
		return []byte(f.values[0]), true, nil
	}
	var b bytes.Buffer
	write := func(v any) {
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		_ = e.Encode(v)         // to memory, of strings
		b.Truncate(b.Len() - 1) // it ends the line
	}
	b.WriteByte('{')
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(',')
		}
		write(f.name)
		b.WriteByte(':')
		if len(f.values) == 1 {
			write(f.values[0])
		} else {
			write(f.values)
		}
	}
	b.WriteByte('}')
	return b.Bytes(), false, nil
}

// field is one of a form, and all that it is set to.
type field struct {
	name   string
	values []string
}

func formFields(body string) ([]field, error) {
	var fields []field
	place := make(map[string]int)
	n := 0
	for pair := range strings.SplitSeq(body, "&") {
		if pair == "" {
			continue
		}
		if n++; n > maxFields {
			return nil, fmt.Errorf("the form has more than %d fields", maxFields)
		}
		name, value, _ := strings.Cut(pair, "=")
		name, bad := url.QueryUnescape(name)
		value, worse := url.QueryUnescape(value)
		if err := errors.Join(bad, worse); err != nil || !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil, fmt.Errorf("field %d of the form is not UTF-8 in percent-encoding", n)
		}
		i, again := place[name]
		if !again {
			i = len(fields)
			place[name] = i
			fields = append(fields, field{name: name})
		}
		fields[i].values = append(fields[i].values, value)
	}
	return fields, nil
}
