package listen_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon/internal/listen"
)

func TestMain(m *testing.M) {
	if os.Getenv(childOfTest) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for something that should come at once.
const patience = 60 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair makes a certificate for 127.0.0.1 and its key, as PEM.
func pair(t testing.TB, name string, notAfter time.Time) (cert, key []byte) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: notAfter.Add(-48 * time.Hour), NotAfter: notAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	must(t, err)
	text, err := x509.MarshalPKCS8PrivateKey(secret)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})
}

// secure is the settings of a server and of a client that trusts it.
func secure(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	cert, key := pair(t, "test", time.Now().Add(time.Hour))
	x, err := tls.X509KeyPair(cert, key)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(x.Leaf)
	return &tls.Config{Certificates: []tls.Certificate{x}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}},
		&tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
}

// port opens one that ends with the test.
func port(t testing.TB, cfg listen.Config) *listen.Listener {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l := listen.New(t.Context(), raw, cfg)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// call connects and says something.
func call(t testing.TB, addr net.Addr, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, text)
	must(t, err)
	return conn
}

// echo gives out what comes, with the peer's address before it.
func echo(t testing.TB, l net.Listener) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "%v\n", conn.RemoteAddr())
			b := make([]byte, 100)
			n, _ := conn.Read(b)
			_, _ = conn.Write(b[:n])
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// lines reads the first, and what follows.
func lines(t testing.TB, conn net.Conn) (first, rest string) {
	t.Helper()
	in := bufio.NewReader(conn)
	first, err := in.ReadString('\n')
	must(t, err)
	b, err := io.ReadAll(in)
	must(t, err)
	return first[:len(first)-1], string(b)
}

// ends checks that the other side closes without a word.
func ends(t testing.TB, conn net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(conn); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %q, %v; want the end", b, err)
	}
}

// counted checks all that is.
func counted(t testing.TB, n *listen.Counts, late, refused, large, failed uint64) {
	t.Helper()
	if n.Late.Load() != late || n.Refused.Load() != refused || n.Large.Load() != large || n.Failed.Load() != failed {
		t.Errorf("counted %d late, %d refused, %d large, %d failed; want %d, %d, %d, %d",
			n.Late.Load(), n.Refused.Load(), n.Large.Load(), n.Failed.Load(), late, refused, large, failed)
	}
}

const proxied = "PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n"

func loopback(t testing.TB) *listen.Proxies { return trusting(t, "127.0.0.0/8") }

func trusting(t testing.TB, list ...string) *listen.Proxies {
	t.Helper()
	p, err := listen.NewProxies(list, listen.NoHeader)
	must(t, err)
	return p
}

func TestAConnectionInTheClearComesAsItIs(t *testing.T) {
	l := port(t, listen.Config{})
	echo(t, l)
	conn := call(t, l.Addr(), proxied)
	if first, rest := lines(t, conn); first != conn.LocalAddr().String() || rest != proxied {
		t.Errorf("%s says %q", first, rest)
	}
}

func TestATrustedProxyTellsWhoConnects(t *testing.T) {
	n := new(listen.Counts)
	l := port(t, listen.Config{Proxies: loopback(t), Counts: n})
	echo(t, l)
	if first, rest := lines(t, call(t, l.Addr(), proxied+"hello")); first != "192.0.2.7:56324" || rest != "hello" {
		t.Errorf("%s says %q", first, rest)
	}
	conn := call(t, l.Addr(), "PROXY UNKNOWN\r\nhello")
	if first, rest := lines(t, conn); first != conn.LocalAddr().String() || rest != "hello" {
		t.Errorf("the proxy itself is %s and says %q", first, rest)
	}
	ends(t, call(t, l.Addr(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	ends(t, call(t, l.Addr(), "PROXY TCP4 "+strings.Repeat("1", 200)))
	counted(t, n, 0, 0, 1, 1)
}

func TestAStrangersProxyHeaderIsOnlyWhatTheySay(t *testing.T) {
	l := port(t, listen.Config{Proxies: trusting(t, "10.0.0.0/8", "unix")})
	echo(t, l)
	conn := call(t, l.Addr(), proxied)
	if first, rest := lines(t, conn); first != conn.LocalAddr().String() || rest != proxied {
		t.Errorf("%s says %q", first, rest)
	}
}

func TestAProxyOnAUnixSocketIsTrustedAsSuch(t *testing.T) {
	raw, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	l := listen.New(t.Context(), raw, listen.Config{Proxies: trusting(t, "unix")})
	echo(t, l)
	if first, rest := lines(t, call(t, l.Addr(), proxied+"hello")); first != "192.0.2.7:56324" || rest != "hello" {
		t.Errorf("%s says %q", first, rest)
	}
}

func TestBehindAProxyHeaderComesTLS(t *testing.T) {
	server, client := secure(t)
	l := port(t, listen.Config{TLS: server, Proxies: loopback(t)})
	echo(t, l)
	conn := tls.Client(call(t, l.Addr(), proxied), client)
	_, err := io.WriteString(conn, "hello")
	must(t, err)
	if first, rest := lines(t, conn); first != "192.0.2.7:56324" || rest != "hello" {
		t.Errorf("%s says %q", first, rest)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	server, client := secure(t)
	l := port(t, listen.Config{TLS: server})
	echo(t, l)
	client.MinVersion, client.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if err := tls.Client(call(t, l.Addr(), ""), client).HandshakeContext(t.Context()); err == nil {
		t.Error("TLS 1.1 was spoken")
	}
	client.MaxVersion = tls.VersionTLS12
	must(t, tls.Client(call(t, l.Addr(), ""), client).HandshakeContext(t.Context()))
}

// slow are the ports where somebody can be slow to begin, and what they have said.
func slow(t *testing.T, f func(t *testing.T, cfg listen.Config, client *tls.Config, said string)) {
	t.Helper()
	server, client := secure(t)
	for name, cfg := range map[string]listen.Config{
		"TLS":                     {TLS: server},
		"a PROXY header":          {Proxies: loopback(t)},
		"TLS with a PROXY header": {TLS: server, Proxies: loopback(t)},
	} {
		for _, said := range []string{"", "PROXY", "\x16\x03\x01\x02"} {
			t.Run(fmt.Sprintf("%s/%q", name, said), func(t *testing.T) { f(t, cfg, client, said) })
		}
	}
}

func TestWhoIsSlowToBeginIsCutAndCounted(t *testing.T) {
	slow(t, func(t *testing.T, cfg listen.Config, _ *tls.Config, said string) {
		n := new(listen.Counts)
		cfg.Timeout, cfg.Counts = 50*time.Millisecond, n
		l := port(t, cfg)
		echo(t, l)
		ends(t, call(t, l.Addr(), said))
		if cfg.TLS != nil && cfg.Proxies == nil && said == "PROXY" { // that is no TLS
			counted(t, n, 0, 0, 0, 1)
			return
		}
		counted(t, n, 1, 0, 0, 0)
	})
	server, _ := secure(t)
	n := new(listen.Counts)
	l := port(t, listen.Config{TLS: server, Proxies: loopback(t), Timeout: 50 * time.Millisecond, Counts: n})
	echo(t, l)
	ends(t, call(t, l.Addr(), proxied+"\x16\x03\x01"))
	counted(t, n, 1, 0, 0, 0)
}

func TestWhoIsSlowToBeginDelaysNobody(t *testing.T) {
	slow(t, func(t *testing.T, cfg listen.Config, client *tls.Config, said string) {
		cfg.Timeout = time.Hour
		l := port(t, cfg)
		echo(t, l)
		call(t, l.Addr(), said)
		other := call(t, l.Addr(), "")
		if cfg.Proxies != nil {
			_, err := io.WriteString(other, proxied)
			must(t, err)
		}
		if cfg.TLS != nil {
			other = tls.Client(other, client)
		}
		_, err := io.WriteString(other, "hello")
		must(t, err)
		if _, rest := lines(t, other); rest != "hello" {
			t.Errorf("somebody else got %q", rest)
		}
	})
}

// The deadline is for the beginning only.
func TestWhoHasBegunMayTakeTheirTime(t *testing.T) {
	server, client := secure(t)
	l := port(t, listen.Config{TLS: server, Timeout: 200 * time.Millisecond})
	conn := tls.Client(call(t, l.Addr(), ""), client)
	go func() { _ = conn.HandshakeContext(t.Context()) }()
	begun, err := l.Accept()
	must(t, err)
	defer begun.Close()
	ends(t, call(t, l.Addr(), "")) // whose deadline is later
	_, err = io.WriteString(begun, "still here")
	must(t, err)
	_, err = io.WriteString(conn, "so am I")
	must(t, err)
	b := make([]byte, len("so am I"))
	if _, err := io.ReadFull(begun, b); err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestHandshakesAtTheSameTimeAreLimited(t *testing.T) {
	n := new(listen.Counts)
	l := port(t, listen.Config{Proxies: loopback(t), Handshakes: 2, Counts: n})
	echo(t, l)
	first, second := call(t, l.Addr(), "PROXY "), call(t, l.Addr(), "PROXY ")
	ends(t, call(t, l.Addr(), "")) // accepted in order, so the two are there
	counted(t, n, 0, 1, 0, 0)
	_, err := io.WriteString(first, proxied[len("PROXY "):]+"hello")
	must(t, err)
	if _, rest := lines(t, first); rest != "hello" {
		t.Errorf("the first got %q", rest)
	}
	if _, rest := lines(t, call(t, l.Addr(), proxied+"hello")); rest != "hello" {
		t.Errorf("in the first one's place somebody got %q", rest)
	}
	_ = second.Close()
}

func TestClosingEndsWhoHasNotBegun(t *testing.T) {
	l := port(t, listen.Config{Proxies: loopback(t), Timeout: time.Hour})
	begun := make(chan net.Conn)
	go func() {
		conn, _ := l.Accept()
		begun <- conn
	}()
	open := call(t, l.Addr(), proxied+"hello")
	conn := <-begun
	waiting := call(t, l.Addr(), "PROXY ")
	undelivered := call(t, l.Addr(), proxied) // nobody accepts it
	must(t, l.Close())
	ends(t, waiting)
	ends(t, undelivered)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close Accept returns %v", err)
	}
	_, err := io.WriteString(conn, "still there")
	must(t, err)
	must(t, conn.Close())
	if b, err := io.ReadAll(open); string(b) != "still there" {
		t.Errorf("whoever had begun got %q, %v", b, err)
	}
}

// Whoever comes only to see the answer to a challenge is not a client.
func TestAChallengeOfACMEIsNotGivenOut(t *testing.T) {
	server, client := secure(t)
	server.NextProtos = append(server.NextProtos, "acme-tls/1")
	n := new(listen.Counts)
	l := port(t, listen.Config{TLS: server, Counts: n})
	authority := client.Clone()
	authority.NextProtos = []string{"acme-tls/1"}
	conn := tls.Client(call(t, l.Addr(), ""), authority)
	must(t, conn.HandshakeContext(t.Context()))
	ends(t, conn)
	counted(t, n, 0, 0, 0, 0)
	go func() { _ = tls.Client(call(t, l.Addr(), ""), client).Handshake() }()
	next, err := l.Accept()
	must(t, err)
	if got := next.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "" {
		t.Errorf("a connection for %q is given out", got)
	}
	_ = next.Close()
}

// serve runs a server on a port, as this program does.
func serve(t testing.TB, l *listen.Listener, h *listen.Headers, srv *http.Server) {
	t.Helper()
	srv.ConnContext, srv.ConnState = h.Context, h.State
	srv.Handler = h.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		}
		_, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s %t", r.RemoteAddr, r.Proto, err == nil)
	}))
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		must(t, srv.Shutdown(context.WithoutCancel(t.Context())))
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func TestBothVersionsOfHTTPAreSpokenOverTLS(t *testing.T) {
	server, client := secure(t)
	l := port(t, listen.Config{TLS: server})
	srv := &http.Server{ReadHeaderTimeout: patience, TLSConfig: server}
	serve(t, l, new(listen.Headers), srv)
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		tr := &http.Transport{TLSClientConfig: client.Clone(), Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(proto == "HTTP/1.1")
		tr.Protocols.SetHTTP2(proto == "HTTP/2.0")
		c := &http.Client{Transport: tr}
		resp, err := c.Get("https://" + l.Addr().String())
		must(t, err)
		b, err := io.ReadAll(resp.Body)
		must(t, err)
		_ = resp.Body.Close()
		if resp.Proto != proto {
			t.Errorf("asked for %s: %s, %s", proto, resp.Proto, b)
		}
		tr.CloseIdleConnections()
	}
}

// A header that does not come in time is counted; a body, a pause between two
// requests and an orderly end are not.
func TestSlowHeadersAreCounted(t *testing.T) {
	const header = "GET / HTTP/1.1\r\nHost: a\r\n"
	for _, tt := range []struct {
		name, request, then string
		late                uint64
	}{
		{"nothing", "", "", 1},
		{"half a line", "", "GET / HT", 1},
		{"half a header", "", header, 1},
		{"half a second header", header + "\r\n", header, 1},
		{"half the first line of HTTP/2", "", "PRI * HTTP/2", 1},
		{"a request and a pause", header + "\r\n", "", 0},
		{"a slow body", "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", "", 0},
		{"a request that is the last", header + "Connection: close\r\n\r\n", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, h := port(t, listen.Config{}), new(listen.Headers)
			srv := &http.Server{ReadHeaderTimeout: 100 * time.Millisecond, IdleTimeout: 200 * time.Millisecond, Protocols: new(http.Protocols)}
			srv.Protocols.SetHTTP1(true)
			srv.Protocols.SetUnencryptedHTTP2(true)
			serve(t, l, h, srv)
			conn := call(t, l.Addr(), tt.request)
			in := bufio.NewReader(conn)
			if tt.request != "" {
				resp, err := http.ReadResponse(in, nil)
				must(t, err)
				_, err = io.Copy(io.Discard, resp.Body)
				must(t, err)
				_ = resp.Body.Close()
			}
			_, err := io.WriteString(conn, tt.then)
			must(t, err)
			_, _ = in.ReadByte() // the end
			for h.Late() < tt.late {
			}
			if n := h.Late(); n != tt.late {
				t.Errorf("counted %d, want %d", n, tt.late)
			}
		})
	}
}
