package action

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bounds of what is read from YAML. Aliases could otherwise make much of little,
// and one that contains itself would never end.
const (
	maxNodes = 100_000
	maxDepth = 100 // of rules in rules
)

// document reads YAML that somebody wrote by hand. Its first error stays, and
// makes all further reading do nothing that matters.
type document struct {
	name    string // of the file; "": none
	strict  bool   // keys that mean nothing are an error
	nodes   int    // read so far
	err     error
	unknown []*yaml.Node // keys that mean nothing
}

// parse reads the first document of a text; nil: it is empty.
func (d *document) parse(text []byte) *yaml.Node {
	var doc yaml.Node
	err := yaml.NewDecoder(bytes.NewReader(text)).Decode(&doc)
	if err != nil && !errors.Is(err, io.EOF) {
		d.err = fmt.Errorf("%s: not readable as YAML or JSON: %s", d.name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err != nil || len(doc.Content) == 0 {
		return nil
	}
	return doc.Content[0]
}

// fail keeps the error, if it is the first one.
func (d *document) fail(n *yaml.Node, format string, args ...any) {
	if d.err != nil {
		return
	}
	at := "line " + strconv.Itoa(n.Line)
	if d.name != "" {
		at = d.name + ":" + strconv.Itoa(n.Line)
	}
	d.err = fmt.Errorf("%s: %s", at, fmt.Sprintf(format, args...))
}

// resolve follows aliases. nil: it is null, or there was an error.
func (d *document) resolve(n *yaml.Node) *yaml.Node {
	for n != nil && d.err == nil {
		if d.nodes++; d.nodes > maxNodes {
			d.fail(n, "more than %d values, with what aliases repeat", maxNodes)
			break
		}
		if n.Kind == yaml.AliasNode {
			n = n.Alias
			continue
		}
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
			return nil
		}
		return n
	}
	return nil
}

// list is what stands in a list. A null is none, and given is false.
func (d *document) list(n *yaml.Node, what string) (items []*yaml.Node, given bool) {
	r := d.resolve(n)
	if r == nil {
		return nil, false
	}
	if r.Kind != yaml.SequenceNode {
		d.fail(r, "%s is %s; it takes a list", what, kind(r))
		return nil, false
	}
	return r.Content, true
}

// text is a scalar as a string. Numbers and booleans become what they are, not what
// is written: 0x10 is 16, and yes is true.
func (d *document) text(n *yaml.Node, what string) string {
	r := d.resolve(n)
	if r == nil {
		return ""
	}
	if r.Kind != yaml.ScalarNode {
		d.fail(r, "%s is %s; it takes text", what, kind(r))
		return ""
	}
	var v any
	if err := r.Decode(&v); err != nil {
		d.fail(r, "%s is not readable: %s", what, strings.TrimPrefix(err.Error(), "yaml: "))
		return ""
	}
	switch v := v.(type) {
	case string:
		if b, ok := word(r); ok {
			return strconv.FormatBool(b)
		}
		return v
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		return r.Value
	default:
		return fmt.Sprint(v)
	}
}

// flag is true or false, or a word that YAML 1.1 has for it.
func (d *document) flag(n *yaml.Node, what string) bool {
	r := d.resolve(n)
	if r == nil {
		return false
	}
	if b, ok := word(r); ok {
		return b
	}
	var b bool
	if r.Kind != yaml.ScalarNode || r.ShortTag() != "!!bool" || r.Decode(&b) != nil {
		d.fail(r, "%s is %s; it takes true or false, without quotes", what, kind(r))
	}
	return b
}

// number is a whole number; 0: none.
func (d *document) number(n *yaml.Node, what string) int {
	r := d.resolve(n)
	if r == nil {
		return 0
	}
	var i int
	if r.Kind != yaml.ScalarNode || r.ShortTag() != "!!int" || r.Decode(&i) != nil || i > math.MaxInt32 || i < 0 {
		d.fail(r, "%s is %s; it takes a whole number, without quotes", what, kind(r))
		return 0
	}
	return i
}

// duration is a time with its unit; 0: none.
func (d *document) duration(n *yaml.Node, what string) time.Duration {
	text := d.text(n, what)
	if text == "" {
		return 0
	}
	v, err := time.ParseDuration(text)
	if err != nil || v <= 0 {
		d.fail(n, "%s is %q; write it like 30s or 5m", what, clip(text))
		return 0
	}
	return v
}

// word is a plain word that is a boolean in YAML 1.1.
func word(n *yaml.Node) (value, ok bool) {
	if n.Kind != yaml.ScalarNode || n.Style != 0 {
		return false, false
	}
	switch n.Value {
	case "yes", "Yes", "YES", "on", "On", "ON":
		return true, true
	case "no", "No", "NO", "off", "Off", "OFF":
		return false, true
	}
	return false, false
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a group of keys"
	case yaml.SequenceNode:
		return "a list"
	default:
		return strconv.Quote(clip(n.Value))
	}
}

// clip keeps what an error quotes short.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
