package action

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxNesting is how deep the elements of an XML body may be.
const maxNesting = 1000

// element is one that is open.
type element struct {
	name   string
	fields map[string]any // attributes, and elements in it
	first  string         // the last text before there was any of those
	text   string         // the last text behind it
}

// parseXML reads the first element of a body, as a map with its name. An element
// that has attributes or elements is a map: an attribute is "-" and its name,
// its text "#text", elements of the same name a list. Others are their text.
func parseXML(body []byte) (map[string]any, error) {
	dec := xml.NewDecoder(bytes.NewReader(body))
	var open []*element
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it has no element")
		}
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if len(open) == maxNesting {
				return nil, fmt.Errorf("more than %d elements in each other", maxNesting)
			}
			e := &element{name: t.Name.Local, fields: map[string]any{}}
			for _, a := range t.Attr {
				e.fields["-"+a.Name.Local] = a.Value
			}
			open = append(open, e)
		case xml.CharData:
			if text := strings.Trim(string(t), "\t\r\b\n "); text != "" && len(open) > 0 {
				open[len(open)-1].say(text)
			}
		case xml.EndElement:
			e := open[len(open)-1] // the decoder has seen that it is open
			open = open[:len(open)-1]
			if len(open) == 0 {
				return map[string]any{e.name: e.value()}, nil
			}
			open[len(open)-1].add(e.name, e.value())
		}
	}
}

func (e *element) say(text string) {
	if len(e.fields) == 0 {
		e.first = text
		return
	}
	e.text = text
}

func (e *element) value() any {
	if len(e.fields) == 0 {
		return e.first
	}
	if text := cmp.Or(e.first, e.text); text != "" {
		e.fields["#text"] = text
	}
	return e.fields
}

func (e *element) add(name string, v any) {
	switch before := e.fields[name].(type) {
	case nil:
		e.fields[name] = v
	case []any: // no element is a list by itself
		e.fields[name] = append(before, v)
	default:
		e.fields[name] = []any{before, v}
	}
}
