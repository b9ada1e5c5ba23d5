package action

import (
	"fmt"
	"net/textproto"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The sources of arguments.
const (
	sourceHeader        = "header"
	sourceURL           = "url"
	sourceQuery         = "query"
	sourcePayload       = "payload"
	sourceBody          = "raw-request-body"
	sourceRequest       = "request"
	sourceString        = "string"
	sourceEntirePayload = "entire-payload"
	sourceEntireHeaders = "entire-headers"
	sourceEntireQuery   = "entire-query"
)

var sources = []string{
	sourceHeader, sourceURL, sourceQuery, sourcePayload, sourceBody, sourceRequest, sourceString,
	sourceEntirePayload, sourceEntireHeaders, sourceEntireQuery,
}

// argument says which value of a request is meant.
type argument struct {
	source string
	name   string
	env    string // of the environment and of files: the variable's name
	base64 bool   // of files: the value is decoded
	line   int
}

// missingError is that a request does not have what an argument names.
type missingError struct{ a *argument }

func (e *missingError) Error() string {
	return fmt.Sprintf("action: the request has no %s %q", e.a.source, clip(e.a.name))
}

func (d *document) argument(n *yaml.Node, what string) argument {
	f := d.fields(n, what)
	a := argument{
		source: f.text("source"), name: f.text("name"), env: f.text("envname"), base64: f.flag("base64decode"),
	}
	if n != nil {
		a.line = n.Line
	}
	f.done()
	return a
}

func (f *fields) arguments(key string) []argument {
	items, _ := f.list(key)
	list := make([]argument, 0, len(items))
	for i, n := range items {
		list = append(list, f.d.argument(n, fmt.Sprintf("%s: %s, item %d", f.what, key, i+1)))
	}
	return list
}

// fault is what makes every request an error; "": nothing.
func (a *argument) fault() string {
	switch {
	case !slices.Contains(sources, a.source):
		return fmt.Sprintf("source %q is none; take one of %s", clip(a.source), strings.Join(sources, ", "))
	case a.source == sourceRequest && !strings.EqualFold(a.name, "method") && !strings.EqualFold(a.name, "remote-addr"):
		return fmt.Sprintf("the source request has no %q; it has method and remote-addr", clip(a.name))
	}
	return ""
}

// fromOutside says whether who sends the request chooses the value, and may leave
// it out.
func (a *argument) fromOutside() bool {
	switch a.source {
	case sourceHeader, sourceURL, sourceQuery, sourcePayload:
		return true
	}
	return false
}

// value is what the argument means in a request: an error of type *missingError if
// it is not there.
func (a *argument) value(r *Request) (string, error) {
	switch a.source {
	case sourceString:
		return a.name, nil
	case sourceBody:
		return string(r.Body), nil
	case sourceEntirePayload:
		return asJSON(r.payloadMap())
	case sourceEntireHeaders:
		return asJSON(r.headerMap())
	case sourceEntireQuery:
		return asJSON(r.queryMap())
	case sourceRequest:
		switch strings.ToLower(a.name) {
		case "method":
			return r.Method, nil
		case "remote-addr":
			return r.Remote, nil
		}
	}
	key, in := a.place(r)
	if in == nil {
		if fault := a.fault(); fault != "" {
			return "", fmt.Errorf("action: %s", fault)
		}
	}
	v, ok := lookup(key, in)
	if !ok {
		return "", &missingError{a}
	}
	return asText(v)
}

// place is where the argument is looked for, and by which path.
func (a *argument) place(r *Request) (key string, in map[string]any) {
	switch a.source {
	case sourceHeader:
		return textproto.CanonicalMIMEHeaderKey(a.name), r.headerMap()
	case sourceURL, sourceQuery:
		return a.name, r.queryMap()
	case sourcePayload:
		return a.name, r.payloadMap()
	}
	return "", nil
}

// unfold replaces the text that the argument means by the object that it is as
// JSON.
func (a *argument) unfold(r *Request) error {
	text, err := a.value(r)
	if err != nil {
		return err
	}
	key, in := a.place(r)
	if in == nil {
		return fmt.Errorf("action: what has the source %s cannot be replaced; only header, payload and url can", a.source)
	}
	object, err := jsonObject(text)
	if err != nil {
		return fmt.Errorf("action: %s %q is not a JSON object: %w", a.source, clip(a.name), err)
	}
	replace(key, in, object)
	return nil
}
