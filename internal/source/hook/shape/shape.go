// Package shape picks, drops and renames fields of a JSON value, and looks one up:
// what a webhook source does with the payload of a delivery. Nothing in it can run,
// loop or grow: what comes out is at most as long as what went in, renamed fields
// apart.
//
// A path is names with dots between: repository.owner.login. It goes through lists:
// commits.author is the author of every commit. A name that has a dot itself cannot
// be said.
//
// Everything here is pure and may be used by any goroutine.
package shape

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of a shape.
const (
	MaxPaths = 200  // of a list
	MaxPath  = 500  // bytes in one
	MaxDepth = 1000 // of a value
)

// ErrDepth says that a value is nested too deep.
var ErrDepth = errors.New("shape: the value is nested too deep")

// Shape changes values. The zero value changes nothing.
type Shape struct {
	root *node
	all  bool // there is no list of what to pick
	same bool // it changes nothing
}

// node is what is said about one path and those below it.
type node struct {
	below   map[string]*node
	drop    bool
	pick    bool   // the whole value
	some    bool   // a path below is picked
	name    string // its new name; "": it keeps its own
	renames bool   // a path directly below has a new name
}

// New makes a shape: what is picked (nothing named: everything), less what is
// dropped, with the names that rename gives, path to name.
func New(pick, drop []string, rename map[string]string) (*Shape, error) {
	s := &Shape{root: &node{}, all: len(pick) == 0, same: len(pick)+len(drop)+len(rename) == 0}
	if n := max(len(pick), len(drop), len(rename)); n > MaxPaths {
		return nil, fmt.Errorf("shape: %d paths in a list; at most %d", n, MaxPaths)
	}
	for _, path := range pick {
		if err := s.each(path, func(n *node, last bool) { n.some = true; n.pick = n.pick || last }); err != nil {
			return nil, err
		}
	}
	for _, path := range drop {
		if err := s.each(path, func(n *node, last bool) { n.drop = n.drop || last }); err != nil {
			return nil, err
		}
	}
	for path, name := range rename {
		if name == "" || len(name) > MaxPath {
			return nil, fmt.Errorf("shape: the new name of %q has %d bytes; it is 1–%d", path, len(name), MaxPath)
		}
		parent := s.root
		err := s.each(path, func(n *node, last bool) {
			if last {
				n.name, parent.renames = name, true
			}
			parent = n
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// each calls f for every node on a path, which it makes.
func (s *Shape) each(path string, f func(n *node, last bool)) error {
	names, err := split(path)
	if err != nil {
		return err
	}
	n := s.root
	for i, name := range names {
		if n.below == nil {
			n.below = map[string]*node{}
		}
		next := n.below[name]
		if next == nil {
			next = &node{}
			n.below[name] = next
		}
		n = next
		f(n, i == len(names)-1)
	}
	return nil
}

// Check says what is wrong with a path.
func Check(path string) error {
	_, err := split(path)
	return err
}

func split(path string) ([]string, error) {
	if len(path) > MaxPath {
		return nil, fmt.Errorf("shape: a path of %d bytes; at most %d", len(path), MaxPath)
	}
	names := strings.Split(path, ".")
	if slices.Contains(names, "") {
		return nil, fmt.Errorf("shape: the path %q is not names with dots between, such as repository.full_name", path)
	}
	return names, nil
}

// Apply is the value in this shape. js is one valid JSON value without whitespace
// outside strings, and stays as it is; so does the order of what is left. A field
// that takes the name of another one takes its place.
func (s *Shape) Apply(js []byte) ([]byte, error) {
	if s == nil || s.root == nil || s.same {
		return js, nil
	}
	out, _, err := s.root.value(make([]byte, 0, len(js)), js, s.all, 0)
	return out, err
}

// value appends the value that js begins with, and returns what follows it in js.
func (n *node) value(dst, js []byte, all bool, depth int) (out, rest []byte, err error) {
	if depth > MaxDepth {
		return nil, nil, ErrDepth
	}
	switch {
	case n == nil || len(js) == 0 || js[0] != '{' && js[0] != '[':
		end := skip(js)
		return append(dst, js[:end]...), js[end:], nil
	case js[0] == '[':
		return n.list(dst, js, all, depth)
	}
	taken := n.taken(js)
	dst, js = append(dst, '{'), js[1:]
	for first := true; len(js) > 0 && js[0] != '}'; {
		end := skip(js)
		key := js[:end]
		name := text(key)
		below := n.below[name]
		js = after(js[end:], ':')
		picked := all || below != nil && below.pick
		if below != nil && below.drop || !picked && (below == nil || !below.some || !compound(js)) ||
			(below == nil || below.name == "") && taken[name] {
			js = after(js[skip(js):], ',')
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if below != nil && below.name != "" {
			key, _ = json.Marshal(below.name) // text always can be
		}
		dst = append(append(dst, key...), ':')
		if dst, js, err = below.value(dst, js, picked, depth+1); err != nil {
			return nil, nil, err
		}
		js = after(js, ',')
	}
	return append(dst, '}'), after(js, '}'), nil
}

// list appends a list: what is said about its path holds for what is in it.
func (n *node) list(dst, js []byte, all bool, depth int) (out, rest []byte, err error) {
	dst, js = append(dst, '['), js[1:]
	for first := true; len(js) > 0 && js[0] != ']'; {
		if !all && !compound(js) {
			js = after(js[skip(js):], ',')
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if dst, js, err = n.value(dst, js, all, depth+1); err != nil {
			return nil, nil, err
		}
		js = after(js, ',')
	}
	return append(dst, ']'), after(js, ']'), nil
}

// taken are the names that fields of the object js get from others.
func (n *node) taken(js []byte) map[string]bool {
	if !n.renames {
		return nil
	}
	names := map[string]bool{}
	for js = js[1:]; len(js) > 0 && js[0] != '}'; {
		end := skip(js)
		if below := n.below[text(js[:end])]; below != nil && below.name != "" {
			names[below.name] = true
		}
		js = after(js[end:], ':')
		js = after(js[skip(js):], ',')
	}
	return names
}

// Lookup is the text at a path: a string, a number as it is written, true or false.
// Of a list it is that of its first element that has one.
func Lookup(js []byte, path string) (string, bool) {
	names, err := split(path)
	if err != nil {
		return "", false
	}
	return lookup(js, names, 0)
}

func lookup(js []byte, names []string, depth int) (string, bool) {
	if len(js) == 0 || depth > MaxDepth {
		return "", false
	}
	switch js[0] {
	case '[':
		for js = js[1:]; len(js) > 0 && js[0] != ']'; {
			end := skip(js)
			if s, ok := lookup(js[:end], names, depth+1); ok {
				return s, true
			}
			js = after(js[end:], ',')
		}
		return "", false
	case '{':
		if len(names) == 0 {
			return "", false
		}
		for js = js[1:]; len(js) > 0 && js[0] != '}'; {
			end := skip(js)
			key := js[:end]
			js = after(js[end:], ':')
			end = skip(js)
			if text(key) == names[0] {
				return lookup(js[:end], names[1:], depth+1)
			}
			js = after(js[end:], ',')
		}
		return "", false
	}
	value := js[:skip(js)]
	switch {
	case len(names) > 0 || bytes.Equal(value, []byte("null")):
		return "", false
	case value[0] == '"':
		return text(value), true
	}
	return string(value), true
}

// compound reports whether js begins with an object or a list.
func compound(js []byte) bool { return len(js) > 0 && (js[0] == '{' || js[0] == '[') }

// after is js without the byte c in front.
func after(js []byte, c byte) []byte {
	if len(js) > 0 && js[0] == c {
		return js[1:]
	}
	return js
}

// skip is how long the value is that js begins with; at least 1, unless js is empty.
func skip(js []byte) int {
	depth := 0
	for i := 0; i < len(js); i++ {
		switch js[i] {
		case '"':
			for i++; i < len(js) && js[i] != '"'; i++ {
				if js[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return min(i+1, len(js))
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth <= 0 {
				return max(i+min(depth+1, 1), 1)
			}
		case ',', ':':
			if depth == 0 {
				return max(i, 1)
			}
		}
	}
	return len(js)
}

// text is the text of a JSON string.
func text(quoted []byte) string {
	if len(quoted) >= 2 && bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // of a value that is valid it is one
	return s
}
