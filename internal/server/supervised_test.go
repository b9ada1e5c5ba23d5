package server_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/listen"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/server"
)

// manager is a service manager's socket, and the node's side of it.
func manager(t *testing.T, vars ...string) (*listen.Manager, func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	env := map[string]string{"NOTIFY_SOCKET": path}
	for i := 0; i < len(vars); i += 2 {
		env[vars[i]] = vars[i+1]
	}
	m, err := listen.NewManager(listen.Env{Get: func(k string) string { return env[k] }, Unset: func(string) error { return nil }, PID: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	return m, func() string {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		b := make([]byte, 1000)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestTheServiceManagerFollowsTheNode(t *testing.T) {
	m, told := manager(t)
	s, err := server.New(settings(""), server.Options{Manager: m})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- s.Run(ctx, func() error { s.Reload(); return nil })
	}()
	for _, want := range []string{"READY=1\nSTATUS=serving on http://", "RELOADING=1\nMONOTONIC_USEC=", "READY=1\nSTATUS=serving on http://"} {
		if got := told(); !strings.HasPrefix(got, want) {
			t.Errorf("it was told %q, want %q", got, want)
		}
	}
	cancel()
	if got := told(); got != "STOPPING=1\nSTATUS=draining" {
		t.Errorf("at the end it was told %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheWatchdogIsFedWhileTheNodeIsAlive(t *testing.T) {
	m, told := manager(t, "WATCHDOG_USEC", "30000")
	s, err := server.New(settings(""), server.Options{Manager: m})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := told(); got != "WATCHDOG=1" {
			t.Errorf("it was told %q", got)
		}
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// open is a port of somebody else.
func open(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestPortsThatAreOpenAlreadyAreServed(t *testing.T) {
	for name, both := range map[string]bool{"public": true, "carillon.socket": false} {
		public, ops := open(t, "tcp", "127.0.0.1:0"), open(t, "unix", filepath.Join(t.TempDir(), "ops"))
		ports := listen.Inherited{name: public}
		cfg := settings("")
		cfg.Listen = "192.0.2.1:1" // nobody opens it
		if both {
			ports["ops"], cfg.Ops.Listen = ops, "127.0.0.1:1"
		}
		s, err := server.New(cfg, server.Options{Inherited: ports, Development: &server.Development{}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.PublicURL() != "http://"+public.Addr().String() {
			t.Errorf("%s: the node is at %s", name, s.PublicURL())
		}
		if status, body := do(t, client(t), http.MethodGet, s.PublicURL()+"/v1/poll?wait=0", "", "Authorization", "Bearer "+token(t, "alice")); status != http.StatusOK {
			t.Errorf("%s: %d, %s", name, status, body)
		}
		if both {
			tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", ops.Addr().String())
			}}
			if status, body := do(t, &http.Client{Transport: tr}, http.MethodGet, "http://localhost/metrics", ""); status != http.StatusOK {
				t.Errorf("the operations port: %d, %s", status, body)
			}
			tr.CloseIdleConnections()
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestMorePortsThanANodeHasAreRefused(t *testing.T) {
	ports := listen.Inherited{"public": open(t, "tcp", "127.0.0.1:0"), "ops": open(t, "tcp", "127.0.0.1:0"), "smtp": open(t, "tcp", "127.0.0.1:0")}
	if _, err := server.New(settings(""), server.Options{Inherited: ports}); err == nil || !strings.Contains(err.Error(), "has opened ops, public, smtp; a node has one public port") {
		t.Errorf("got %v", err)
	}
}

func TestAnOperationsPortThatIsOpenAlreadyIsCheckedToo(t *testing.T) {
	s, err := server.New(settings(""), server.Options{Inherited: listen.Inherited{"ops": open(t, "tcp", "0.0.0.0:0")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "there is no operator's key") {
		t.Errorf("got %v", err)
	}
}

func TestAnOperatorsPortThatOthersReachNeedsAKey(t *testing.T) {
	text, key := org.NewKey("")
	other, _ := org.NewKey("")
	cfg := settings("")
	cfg.Ops.Listen, cfg.Ops.Keys = "0.0.0.0:0", []string{key.Line()}
	s, err := server.New(cfg, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(context.WithoutCancel(t.Context())) })
	c := client(t)
	for _, tt := range []struct {
		name   string
		header []string
		want   int
	}{
		{"no key", nil, 401},
		{"the key", []string{"Authorization", "Bearer " + text}, 200},
		{"the key, in another case of Bearer", []string{"Authorization", "bearer " + text}, 200},
		{"another key", []string{"Authorization", "Bearer " + other}, 401},
		{"another secret", []string{"Authorization", "Bearer ck_" + key.ID + "_x"}, 401},
		{"no secret", []string{"Authorization", "Bearer ck_" + key.ID + "_"}, 401},
		{"its hash", []string{"Authorization", "Bearer " + key.Line()}, 401},
		{"another scheme", []string{"Authorization", "Basic " + text}, 401},
		{"a token of an organization", []string{"Authorization", "Bearer " + token(t, "alice")}, 401},
		{"the key, by another name of the host", []string{"Authorization", "Bearer " + text, "Host", "evil.example"}, 403},
		{"the key, from a page elsewhere", []string{"Authorization", "Bearer " + text, "Origin", "http://evil.example"}, 403},
		{"the key, from another site", []string{"Authorization", "Bearer " + text, "Sec-Fetch-Site", "cross-site"}, 403},
	} {
		for _, path := range []string{"/", "/metrics", "/debug/pprof/", "/v1/orgs", "/status.json"} {
			if status, body := do(t, c, http.MethodGet, s.OpsURL()+path, "", tt.header...); status != tt.want {
				t.Errorf("%s, %s: %d, want %d: %.200s", path, tt.name, status, tt.want, body)
			}
		}
		open := 200
		if tt.want == 403 {
			open = 403
		}
		for _, path := range []string{"/healthz", "/readyz"} {
			if status, body := do(t, c, http.MethodGet, s.OpsURL()+path, "", tt.header...); status != open {
				t.Errorf("%s, %s: %d, want %d: %.200s", path, tt.name, status, open, body)
			}
		}
	}
}

func TestANodeForTryingOutIsReachedFromThisMachineOnly(t *testing.T) {
	_, key := org.NewKey("")
	cfg := settings("")
	cfg.Ops.Listen, cfg.Ops.Keys = "0.0.0.0:0", []string{key.Line()}
	if _, err := server.New(cfg, server.Options{Development: &server.Development{}}); err == nil || !strings.Contains(err.Error(), "use a loopback address") {
		t.Errorf("got %v", err)
	}
}
