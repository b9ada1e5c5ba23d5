package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// readyTimeout bounds the start of the server; it reads its index then.
const readyTimeout = 2 * time.Minute

// unlimitedStore is the limit of the server as a whole. The streams have their
// own; one below their sum would keep them from being opened.
const unlimitedStore = 1 << 60

// embedded is the server in this process. It listens nowhere; connections are
// pipes.
type embedded struct {
	options server.Options
	logger  *slog.Logger
	current atomic.Pointer[running]
	turn    sync.Mutex // held while it starts or stops
}

// running is the server from a start to the next stop.
type running struct {
	*server.Server
	life context.Context //nolint:containedctx // from its start to its stop
	end  context.CancelFunc
}

func newEmbedded(c Config) *embedded {
	o := server.Options{
		ServerName:         "carillon",
		DontListen:         true,
		NoSigs:             true,
		NoLog:              true,
		JetStream:          true,
		StoreDir:           c.Dir,
		JetStreamMaxStore:  unlimitedStore,
		JetStreamMaxMemory: 64 << 20,
		MaxPayload:         maxMessage,
		SyncInterval:       time.Second,
		SyncAlways:         c.Durability == Strict,
	}
	return &embedded{options: o, logger: c.Logger}
}

func (s *embedded) start(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	return s.begin(ctx)
}

func (s *embedded) begin(ctx context.Context) error {
	options := s.options // the server keeps and completes its own
	srv, err := server.NewServer(&options)
	if err != nil {
		return fmt.Errorf("jetstream: embedded server: %w", err)
	}
	srv.SetLoggerV2(serverLog{s.logger}, false, false, false)
	srv.Start()
	timeout := readyTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	if !srv.ReadyForConnections(timeout) || !srv.JetStreamEnabled() {
		srv.Shutdown()
		srv.WaitForShutdown()
		return fmt.Errorf("jetstream: the embedded server was not ready within %v", timeout)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	s.current.Store(&running{srv, life, end})
	return nil
}

func (s *embedded) stop() {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.halt()
}

func (s *embedded) halt() {
	if srv := s.current.Swap(nil); srv != nil {
		srv.end()
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

// restart stops the server and starts it on the same directory; meanwhile may be
// nil.
func (s *embedded) restart(ctx context.Context, meanwhile func() error) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.halt()
	if meanwhile != nil {
		if err := meanwhile(); err != nil {
			return err
		}
	}
	return s.begin(ctx)
}

var errStopped = errors.New("jetstream: the embedded server is not running")

// life ends when the server that runs now is stopped.
func (s *embedded) life() (context.Context, error) {
	srv := s.current.Load()
	if srv == nil {
		return nil, errStopped
	}
	return srv.life, nil
}

// InProcessConn lets a client connect to whichever server runs now.
func (s *embedded) InProcessConn() (net.Conn, error) {
	srv := s.current.Load()
	if srv == nil {
		return nil, errStopped
	}
	return srv.InProcessConn()
}

// dial connects to the server.
func (s *embedded) dial(name string, more ...nats.Option) (*nats.Conn, error) {
	options := []nats.Option{
		nats.InProcessServer(s),
		nats.ReconnectWait(20 * time.Millisecond),
		nats.ReconnectJitter(5*time.Millisecond, 5*time.Millisecond),
	}
	return connect("", name, s.logger, append(options, more...)...)
}

// newInbox is a subject prefix nobody else uses.
func newInbox() string { return nats.NewInbox() }

// serverLog writes the server's log into ours; what it calls a notice is a
// detail here.
type serverLog struct{ l *slog.Logger }

func (s serverLog) Noticef(format string, v ...any) { s.log(slog.LevelDebug, format, v) }
func (s serverLog) Warnf(format string, v ...any)   { s.log(slog.LevelWarn, format, v) }
func (s serverLog) Errorf(format string, v ...any)  { s.log(slog.LevelError, format, v) }
func (s serverLog) Fatalf(format string, v ...any)  { s.log(slog.LevelError, format, v) }
func (s serverLog) Debugf(string, ...any)           {}
func (s serverLog) Tracef(string, ...any)           {}

func (s serverLog) log(level slog.Level, format string, v []any) {
	ctx := context.Background() //nolint:forbidigo // the server's log lines have none
	if s.l.Enabled(ctx, level) {
		s.l.Log(ctx, level, "nats-server: "+fmt.Sprintf(format, v...)) //nolint:sloglint // the text is the server's
	}
}
