package provider

import (
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxID is the length of the longest id of a delivery, in bytes.
	MaxID = 255
	// maxName is how long a header that names an event may be, in bytes.
	maxName = 255
	// maxUnix is how many digits a time in Unix seconds has at most.
	maxUnix = 11
)

// one is a header's value if it is there exactly once, as most are.
func one(h http.Header, name string) (value string, n int) {
	v := h[name]
	if len(v) != 1 {
		return "", len(v)
	}
	return v[0], 1
}

// signed is the value of the header with the signature.
func signed(h http.Header, name string) (string, *Refusal) {
	value, n := one(h, name)
	switch {
	case n == 0:
		return "", refuse(SignatureMissing, "there is no header "+name)
	case n > 1:
		return "", refuse(SignatureMalformed, "the header "+name+" is there more than once")
	case value == "":
		return "", refuse(SignatureMissing, "the header "+name+" is empty")
	case len(value) > maxSigned:
		return "", refuse(SignatureMalformed, "the header "+name+" is longer than signatures are")
	}
	return value, nil
}

// stamped is the value of the header with the timestamp.
func stamped(h http.Header, name string) (string, *Refusal) {
	value, n := one(h, name)
	switch {
	case n == 0 || n == 1 && value == "":
		return "", refuse(TimestampMissing, "there is no header "+name)
	case n > 1:
		return "", refuse(TimestampMalformed, "the header "+name+" is there more than once")
	}
	return value, nil
}

// identified is the value of a header that has to have an id.
func identified(h http.Header, name string) (string, *Refusal) {
	value, n := one(h, name)
	if n != 1 || identify(value) == "" {
		return "", refuse(BadHeaders, "the header "+name+" is there once, and is an id of 1 to "+strconv.Itoa(MaxID)+" bytes")
	}
	return value, nil
}

// identify is the id if it can be one, otherwise "": it is stored, shown and compared.
func identify(id string) string {
	if len(id) > MaxID || !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl) {
		return ""
	}
	return id
}

// digits reads a number of 1 to most decimal digits, and nothing else: no sign, no
// space.
func digits(s string, most int) (n int64, ok bool) {
	if s == "" || len(s) > most {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, true
}

// lowerHex decodes size bytes in lower-case hexadecimal, as providers write them. One
// signature has one spelling.
func lowerHex(s string, size int) ([]byte, bool) {
	if len(s) != 2*size || strings.ContainsAny(s, "ABCDEF") {
		return nil, false
	}
	b, err := hex.DecodeString(s)
	return b, err == nil
}

// clip shortens a text of strangers for an error.
func clip(s string) string {
	const shown = 60
	if len(s) <= shown {
		return s
	}
	return strings.ToValidUTF8(s[:shown], "") + "…"
}
