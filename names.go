package carillon

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Sizes of names, in bytes.
const (
	MaxOrgIDLen  = 64
	MaxRoomLen   = 128
	MaxUserLen   = 255
	MaxSubject   = 255
	MaxTypeLen   = 255
	MaxSegments  = 16
	MaxEventKey  = 255 // the publisher's own id of an event
	maxNameShown = 80  // how much of a refused name an error repeats
)

// OrgID names an organization, the tenant. It comes from a credential, never
// from a request.
type OrgID string

// ParseOrgID accepts 1–64 of [a-z0-9_-].
func ParseOrgID(s string) (OrgID, error) {
	if len(s) == 0 || len(s) > MaxOrgIDLen {
		return "", BadRequest("an org is 1–%d characters of a–z, 0–9, _ and -, not %d", MaxOrgIDLen, len(s))
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isLower(c) && !isDigit(c) && c != '_' && c != '-' {
			return "", BadRequest("org %q: only a–z, 0–9, _ and - are allowed", clip(s))
		}
	}
	return OrgID(s), nil
}

// ParseSource accepts the name of an event source: 1–64 of [a-z0-9_-].
func ParseSource(s string) (string, error) {
	id, err := ParseOrgID(s)
	if err != nil {
		return "", BadRequest("source %q: 1–%d characters of a–z, 0–9, _ and - are allowed", clip(s), MaxOrgIDLen)
	}
	return string(id), nil
}

// ParseRoom accepts 1–128 of [A-Za-z0-9._:-].
func ParseRoom(s string) (string, error) {
	if len(s) == 0 || len(s) > MaxRoomLen {
		return "", BadRequest("a room is 1–%d characters of letters, digits, '.', '_', ':' and '-', not %d", MaxRoomLen, len(s))
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isLower(c) && !isUpper(c) && !isDigit(c) && strings.IndexByte("._:-", c) < 0 {
			return "", BadRequest("room %q: only letters, digits, '.', '_', ':' and '-' are allowed", clip(s))
		}
	}
	return s, nil
}

// ParseUser accepts 1–255 bytes of UTF-8 without control characters.
func ParseUser(s string) (string, error) {
	if len(s) == 0 || len(s) > MaxUserLen {
		return "", BadRequest("a user is 1–%d bytes of UTF-8, not %d", MaxUserLen, len(s))
	}
	if !printable(s) {
		return "", BadRequest("a user is UTF-8 without control characters: %q", clip(s))
	}
	return s, nil
}

// ParseSubject accepts up to 255 bytes of UTF-8 without control characters;
// empty means no subject.
func ParseSubject(s string) (string, error) {
	if len(s) > MaxSubject {
		return "", BadRequest("a subject is at most %d bytes, not %d", MaxSubject, len(s))
	}
	if !printable(s) {
		return "", BadRequest("a subject is UTF-8 without control characters: %q", clip(s))
	}
	return s, nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// clip shortens untrusted text for an error message.
func clip(s string) string {
	if len(s) <= maxNameShown {
		return s
	}
	return s[:maxNameShown] + "…"
}
