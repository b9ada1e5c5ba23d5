package jetstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATS is a server, or a cluster, that keeps the log instead of one in this
// process.
type NATS struct {
	URL      string // nats://host:port or tls://…, several with commas between
	Creds    string // file with a user's JWT and key; "": none
	CA       string // file with the certificates that sign the servers'; "": the system's
	Cert     string // file with a certificate to show, together with Key; "": none
	Key      string
	Replicas int // of each stream: 1, 3 or 5; default 3
}

// DefaultReplicas is how many servers of a cluster keep a copy.
const DefaultReplicas = 3

// What the server must be able to do: store a batch as one, knowing the ids in
// it, and let keys go by themselves.
const (
	leastLevel  = 2 // of its API
	leastServer = "2.12.1"
)

func (n *NATS) check() error {
	switch {
	case n.URL == "":
		return errors.New("jetstream: NATS.URL is empty; it is like nats://host:4222")
	case n.Replicas != 1 && n.Replicas != 3 && n.Replicas != 5:
		return fmt.Errorf("jetstream: %d replicas: 1, 3 or 5", n.Replicas)
	case (n.Cert == "") != (n.Key == ""):
		return errors.New("jetstream: a TLS certificate and its key come together")
	}
	return nil
}

// A dialer makes connections to the server, whichever it is. They come back by
// themselves unless more says otherwise.
type dialer func(name string, more ...nats.Option) (*nats.Conn, error)

func connect(url, name string, logger *slog.Logger, options ...nats.Option) (*nats.Conn, error) {
	options = append([]nats.Option{
		nats.Name("carillon " + name),
		nats.MaxReconnects(-1),
		nats.Timeout(5 * time.Second),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			logger.Debug("jetstream: connection", "name", name, "err", err)
		}),
	}, options...)
	nc, err := nats.Connect(url, options...)
	if err != nil {
		return nil, fmt.Errorf("jetstream: connect %s: %w", name, err)
	}
	return nc, nil
}

// Pings find a server that is gone without a word.
const (
	pingInterval = 2 * time.Second
	pingsMissed  = 2
)

// dialer connects to the external servers. Files are read now.
func (n *NATS) dialer(logger *slog.Logger) (dialer, error) {
	options := []nats.Option{
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsMissed),
	}
	if n.Creds != "" {
		if _, err := os.Stat(n.Creds); err != nil {
			return nil, fmt.Errorf("jetstream: credentials: %w", err)
		}
		options = append(options, nats.UserCredentials(n.Creds))
	}
	if n.CA != "" || n.Cert != "" {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if n.CA != "" {
			pem, err := os.ReadFile(n.CA)
			if err != nil {
				return nil, fmt.Errorf("jetstream: CA: %w", err)
			}
			config.RootCAs = x509.NewCertPool()
			if !config.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("jetstream: CA: %s has no certificate", n.CA)
			}
		}
		if n.Cert != "" {
			pair, err := tls.LoadX509KeyPair(n.Cert, n.Key)
			if err != nil {
				return nil, fmt.Errorf("jetstream: certificate: %w", err)
			}
			config.Certificates = []tls.Certificate{pair}
		}
		options = append(options, nats.Secure(config))
	}
	return func(name string, more ...nats.Option) (*nats.Conn, error) {
		return connect(n.URL, name, logger, append(options[:len(options):len(options)], more...)...)
	}, nil
}

// suits returns an error when the server lacks something that the log needs.
func (e *Engine) suits(ctx context.Context) error {
	version := e.signals.ConnectedServerVersion()
	if !atLeastVersion(version, leastServer) {
		return fmt.Errorf("jetstream: the NATS server at %s is %s; batches that are stored as one (atomic publish) and keys that expire need %s or newer",
			e.signals.ConnectedAddr(), version, leastServer)
	}
	if most := e.signals.MaxPayload(); most < maxMessage {
		return fmt.Errorf("jetstream: the NATS server at %s takes messages of %d bytes at most; set its max_payload to %d",
			e.signals.ConnectedAddr(), most, maxMessage)
	}
	info, err := e.manage.AccountInfo(ctx)
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return fmt.Errorf("jetstream: the NATS server at %s has no JetStream for this account; enable it there: %w", e.signals.ConnectedAddr(), err)
	}
	if err != nil {
		return wrap(err, "ask the NATS server what it can do")
	}
	if info.API.Level < leastLevel {
		return fmt.Errorf("jetstream: the NATS server at %s has JetStream API level %d; batches that are stored as one (atomic publish) need %d, which %s has",
			e.signals.ConnectedAddr(), info.API.Level, leastLevel, leastServer)
	}
	return nil
}

func atLeastVersion(have, least string) bool {
	h, l := strings.Split(have, "."), strings.Split(least, ".")
	for i := range l {
		if i >= len(h) {
			return false
		}
		digits, _, _ := strings.Cut(h[i], "-") // 1-beta.2
		a, err := strconv.Atoi(digits)
		b, _ := strconv.Atoi(l[i])
		if err != nil || a != b {
			return err == nil && a > b
		}
	}
	return true
}

// noStandalone refuses to leave a log behind unnoticed: a node that kept it in
// its directory would begin with an empty one.
func noStandalone(dir string) error {
	if dir == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, modeFile)); err != nil {
		return nil //nolint:nilerr // there is none
	}
	return fmt.Errorf("jetstream: %s holds the log of a node without an external NATS; export it, import it there, and move the directory away", dir)
}

// leaderOnly makes reads of a bucket go to its leader: a replica may not know of
// the newest change yet.
func (e *Engine) leaderOnly(ctx context.Context, bucket jetstream.KeyValue) (jetstream.KeyValue, error) {
	stream, err := e.manage.Stream(ctx, e.settingsStream())
	if err != nil {
		return nil, err
	}
	config := stream.CachedInfo().Config
	if !config.AllowDirect && config.Replicas == e.config.NATS.Replicas {
		return bucket, nil
	}
	config.AllowDirect, config.Replicas = false, e.config.NATS.Replicas
	if _, err := e.manage.UpdateStream(ctx, config); err != nil {
		return nil, err
	}
	return e.manage.KeyValue(ctx, bucket.Bucket())
}
