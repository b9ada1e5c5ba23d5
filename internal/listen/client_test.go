package listen_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/listen"
)

// seen is the RemoteAddr behind the proxies.
func seen(t *testing.T, p *listen.Proxies, remote string, header ...string) (addr string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.RemoteAddr = remote
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	p.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { addr = r.RemoteAddr })).ServeHTTP(httptest.NewRecorder(), r)
	if r.RemoteAddr != remote {
		t.Error("the request of the caller was changed")
	}
	return addr
}

func proxies(t *testing.T, header string, list ...string) *listen.Proxies {
	t.Helper()
	p, err := listen.NewProxies(list, header)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheClientIsTheRightMostThatIsNotTrusted(t *testing.T) {
	const xff = "X-Forwarded-For"
	for _, tt := range []struct {
		name, remote string
		header       []string
		want         string
	}{
		{"nobody says", "10.0.0.1:9", nil, "10.0.0.1:9"},
		{"a proxy says", "10.0.0.1:9", []string{xff, "192.0.2.7"}, "192.0.2.7:0"},
		{"with a port", "10.0.0.1:9", []string{xff, "192.0.2.7:55"}, "192.0.2.7:55"},
		{"IPv6", "10.0.0.1:9", []string{xff, "2001:db8::7"}, "[2001:db8::7]:0"},
		{"IPv6 in brackets", "10.0.0.1:9", []string{xff, "[2001:db8::7]"}, "[2001:db8::7]:0"},
		{"IPv6 with a port", "10.0.0.1:9", []string{xff, "[2001:db8::7]:55"}, "[2001:db8::7]:55"},
		{"IPv4 as IPv6", "[::ffff:10.0.0.1]:9", []string{xff, "::ffff:192.0.2.7"}, "192.0.2.7:0"},
		{"two proxies", "10.0.0.1:9", []string{xff, "192.0.2.7, 10.0.0.2"}, "192.0.2.7:0"},
		{"two proxies, two lines", "10.0.0.1:9", []string{xff, "192.0.2.7", xff, "10.0.0.2"}, "192.0.2.7:0"},
		{"a proxy that is one address", "203.0.113.5:9", []string{xff, "192.0.2.7"}, "192.0.2.7:0"},
		{"all are proxies", "10.0.0.1:9", []string{xff, "10.0.0.3,10.0.0.2"}, "10.0.0.3:0"},

		{"a stranger says", "198.51.100.1:9", []string{xff, "192.0.2.7"}, "198.51.100.1:9"},
		{"a stranger says it is a proxy", "198.51.100.1:9", []string{xff, "192.0.2.7, 10.0.0.2"}, "198.51.100.1:9"},
		{"a client wrote one before", "10.0.0.1:9", []string{xff, "127.0.0.1, 192.0.2.7"}, "192.0.2.7:0"},
		{"in a line before", "10.0.0.1:9", []string{xff, "10.0.0.7", xff, "192.0.2.7"}, "192.0.2.7:0"},
		{"a client wrote one with quotes", "10.0.0.1:9", []string{xff, `"1.1.1.1, 192.0.2.7`}, "192.0.2.7:0"},
		{"a client wrote the other header", "10.0.0.1:9", []string{"Forwarded", "for=1.1.1.1", xff, "192.0.2.7"}, "192.0.2.7:0"},
		{"a client wrote another one", "10.0.0.1:9", []string{"X-Real-Ip", "1.1.1.1", "Client-Ip", "1.1.1.1"}, "10.0.0.1:9"},
		{"a proxy hides", "10.0.0.1:9", []string{xff, "1.1.1.1, unknown"}, "10.0.0.1:9"},
		{"a proxy before it hides", "10.0.0.1:9", []string{xff, "1.1.1.1, unknown, 10.0.0.2"}, "10.0.0.2:0"},
		{"nothing readable", "10.0.0.1:9", []string{xff, "[::1, 300.1.1.1"}, "10.0.0.1:9"},
		{"empty", "10.0.0.1:9", []string{xff, ""}, "10.0.0.1:9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := proxies(t, listen.XForwardedFor, "10.0.0.0/8", "203.0.113.5")
			if got := seen(t, p, tt.remote, tt.header...); got != tt.want {
				t.Errorf("the client is %s, want %s", got, tt.want)
			}
		})
	}
}

func TestForwardedIsReadAsItsRFCSays(t *testing.T) {
	for _, tt := range []struct{ name, header, want string }{
		{"a token", "for=192.0.2.7", "192.0.2.7:0"},
		{"among others", "proto=https;By=10.0.0.1; FOR=192.0.2.7 ;host=a", "192.0.2.7:0"},
		{"quoted", `for="192.0.2.7:55"`, "192.0.2.7:55"},
		{"IPv6", `for="[2001:db8::7]:55"`, "[2001:db8::7]:55"},
		{"two", `for=192.0.2.7, for="10.0.0.2"`, "192.0.2.7:0"},
		{"a comma within quotes", `for=192.0.2.7;host="a,b"`, "192.0.2.7:0"},
		{"a semicolon within quotes", `for=192.0.2.7;host="a;for=1.1.1.1"`, "192.0.2.7:0"},

		{"a client wrote one before", `for=1.1.1.1, for=192.0.2.7`, "192.0.2.7:0"},
		{"a client left a quote open", `for="1.1.1.1, for=192.0.2.7`, "192.0.2.7:0"},
		{"a client left a quote open before quotes", `for="1.1.1.1, for="[2001:db8::7]"`, "[2001:db8::7]:0"},
		{"hidden", "for=1.1.1.1, for=_gazonk", "10.0.0.1:9"},
		{"no for", "for=1.1.1.1, proto=https", "10.0.0.1:9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := proxies(t, listen.Forwarded, "10.0.0.0/8")
			if got := seen(t, p, "10.0.0.1:9", "Forwarded", tt.header, "X-Forwarded-For", "1.1.1.1"); got != tt.want {
				t.Errorf("the client is %s, want %s", got, tt.want)
			}
		})
	}
}

func TestNobodyIsTrustedWhoIsNotListed(t *testing.T) {
	var none *listen.Proxies
	if got := seen(t, none, "10.0.0.1:9", "X-Forwarded-For", "1.1.1.1"); got != "10.0.0.1:9" {
		t.Errorf("without a list the client is %s", got)
	}
	silent := proxies(t, listen.NoHeader, "10.0.0.0/8")
	if got := seen(t, silent, "10.0.0.1:9", "X-Forwarded-For", "1.1.1.1", "None", "1.1.1.1"); got != "10.0.0.1:9" {
		t.Errorf("without a header the client is %s", got)
	}
	p := proxies(t, listen.XForwardedFor, "10.0.0.0/8")
	if got := seen(t, p, "@", "X-Forwarded-For", "1.1.1.1"); got != "@" {
		t.Errorf("over a Unix socket the client is %s", got)
	}
	p = proxies(t, listen.XForwardedFor, "unix")
	if got := seen(t, p, "@", "X-Forwarded-For", "1.1.1.1"); got != "1.1.1.1:0" {
		t.Errorf("over a Unix socket that is trusted the client is %s", got)
	}
	if p.Trusts(netip.MustParseAddr("127.0.0.1")) {
		t.Error("an address is trusted for a Unix socket's sake")
	}
}

func TestAListOfProxiesIsReadExactly(t *testing.T) {
	for _, s := range []string{"", "localhost", "10.0.0.0/33", "10.0.0.1/8", "10.0.0", "fe80::1%eth0", "*", "0.0.0.0/"} {
		if _, err := listen.NewProxies([]string{s}, listen.XForwardedFor); err == nil || !strings.Contains(err.Error(), "10.0.0.0/8") {
			t.Errorf("%q: %v", s, err)
		}
	}
	p := proxies(t, listen.XForwardedFor, "::ffff:10.0.0.0/104", "::ffff:192.0.2.1", "fe80::/10")
	for addr, want := range map[string]bool{
		"10.1.2.3": true, "11.0.0.1": false, "192.0.2.1": true, "::ffff:192.0.2.1": true, "192.0.2.2": false, "fe80::1%eth0": true,
	} {
		if got := p.Trusts(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is trusted: %t", addr, got)
		}
	}
}
