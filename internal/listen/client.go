package listen

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Names of the headers in which a proxy tells the client's address.
const (
	NoHeader      = "none"
	XForwardedFor = "x-forwarded-for"
	Forwarded     = "forwarded" // RFC 7239
)

// overUnix is how a list of proxies names whoever comes over a Unix socket.
const overUnix = "unix"

// Proxies are the peers who are believed about a client's address. Nil believes
// nobody. It is immutable; its methods may be called from any goroutine.
type Proxies struct {
	prefixes []netip.Prefix
	unix     bool
	header   string
}

// NewProxies trusts these: addresses, prefixes such as 10.0.0.0/8, and "unix" for
// peers on a Unix socket. header is the one header they tell a client's address
// in; another one comes from the client itself, and is not looked at.
func NewProxies(list []string, header string) (*Proxies, error) {
	p := &Proxies{header: header}
	for _, s := range list {
		if s == overUnix {
			p.unix = true
			continue
		}
		prefix, err := ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		p.prefixes = append(p.prefixes, prefix)
	}
	return p, nil
}

// ParsePrefix reads an address or a prefix. One of IPv4 written as IPv6 is that
// of IPv4.
func ParsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	const mapped = 96 // bits in front of an IPv4 address in IPv6
	prefix, err := netip.ParsePrefix(s)
	if err == nil && prefix.Addr().Is4In6() && prefix.Bits() >= mapped {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-mapped)
	}
	if err != nil || prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("listen: %q is neither an address like 10.1.2.3 nor a prefix like 10.0.0.0/8", s)
	}
	return prefix, nil
}

// Trusts reports whether what addr says of a client is believed. An address that
// is not valid is that of a Unix socket.
func (p *Proxies) Trusts(addr netip.Addr) bool {
	if p == nil {
		return false
	}
	if !addr.IsValid() {
		return p.unix
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(p.prefixes, func(x netip.Prefix) bool { return x.Contains(addr) })
}

// Handler gives next requests whose RemoteAddr is the client's: the right-most
// address on the way that is not a trusted proxy's. What stands further left a
// client can write itself. Where all are trusted it is the left-most, and where a
// proxy does not say, the proxy's own.
func (p *Proxies) Handler(next http.Handler) http.Handler {
	if p == nil || p.header == NoHeader {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if told := p.client(r); told != "" {
			r = r.WithContext(r.Context()) // a copy
			r.RemoteAddr = told
		}
		next.ServeHTTP(w, r)
	})
}

// Client is what a trusted proxy tells of who has sent a request: a RemoteAddr, or
// "" where none does.
func (p *Proxies) Client(r *http.Request) string {
	if p == nil || p.header == NoHeader {
		return ""
	}
	return p.client(r)
}

// client is who asks, as trusted proxies tell it, or "" where none does.
func (p *Proxies) client(r *http.Request) (told string) {
	if !p.Trusts(address(r.RemoteAddr)) {
		return ""
	}
	for _, line := range slices.Backward(r.Header[http.CanonicalHeaderKey(p.header)]) {
		for more := true; more; {
			var hop string
			line, hop, more = cutLast(line, ',')
			if p.header == Forwarded {
				hop = forwardedFor(hop)
			}
			addr, text := node(hop)
			if !addr.IsValid() {
				return told // hidden: it is known no further than here
			}
			if told = text; !p.Trusts(addr) {
				return told
			}
		}
	}
	return told
}

// node reads an address with or without a port. text is what a RemoteAddr would
// be.
func node(s string) (addr netip.Addr, text string) {
	s = strings.TrimSpace(s)
	if ap, err := netip.ParseAddrPort(s); err == nil {
		addr = ap.Addr().Unmap()
		return addr, netip.AddrPortFrom(addr, ap.Port()).String()
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		s, ok = strings.CutSuffix(inner, "]")
		if !ok {
			return netip.Addr{}, ""
		}
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, ""
	}
	addr = addr.Unmap()
	return addr, net.JoinHostPort(addr.String(), "0")
}

// address is the address in a RemoteAddr; it is not valid for a Unix socket.
func address(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

// forwardedFor is the for= of one element of Forwarded, or "".
func forwardedFor(element string) string {
	for more := true; more; {
		var pair string
		element, pair, more = cutLast(element, ';')
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if !strings.EqualFold(name, "for") {
			continue
		}
		if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1] // an address has nothing to escape
		}
		return value
	}
	return ""
}

// cutLast cuts at the last sep that is not within quotes. It looks from the right,
// so that a quote left open by a client takes nothing from what a proxy put behind
// it.
func cutLast(s string, sep byte) (before, last string, found bool) {
	quoted := false
	for i := len(s) - 1; i >= 0; i-- {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			return s[:i], s[i+1:], true
		}
	}
	return "", s, false
}
