package action

import (
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// fields are the keys of a mapping, found whatever their case. Each is read once;
// done tells of those that nobody has read.
type fields struct {
	d    *document
	what string // for errors: hook "deploy"
	keys []*yaml.Node
	of   map[string]*yaml.Node // by lower-case key
}

// fields reads a mapping. Of something else it has none, and the document an error.
func (d *document) fields(n *yaml.Node, what string) *fields {
	f := &fields{d: d, what: what, of: map[string]*yaml.Node{}}
	r := d.resolve(n)
	switch {
	case r == nil:
	case r.Kind != yaml.MappingNode:
		d.fail(r, "%s is %s; it takes keys with values", what, kind(r))
	default:
		f.add(r, false, 0)
	}
	return f
}

// add takes the keys of a mapping. Those of one that is merged count where there
// are no others of that name.
func (f *fields) add(r *yaml.Node, merged bool, depth int) {
	var merges []*yaml.Node
	seen := map[string]bool{}
	for i := 0; i+1 < len(r.Content); i += 2 {
		key, val := f.d.resolve(r.Content[i]), r.Content[i+1]
		if f.d.err != nil {
			return
		}
		if key == nil || key.Kind != yaml.ScalarNode {
			f.d.fail(r.Content[i], "%s has a key that is not text", f.what)
			return
		}
		if key.ShortTag() == "!!merge" {
			merges = append(merges, val)
			continue
		}
		name := strings.ToLower(key.Value)
		if seen[name] {
			f.d.fail(key, "%s has %s twice; keep one", f.what, clip(name))
			return
		}
		seen[name] = true
		if _, there := f.of[name]; there && merged {
			continue
		}
		f.of[name] = val
		f.keys = append(f.keys, key)
	}
	for _, m := range merges {
		f.merge(m, depth)
	}
}

func (f *fields) merge(n *yaml.Node, depth int) {
	if depth >= maxDepth {
		f.d.fail(n, "%s merges keys more than %d deep", f.what, maxDepth)
		return
	}
	r := f.d.resolve(n)
	switch {
	case r == nil:
	case r.Kind == yaml.MappingNode:
		f.add(r, true, depth+1)
	case r.Kind == yaml.SequenceNode:
		for _, item := range r.Content {
			f.merge(item, depth+1)
		}
	default:
		f.d.fail(r, "%s merges %s; << takes keys with values", f.what, kind(r))
	}
}

// take is the value of a key, which counts as read; nil: there is none.
func (f *fields) take(key string) *yaml.Node {
	n := f.of[key]
	delete(f.of, key)
	return n
}

func (f *fields) text(key string) string {
	return f.d.text(f.take(key), f.what+": "+key)
}

func (f *fields) flag(key string) bool {
	return f.d.flag(f.take(key), f.what+": "+key)
}

func (f *fields) number(key string) int {
	return f.d.number(f.take(key), f.what+": "+key)
}

func (f *fields) duration(key string) time.Duration {
	return f.d.duration(f.take(key), f.what+": "+key)
}

func (f *fields) list(key string) (items []*yaml.Node, given bool) {
	return f.d.list(f.take(key), f.what+": "+key)
}

func (f *fields) texts(key string) []string {
	items, _ := f.list(key)
	texts := make([]string, 0, len(items))
	for _, n := range items {
		texts = append(texts, f.d.text(n, f.what+": "+key))
	}
	return texts
}

// pairs are a mapping of text to text.
func (f *fields) pairs(key string) map[string]string {
	n := f.take(key)
	r := f.d.resolve(n)
	if r == nil {
		return nil
	}
	if r.Kind != yaml.MappingNode {
		f.d.fail(r, "%s: %s is %s; it takes names with values", f.what, key, kind(r))
		return nil
	}
	pairs := make(map[string]string, len(r.Content)/2)
	for i := 0; i+1 < len(r.Content) && f.d.err == nil; i += 2 {
		name := f.d.text(r.Content[i], f.what+": a name in "+key)
		if _, twice := pairs[name]; twice {
			f.d.fail(r.Content[i], "%s: %s has %s twice; keep one", f.what, key, clip(name))
		}
		pairs[name] = f.d.text(r.Content[i+1], f.what+": "+key)
	}
	return pairs
}

// done looks at the keys that nobody has read.
func (f *fields) done() {
	for _, key := range f.keys {
		if _, left := f.of[strings.ToLower(key.Value)]; !left {
			continue
		}
		if f.d.strict {
			f.d.fail(key, "%s has an unknown key: %s", f.what, clip(key.Value))
		}
		f.d.unknown = append(f.d.unknown, key)
	}
}
