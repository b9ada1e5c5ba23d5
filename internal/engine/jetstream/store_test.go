package jetstream_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
	"github.com/carillon-rt/carillon/internal/testkit"
)

// childEnv makes the test binary the process that is killed; its value is the
// store directory.
const childEnv = "CARILLON_ENGINE_CHILD"

func TestMain(m *testing.M) {
	testkit.Main()
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	// The contract runs on five engines, each of whose appends is flushed or replicated:
	// most of it waits. The engine in memory draws five times as many.
	for name, value := range map[string]string{"rapid.checks": "20", "test.parallel": "4"} {
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			if err := f.Value.Set(value); err != nil {
				panic(err)
			}
		}
	}
	// The server leaves this one behind for some blocks of a store that is closed.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"), // the clock of such a store
	)
}

func numbered(n int) *carillon.Event {
	return &carillon.Event{Type: "n", Time: time.UnixMilli(int64(n)).UTC(), Data: fmt.Appendf(nil, "%d", n)}
}

func appendAll(t testing.TB, log engine.Log, batch ...engine.Append) []carillon.Receipt {
	t.Helper()
	receipts, err := engine.AppendWait(t.Context(), log, batch)
	if err != nil {
		t.Fatal(err)
	}
	return receipts
}

func readAll(t testing.TB, log engine.Log) []*carillon.Entry {
	t.Helper()
	var out []*carillon.Entry
	_, err := log.Read(t.Context(), engine.Range{Limit: 1 << 20, MaxBytes: 1 << 30}, func(e *carillon.Entry) error {
		out = append(out, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func closeEngine(t testing.TB, e *jetstream.Engine) {
	t.Helper()
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	for _, d := range []jetstream.Durability{jetstream.Strict, jetstream.Relaxed} {
		t.Run(string(d), func(t *testing.T) {
			c := jetstream.Config{Dir: t.TempDir(), Durability: d, Partitions: 3}
			e := open(t, c)
			var want []carillon.Receipt
			for i := range 10 {
				want = append(want, appendAll(t, e.Open("acme"), engine.Append{Event: numbered(i), Key: fmt.Sprintf("k:%d", i)})...)
			}
			appendAll(t, e.Open("other"), engine.Append{Event: numbered(1)})
			if err := e.KV().Put(t.Context(), "some.key", []byte("value")); err != nil {
				t.Fatal(err)
			}
			purged := e.Open("purged")
			gone := appendAll(t, purged, engine.Append{Event: numbered(0)}, engine.Append{Event: numbered(1)})
			if err := purged.Purge(t.Context(), 1<<50); err != nil {
				t.Fatal(err)
			}
			state, err := e.State(t.Context(), e.Open("acme").Partition())
			if err != nil {
				t.Fatal(err)
			}
			closeEngine(t, e)

			c.Partitions = 0 // the store knows
			e = open(t, c)
			defer closeEngine(t, e)
			log := e.Open("acme")
			if e.Partitions() != 3 {
				t.Errorf("%d partitions", e.Partitions())
			}
			if again, err := e.State(t.Context(), log.Partition()); err != nil || again != state {
				t.Errorf("state %+v %v, want %+v", again, err, state)
			}
			if head := e.Head(log.Partition()); head != state.Last {
				t.Errorf("head %v, want %v", head, state.Last)
			}
			for i, entry := range readAll(t, log) {
				if entry.Pos != want[i].Pos || string(entry.Data) != fmt.Sprint(i) {
					t.Errorf("entry %d: %s at %v, want %v", i, entry.Data, entry.Pos, want[i].Pos)
				}
			}
			for i, r := range want {
				if out, err := log.Resume(t.Context(), r.Pos); err != nil || out.Status != engine.OK {
					t.Errorf("resume at %v: %v %v", r.Pos, out, err)
				}
				again := appendAll(t, log, engine.Append{Event: numbered(i), Key: fmt.Sprintf("k:%d", i)})[0]
				if !again.Duplicate || again.Pos != r.Pos {
					t.Errorf("key %d again: %+v, want a duplicate of %v", i, again, r.Pos)
				}
			}
			zero := carillon.Position{Partition: uint16(log.Partition())}
			if out, err := log.Resume(t.Context(), zero); err != nil || out.Status != engine.OK {
				t.Errorf("resume from the start: %v %v", out, err)
			}
			if out, err := e.Open("purged").Resume(t.Context(), carillon.Position{Partition: gone[0].Pos.Partition}); err != nil || out.Status != engine.Expired {
				t.Errorf("resume of the purged from the start: %v %v", out, err)
			}
			if value, _, err := e.KV().Get(t.Context(), "some.key"); err != nil || string(value) != "value" {
				t.Errorf("kv: %q %v", value, err)
			}
		})
	}
}

func TestNumberOfPartitionsIsFixed(t *testing.T) {
	c := jetstream.Config{Dir: t.TempDir(), Partitions: 2}
	closeEngine(t, open(t, c))
	c.Partitions = 4
	_, err := jetstream.Open(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "2 partitions") {
		t.Fatalf("opened with another number: %v", err)
	}
	c.Partitions = 2
	closeEngine(t, open(t, c)) // the refusal has given the directory back
}

func TestLimitsOfAnExistingStoreCanChange(t *testing.T) {
	c := jetstream.Config{Dir: t.TempDir(), Partitions: 1, MaxBytes: 64 << 20}
	e := open(t, c)
	appendAll(t, e.Open("acme"), engine.Append{Event: numbered(1)})
	closeEngine(t, e)
	c.MaxPerOrg, c.Retention, c.MaxBytes, c.DedupeWindow = 2, time.Hour, 32<<20, time.Minute
	e = open(t, c)
	defer closeEngine(t, e)
	log := e.Open("acme")
	zero := carillon.Position{}
	pos := appendAll(t, log, engine.Append{Event: numbered(2)}, engine.Append{Event: numbered(3)})
	if got := readAll(t, log); len(got) != 2 || got[0].Pos != pos[0].Pos {
		t.Errorf("%d entries kept of at most 2", len(got))
	}
	if out, err := log.Resume(t.Context(), zero); err != nil || out.Status != engine.Expired || out.From.Seq != pos[0].Pos.Seq-1 {
		t.Errorf("resume past the limit: %+v %v", out, err)
	}
}

func TestOneEnginePerDirectory(t *testing.T) {
	dir := t.TempDir()
	e := open(t, jetstream.Config{Dir: dir})
	_, err := jetstream.Open(t.Context(), jetstream.Config{Dir: dir})
	if !errors.Is(err, engine.ErrStoreInUse) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("the second engine: %v", err)
	}
	appendAll(t, e.Open("acme"), engine.Append{Event: numbered(1)})
	closeEngine(t, e)
	closeEngine(t, open(t, jetstream.Config{Dir: dir}))
}

func TestStoreOfAnotherModeIsRefused(t *testing.T) {
	dir := t.TempDir()
	closeEngine(t, open(t, jetstream.Config{Dir: dir}))
	mode := filepath.Join(dir, "MODE")
	if data, err := os.ReadFile(mode); err != nil || strings.TrimSpace(string(data)) != "standalone" {
		t.Fatalf("mode %q %v", data, err)
	}
	for _, tt := range []struct {
		name string
		make func() error
		want string
	}{
		{"cluster", func() error { return os.WriteFile(mode, []byte("cluster west\n"), 0o600) }, "cluster west"},
		{"unknown", func() error { return os.Remove(mode) }, "no MODE file"},
	} {
		if err := tt.make(); err != nil {
			t.Fatal(err)
		}
		_, err := jetstream.Open(t.Context(), jetstream.Config{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []jetstream.Config{
		{},
		{Dir: "x", Durability: "sometimes"},
		{Dir: "x", Partitions: -1},
		{Dir: "x", Partitions: 5000},
		{Dir: "x", Prefix: "a.b"},
		{Dir: "x", Prefix: "a*"},
		{Dir: "x", Retention: -1},
		{Dir: "x", Retention: time.Minute, DedupeWindow: time.Hour},
		{Dir: t.TempDir(), MaxBytes: 1},
		{Dir: t.TempDir(), MaxBytes: 1 << 60},
		{Dir: "x", IntakeRetention: -1},
		{Dir: "x", IntakeMaxPerOrg: -1},
		{Dir: "x", IntakeRetention: time.Minute, DedupeWindow: time.Hour},
		{Dir: t.TempDir(), IntakeMaxBytes: 1},
		{Dir: t.TempDir(), IntakeMaxBytes: 1 << 60},
	} {
		if e, err := jetstream.Open(t.Context(), c); err == nil {
			t.Errorf("%+v is accepted", c)
			closeEngine(t, e)
		}
	}
}

func TestServerRestartUnderLoadLosesNothing(t *testing.T) {
	e := open(t, jetstream.Config{Partitions: 2})
	defer closeEngine(t, e)
	stop := make(chan struct{})
	started := make(chan struct{}, 1000)
	var all sync.WaitGroup
	acked := make([][]carillon.Position, 6)
	logs := []engine.Log{e.Open("a"), e.Open("b"), e.Open("c")}
	for p := range acked {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				batch := []engine.Append{{Event: numbered(p*1_000_000 + i), Key: fmt.Sprintf("%d:%d", p, i)}}
				if p%2 == 1 { // an array, of events without keys
					batch = append(batch, engine.Append{Event: numbered(-1)}, engine.Append{Event: numbered(-1)})
				}
				r, err := engine.AppendWait(t.Context(), logs[p%3], batch)
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				if r[0].Duplicate {
					t.Errorf("publisher %d: event %d is a duplicate", p, i)
				}
				acked[p] = append(acked[p], r[0].Pos)
				select {
				case started <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 3 {
		for range 30 {
			<-started
		}
		if err := e.Faults().RestartServer(t.Context()); err != nil {
			t.Fatal(err)
		}
		for len(started) > 0 {
			<-started
		}
	}
	for range 30 {
		<-started
	}
	close(stop)
	all.Wait()
	for p, positions := range acked {
		if !slices.IsSortedFunc(positions, func(a, b carillon.Position) int { return int(a.Seq) - int(b.Seq) }) {
			t.Errorf("publisher %d is out of order", p)
		}
	}
	for i, log := range logs {
		have := make(map[carillon.Position]string)
		seen := make(map[string]int)
		for _, entry := range readAll(t, log) {
			have[entry.Pos] = string(entry.Data)
			if data := string(entry.Data); data != "-1" {
				if seen[data]++; seen[data] > 1 {
					t.Errorf("%s is stored twice", data)
				}
			}
		}
		for p := i; p < len(acked); p += 3 {
			for n, pos := range acked[p] {
				if have[pos] != fmt.Sprint(p*1_000_000+n) {
					t.Errorf("publisher %d, event %d at %v: %q", p, n, pos, have[pos])
				}
			}
		}
	}
}

// child appends under load and prints every acknowledged event until it is
// killed.
func child(dir string) {
	e, err := jetstream.Open(context.Background(), jetstream.Config{Dir: dir, Partitions: 2, Durability: jetstream.Durability(os.Getenv(childEnv + "_MODE"))})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	lines := make(chan string, 1024)
	for p := range 24 {
		go func() {
			log := e.Open(carillon.OrgID(fmt.Sprintf("org-%d", p%3)))
			for n := 0; ; n++ {
				batch := []engine.Append{{Event: &carillon.Event{Type: "n", Data: fmt.Appendf(nil, "[%d,%d]", p, n)}}}
				if p%4 == 0 {
					for range 9 {
						batch = append(batch, engine.Append{Event: &carillon.Event{Type: "n", Data: []byte("null")}})
					}
				}
				r, err := engine.AppendWait(context.Background(), log, batch)
				if err != nil {
					lines <- fmt.Sprint("error ", err)
					return
				}
				lines <- fmt.Sprintf("%d %d %d %d %d", p, n, r[0].Pos.Partition, r[0].Pos.Seq, r[0].Pos.Check)
			}
		}()
	}
	for line := range lines {
		fmt.Println(line)
	}
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	for _, d := range []jetstream.Durability{jetstream.Strict, jetstream.Relaxed} {
		t.Run(string(d), func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+dir, childEnv+"_MODE="+string(d))
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			type acked struct {
				p, n int
				pos  carillon.Position
			}
			var got []acked
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				var a acked
				if _, err := fmt.Sscan(lines.Text(), &a.p, &a.n, &a.pos.Partition, &a.pos.Seq, &a.pos.Check); err != nil {
					if strings.HasPrefix(lines.Text(), "error") {
						t.Fatal(lines.Text())
					}
					continue // cut off by the kill
				}
				if got = append(got, a); len(got) == 2000 {
					_ = cmd.Process.Kill() // not a signal it could handle
				}
			}
			_ = cmd.Wait()
			if len(got) < 2000 {
				t.Fatalf("only %d events were acknowledged", len(got))
			}

			e := open(t, jetstream.Config{Dir: dir, Durability: d})
			defer closeEngine(t, e)
			have := make(map[carillon.Position]string)
			for i := range 3 {
				next := make(map[int]int)
				run := 0
				for _, entry := range readAll(t, e.Open(carillon.OrgID(fmt.Sprintf("org-%d", i)))) {
					have[entry.Pos] = string(entry.Data)
					if string(entry.Data) == "null" {
						run++
						continue
					}
					if run != 0 && run != 9 {
						t.Errorf("%d events of an array of ten before %v", run+1, entry.Pos)
					}
					run = 0
					var p, n int
					if _, err := fmt.Sscanf(string(entry.Data), "[%d,%d]", &p, &n); err != nil {
						t.Fatal(err)
					}
					if n != next[p] {
						t.Errorf("publisher %d: event %d instead of %d at %v", p, n, next[p], entry.Pos)
					}
					next[p] = n + 1
				}
			}
			for _, a := range got {
				if want := fmt.Sprintf("[%d,%d]", a.p, a.n); have[a.pos] != want {
					t.Errorf("%s was acknowledged at %v, where %q is", want, a.pos, have[a.pos])
				}
			}
		})
	}
}

func TestManyPublishersShareFlights(t *testing.T) {
	e := open(t, jetstream.Config{Partitions: 1})
	defer closeEngine(t, e)
	const publishers, each = 256, 20
	var all sync.WaitGroup
	for p := range publishers {
		log := e.Open(carillon.OrgID(fmt.Sprintf("org-%d", p%5)))
		all.Go(func() {
			last := uint64(0)
			for i := range each {
				r, err := engine.AppendWait(t.Context(), log, []engine.Append{{Event: numbered(i)}})
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				if r[0].Pos.Seq <= last {
					t.Errorf("%v after %d", r[0].Pos, last)
				}
				last = r[0].Pos.Seq
			}
		})
	}
	all.Wait()
	s := e.Stats()
	if s.BatchFlights == 0 || s.Flights > publishers*each/4 {
		t.Errorf("%d flights for %d events, %d of them batches", s.Flights, s.Appends, s.BatchFlights)
	}
	n := 0
	for i := range 5 {
		n += len(readAll(t, e.Open(carillon.OrgID(fmt.Sprintf("org-%d", i)))))
	}
	if n != publishers*each {
		t.Errorf("%d entries of %d", n, publishers*each)
	}
}

func TestPublishTimeoutIsKept(t *testing.T) {
	e := open(t, jetstream.Config{Partitions: 1, PublishTimeout: 300 * time.Millisecond})
	log := e.Open("acme")
	appendAll(t, log, engine.Append{Event: numbered(0)})
	e.Faults().StopServer()
	start := time.Now()
	_, err := engine.AppendWait(t.Context(), log, []engine.Append{{Event: numbered(1)}})
	if shown := carillon.AsError(err); shown.Code != carillon.CodeUnavailable || shown.RetryAfter <= 0 {
		t.Errorf("append: %v", err)
	}
	if d := time.Since(start); d < 250*time.Millisecond || d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
	if err := e.Healthy(t.Context()); err == nil {
		t.Error("healthy without a server")
	}
	if err := e.Faults().RestartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	appendAll(t, log, engine.Append{Event: numbered(2)})
	if err := e.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
	closeEngine(t, e)
}

func TestOneRefusedEventRefusesItsBatchAndNoOther(t *testing.T) {
	e := open(t, jetstream.Config{Partitions: 1})
	defer closeEngine(t, e)
	log := e.Open("acme")
	known := appendAll(t, log, engine.Append{Event: numbered(0), Key: "known"})[0]
	tooLarge := &carillon.Event{Type: "n", Data: make([]byte, 1<<20)}
	var all sync.WaitGroup
	for n := range 20 { // in flights that they share
		all.Go(func() {
			r, err := engine.AppendWait(t.Context(), e.Open(carillon.OrgID(fmt.Sprintf("org-%d", n))), []engine.Append{
				{Event: numbered(1), Key: "1"}, {Event: numbered(2)}, {Event: numbered(1), Key: "1"},
			})
			if err != nil || r[1].Pos.Seq != r[0].Pos.Seq+1 || !r[2].Duplicate || r[2].Pos != r[0].Pos {
				t.Errorf("another batch: %+v %v", r, err)
			}
		})
		all.Go(func() {
			_, err := engine.AppendWait(t.Context(), log, []engine.Append{
				{Event: numbered(0), Key: "known"}, {Event: numbered(n), Key: fmt.Sprint(n)}, {Event: tooLarge},
			})
			if carillon.AsError(err).Code != carillon.CodeTooLarge || !strings.Contains(err.Error(), "event 3 of 3") {
				t.Errorf("the batch: %v", err)
			}
		})
	}
	all.Wait()
	if got := readAll(t, log); len(got) != 1 || got[0].Pos != known.Pos {
		t.Errorf("%d entries are stored, want the first alone", len(got))
	}
}
