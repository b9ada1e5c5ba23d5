package wire

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/carillon-rt/carillon"
)

// scanner walks JSON text once: it checks the grammar and that no object has a
// key twice. Its methods report false after setting err. It keeps no part of
// the text beyond its own life.
type scanner struct {
	src    []byte
	i      int // the next byte
	blanks int // bytes of whitespace passed, outside strings
	depth  int
	err    *carillon.Error

	keys    []keyRef // of the objects that are open, the outer ones first
	decoded []byte   // keys that had escapes
	room    [24]keyRef
	table   []uint32 // of unique
	seed    maphash.Seed
}

// keyRef is a key: where it begins, and its text in src, or in decoded if at is
// beyond src.
type keyRef struct{ pos, at, n uint32 }

// fewKeys is how many keys of one object are compared with each other as they
// come; those of a larger object go into a table when it ends.
const fewKeys = 16

func newScanner(src []byte) *scanner { return &scanner{src: src} }

// peek returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.src) {
		return s.src[s.i]
	}
	return 0
}

// fail sets err, with where the scanner stands.
func (s *scanner) fail(format string, args ...any) bool { return s.failAt(s.i, format, args...) }

func (s *scanner) failAt(at int, format string, args ...any) bool {
	s.err = carillon.BadRequest(format+" (at byte %d)", append(args, at)...)
	return false
}

// wrong says what should be here, and what is.
func (s *scanner) wrong(want string) bool {
	if s.i >= len(s.src) {
		return s.fail("the text ends where it should have %s", want)
	}
	if c := s.src[s.i]; c > ' ' && c < 0x7f {
		return s.fail("'%c' where it should have %s", c, want)
	}
	return s.fail("unexpected byte 0x%02x where it should have %s", s.src[s.i], want)
}

func (s *scanner) twice(key []byte, at int) bool {
	return s.failAt(at, "the key %q is there twice in one object; keep one", show(key))
}

// utf8 checks the whole text.
func (s *scanner) utf8() bool {
	if utf8.Valid(s.src) {
		return true
	}
	for i := 0; i < len(s.src); {
		r, size := utf8.DecodeRune(s.src[i:])
		if r == utf8.RuneError && size == 1 {
			return s.failAt(i, "byte 0x%02x is not UTF-8; send JSON in UTF-8", s.src[i])
		}
		i += size
	}
	return true
}

// space passes whitespace; it is always true.
func (s *scanner) space() bool {
	if s.i < len(s.src) && s.src[s.i] <= ' ' {
		s.blank()
	}
	return true
}

func (s *scanner) blank() {
	i := s.i
	for i < len(s.src) && (s.src[i] == ' ' || s.src[i] == '\n' || s.src[i] == '\r' || s.src[i] == '\t') {
		i++
	}
	s.blanks += i - s.i
	s.i = i
}

// take passes the byte c.
func (s *scanner) take(c byte, want string) bool {
	if s.peek() != c {
		return s.wrong(want)
	}
	s.i++
	return true
}

// end checks that nothing but whitespace follows.
func (s *scanner) end() bool {
	if s.space(); s.i < len(s.src) {
		return s.wrong("nothing more")
	}
	return true
}

// value passes one value of any kind.
func (s *scanner) value() bool {
	switch c := s.peek(); c {
	case '"':
		_, ok := s.string()
		return ok
	case '{':
		return s.object()
	case '[':
		return s.array()
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return s.number()
	}
	return s.wrong("a JSON value")
}

func (s *scanner) word(w string) bool {
	if len(s.src)-s.i < len(w) || string(s.src[s.i:s.i+len(w)]) != w {
		return s.wrong("a JSON value")
	}
	s.i += len(w)
	return true
}

func (s *scanner) number() bool {
	if s.peek() == '-' {
		s.i++
	}
	if s.peek() == '0' {
		s.i++
	} else if !s.digits() {
		return false
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return false
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c = s.peek(); c == '+' || c == '-' {
			s.i++
		}
		return s.digits()
	}
	return true
}

// digits passes one or more.
func (s *scanner) digits() bool {
	i := s.i
	for i < len(s.src) && '0' <= s.src[i] && s.src[i] <= '9' {
		i++
	}
	if i == s.i {
		return s.wrong("a digit")
	}
	s.i = i
	return true
}

// plain reports whether c stands for itself in a string. Bytes from 0x80 on do:
// that they are UTF-8 has been checked.
func plain(c byte) bool { return c >= ' ' && c != '"' && c != '\\' }

// plainPrefix is how many of the eight bytes of w, the lowest first, stand for
// themselves for certain.
func plainPrefix(w uint64) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote, backslash := w^ones*'"', w^ones*'\\'
	// The high bit of each byte that is a control character, a quote or a
	// backslash; those above the first may be set wrongly.
	special := (w - ones*' ') &^ w
	special |= (quote - ones) &^ quote
	special |= (backslash - ones) &^ backslash
	return bits.TrailingZeros64(special&highs) / 8
}

// string passes a string; escaped says whether it has escapes.
func (s *scanner) string() (escaped, ok bool) {
	src, start := s.src, s.i
	i := start + 1
	for {
		for i+8 <= len(src) {
			n := plainPrefix(binary.LittleEndian.Uint64(src[i:]))
			if i += n; n < 8 {
				break
			}
		}
		for i < len(src) && plain(src[i]) {
			i++
		}
		if i >= len(src) {
			return false, s.failAt(start, "the string that begins here has no end")
		}
		switch src[i] {
		case '"':
			s.i = i + 1
			return escaped, true
		case '\\':
			escaped = true
			n, why := escapeLen(src[i:])
			if n == 0 {
				return false, s.failAt(i, "%s", why)
			}
			i += n
		default:
			return false, s.failAt(i, "control character 0x%02x in a string; write it as \\u%04x", src[i], src[i])
		}
	}
}

// escapeLen is the length of the escape that b begins with, both halves of a
// surrogate pair together; 0 if it is none, and why.
func escapeLen(b []byte) (n int, why string) {
	const unknown = `the escape is not known; there are \" \\ \/ \b \f \n \r \t and \uXXXX`
	if len(b) < 2 {
		return 0, unknown
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, ""
	case 'u':
	default:
		return 0, unknown
	}
	r, ok := hex4(b)
	switch {
	case !ok:
		return 0, `the escape \u needs four hexadecimal digits`
	case !utf16.IsSurrogate(r):
		return 6, ""
	}
	if low, ok := hex4(b[6:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
		return 12, ""
	}
	return 0, "half a surrogate pair, which is no character; send both halves, or the character itself"
}

// hex4 reads \uXXXX at the beginning of b.
func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// appendUnescaped appends what the inside of a string that has been scanned
// stands for.
func appendUnescaped(dst, raw []byte) []byte {
	for len(raw) > 0 {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return append(dst, raw...)
		}
		dst = append(dst, raw[:i]...)
		raw = raw[i:]
		switch c := raw[1]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, _ := hex4(raw)
			if utf16.IsSurrogate(r) {
				low, _ := hex4(raw[6:])
				r = utf16.DecodeRune(r, low)
				raw = raw[6:]
			}
			dst = utf8.AppendRune(dst, r)
			raw = raw[6:]
			continue
		default:
			dst = append(dst, c)
		}
		raw = raw[2:]
	}
	return dst
}

func (s *scanner) array() bool {
	if s.depth++; s.depth > MaxDepth {
		return s.deep()
	}
	s.i++
	if s.space(); s.peek() == ']' {
		s.i++
		s.depth--
		return true
	}
	for {
		s.space()
		if !s.value() {
			return false
		}
		if s.space(); s.peek() != ',' {
			s.depth--
			return s.take(']', "',' or ']' after a value of an array")
		}
		s.i++
	}
}

func (s *scanner) deep() bool {
	return s.fail("arrays and objects nest deeper than %d; make the data flatter", MaxDepth)
}

func (s *scanner) object() bool {
	if s.depth++; s.depth > MaxDepth {
		return s.deep()
	}
	s.i++
	if s.keys == nil {
		s.keys = s.room[:0]
	}
	base, decoded := len(s.keys), len(s.decoded)
	if s.space(); s.peek() == '}' {
		s.i++
		s.depth--
		return true
	}
	for {
		s.space()
		k, ok := s.member()
		if !ok || !s.fresh(base, k) {
			return false
		}
		s.keys = append(s.keys, k)
		if !s.value() {
			return false
		}
		if s.space(); s.peek() != ',' {
			break
		}
		s.i++
	}
	if !s.take('}', "',' or '}' after a value of an object") || !s.unique(base) {
		return false
	}
	s.keys, s.decoded = s.keys[:base], s.decoded[:decoded]
	s.depth--
	return true
}

// members calls f with every key of an object whose '{' has been passed, and
// where the key begins; f passes the value. Finding keys that are there twice
// is left to f.
func (s *scanner) members(f func(key []byte, at int) bool) bool {
	if s.space(); s.peek() == '}' {
		s.i++
		return true
	}
	for {
		s.space()
		k, ok := s.member()
		if !ok || !f(s.key(k), int(k.pos)) {
			return false
		}
		if s.space(); s.peek() != ',' {
			return s.take('}', "',' or '}' after a value of an object")
		}
		s.i++
	}
}

// member passes a key, the colon and the space behind it.
func (s *scanner) member() (k keyRef, ok bool) {
	if s.peek() != '"' {
		return k, s.wrong("a key, a string in double quotes")
	}
	start := s.i
	escaped, ok := s.string()
	if !ok {
		return k, false
	}
	k = keyRef{pos: uint32(start), at: uint32(start + 1), n: uint32(s.i - start - 2)}
	if escaped {
		was := len(s.decoded)
		s.decoded = appendUnescaped(s.decoded, s.src[start+1:s.i-1])
		k.at, k.n = uint32(len(s.src)+was), uint32(len(s.decoded)-was)
	}
	if s.space(); !s.take(':', "':' after a key") {
		return k, false
	}
	return k, s.space()
}

// key is the text that a key stands for.
func (s *scanner) key(k keyRef) []byte {
	if int(k.at) < len(s.src) {
		return s.src[k.at : k.at+k.n]
	}
	at := int(k.at) - len(s.src)
	return s.decoded[at : at+int(k.n)]
}

// fresh checks k against the first few keys of its object.
func (s *scanner) fresh(base int, k keyRef) bool {
	if len(s.keys)-base >= fewKeys {
		return true
	}
	text := s.key(k)
	for _, other := range s.keys[base:] {
		if other.n == k.n && string(s.key(other)) == string(text) {
			return s.twice(text, int(k.pos))
		}
	}
	return true
}

// unique checks the keys of an object that has more than a few, in a hash table
// that strangers cannot fill with collisions: its seed is new for each text.
func (s *scanner) unique(base int) bool {
	keys := s.keys[base:]
	if len(keys) <= fewKeys {
		return true
	}
	mask := uint64(1)<<bits.Len(uint(2*len(keys))) - 1
	if s.table == nil {
		s.seed = maphash.MakeSeed()
	}
	if uint64(cap(s.table)) <= mask {
		s.table = make([]uint32, mask+1)
	}
	table := s.table[:mask+1]
	clear(table)
	for n, k := range keys {
		text := s.key(k)
		at := maphash.Bytes(s.seed, text) & mask
		for table[at] != 0 {
			if other := keys[table[at]-1]; other.n == k.n && string(s.key(other)) == string(text) {
				return s.twice(text, int(k.pos))
			}
			at = (at + 1) & mask
		}
		table[at] = uint32(n + 1)
	}
	return true
}
