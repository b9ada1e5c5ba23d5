package listen_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/listen"
)

const host = "events.carillon.test"

// names answers every question for an address with 127.0.0.1, over TCP.
func names(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				var size [2]byte
				for {
					if _, err := io.ReadFull(conn, size[:]); err != nil {
						return
					}
					question := make([]byte, binary.BigEndian.Uint16(size[:]))
					if _, err := io.ReadFull(conn, question); err != nil {
						return
					}
					b := answer(question)
					_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	return l.Addr().String()
}

// answer is that to a question of DNS (RFC 1035, section 4.1).
func answer(question []byte) []byte {
	const head, typeA = 12, 1
	end := head
	for question[end] != 0 {
		end += 1 + int(question[end])
	}
	asked := question[head : end+5] // name, type and class
	b := append([]byte{question[0], question[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, asked...)
	if question[end+2] == typeA {
		b[7] = 1
		b = append(b, 0xc0, head, 0, typeA, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1)
	}
	return b
}

// authority runs Pebble, a certificate authority for tests, which looks for
// hosts at tlsPort. It is built from the module of the tools.
func authority(t *testing.T, tlsPort int) (directory, ca string, stop func()) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "pebble")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=../../tools/go.mod", "-o", program, "github.com/letsencrypt/pebble/v2/cmd/pebble")
	if out, err := build.CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("Pebble cannot be built: %v\n%s", err, out)
		}
		t.Skipf("NOT TESTED: Pebble cannot be built here: %v\n%s", err, out)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := free.Addr().String()
	must(t, free.Close())
	cert, key := pair(t, "authority", time.Now().Add(time.Hour))
	certFile, keyFile := store(t, dir, cert, key)
	settings, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": addr, "certificate": certFile, "privateKey": keyFile, "httpPort": 1, "tlsPort": tlsPort,
		"retryAfter":   map[string]int{"authz": 1, "order": 1},
		"keyAlgorithm": "ecdsa", "profiles": map[string]any{"default": map[string]any{"description": "for a day", "validityPeriod": 86400}},
	}})
	must(t, err)
	file := filepath.Join(dir, "pebble.json")
	must(t, os.WriteFile(file, settings, 0o600))
	cmd := exec.CommandContext(t.Context(), program, "-config", file, "-dnsserver", names(t))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0")
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = cmd.Stdout
	must(t, cmd.Start())
	said, ready := make(chan string, 1), make(chan struct{})
	go func() {
		var all strings.Builder
		for in := bufio.NewScanner(out); in.Scan(); {
			if fmt.Fprintln(&all, in.Text()); strings.Contains(in.Text(), "ACME directory available") {
				close(ready)
			}
		}
		said <- all.String()
	}()
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		if text := <-said; t.Failed() {
			t.Logf("the authority says:\n%s", text)
		}
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case text := <-said:
		t.Fatalf("the authority has ended:\n%s", text)
	}
	return "https://" + addr + "/dir", certFile, stop
}

// tryTLS shakes hands as a client that asks for a host.
func tryTLS(t *testing.T, l net.Listener, host string) (*x509.Certificate, error) {
	t.Helper()
	conn := tls.Client(call(t, l.Addr(), ""), &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	defer conn.Close()
	if err := conn.HandshakeContext(t.Context()); err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

func TestCertificatesComeFromAnAuthority(t *testing.T) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	directory, ca, stop := authority(t, raw.Addr().(*net.TCPAddr).Port)
	cfg := listen.ACMEConfig{Hosts: []string{host}, Cache: filepath.Join(t.TempDir(), "cache"), Directory: directory, CA: ca}
	acme, err := listen.NewACME(t.Context(), cfg)
	must(t, err)
	defer acme.Close()
	l := listen.New(t.Context(), raw, listen.Config{TLS: acme.TLS(), Timeout: patience})
	echo(t, l)

	cert, err := tryTLS(t, l, host)
	must(t, err)
	if cert.DNSNames[0] != host || !strings.Contains(cert.Issuer.CommonName, "Pebble") {
		t.Errorf("the certificate is for %v, by %s", cert.DNSNames, cert.Issuer)
	}
	if _, err := tryTLS(t, l, "elsewhere.carillon.test"); err == nil {
		t.Error("there is a certificate for a host that is not listed")
	}
	if _, err := tryTLS(t, l, ""); err == nil {
		t.Error("there is a certificate for no host")
	}

	// The next process finds it in the cache, and asks nobody.
	stop()
	again, err := listen.NewACME(t.Context(), cfg)
	must(t, err)
	defer again.Close()
	second := port(t, listen.Config{TLS: again.TLS()})
	echo(t, second)
	kept, err := tryTLS(t, second, host)
	must(t, err)
	if kept.SerialNumber.Cmp(cert.SerialNumber) != 0 {
		t.Error("the certificate is another one")
	}
}

func TestNoHostIsServedThatIsNotListed(t *testing.T) {
	asked := make(chan struct{}, 100)
	authority, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go func() {
		for {
			conn, err := authority.Accept()
			if err != nil {
				close(asked)
				return
			}
			asked <- struct{}{}
			_ = conn.Close()
		}
	}()
	acme, err := listen.NewACME(t.Context(), listen.ACMEConfig{
		Hosts: []string{host}, Cache: t.TempDir(), Directory: "https://" + authority.Addr().String(),
	})
	must(t, err)
	l := port(t, listen.Config{TLS: acme.TLS()})
	echo(t, l)
	for _, other := range []string{"elsewhere.carillon.test", "x." + host, "carillon.test", "localhost", ""} {
		if _, err := tryTLS(t, l, other); err == nil {
			t.Errorf("%q has a certificate", other)
		}
	}
	if len(asked) > 0 {
		t.Error("the authority was asked for a host that is not listed")
	}
	if _, err := tryTLS(t, l, host); err == nil {
		t.Error("there is a certificate without an authority")
	}
	<-asked // for the host that is
	_ = authority.Close()
}

func TestClosingEndsWhatIsAskedOfTheAuthority(t *testing.T) {
	authority, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer authority.Close()
	log := new(logged)
	acme, err := listen.NewACME(t.Context(), listen.ACMEConfig{Hosts: []string{host}, Cache: t.TempDir(), Directory: "https://" + authority.Addr().String()})
	must(t, err)
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l := listen.New(t.Context(), raw, listen.Config{TLS: acme.TLS(), Timeout: patience, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	echo(t, l)
	refused := make(chan error, 1)
	go func() {
		_, err := tryTLS(t, l, host)
		refused <- err
	}()
	conn, err := authority.Accept() // and it says nothing
	must(t, err)
	defer conn.Close()
	acme.Close()
	if err := <-refused; err == nil {
		t.Error("there is a certificate without an authority")
	}
	must(t, l.Close())
	if !strings.Contains(log.String(), "context canceled") {
		t.Errorf("the handshake ended otherwise: %s", log)
	}
}

func TestACMEIsCheckedAtTheStart(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	empty := filepath.Join(t.TempDir(), "empty")
	must(t, os.WriteFile(empty, nil, 0o600))
	for want, cfg := range map[string]listen.ACMEConfig{
		"needs hosts":                         {Cache: "x"},
		"no such file":                        {Hosts: []string{host}, Cache: "x", CA: none},
		"there is no certificate in " + empty: {Hosts: []string{host}, Cache: "x", CA: empty},
	} {
		if _, err := listen.NewACME(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
