package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// What bounds a body that is JSON.
const (
	maxDepth = 128     // of arrays and objects in each other
	maxOpen  = 1 << 16 // keys of the objects that are open at one place
)

// compact is a JSON text without whitespace outside strings. Numbers, escapes and the
// order of keys are as sent. It refuses what the log of events refuses too: text that
// is not JSON (RFC 8259) in UTF-8, half a surrogate pair, a key that is there twice in
// an object, and nesting beyond maxDepth.
func compact(text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8, as JSON is")
	}
	if !json.Valid(text) {
		var raw json.RawMessage
		err := json.Unmarshal(text, &raw)
		if at := (*json.SyntaxError)(nil); errors.As(err, &at) {
			return nil, fmt.Errorf("it is not JSON: %w (at byte %d); a delivery is JSON, or a form of type %s", at, at.Offset, typeForm)
		}
		return nil, errors.New("it is not JSON")
	}
	c := compactor{src: text, dst: make([]byte, 0, len(text))}
	if err := c.run(); err != nil {
		return nil, err
	}
	return c.dst, nil
}

// compactor walks text that is known to be JSON.
type compactor struct {
	src, dst []byte
	open     []level
	keys     [][]byte // of the objects that are open, the outer ones first, decoded
	isKey    bool     // the next string is
}

// level is an array or an object that is open.
type level struct {
	object bool
	first  int // of its keys
}

func (c *compactor) run() error {
	for i := 0; i < len(c.src); {
		b := c.src[i]
		switch b {
		case ' ', '\n', '\r', '\t':
			i++
			continue
		case '"':
			end := stringEnd(c.src, i)
			if err := c.text(c.src[i:end], i); err != nil {
				return err
			}
			c.dst = append(c.dst, c.src[i:end]...)
			i = end
			continue
		case '{', '[':
			if len(c.open) == maxDepth {
				return fmt.Errorf("arrays and objects nest deeper than %d (at byte %d)", maxDepth, i)
			}
			c.open = append(c.open, level{b == '{', len(c.keys)})
			c.isKey = b == '{'
		case '}', ']':
			top := c.open[len(c.open)-1]
			if err := once(c.keys[top.first:]); err != nil {
				return err
			}
			clear(c.keys[top.first:])
			c.keys, c.open = c.keys[:top.first], c.open[:len(c.open)-1]
			c.isKey = false
		case ',':
			c.isKey = c.open[len(c.open)-1].object
		case ':':
			c.isKey = false
		}
		c.dst = append(c.dst, b)
		i++
	}
	return nil
}

// text looks at a string, which may be a key.
func (c *compactor) text(raw []byte, at int) error {
	asIs := bytes.IndexByte(raw, '\\') < 0
	if !asIs && halfPair(raw) {
		return fmt.Errorf("a string has half a surrogate pair, which is no character (at byte %d)", at)
	}
	if !c.isKey {
		return nil
	}
	if len(c.keys) == maxOpen {
		return fmt.Errorf("the objects around byte %d have more than %d keys", at, maxOpen)
	}
	key := raw[1 : len(raw)-1]
	if !asIs {
		s, _ := unquote(raw)
		key = []byte(s)
	}
	c.keys = append(c.keys, key)
	return nil
}

// once refuses keys of which two are the same. It sorts them.
func once(keys [][]byte) error {
	if len(keys) < 2 {
		return nil
	}
	slices.SortFunc(keys, bytes.Compare)
	for i, k := range keys[1:] {
		if bytes.Equal(k, keys[i]) {
			return fmt.Errorf("the key %q is there twice in one object", clip(string(k)))
		}
	}
	return nil
}

// halfPair reports whether a string has an escape of one half of a surrogate pair
// without the other.
func halfPair(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // what is escaped
		if raw[i] != 'u' {
			continue
		}
		r := unicodeAt(raw[i-1:])
		i += 4
		if !utf16.IsSurrogate(r) {
			continue
		}
		low := unicodeAt(raw[i+1:])
		if utf16.DecodeRune(r, low) == utf8.RuneError {
			return true
		}
		i += 6
	}
	return false
}

// unicodeAt reads \uXXXX at the beginning of b; 0 if there is none.
func unicodeAt(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 32)
	if err != nil {
		return 0
	}
	return rune(n)
}
