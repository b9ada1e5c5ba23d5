package front

import "strings"

// InToken reports whether c may be in a token (RFC 9110, section 5.6.2).
func InToken(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// token reports whether s is a token.
func token(s string) bool {
	for i := range len(s) {
		if !InToken(s[i]) {
			return false
		}
	}
	return s != ""
}
