// Package answer is how a body gets to an HTTP client: the form and the encoding
// that it takes, whether it has the body already, and at its pace. It is for
// answers that are made whole; a stream is neither negotiated nor compressed.
package answer

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Write answers with a status and a body, written in pieces with a deadline for
// each: a client that takes some of it is waited for, one that takes nothing for
// so long is not.
func Write(w http.ResponseWriter, status int, body []byte, timeout time.Duration) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	rc := http.NewResponseController(w)
	for len(body) > 0 {
		n := min(len(body), pieceBytes)
		_ = rc.SetWriteDeadline(time.Now().Add(timeout)) // not every writer can
		if _, err := w.Write(body[:n]); err != nil {
			return // the client is gone
		}
		body = body[n:]
	}
	if rc.Flush() == nil {
		_ = rc.SetWriteDeadline(time.Time{}) // for the connection's next request
	}
}

const pieceBytes = 32 << 10

// Has reports whether a request's If-None-Match names the tag. It compares
// weakly (RFC 9110, section 13.1.2).
func Has(request http.Header, tag string) bool {
	for _, h := range request["If-None-Match"] {
		for t := range strings.SplitSeq(h, ",") {
			if t = strings.TrimPrefix(strings.Trim(t, " \t"), "W/"); t == tag || t == "*" {
				return true
			}
		}
	}
	return false
}
