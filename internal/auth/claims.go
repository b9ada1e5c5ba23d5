package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// object is a JSON object with its members as they were written: in order, with
// every repetition, names exact. encoding/json into a struct would take "EXP"
// for exp and the last of two subs.
type object []member

type member struct {
	name  []byte // without quotes and escapes
	value []byte // JSON
}

var (
	errNotObject = errors.New("not a JSON object")
	errUTF8      = errors.New("not UTF-8")
)

// parseObject splits a JSON object into its members. The values are valid JSON
// and alias text.
func parseObject(text []byte) (object, error) {
	if !utf8.Valid(text) {
		return nil, errUTF8
	}
	if !json.Valid(text) { // bounds the depth, too
		return nil, errNotObject
	}
	return split(text)
}

// split is parseObject for text that is valid JSON, which it relies on.
func split(text []byte) (object, error) {
	i := space(text, 0)
	if text[i] != '{' {
		return nil, errNotObject
	}
	i = space(text, i+1)
	if text[i] == '}' {
		return nil, nil
	}
	o := make(object, 0, 8)
	for {
		end := value(text, i)
		name, err := unquoteBytes(text[i:end])
		if err != nil {
			return nil, err
		}
		i = space(text, end) // at the colon
		i = space(text, i+1) // at the value
		end = value(text, i) // behind it
		o = append(o, member{name, text[i:end]})
		i = space(text, end)
		if text[i] == '}' {
			return o, nil
		}
		i = space(text, i+1) // behind the comma
	}
}

// elements splits a JSON array that is valid; ok is false for another value.
func elements(text []byte) (list [][]byte, ok bool) {
	if text[0] != '[' {
		return nil, false
	}
	i := space(text, 1)
	if text[i] == ']' {
		return nil, true
	}
	for {
		end := value(text, i)
		list = append(list, text[i:end])
		i = space(text, end)
		if text[i] == ']' {
			return list, true
		}
		i = space(text, i+1)
	}
}

func space(text []byte, i int) int {
	for text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r' {
		i++
	}
	return i
}

// value returns the index behind the JSON value that starts at i.
func value(text []byte, i int) int {
	depth := 0
	for {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			i++
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\n', '\r':
			i++
		default: // a number or a word
			for i < len(text) && strings.IndexByte(",:]} \t\r\n", text[i]) < 0 {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}

// unquote reads a JSON string.
func unquote(text []byte) (string, error) {
	b, err := unquoteBytes(text)
	return string(b), err
}

// unquoteBytes is unquote; what it returns may alias text. Half a surrogate
// pair, which JSON allows and UTF-8 cannot say, is refused: two different names
// must not become one.
func unquoteBytes(text []byte) ([]byte, error) {
	if text[0] != '"' {
		return nil, errors.New("not a string")
	}
	if bytes.IndexByte(text, '\\') < 0 {
		return text[1 : len(text)-1], nil
	}
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	if strings.ContainsRune(s, utf8.RuneError) {
		return nil, errUTF8
	}
	return []byte(s), nil
}

// get finds a member; found is false where there is none, and a name that is
// there twice is an error.
func (o object) get(name string) (v []byte, found bool, err error) {
	for i := range o {
		if string(o[i].name) != name {
			continue
		}
		if found {
			return nil, false, fmt.Errorf("%q is there twice", name)
		}
		v, found = o[i].value, true
	}
	return v, found, nil
}

// text finds a member that is a string.
func (o object) text(name string) (s string, found bool, err error) {
	v, found, err := o.get(name)
	if err != nil || !found {
		return "", false, err
	}
	if s, err = unquote(v); err != nil {
		return "", true, fmt.Errorf("%q: %w", name, err)
	}
	return s, true, nil
}

// texts reads a list of strings.
func texts(v []byte) ([]string, error) {
	list, ok := elements(v)
	if !ok {
		return nil, errors.New("not a list of strings")
	}
	out := make([]string, len(list))
	for i, e := range list {
		s, err := unquote(e)
		if err != nil {
			return nil, errors.New("not a list of strings")
		}
		out[i] = s
	}
	return out, nil
}
