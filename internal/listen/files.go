package listen

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultWatch is how often Watch looks at the files.
const DefaultWatch = 10 * time.Second

// Files is a certificate and its key in two files of PEM, which may change while
// it is used. Its methods may be called from any goroutine.
type Files struct {
	// Set once.
	cert, key string
	log       *slog.Logger

	current atomic.Pointer[tls.Certificate]

	mu   sync.Mutex // guards what follows
	seen [sha256.Size]byte
}

// LoadFiles reads a pair. One that has expired is used, with a warning: those
// who check will say so themselves.
func LoadFiles(cert, key string, log *slog.Logger) (*Files, error) {
	f := &Files{cert: cert, key: key, log: log}
	pair, seen, err := f.read()
	if err != nil {
		return nil, err
	}
	f.seen = seen
	f.current.Store(pair)
	if err := fresh(pair); err != nil {
		log.Warn("listen: clients will refuse this server's certificate", "cert", cert, "err", err)
	}
	return f, nil
}

// TLS is the settings of a server that uses the pair.
func (f *Files) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current.Load(), nil },
	}
}

// Reload reads the files again. A pair that is no pair or has expired is refused,
// and the one before stays; that is said once, not again before the files change.
// New connections begin with the new pair, others are not touched.
func (f *Files) Reload() {
	f.mu.Lock()
	defer f.mu.Unlock()
	pair, seen, err := f.read()
	if seen == f.seen {
		return
	}
	f.seen = seen
	if err == nil {
		err = fresh(pair)
	}
	if err != nil {
		f.log.Error("listen: the new certificate is refused; the one before stays", "cert", f.cert, "key", f.key, "err", err)
		return
	}
	f.current.Store(pair)
	f.log.Info("listen: there is a new certificate", "cert", f.cert, "not_after", pair.Leaf.NotAfter)
}

// Watch reloads whenever the files have changed, until ctx ends. It looks at what
// is in them, so that it does not matter how they were replaced.
func (f *Files) Watch(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.Reload()
		case <-ctx.Done():
			return
		}
	}
}

// read reads the pair; seen is different when any of it is, also where it cannot
// be read.
func (f *Files) read() (pair *tls.Certificate, seen [sha256.Size]byte, err error) {
	cert, errCert := os.ReadFile(f.cert)
	key, errKey := os.ReadFile(f.key)
	if err = errCert; err == nil {
		err = errKey
	}
	if err != nil {
		return nil, sha256.Sum256([]byte(err.Error())), err
	}
	seen = sha256.Sum256(bytes.Join([][]byte{cert, key}, []byte{0}))
	x, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, seen, fmt.Errorf("listen: %s and %s: %w", f.cert, f.key, err)
	}
	return &x, seen, nil
}

func fresh(pair *tls.Certificate) error {
	if time.Now().After(pair.Leaf.NotAfter) {
		return fmt.Errorf("listen: it has expired on %s", pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	return nil
}
