// Package safenet calls addresses that come from outside: a URL that somebody
// typed may lead into the network the node lives in.
//
// A client of this package connects to public addresses only. It looks at the
// address that is dialed, after the name was resolved, so a name that changes
// its address in between (DNS rebinding) changes nothing. It uses no proxy and
// follows no redirect: an answer with one is the answer.
package safenet

import (
	"net"
	"net/http"
	"time"

	"code.dny.dev/ssrf"
)

// Config of a client.
type Config struct {
	// Private lets the client call private, loopback and link-local addresses,
	// too: whoever chooses its URLs reaches whatever the node reaches.
	Private bool

	Timeout time.Duration // of a whole request, its answer included; required
}

// maxHeader is how large the header of an answer may be.
const maxHeader = 16 << 10

// Client makes an HTTP client. How much of an answer is read is the caller's to
// limit.
func Client(cfg Config) *http.Client {
	if cfg.Timeout <= 0 {
		panic("safenet: Config.Timeout is required")
	}
	dialer := &net.Dialer{Timeout: cfg.Timeout}
	if !cfg.Private {
		dialer.Control = ssrf.New(ssrf.WithAnyPort()).Safe
	}
	return &http.Client{
		Timeout: cfg.Timeout,
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: maxHeader,
			TLSHandshakeTimeout:    cfg.Timeout,
			ExpectContinueTimeout:  cfg.Timeout,
			IdleConnTimeout:        time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
