package jetstream_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/enginetest"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
	"github.com/carillon-rt/carillon/internal/testkit"
)

// onCluster is an engine with three copies of everything.
func onCluster(t testing.TB, c *testkit.Cluster, config jetstream.Config) *jetstream.Engine {
	t.Helper()
	config.NATS = &jetstream.NATS{URL: c.URL, Replicas: 3}
	if config.MaxBytes == 0 {
		config.MaxBytes = 256 << 20
	}
	return openExternal(t, config)
}

func TestContractOnACluster(t *testing.T) {
	t.Parallel() // it mostly waits
	if testing.Short() {
		t.Skip("an engine on one external server has run the same")
	}
	c := testkit.NewCluster(t)
	n := 0
	open := func(t *testing.T) engine.Engine {
		n++
		prefix := fmt.Sprintf("t%d", n)
		t.Cleanup(func() { // after the engine is closed
			for _, stream := range []string{"KV_T%d_cfg", "T%d_EV_0", "T%d_EV_1", "T%d_IN_0"} {
				if err := c.JetStream().DeleteStream(context.Background(), fmt.Sprintf(stream, n)); err != nil {
					t.Error(err)
				}
			}
		})
		return onCluster(t, c, jetstream.Config{Prefix: prefix, Partitions: 2})
	}
	enginetest.Run(t, open)
	t.Run("Intake", func(t *testing.T) { enginetest.RunIntake(t, fewPieces, open) })
}

// publisher is one that sends each of its events until it is acknowledged.
type publisher struct {
	number int
	log    engine.Log
	acked  []carillon.Position
	stall  time.Duration // the longest from one acknowledgement to the next
}

// run publishes until stop. Refusals must say when to try again.
func (p *publisher) run(t *testing.T, stop <-chan struct{}, refused func()) {
	last := time.Now()
	for n := 0; ; {
		select {
		case <-stop:
			return
		default:
		}
		r, err := engine.AppendWait(context.Background(), p.log, []engine.Append{
			{Event: numbered(p.number*1_000_000 + n), Key: fmt.Sprintf("%d:%d", p.number, n)},
		})
		if err == nil {
			p.stall = max(p.stall, time.Since(last))
			last = time.Now()
			p.acked = append(p.acked, r[0].Pos)
			n++
			continue
		}
		if shown := carillon.AsError(err); shown.Code != carillon.CodeUnavailable || shown.RetryAfter <= 0 {
			t.Errorf("append: %v", err)
		}
		refused()
	}
}

// follower is a reader that never loses its place, as the hub is.
type follower struct {
	mu   sync.Mutex
	last uint64
	got  []*carillon.Entry
}

func (f *follower) run(ctx context.Context, t *testing.T, e engine.Engine, partition int) {
	for ctx.Err() == nil {
		_ = e.Tail(ctx, partition, f.last, func(entry *carillon.Entry) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if entry.Pos.Seq <= f.last {
				t.Errorf("the tail passes %v after %d", entry.Pos, f.last)
			}
			f.last = entry.Pos.Seq
			f.got = append(f.got, entry)
		})
	}
}

func (f *follower) seen() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// load publishes and follows on an engine with one partition while disturb runs,
// and checks that nothing was lost or doubled anywhere.
func load(t *testing.T, e *jetstream.Engine, disturb func(refusals <-chan struct{})) {
	t.Helper()
	const publishers = 12
	stop, refusals := make(chan struct{}), make(chan struct{}, 1)
	refused := func() {
		select {
		case refusals <- struct{}{}:
		default:
		}
	}
	following, unfollow := context.WithCancel(t.Context())
	var f follower
	var reading, writing sync.WaitGroup
	reading.Go(func() { f.run(following, t, e, 0) })
	all := make([]*publisher, publishers)
	for i := range all {
		all[i] = &publisher{number: i, log: e.Open(carillon.OrgID(fmt.Sprintf("org-%d", i%3)))}
		writing.Go(func() { all[i].run(t, stop, refused) })
	}
	end := sync.OnceFunc(func() {
		close(stop)
		writing.Wait()
	})
	defer func() {
		end()
		unfollow()
		reading.Wait()
	}()
	eventually(t, "appends", func() bool { return e.Stats().Appends > 500 })
	disturb(refusals)
	before := e.Stats().Appends
	eventually(t, "appends afterwards", func() bool { return e.Stats().Appends > before+500 })
	end()

	var last uint64
	var stall time.Duration
	for _, p := range all {
		stall = max(stall, p.stall)
		last = max(last, p.acked[len(p.acked)-1].Seq)
	}
	eventually(t, "the tail", func() bool { return f.seen() >= last })
	unfollow()
	reading.Wait()
	stored := make(map[carillon.Position]string)
	twice := make(map[string]bool)
	for i := range 3 {
		for _, entry := range readAll(t, e.Open(carillon.OrgID(fmt.Sprintf("org-%d", i)))) {
			data := string(entry.Data)
			stored[entry.Pos] = data
			if twice[data] {
				t.Errorf("%s is stored twice", data)
			}
			twice[data] = true
		}
	}
	for _, p := range all {
		if !slices.IsSortedFunc(p.acked, func(a, b carillon.Position) int { return int(a.Seq) - int(b.Seq) }) {
			t.Errorf("publisher %d is out of order", p.number)
		}
		for n, pos := range p.acked {
			if want := fmt.Sprint(p.number*1_000_000 + n); stored[pos] != want {
				t.Errorf("%s was acknowledged at %v; there is %q", want, pos, stored[pos])
			}
		}
	}
	if len(f.got) != len(stored) {
		t.Errorf("the tail passed %d entries of %d", len(f.got), len(stored))
	}
	for _, entry := range f.got {
		if stored[entry.Pos] != string(entry.Data) {
			t.Errorf("the tail passed %s at %v; there is %q", entry.Data, entry.Pos, stored[entry.Pos])
		}
	}
	t.Logf("%d events, %d refusals, the longest stall of a publisher %v", len(stored), e.Stats().Failures, stall.Round(10*time.Millisecond))
}

func TestAnotherLeaderLosesNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	c := testkit.NewCluster(t)
	e := onCluster(t, c, jetstream.Config{Partitions: 1})
	defer closeEngine(t, e)
	load(t, e, func(<-chan struct{}) {
		for range 3 {
			c.StepDown(t, "CAR_EV_0")
			before := e.Stats().Appends
			eventually(t, "appends under the next leader", func() bool { return e.Stats().Appends > before+200 })
		}
	})
}

func TestKilledLeaderLosesNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	c := testkit.NewCluster(t)
	e := onCluster(t, c, jetstream.Config{Partitions: 1})
	defer closeEngine(t, e)
	load(t, e, func(<-chan struct{}) {
		for range 2 {
			leader := c.Leader(t, "CAR_EV_0")
			leader.Kill(t)
			before := e.Stats().Appends
			eventually(t, "appends under the next leader", func() bool { return e.Stats().Appends > before+200 })
			leader.Start(t)
		}
	})
}

func TestLostQuorumRefusesUntilItIsBack(t *testing.T) {
	t.Parallel() // it mostly waits
	c := testkit.NewCluster(t)
	e := onCluster(t, c, jetstream.Config{Partitions: 1, PublishTimeout: time.Second})
	defer closeEngine(t, e)
	load(t, e, func(refusals <-chan struct{}) {
		c.Nodes[0].Kill(t)
		c.Nodes[1].Kill(t)
		<-refusals
		eventually(t, "unhealthy", func() bool { return e.Healthy(t.Context()) != nil })
		c.Nodes[0].Start(t)
		eventually(t, "healthy", func() bool { return e.Healthy(t.Context()) == nil })
	})
}

func TestNodesShareALog(t *testing.T) {
	t.Parallel() // it mostly waits
	c := testkit.NewCluster(t)
	a := onCluster(t, c, jetstream.Config{Partitions: 1})
	defer closeEngine(t, a)
	b := onCluster(t, c, jetstream.Config{Partitions: 1})
	defer closeEngine(t, b)
	const keys = 100
	var all sync.WaitGroup
	var receipts [2][keys]carillon.Receipt
	for i, e := range []*jetstream.Engine{a, b} {
		for k := range keys {
			all.Go(func() {
				r, err := engine.AppendWait(t.Context(), e.Open("acme"), []engine.Append{{Event: numbered(k), Key: fmt.Sprint(k)}})
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				receipts[i][k] = r[0]
			})
		}
	}
	all.Wait()
	for k := range keys {
		x, y := receipts[0][k], receipts[1][k]
		if x.Pos != y.Pos || x.Duplicate == y.Duplicate {
			t.Errorf("key %d: %+v and %+v, want one event", k, x, y)
		}
	}
	for _, e := range []*jetstream.Engine{a, b} {
		if got := readAll(t, e.Open("acme")); len(got) != keys {
			t.Errorf("%d entries are read, want %d", len(got), keys)
		}
	}
	if err := a.Open("acme").Purge(t.Context(), receipts[0][keys-1].Pos.Seq); err != nil {
		t.Fatal(err)
	}
	if out, err := b.Open("acme").Resume(t.Context(), carillon.Position{}); err != nil || out.Status != engine.Expired {
		t.Errorf("the other node says %v %v of what was purged", out, err)
	}
}
