package testkit

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// nodeEnv makes a test's program a NATS server; its value is the server's
// settings.
const nodeEnv = "CARILLON_TEST_NATS"

type nodeSettings struct {
	Name, Dir     string
	Port, Cluster int
	Routes        []string
}

// Main is what a TestMain calls first, so that the program can be a node of a
// Cluster. As one it does not return.
func Main() {
	text := os.Getenv(nodeEnv)
	if text == "" {
		return
	}
	var n nodeSettings
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		panic(err)
	}
	o := &server.Options{
		ServerName: n.Name, Host: "127.0.0.1", Port: n.Port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: n.Dir, JetStreamMaxStore: 1 << 40, SyncInterval: time.Second,
		Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: n.Cluster},
	}
	for _, r := range n.Routes {
		u, err := url.Parse(r)
		if err != nil {
			panic(err)
		}
		o.Routes = append(o.Routes, u)
	}
	s, err := server.NewServer(o)
	if err != nil {
		panic(err)
	}
	s.Start()
	_, _ = os.Stdin.Read(make([]byte, 1)) // until whoever started it is gone
	os.Exit(0)
}

// Cluster is three NATS servers, each a process of its own.
type Cluster struct {
	URL   string // of all three
	Nodes [3]*Node

	conn *nats.Conn
	js   jetstream.JetStream
}

// Node is a server of a Cluster.
type Node struct {
	Name, URL string

	settings nodeSettings
	cmd      *exec.Cmd
}

// NewCluster starts a cluster and waits until it works. It ends with the test.
func NewCluster(t *testing.T) *Cluster {
	t.Helper()
	c := &Cluster{}
	dir := t.TempDir()
	var routes, urls []string
	for i := range c.Nodes {
		s := nodeSettings{Name: fmt.Sprintf("node-%d", i), Port: freePort(t), Cluster: freePort(t)}
		s.Dir = filepath.Join(dir, s.Name)
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", s.Cluster))
		c.Nodes[i] = &Node{Name: s.Name, URL: fmt.Sprintf("nats://127.0.0.1:%d", s.Port), settings: s}
		urls = append(urls, c.Nodes[i].URL)
	}
	c.URL = strings.Join(urls, ",")
	t.Cleanup(func() {
		if c.conn != nil {
			c.conn.Close()
		}
		for _, n := range c.Nodes {
			n.Kill(t)
		}
	})
	for _, n := range c.Nodes {
		n.settings.Routes = routes
		n.Start(t)
	}
	var err error
	if c.conn, err = nats.Connect(c.URL, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if c.js, err = jetstream.New(c.conn); err != nil {
		t.Fatal(err)
	}
	c.Await(t, "the cluster", func(ctx context.Context) bool {
		_, err := c.js.CreateStream(ctx, jetstream.StreamConfig{Name: "READY", Replicas: 3})
		return err == nil
	})
	return c
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Start starts a server that does not run.
func (n *Node) Start(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(n.settings)
	if err != nil {
		t.Fatal(err)
	}
	n.cmd = exec.Command(os.Args[0])
	n.cmd.Env = append(os.Environ(), nodeEnv+"="+string(text))
	n.cmd.Stderr = os.Stderr
	if _, err := n.cmd.StdinPipe(); err != nil { // it is closed when this process ends
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// Kill ends a server as kill -9 does, if it runs.
func (n *Node) Kill(t *testing.T) {
	t.Helper()
	if n.cmd == nil {
		return
	}
	if err := n.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = n.cmd.Wait() // it was killed
	n.cmd = nil
}

// JetStream is the cluster's, beside whatever a test tests.
func (c *Cluster) JetStream() jetstream.JetStream { return c.js }

// Leader waits for a stream to have a leader, and returns it.
func (c *Cluster) Leader(t *testing.T, stream string) (leader *Node) {
	t.Helper()
	c.Await(t, "a leader of "+stream, func(ctx context.Context) bool {
		s, err := c.js.Stream(ctx, stream)
		if err != nil || s.CachedInfo().Cluster == nil {
			return false
		}
		for _, n := range c.Nodes {
			if n.Name == s.CachedInfo().Cluster.Leader {
				leader = n
			}
		}
		return leader != nil
	})
	return leader
}

// StepDown makes a stream have another leader.
func (c *Cluster) StepDown(t *testing.T, stream string) {
	t.Helper()
	if _, err := c.conn.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

// Await waits until ok says that something has come about.
func (c *Cluster) Await(t *testing.T, what string, ok func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		attempt, done := context.WithTimeout(ctx, 2*time.Second)
		yes := ok(attempt)
		done()
		if yes {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: it does not come about", what)
		}
	}
}
