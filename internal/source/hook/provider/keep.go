package provider

import (
	"net/http"
	"slices"
	"strings"
)

// MaxKept is how many bytes of headers, names and values, are kept of a delivery.
const MaxKept = 16 << 10

// Keep is which headers of a request are worth storing with its delivery: not those
// that prove who somebody is, and not those that are about the connection. The
// signature is kept, so that it can be verified again; a header that has the secret
// itself is not. Of the rest, as many as MaxKept holds: Content-Type and those that
// Read asks for first, then the others by name. cut names those that there was no
// room for.
//
// h is not changed, and shares the values with what is kept.
func (p *Provider) Keep(h http.Header) (kept http.Header, cut []string) {
	read, secret := p.dialect.headers()
	first := append([]string{"Content-Type"}, read...)
	names := make([]string, 0, len(h))
	for name := range h {
		if !slices.Contains(secret, name) && (slices.Contains(read, name) || !dropped(name)) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if x, y := slices.Contains(first, a), slices.Contains(first, b); x != y {
			if x {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	kept, room := make(http.Header, len(names)), MaxKept
	for _, name := range names {
		size := 0
		for _, value := range h[name] {
			size += len(name) + len(value)
		}
		if size > room {
			cut = append(cut, name)
			continue
		}
		room -= size
		kept[name] = h[name]
	}
	return kept, cut
}

// dropped reports whether a header is about the connection, or is a credential as far
// as its name tells.
func dropped(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Expect", "Priority", "X-Forwarded-Client-Cert":
		return true
	}
	if strings.HasPrefix(name, "Proxy-") {
		return true
	}
	return slices.ContainsFunc([]string{
		"Authorization", "Cookie", "Cookie2", "Token", "Secret", "Password", "Api-Key", "Apikey", "Access-Key", "Credential", "Assertion",
	}, func(end string) bool { return strings.HasSuffix(name, end) })
}
