package listen_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/listen"
)

// logged is a log that a test reads.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// store writes a pair where a server finds it.
func store(t *testing.T, dir string, cert, key []byte) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, b := range map[string][]byte{certFile: cert, keyFile: key} {
		must(t, os.WriteFile(name+".new", b, 0o600))
		must(t, os.Rename(name+".new", name))
	}
	return certFile, keyFile
}

// offered is the name in the certificate that a client gets.
func offered(t *testing.T, l *listen.Listener) string {
	t.Helper()
	conn := tls.Client(call(t, l.Addr(), ""), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	must(t, conn.HandshakeContext(t.Context()))
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// files serves a pair from files.
func files(t *testing.T, dir, name string, log *logged) (*listen.Files, *listen.Listener) {
	t.Helper()
	cert, key := pair(t, name, time.Now().Add(time.Hour))
	certFile, keyFile := store(t, dir, cert, key)
	f, err := listen.LoadFiles(certFile, keyFile, log.logger())
	must(t, err)
	l := port(t, listen.Config{TLS: f.TLS()})
	echo(t, l)
	return f, l
}

func TestANewPairIsUsedForNewConnections(t *testing.T) {
	dir, log := t.TempDir(), new(logged)
	f, l := files(t, dir, "one", log)
	if got := offered(t, l); got != "one" {
		t.Fatalf("the certificate is %s's", got)
	}
	cert, key := pair(t, "two", time.Now().Add(time.Hour))
	store(t, dir, cert, key)
	if got := offered(t, l); got != "one" {
		t.Errorf("before a reload it is %s's", got)
	}
	f.Reload()
	if got := offered(t, l); got != "two" {
		t.Errorf("after it, it is %s's", got)
	}
	if !strings.Contains(log.String(), "there is a new certificate") {
		t.Errorf("the log does not say so: %s", log)
	}
}

func TestABadNewPairIsRefusedAndTheOldOneStays(t *testing.T) {
	good, key := pair(t, "good", time.Now().Add(time.Hour))
	_, other := pair(t, "other", time.Now().Add(time.Hour))
	expired, expiredKey := pair(t, "expired", time.Now().Add(-time.Hour))
	for name, tt := range map[string]struct {
		cert, key []byte
		want      string
	}{
		"a key of another certificate": {good, other, "private key does not match"},
		"half a certificate":           {good[:len(good)/2], key, "failed to find any PEM data"},
		"nothing":                      {nil, nil, "failed to find any PEM data"},
		"one that has expired":         {expired, expiredKey, "it has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, log := t.TempDir(), new(logged)
			f, l := files(t, dir, "one", log)
			store(t, dir, tt.cert, tt.key)
			f.Reload()
			f.Reload() // and it is not said again
			if got := offered(t, l); got != "one" {
				t.Errorf("the certificate is %s's", got)
			}
			text := log.String()
			if n := strings.Count(text, "level=ERROR"); n != 1 || !strings.Contains(text, "refused; the one before stays") || !strings.Contains(text, tt.want) {
				t.Errorf("%d errors in the log, want one with %q: %s", n, tt.want, text)
			}
			store(t, dir, good, key)
			f.Reload()
			if got := offered(t, l); got != "good" {
				t.Errorf("after a good one came, the certificate is %s's", got)
			}
		})
	}
	t.Run("files that are gone", func(t *testing.T) {
		dir, log := t.TempDir(), new(logged)
		f, l := files(t, dir, "one", log)
		must(t, os.Remove(filepath.Join(dir, "key.pem")))
		f.Reload()
		f.Reload()
		if got := offered(t, l); got != "one" || strings.Count(log.String(), "level=ERROR") != 1 {
			t.Errorf("the certificate is %s's: %s", got, log)
		}
	})
}

func TestFilesAreWatched(t *testing.T) {
	dir, log := t.TempDir(), new(logged)
	f, l := files(t, dir, "one", log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Watch(ctx, time.Millisecond) }()
	defer func() { cancel(); <-done }()
	cert, key := pair(t, "two", time.Now().Add(time.Hour))
	store(t, dir, cert, key)
	for offered(t, l) != "two" {
	}
}

func TestAPairThatIsNoneIsRefusedAtTheStart(t *testing.T) {
	cert, _ := pair(t, "one", time.Now().Add(time.Hour))
	_, other := pair(t, "other", time.Now().Add(time.Hour))
	certFile, keyFile := store(t, t.TempDir(), cert, other)
	if _, err := listen.LoadFiles(certFile, keyFile, new(logged).logger()); err == nil || !strings.Contains(err.Error(), certFile) {
		t.Errorf("got %v", err)
	}
	if _, err := listen.LoadFiles(certFile+".none", keyFile, new(logged).logger()); err == nil || !strings.Contains(err.Error(), certFile+".none") {
		t.Errorf("got %v", err)
	}
	log := new(logged)
	cert, key := pair(t, "old", time.Now().Add(-time.Hour))
	certFile, keyFile = store(t, t.TempDir(), cert, key)
	if _, err := listen.LoadFiles(certFile, keyFile, log.logger()); err != nil || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("one that has expired: %v, %s", err, log)
	}
}
