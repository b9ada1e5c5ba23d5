package ws

import (
	"strings"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/front"
)

// What is answered to an offer of permessage-deflate that is taken (RFC 7692):
// each message stands for itself, in both directions, so that a connection keeps
// nothing for the next one and a compressed event is the same for everybody.
const (
	deflateAnswer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	windowAnswer  = "; server_max_window_bits=15"
)

// agree answers the offers of a handshake's Sec-WebSocket-Extensions headers with
// the first that can be kept to; "" if none can. What does not follow the grammar
// of the header fails the handshake (RFC 6455, section 9.1).
func agree(offered []string) (answer string, err error) {
	for _, list := range offered {
		for s := (scanner{list}); ; {
			s.space()
			if s.rest != "" && s.rest[0] != ',' { // elements may be empty (RFC 9110, section 5.6.1)
				one, ok := s.extension()
				if !ok {
					return "", carillon.BadRequest("Sec-WebSocket-Extensions is a list of names and parameters (RFC 6455, section 9.1)")
				}
				if answer == "" {
					answer = one
				}
			}
			if !s.next(',') {
				break
			}
		}
	}
	return answer, nil
}

// scanner reads a header from its front.
type scanner struct{ rest string }

func (s *scanner) space() { s.rest = strings.TrimLeft(s.rest, " \t") }

// next takes a delimiter, if it is next.
func (s *scanner) next(c byte) bool {
	s.space()
	if s.rest == "" || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	s.space()
	return true
}

// token takes one; "" is none.
func (s *scanner) token() string {
	n := 0
	for n < len(s.rest) && front.InToken(s.rest[n]) {
		n++
	}
	t := s.rest[:n]
	s.rest = s.rest[n:]
	return t
}

// value takes a token, quoted or not.
func (s *scanner) value() (v string, ok bool) {
	if s.rest == "" || s.rest[0] != '"' {
		v = s.token()
		return v, v != ""
	}
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			s.rest = s.rest[i+1:]
			return b.String(), b.Len() > 0
		case c == '\\' && i+1 < len(s.rest):
			i++
			fallthrough
		default:
			if !front.InToken(s.rest[i]) {
				return "", false
			}
			b.WriteByte(s.rest[i])
		}
	}
	return "", false
}

// extension takes one element of the list, and answers it; "": it is declined. ok
// is false if it is none, or something else follows.
func (s *scanner) extension() (answer string, ok bool) {
	name := s.token()
	good := name == "permessage-deflate"
	var seen [4]bool
	for ok = name != ""; ok && s.next(';'); {
		name := s.token()
		has, value := s.next('='), ""
		if has {
			value, ok = s.value()
		}
		ok = ok && name != ""
		i, fine := parameter(name, value, has)
		good = good && fine && !seen[i]
		seen[i] = true
	}
	s.space()
	if !ok || s.rest != "" && s.rest[0] != ',' {
		return "", false
	}
	switch {
	case !good:
		return "", true
	case seen[serverMaxWindowBits]:
		return deflateAnswer + windowAnswer, true
	}
	return deflateAnswer, true
}

// The parameters of an offer (RFC 7692, section 7.1).
const (
	serverNoContextTakeover = iota
	clientNoContextTakeover
	serverMaxWindowBits
	clientMaxWindowBits
)

// parameter reports which one it is, and whether it can be kept to: all that are
// right can, but a window of ours that is smaller than the largest.
func parameter(name, value string, has bool) (which int, fine bool) {
	switch name {
	case "server_no_context_takeover":
		return serverNoContextTakeover, !has
	case "client_no_context_takeover":
		return clientNoContextTakeover, !has
	case "server_max_window_bits":
		return serverMaxWindowBits, value == "15"
	case "client_max_window_bits": // it says what it could do
		switch value {
		case "8", "9", "10", "11", "12", "13", "14", "15":
			return clientMaxWindowBits, true
		}
		return clientMaxWindowBits, !has
	}
	return 0, false
}
