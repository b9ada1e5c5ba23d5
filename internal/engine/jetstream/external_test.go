package jetstream_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/enginetest"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
)

// natsServer starts a NATS server that listens on loopback.
func natsServer(t testing.TB, o server.Options) *server.Server {
	t.Helper()
	o.Host, o.Port, o.NoSigs, o.NoLog = "127.0.0.1", -1, true, true
	if o.JetStream {
		o.StoreDir = t.TempDir()
	}
	s, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server is not ready")
	}
	return s
}

// external is an engine on a NATS server of its own.
func external(t testing.TB, c jetstream.Config) (*jetstream.Engine, *server.Server) {
	t.Helper()
	s := natsServer(t, server.Options{JetStream: true, JetStreamMaxStore: 1 << 40, SyncAlways: c.Durability != jetstream.Relaxed})
	c.NATS = &jetstream.NATS{URL: s.ClientURL(), Replicas: 1}
	return openExternal(t, c), s
}

func openExternal(t testing.TB, c jetstream.Config) *jetstream.Engine {
	t.Helper()
	e, err := jetstream.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// natsConn is a connection beside the engine's.
func natsConn(t testing.TB, url string) (*nats.Conn, natsjs.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func TestContractOnAnExternalServer(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) engine.Engine {
		e, _ := external(t, jetstream.Config{Durability: jetstream.Relaxed})
		return e
	})
}

func TestContractOfBudgetsOnAnExternalServer(t *testing.T) {
	enginetest.RunBudget(t, func(t *testing.T, budget func(carillon.OrgID) int64) engine.Engine {
		e, _ := external(t, jetstream.Config{OrgBytes: budget})
		return e
	})
}

func TestServerWithoutWhatIsNeededIsRefused(t *testing.T) {
	open := func(url string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		e, err := jetstream.Open(ctx, jetstream.Config{NATS: &jetstream.NATS{URL: url, Replicas: 1}})
		if err == nil {
			closeEngine(t, e)
		}
		return err
	}
	for _, tt := range []struct {
		name string
		url  func() string
		want []string
	}{
		{"WithoutJetStream", func() string { return natsServer(t, server.Options{}).ClientURL() }, []string{"has no JetStream", "enable it"}},
		{"OfAnOldVersion", func() string { return oldServer(t, "2.12.0") }, []string{"is 2.12.0", "atomic publish", "2.12.1 or newer"}},
		{"OfAVeryOldVersion", func() string { return oldServer(t, "2.9") }, []string{"is 2.9", "2.12.1 or newer"}},
		{"OfAnOldAPI", func() string {
			s := natsServer(t, server.Options{})
			nc, _ := natsConn(t, s.ClientURL())
			if _, err := nc.Subscribe("$JS.API.INFO", func(m *nats.Msg) { _ = m.Respond([]byte(`{"api":{"level":1}}`)) }); err != nil {
				t.Fatal(err)
			}
			return s.ClientURL()
		}, []string{"API level 1", "atomic publish", "need 2"}},
		{"ThatIsNotThere", func() string { return "nats://127.0.0.1:1" }, []string{"connect", "no servers"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := open(tt.url())
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("opened with %v, which does not say %q", err, want)
				}
			}
		})
	}
}

// oldServer is somebody who says to be a NATS server of some version.
func oldServer(t *testing.T, version string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintf(conn, "INFO {\"server_id\":\"x\",\"version\":%q,\"max_payload\":1048576,\"headers\":true}\r\n", version)
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if lines.Text() == "PING" {
						fmt.Fprint(conn, "PONG\r\n")
					}
				}
			}()
		}
	}()
	return "nats://" + l.Addr().String()
}

func TestStandaloneStoreIsNotLeftBehindUnnoticed(t *testing.T) {
	dir := t.TempDir()
	closeEngine(t, open(t, jetstream.Config{Dir: dir}))
	s := natsServer(t, server.Options{JetStream: true})
	c := jetstream.Config{Dir: dir, NATS: &jetstream.NATS{URL: s.ClientURL(), Replicas: 1}}
	_, err := jetstream.Open(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "export it") {
		t.Errorf("opened beside a standalone store: %v", err)
	}
}

func TestExternalConfigIsChecked(t *testing.T) {
	for _, n := range []jetstream.NATS{
		{},
		{URL: "nats://127.0.0.1:1", Replicas: 2},
		{URL: "nats://127.0.0.1:1", Cert: "x"},
		{URL: "nats://127.0.0.1:1", CA: "/no/such/file"},
		{URL: "nats://127.0.0.1:1", Creds: "/no/such/file"},
	} {
		if e, err := jetstream.Open(t.Context(), jetstream.Config{NATS: &n}); err == nil || strings.Contains(err.Error(), "no servers") {
			t.Errorf("%+v: %v", n, err)
			if err == nil {
				closeEngine(t, e)
			}
		}
	}
}
