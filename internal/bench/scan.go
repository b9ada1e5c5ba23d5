package bench

import "bytes"

// fields walks the members of one JSON object without allocating. It trusts that
// the text is JSON and finds where members end; anything it cannot follow ends
// the walk with ok false and bad set.
type fields struct {
	b   []byte
	i   int
	bad bool
}

func object(b []byte) fields {
	f := fields{b: b}
	f.space()
	if f.i >= len(b) || b[f.i] != '{' {
		f.bad = true
		return f
	}
	f.i++
	return f
}

// next returns the next member: its key without quotes and its value as it
// stands in the text.
func (f *fields) next() (key, value []byte, ok bool) {
	if f.bad {
		return nil, nil, false
	}
	f.space()
	if f.at(',') {
		f.i++
		f.space()
	}
	if f.at('}') {
		return nil, nil, false
	}
	start := f.i
	end := skipString(f.b, f.i)
	if end < 0 {
		f.bad = true
		return nil, nil, false
	}
	key, f.i = f.b[start+1:end-1], end
	f.space()
	if !f.at(':') {
		f.bad = true
		return nil, nil, false
	}
	f.i++
	f.space()
	start = f.i
	if end = skipValue(f.b, f.i); end < 0 {
		f.bad = true
		return nil, nil, false
	}
	f.i = end
	return key, f.b[start:end], true
}

func (f *fields) at(c byte) bool { return f.i < len(f.b) && f.b[f.i] == c }

func (f *fields) space() {
	for f.i < len(f.b) && isSpace(f.b[f.i]) {
		f.i++
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// skipString returns the index after the string that begins at i, or -1.
func skipString(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	for i++; ; {
		j := bytes.IndexByte(b[i:], '"')
		if j < 0 {
			return -1
		}
		k := i + j
		slashes := 0
		for k-1-slashes >= i && b[k-1-slashes] == '\\' {
			slashes++
		}
		// A run of backslashes cannot begin before i: what stands before i is the
		// opening quote or a quote that one of them escaped.
		if slashes%2 == 0 {
			return k + 1
		}
		i = k + 1
	}
}

// skipValue returns the index after the value that begins at i, or -1.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		depth := 0
		for i < len(b) {
			switch b[i] {
			case '"':
				if i = skipString(b, i); i < 0 {
					return -1
				}
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return -1
	}
	start := i
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && !isSpace(b[i]) {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

// text is the inside of a JSON string that needs no unescaping; anything else is
// returned as it stands.
func text(v []byte) []byte {
	if len(v) >= 2 && v[0] == '"' {
		return v[1 : len(v)-1]
	}
	return v
}

// number reads an unsigned integer; ok is false for anything else.
func number(v []byte) (n uint64, ok bool) {
	if len(v) == 0 || len(v) > 19 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}
