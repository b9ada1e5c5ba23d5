package server_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/server"
)

// store makes a certificate of this name for 127.0.0.1, puts it where the
// settings say, and returns who trusts it.
func store(t *testing.T, c *config.TLS, name string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, b := range map[string][]byte{c.Cert: cert, c.Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

// overTLS gives a node a certificate, and returns who trusts it.
func overTLS(t *testing.T, c *config.Config) *x509.CertPool {
	t.Helper()
	dir := t.TempDir()
	c.TLS.Cert, c.TLS.Key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return store(t, &c.TLS, "one")
}

// tlsClient speaks one version of HTTP.
func tlsClient(t *testing.T, pool *x509.CertPool, h2 bool) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetHTTP2(h2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func TestEveryDoorIsOpenOverTLS(t *testing.T) {
	cfg := settings("")
	pool := overTLS(t, cfg)
	s := start(t, cfg)
	if !strings.HasPrefix(s.PublicURL(), "https://127.0.0.1:") {
		t.Fatalf("the node is at %s", s.PublicURL())
	}
	auth := []string{"Authorization", "Bearer " + token(t, "alice")}
	for _, h2 := range []bool{false, true} {
		c := tlsClient(t, pool, h2)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.PublicURL()+"/v1/sse?pattern=a", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(auth[0], auth[1])
		stream, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{false: 1, true: 2}[h2]; stream.ProtoMajor != want {
			t.Errorf("%s is spoken, not version %d", stream.Proto, want)
		}
		in := bufio.NewReader(stream.Body)
		until := func(text string) {
			t.Helper()
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					t.Fatalf("before %s the stream ends: %v", text, err)
				}
				if strings.Contains(line, text) {
					return
				}
			}
		}
		until("carillon.subscribed")
		if status, body := do(t, c, http.MethodPost, s.PublicURL()+"/v1/events", `{"type":"a","data":"over TLS"}`, auth...); status != http.StatusAccepted {
			t.Errorf("a publish: %d, %s", status, body)
		}
		until(`"payload":"over TLS"`)
		_ = stream.Body.Close()
		if status, body := do(t, c, http.MethodGet, s.PublicURL()+"/v1/poll?pattern=a&cursor=earliest&wait=0", "", auth...); status != http.StatusOK || !strings.Contains(body, "over TLS") {
			t.Errorf("a poll: %d, %s", status, body)
		}
	}
	ws, resp, err := websocket.Dial(t.Context(), strings.Replace(s.PublicURL(), "https", "wss", 1)+"/v1/ws?after=earliest", &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {auth[1]}, "Origin": {s.PublicURL()}}, HTTPClient: tlsClient(t, pool, false),
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"subscribe","pattern":">"}`)); err != nil {
		t.Fatal(err)
	}
	if f := await(t, ws, "event"); string(f.Payload) != `"over TLS"` {
		t.Errorf("the WebSocket got %s", f.Payload)
	}
	_ = ws.CloseNow()

	// In the clear nothing is spoken there.
	line, _ := bufio.NewReader(say(t, s, "GET /v1/poll?wait=0 HTTP/1.1\r\nHost: x\r\nAuthorization: "+auth[1]+"\r\n\r\n")).ReadString('\n')
	if strings.HasPrefix(line, "HTTP/1.1 ") {
		t.Errorf("in the clear it answers %q", line)
	}
}

func TestAReloadTakesTheNewCertificate(t *testing.T) {
	cfg := settings("")
	overTLS(t, cfg)
	s := start(t, cfg)
	name := func() string {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.PublicURL(), "https://"), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	store(t, &cfg.TLS, "two")
	s.Reload()
	if got := name(); got != "two" {
		t.Errorf("after a reload the certificate is %s's", got)
	}
	if err := os.WriteFile(cfg.TLS.Key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	if got := name(); got != "two" {
		t.Errorf("after a bad one the certificate is %s's", got)
	}
}

func TestANodeDoesNotStartWithABadCertificate(t *testing.T) {
	cfg := settings("")
	overTLS(t, cfg)
	if err := os.WriteFile(cfg.TLS.Key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := server.New(cfg, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), cfg.TLS.Key) {
		t.Errorf("got %v", err)
	}
	cfg = settings("")
	cfg.TLS.ACME.Hosts, cfg.TLS.ACME.CA = []string{"events.carillon.test"}, filepath.Join(t.TempDir(), "none")
	if s, err = server.New(cfg, server.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "tls.acme") {
		t.Errorf("got %v", err)
	}
}
