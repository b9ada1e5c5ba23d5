package action

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
	"strings"
)

// Bounds of what is parsed.
const (
	maxParsed = 25 << 20 // bytes of a body
	maxParts  = 1000     // of a multipart body
)

// parse reads a body by its content type. A type that is not known has no payload.
// forced names files of a multipart body that are JSON.
func parse(contentType string, body []byte, forced []string) (map[string]any, error) {
	if len(body) > maxParsed {
		return nil, fmt.Errorf("action: a body of %d bytes is not parsed; at most %d", len(body), maxParsed)
	}
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	var payload map[string]any
	var err error
	switch {
	case strings.Contains(kind, "json"):
		payload, err = parseJSON(body)
	case strings.Contains(kind, "x-www-form-urlencoded"):
		payload, err = parseForm(body)
	case strings.Contains(kind, "xml"):
		payload, err = parseXML(body)
	case kind == "multipart/form-data":
		payload, err = parseMultipart(contentType, body, forced)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("action: a body of type %s: %w", clip(kind), err)
	}
	return payload, nil
}

// parseJSON reads an object. A list becomes one, with the list as its root.
func parseJSON(body []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("[")) {
		var list []any
		if err := dec.Decode(&list); err != nil {
			return nil, err
		}
		return map[string]any{"root": list}, nil
	}
	var object map[string]any
	if err := dec.Decode(&object); err != nil {
		return nil, err
	}
	return object, nil
}

func parseForm(body []byte) (map[string]any, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	return firsts(form), nil
}

// parseMultipart has the first value of each field, and of files those that are
// JSON objects.
func parseMultipart(contentType string, body []byte, forced []string) (map[string]any, error) {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, err
	}
	if params["boundary"] == "" {
		return nil, errors.New("it names no boundary")
	}
	payload, files := map[string]any{}, map[string]any{}
	seen := map[string]bool{}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && n == maxParts {
			err = fmt.Errorf("more than %d parts", maxParts)
		}
		if err != nil {
			return nil, err
		}
		name, file := part.FormName(), part.FileName() != ""
		// Only the first of a name counts, among the fields and among the files.
		key := "field " + name
		if file {
			key = "file " + name
		}
		if name == "" || seen[key] {
			continue
		}
		seen[key] = true
		if file && !slices.Contains(forced, name) && !strings.Contains(strings.ToLower(part.Header.Get("Content-Type")), "json") {
			continue
		}
		text, err := io.ReadAll(part) // no longer than the body
		if err != nil {
			return nil, err
		}
		if !file {
			payload[name] = string(text)
			continue
		}
		object, err := jsonObject(string(text))
		if err == nil {
			files[name] = object
		}
	}
	maps.Copy(payload, files)
	return payload, nil
}

// jsonObject reads text that is an object, with numbers as they are written.
func jsonObject(text string) (map[string]any, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var object map[string]any
	err := dec.Decode(&object)
	return object, err
}
