package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// ACMEConfig says for whom certificates are fetched, and where.
type ACMEConfig struct {
	Hosts     []string // names, exactly; nobody else gets a certificate. Required
	Email     string   // where the authority writes to; none
	Cache     string   // a directory for keys and certificates. Required
	Directory string   // the authority's URL; Let's Encrypt's
	CA        string   // a file of PEM: who vouches for that URL; the system's
}

// ACME fetches certificates from an authority as they are needed, and renews them.
// It proves that the hosts are this server's on the TLS port itself (TLS-ALPN-01,
// RFC 8737), which the authority must reach as port 443 of each. Using it is
// agreeing with the authority's terms.
type ACME struct {
	manager autocert.Manager
	cancel  context.CancelFunc
}

// acmeTimeout bounds one request to the authority.
const acmeTimeout = 30 * time.Second

// NewACME asks nobody yet. When ctx ends, or with Close, no request to the
// authority is made any more.
func NewACME(ctx context.Context, cfg ACMEConfig) (*ACME, error) {
	if len(cfg.Hosts) == 0 || cfg.Cache == "" {
		return nil, errors.New("listen: ACME needs hosts and a cache")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if cfg.CA != "" {
		text, err := os.ReadFile(cfg.CA)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("listen: there is no certificate in %s", cfg.CA)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if cfg.Directory == "" {
		cfg.Directory = autocert.DefaultACMEDirectory
	}
	ctx, cancel := context.WithCancel(ctx)
	return &ACME{cancel: cancel, manager: autocert.Manager{
		Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(cfg.Hosts...), Cache: autocert.DirCache(cfg.Cache), Email: cfg.Email,
		Client: &acme.Client{
			DirectoryURL: cfg.Directory, UserAgent: "carillon",
			HTTPClient: &http.Client{Timeout: acmeTimeout, Transport: &ending{transport, ctx}},
		},
	}}, nil
}

// TLS is the settings of a server that uses the certificates. A handshake before
// there is one waits for it.
func (a *ACME) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1", acme.ALPNProto},
		GetCertificate: a.manager.GetCertificate,
	}
}

// Close ends what is asked of the authority.
func (a *ACME) Close() { a.cancel() }

// ending is a transport whose requests end with ctx, whatever their own says.
type ending struct {
	http.RoundTripper

	ctx context.Context //nolint:containedctx // the requests are made by a library that takes none
}

// RoundTrip is http.RoundTripper's.
func (t *ending) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(t.ctx, cancel)
	resp, err := t.RoundTripper.RoundTrip(r.WithContext(ctx))
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	resp.Body = &body{resp.Body, func() { stop(); cancel() }}
	return resp, nil
}

// body tells when it is closed.
type body struct {
	io.ReadCloser

	closed func()
}

// Close is io.Closer's.
func (b *body) Close() error {
	defer b.closed()
	return b.ReadCloser.Close()
}
