package provider

import (
	"bytes"
	"encoding/json"
)

// find is the value at a path of fields in a JSON object, as it is written, or nil. In
// text that is not JSON it finds something or nothing; it never recurses, and reads
// the text at most once for each field.
func find(text []byte, path ...string) []byte {
	for _, name := range path {
		if text = member(text, name); text == nil {
			return nil
		}
	}
	return text
}

// member is the value of the first member of that name.
func member(b []byte, name string) []byte {
	i := blank(b, 0)
	if i >= len(b) || b[i] != '{' {
		return nil
	}
	for i++; ; i++ {
		if i = blank(b, i); i >= len(b) || b[i] != '"' {
			return nil
		}
		end := stringEnd(b, i)
		if end < 0 {
			return nil
		}
		key := b[i:end]
		if i = blank(b, end); i >= len(b) || b[i] != ':' {
			return nil
		}
		i = blank(b, i+1)
		end = valueEnd(b, i)
		if end < 0 {
			return nil
		}
		if keyIs(key, name) {
			return b[i:end:end]
		}
		if i = blank(b, end); i >= len(b) || b[i] != ',' {
			return nil
		}
	}
}

// keyIs reports whether a string as it is written stands for the name.
func keyIs(raw []byte, name string) bool {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1:len(raw)-1]) == name
	}
	s, ok := unquote(raw)
	return ok && s == name
}

// unquote is what a string stands for.
func unquote(raw []byte) (s string, ok bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), true
	}
	return s, json.Unmarshal(raw, &s) == nil
}

// scalar is the id that a string is, or a number as it is written; otherwise "".
func scalar(raw []byte) string {
	if s, ok := unquote(raw); ok {
		return identify(s)
	}
	if len(raw) > 0 && len(raw) <= MaxID && (raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9') {
		return identify(string(raw))
	}
	return ""
}

// blank is where the whitespace at i ends.
func blank(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// stringEnd is where the string at i ends, behind its quote; -1 if it does not.
func stringEnd(b []byte, i int) int {
	for i++; ; {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		quote := i + n
		slashes := 0
		for quote-slashes > i && b[quote-slashes-1] == '\\' {
			slashes++
		}
		if i = quote + 1; slashes%2 == 0 {
			return i
		}
	}
}

// valueEnd is where the value at i ends; -1 if there is none, or it does not.
func valueEnd(b []byte, i int) int {
	for start, depth := i, 0; i < len(b); {
		switch b[i] {
		case '"':
			if i = stringEnd(b, i); i < 0 {
				return -1
			}
		case '{', '[':
			depth++
			i++
		case '}', ']':
			if depth == 0 {
				return ended(start, i)
			}
			depth--
			i++
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return ended(start, i)
			}
			i++
			continue
		default:
			i++
			continue // a number or a word goes on
		}
		if depth == 0 {
			return i
		}
	}
	return -1 // an object has an end after it
}

func ended(start, i int) int {
	if i == start {
		return -1
	}
	return i
}
