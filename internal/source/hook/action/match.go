package action

import (
	"crypto/subtle"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The types of matches.
const (
	matchValue    = "value"
	matchRegex    = "regex"
	matchIP       = "ip-whitelist"
	matchScalr    = "scalr-signature"
	matchGitHub   = "github"
	matchStripe   = "stripe"
	matchSlack    = "slack"
	matchStandard = "standard-webhooks"
	matchTime     = "header-time"
)

var types = []string{
	matchValue, matchRegex, "payload-hmac-sha1", "payload-hmac-sha256", "payload-hmac-sha512",
	"payload-hash-sha1", "payload-hash-sha256", "payload-hash-sha512", matchIP, matchScalr,
	matchGitHub, matchStripe, matchSlack, matchStandard, matchTime,
}

// defaultTolerance is how far a time may be from ours, both ways.
const defaultTolerance = 5 * time.Minute

// match is one thing that is asked of a request.
type match struct {
	kind      string
	parameter argument
	value     string
	regex     string
	ranges    string
	secret    string
	secrets   []string // of providers
	tolerance time.Duration
	line      int

	// Made of those.
	pattern  *regexp.Regexp
	prefixes []netip.Prefix // before the first that is none
	bad      error          // of the regex, the ranges
}

// match reads a match; nil: it is null.
func (d *document) match(n *yaml.Node, what string) *match {
	if d.resolve(n) == nil {
		return nil
	}
	f := d.fields(n, what+": match")
	m := &match{
		kind: f.text("type"), value: f.text("value"), regex: f.text("regex"), ranges: f.text("ip-range"),
		secret: f.text("secret"), secrets: f.texts("secrets"), tolerance: f.duration("tolerance"), line: n.Line,
	}
	if p := f.take("parameter"); d.resolve(p) != nil {
		m.parameter = d.argument(p, what+": parameter")
	}
	f.done()
	m.compile()
	return m
}

func (m *match) compile() {
	switch m.kind {
	case matchRegex:
		m.pattern, m.bad = regexp.Compile(m.regex)
	case matchIP:
		m.prefixes, m.bad = prefixes(m.ranges)
	case matchTime:
		if m.tolerance == 0 {
			m.tolerance = defaultTolerance
		}
	}
	if m.secret != "" && m.provider() != "" {
		m.secrets = append([]string{m.secret}, m.secrets...)
	}
	if m.bad != nil {
		m.bad = fmt.Errorf("action: %w", m.bad)
	}
}

// prefixes are what ranges say, up to the first that is no address.
func prefixes(ranges string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for r := range strings.FieldsSeq(ranges) {
		p, err := netip.ParsePrefix(r)
		if err != nil {
			var a netip.Addr
			a, err = netip.ParseAddr(r)
			if err == nil && a.Zone() == "" {
				p = netip.PrefixFrom(a, a.BitLen())
			}
		}
		if err != nil || !p.IsValid() {
			return list, fmt.Errorf("ip-range has %q, which is neither an address nor a range like 192.0.2.0/24", clip(r))
		}
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		list = append(list, p.Masked())
	}
	return list, nil
}

// provider is the kind that a [Verifier] is asked for; "": none is.
func (m *match) provider() string {
	switch m.kind {
	case matchGitHub, matchStripe, matchSlack:
		return m.kind
	case matchStandard:
		return "standard"
	}
	return ""
}

// signs says whether the match asks for proof of who has sent the request.
func (m *match) signs() bool {
	return m.kind == matchScalr || m.provider() != "" || m.hash() != nil
}

// faults are what makes the match the same for every request.
func (m *match) faults() []string {
	var faults []string
	add := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf("a match of type %s: ", clip(m.kind))+fmt.Sprintf(format, args...))
	}
	switch {
	case !slices.Contains(types, m.kind):
		add("there is no such type; take one of %s", strings.Join(types, ", "))
	case m.bad != nil:
		add("%s", strings.TrimPrefix(m.bad.Error(), "action: "))
	case m.kind == matchIP && len(m.prefixes) == 0:
		add("ip-range is empty, which nobody is in")
	case m.provider() != "" && (len(m.secrets) == 0 || slices.Contains(m.secrets, "")):
		add("it takes secrets, a list without empty ones")
	case m.provider() == "" && len(m.secrets) > 0:
		add("it takes one secret, not secrets")
	case m.signs() && m.provider() == "" && m.secret == "":
		add("its secret is empty")
	}
	if m.asks() {
		if fault := m.parameter.fault(); fault != "" {
			add("parameter: %s", fault)
		}
	}
	return faults
}

// asks says whether the match has a parameter. One of an unknown type has.
func (m *match) asks() bool { return m.kind != matchIP && m.kind != matchScalr && m.provider() == "" }

// test judges a request.
func (m *match) test(r *Request) (bool, error) {
	switch {
	case m.kind == matchIP:
		return m.within(r.Remote)
	case m.kind == matchScalr:
		return m.scalr(r)
	case m.provider() != "":
		return r.Verify != nil && len(m.secrets) > 0 && r.Verify(m.provider(), m.secrets, r.Header, r.Body, r.now()), nil
	}
	got, err := m.parameter.value(r)
	if err != nil {
		return false, err
	}
	switch m.kind {
	case matchValue:
		return subtle.ConstantTimeCompare([]byte(got), []byte(m.value)) == 1, nil
	case matchRegex:
		if m.bad != nil {
			return false, m.bad
		}
		return m.pattern.MatchString(got), nil
	case matchTime:
		at, ok := parseTime(got)
		return ok && r.now().Sub(at).Abs() <= m.tolerance, nil
	}
	if m.hash() != nil {
		return m.signed(r.Body, got)
	}
	return false, nil
}

func (m *match) within(remote string) (bool, error) {
	host := strings.Trim(remote, " []")
	if at, err := netip.ParseAddrPort(remote); err == nil {
		host = at.Addr().String()
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false, fmt.Errorf("action: the client's address %q is none", clip(remote))
	}
	ip = ip.Unmap().WithZone("")
	if slices.ContainsFunc(m.prefixes, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return true, nil
	}
	return false, m.bad
}

// parseTime reads seconds since 1970, or a time as HTTP or RFC 3339 writes it.
func parseTime(text string) (time.Time, bool) {
	const digits = 11 // the year 5138
	if text != "" && len(text) <= digits && strings.Trim(text, "0123456789") == "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		return time.Unix(seconds, 0), err == nil
	}
	for _, layout := range []string{time.RFC3339, time.RFC1123, time.RFC1123Z} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// shown is the match with secrets hidden.
func (m *match) shown() map[string]any {
	shown := map[string]any{"type": m.kind}
	if m.asks() {
		shown["parameter"] = map[string]any{"source": m.parameter.source, "name": m.parameter.name}
	}
	switch {
	case m.kind == matchValue:
		shown["value"] = hidden // often a token
	case m.kind == matchRegex:
		shown["regex"] = m.regex
	case m.kind == matchIP:
		shown["ip-range"] = m.ranges
	case m.kind == matchTime:
		shown["tolerance"] = m.tolerance.String()
	case m.provider() != "":
		shown["secrets"] = slices.Repeat([]string{hidden}, len(m.secrets))
	case m.signs():
		shown["secret"] = hidden
	}
	return shown
}

// hidden stands where something is not shown.
const hidden = "(hidden)"
