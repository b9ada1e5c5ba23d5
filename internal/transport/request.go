package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/carillon-rt/carillon"
)

// Query reads the parameters of a request. known says which there may be, and
// whether one may be repeated; token is known everywhere.
func Query(r *http.Request, known map[string]bool) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		// err repeats a part of the query, which may be a part of a token.
		return nil, carillon.BadRequest("the query is not readable; percent-encode what is not a letter or digit")
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		repeat, ok := known[name]
		switch {
		case name == "token":
		case !ok:
			return nil, carillon.BadRequest("the parameter %q is not known here; known are %s", clip(name), names(known))
		case len(q[name]) > 1 && !repeat:
			return nil, carillon.BadRequest("the parameter %q is there %d times; send it once", name, len(q[name]))
		}
	}
	return q, nil
}

func names(known map[string]bool) string {
	return strings.Join(append(slices.Sorted(maps.Keys(known)), "token"), ", ")
}

// Alias is the value of a parameter that has two names; only one may be used.
func Alias(q url.Values, name, alias string) (string, error) {
	switch {
	case q.Has(name) && q.Has(alias):
		return "", carillon.BadRequest("the parameters %s and %s are the same; send one", name, alias)
	case q.Has(alias):
		return q.Get(alias), nil
	}
	return q.Get(name), nil
}

// Bool reads a parameter that is true or false.
func Bool(q url.Values, name string) (bool, error) {
	switch v := q.Get(name); {
	case !q.Has(name), v == "false":
		return false, nil
	case v == "true":
		return true, nil
	default:
		return false, carillon.BadRequest("the parameter %s is true or false, not %q", name, clip(v))
	}
}

// Int reads a number between least and most; an absent one is def.
func Int(q url.Values, name string, least, most, def int) (int, error) {
	if !q.Has(name) {
		return def, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil {
		return 0, carillon.BadRequest("%s is a whole number from %d to %d, not %q", name, least, most, clip(q.Get(name)))
	}
	return n, Between(name, n, least, most)
}

// Between checks a number.
func Between(name string, n, least, most int) error {
	if n < least || n > most {
		return carillon.BadRequest("%s is a whole number from %d to %d, not %d", name, least, most, n)
	}
	return nil
}

// Patterns parses them all.
func Patterns(texts []string) ([]carillon.Pattern, error) {
	patterns := make([]carillon.Pattern, 0, len(texts))
	for _, s := range texts {
		p, err := carillon.ParsePattern(s)
		if err != nil {
			return nil, err
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

// Rooms refuses every room: there are none yet.
func Rooms(rooms []string) error {
	if len(rooms) == 0 {
		return nil
	}
	room, err := carillon.ParseRoom(rooms[0])
	if err != nil {
		return err
	}
	return carillon.Errorf(carillon.CodeNotFound, "there is no room %q", room)
}

// Body reads the whole body, at most limit bytes, of one of these media types; a
// body without a type is taken for the first.
func Body(r *http.Request, limit int, types ...string) (body []byte, mediaType string, err error) {
	if mediaType, err = contentType(r.Header, types); err != nil {
		return nil, "", err
	}
	if r.ContentLength > int64(limit) {
		return nil, "", tooLarge(r, limit)
	}
	body, err = io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	switch {
	case len(body) > limit:
		return nil, "", tooLarge(r, limit)
	case err != nil:
		return nil, "", &carillon.Error{Code: carillon.CodeBadRequest, Message: "the body could not be read to its end, or not in the time that the server allows", Err: err}
	}
	return body, mediaType, nil
}

// tooLarge reads on for a while, so that a client that sends first and reads then
// gets its answer; one that waits for 100 Continue has not begun to send.
func tooLarge(r *http.Request, limit int) error {
	if r.Header.Get("Expect") == "" {
		_, _ = io.CopyN(io.Discard, r.Body, int64(limit)) // it is refused in any case
	}
	return carillon.Errorf(carillon.CodeTooLarge, "the body is larger than %d bytes", limit).Over("request_bytes")
}

func contentType(h http.Header, types []string) (string, error) {
	want := strings.Join(types, " or ")
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return "", carillon.Errorf(carillon.CodeUnsupportedMedia, "Content-Encoding is not supported by this server yet; send the body as it is")
	}
	switch all := h["Content-Type"]; len(all) {
	case 0:
		return types[0], nil
	case 1:
		t, params, err := mime.ParseMediaType(all[0])
		if err != nil || !slices.Contains(types, t) {
			return "", carillon.Errorf(carillon.CodeUnsupportedMedia, "the Content-Type is not supported; it is %s", want)
		}
		if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
			return "", carillon.Errorf(carillon.CodeUnsupportedMedia, "the charset is not supported; JSON is UTF-8")
		}
		return t, nil
	default:
		return "", carillon.BadRequest("%d Content-Type headers; send one", len(all))
	}
}

// Object reads a body that is one JSON object into the fields named: names are
// compared exactly, none may be there twice, and there are no others. Each value
// of fields is a pointer for json.Unmarshal, and kind says what it may be.
func Object(body []byte, fields map[string]Field) error {
	if !utf8.Valid(body) {
		return carillon.BadRequest("the body is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return carillon.BadRequest("the body is not a JSON object; it is one with the fields %s", fieldNames(fields))
	}
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return notJSON(err)
		}
		name := tok.(string) // a key always is
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return notJSON(err)
		}
		f, ok := fields[name]
		switch {
		case !ok:
			return carillon.BadRequest("the field %q is not known here; known are %s", clip(name), fieldNames(fields))
		case seen[name]:
			return carillon.BadRequest("the field %q is there twice", name)
		case string(value) == "null", json.Unmarshal(value, f.To) != nil:
			return carillon.BadRequest("%s is %s", name, f.Kind)
		}
		seen[name] = true
	}
	if _, err := dec.Token(); err != nil {
		return notJSON(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return carillon.BadRequest("the body is one JSON object; there is more after it")
	}
	return nil
}

// Field is where a field of an object goes, and what it is, for the error.
type Field struct {
	To   any
	Kind string
}

func fieldNames(fields map[string]Field) string {
	return strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return carillon.BadRequest("the body is one JSON object; it ends in the middle")
	}
	return carillon.BadRequest("the body is not JSON: %v", err)
}

// clip shortens what a client sent for an error message.
func clip(s string) string {
	const shown = 80
	if len(s) <= shown {
		return s
	}
	return strings.ToValidUTF8(s[:shown], "") + "…"
}
