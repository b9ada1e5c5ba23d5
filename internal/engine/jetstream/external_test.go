package jetstream_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
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
	t.Parallel() // it mostly waits
	enginetest.Run(t, openRelaxed)
}

func TestContractOfTheIntakeOnAnExternalServer(t *testing.T) {
	t.Parallel() // it mostly waits
	enginetest.RunIntake(t, fewPieces, openRelaxed)
}

func openRelaxed(t *testing.T) engine.Engine {
	t.Helper()
	e, _ := external(t, jetstream.Config{Durability: jetstream.Relaxed})
	return e
}

func TestContractOfRestartsOnAnExternalServer(t *testing.T) {
	t.Parallel() // it mostly waits
	enginetest.RunRestart(t, func(t *testing.T) (engine.Engine, func() engine.Engine) {
		e, s := external(t, jetstream.Config{Partitions: 2})
		return e, func() engine.Engine {
			return openExternal(t, jetstream.Config{NATS: &jetstream.NATS{URL: s.ClientURL(), Replicas: 1}})
		}
	})
}

func TestContractOfBudgetsOnAnExternalServer(t *testing.T) {
	t.Parallel() // it mostly waits
	enginetest.RunBudget(t, func(t *testing.T, budget func(carillon.OrgID) engine.Budget) engine.Engine {
		e, _ := external(t, jetstream.Config{OrgBudget: budget})
		return e
	})
	enginetest.RunIntakeBudget(t, func(t *testing.T, budget func(carillon.OrgID) engine.Budget) engine.Engine {
		e, _ := external(t, jetstream.Config{IntakeBudget: budget})
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
		{"WithSmallMessages", func() string { return natsServer(t, server.Options{JetStream: true, MaxPayload: 1000}).ClientURL() }, []string{"1000 bytes", "max_payload to 1048576"}},
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

// takeOver answers publishes to a stream in its place, until restore.
func takeOver(t *testing.T, s *server.Server, stream string, answer func(n int) string) (restore func()) {
	t.Helper()
	nc, js := natsConn(t, s.ClientURL())
	has, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	config := has.CachedInfo().Config
	subjects := config.Subjects
	config.Subjects = []string{"elsewhere.>"}
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	n := 0
	sub, err := nc.Subscribe(subjects[0], func(m *nats.Msg) {
		n++
		_ = m.Respond([]byte(answer(n)))
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		config.Subjects = subjects
		if err := sub.Unsubscribe(); err != nil {
			t.Error(err)
		}
		if _, err := js.UpdateStream(t.Context(), config); err != nil {
			t.Error(err)
		}
	}
}

func TestEventWhoseKeyIsOnItsWayIsTriedAgain(t *testing.T) {
	e, s := external(t, jetstream.Config{Partitions: 1, Durability: jetstream.Relaxed})
	defer closeEngine(t, e)
	log := e.Open("acme")
	first := appendAll(t, log, engine.Append{Event: numbered(0)})[0]
	tries := make(chan int, 1000)
	restore := takeOver(t, s, "CAR_EV_0", func(n int) string {
		tries <- n
		return `{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"},"stream":"CAR_EV_0","seq":0}`
	})
	type answer struct {
		r   []carillon.Receipt
		err error
	}
	answers := make(chan answer, 2)
	for n := 1; n <= 2; n++ {
		log.Append([]engine.Append{{Event: numbered(n), Key: fmt.Sprint(n)}}, func(r []carillon.Receipt, err error) { answers <- answer{r, err} })
	}
	for range 6 {
		<-tries
	}
	restore()
	last := first.Pos.Seq
	for n := 1; n <= 2; n++ {
		a := <-answers
		if a.err != nil || a.r[0].Duplicate || a.r[0].Pos.Seq != last+1 {
			t.Fatalf("event %d: %+v %v, want it after %d", n, a.r, a.err, last)
		}
		last = a.r[0].Pos.Seq
	}
	if got := readAll(t, log); len(got) != 3 || string(got[1].Data) != "1" || string(got[2].Data) != "2" {
		t.Errorf("%d entries are stored, in another order or more than once", len(got))
	}
}

func TestEventRefusedByTheServerRefusesItsBatchAndNoOther(t *testing.T) {
	e, s := external(t, jetstream.Config{Partitions: 1})
	defer closeEngine(t, e)
	_, js := natsConn(t, s.ClientURL())
	stream, err := js.Stream(t.Context(), "CAR_EV_0")
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxMsgSize = 2000 // less than the engine knows of
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	large := &carillon.Event{Type: "n", Data: make([]byte, 3000)}
	bad, good := e.Open("bad"), e.Open("good")
	known := appendAll(t, bad, engine.Append{Event: numbered(0), Key: "known"})[0]
	var all sync.WaitGroup
	for n := range 40 { // in flights that they share
		all.Go(func() {
			_, err := engine.AppendWait(t.Context(), bad, []engine.Append{
				{Event: numbered(0), Key: "known"}, {Event: large}, {Event: numbered(n), Key: fmt.Sprint(n)},
			})
			if carillon.AsError(err).Code != carillon.CodeTooLarge {
				t.Errorf("the batch: %v", err)
			}
		})
		all.Go(func() {
			r, err := engine.AppendWait(t.Context(), good, []engine.Append{{Event: numbered(n)}, {Event: numbered(n)}})
			if err != nil || r[1].Pos.Seq != r[0].Pos.Seq+1 {
				t.Errorf("another batch: %+v %v", r, err)
			}
		})
	}
	all.Wait()
	if got := readAll(t, bad); len(got) != 1 || got[0].Pos != known.Pos {
		t.Errorf("%d entries are stored, want the first alone", len(got))
	}
	if got := readAll(t, good); len(got) != 80 {
		t.Errorf("%d entries of the other organization are stored, want 80", len(got))
	}
}

// lag makes direct reads of a stream go to a copy of it as it is now: a replica
// that no longer follows.
func lag(t *testing.T, s *server.Server, stream string) {
	t.Helper()
	nc, js := natsConn(t, s.ClientURL())
	has, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	old := natsjs.StreamConfig{Name: "OLD", Mirror: &natsjs.StreamSource{Name: stream}, AllowDirect: true}
	mirror, err := js.CreateStream(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "copy", func() bool {
		info, err := mirror.Info(t.Context())
		return err == nil && info.State.LastSeq == has.CachedInfo().State.LastSeq
	})
	old.Mirror = nil
	if _, err := js.UpdateStream(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Subscribe("lagging", func(m *nats.Msg) { _ = nc.PublishRequest("$JS.API.DIRECT.GET.OLD", m.Reply, m.Data) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.GlobalAccount().AddMapping("$JS.API.DIRECT.GET."+stream, "lagging"); err != nil {
		t.Fatal(err)
	}
}

func TestSignalsReachEveryNode(t *testing.T) {
	a, s := external(t, jetstream.Config{Partitions: 1})
	defer closeEngine(t, a)
	b := openExternal(t, jetstream.Config{Partitions: 1, NATS: &jetstream.NATS{URL: s.ClientURL(), Replicas: 1}})
	defer closeEngine(t, b)
	beside := openExternal(t, jetstream.Config{Prefix: "beside", Partitions: 1, NATS: &jetstream.NATS{URL: s.ClientURL(), Replicas: 1}})
	defer closeEngine(t, beside)
	heard := make(chan string, 100)
	for name, e := range map[string]*jetstream.Engine{"a": a, "b": b, "beside": beside} {
		defer e.Signals("acme").Listen(func(x *carillon.Entry) { heard <- name + " " + string(x.Data) })()
	}
	both := func(e *jetstream.Engine, n int) {
		want := []string{fmt.Sprintf("a %d", n), fmt.Sprintf("b %d", n)}
		for len(want) > 0 { // again and again, until both have begun to listen
			e.Signals("acme").Publish([]*carillon.Event{numbered(n)}, func(err error) {
				if err != nil {
					t.Error(err)
				}
			})
			select {
			case got := <-heard:
				if strings.HasPrefix(got, "beside") {
					t.Fatalf("another install hears %s", got)
				}
				want = slices.DeleteFunc(want, func(w string) bool { return w == got })
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	both(a, 1)
	both(b, 2)
}

func TestSettingsAreReadFromTheLeader(t *testing.T) {
	e, s := external(t, jetstream.Config{Partitions: 1})
	defer closeEngine(t, e)
	_, js := natsConn(t, s.ClientURL())
	stream, err := js.Stream(t.Context(), "KV_CAR_cfg")
	if err != nil {
		t.Fatal(err)
	}
	if stream.CachedInfo().Config.AllowDirect {
		t.Error("any replica may answer for the settings")
	}
}

func TestReplicaThatLagsIsNoticed(t *testing.T) {
	e, s := external(t, jetstream.Config{Partitions: 1, Durability: jetstream.Relaxed})
	defer closeEngine(t, e)
	log, other := e.Open("acme"), e.Open("other")
	var pos []carillon.Position
	add := func() {
		for n := range 10 {
			pos = append(pos, appendAll(t, log, engine.Append{Event: numbered(n)})[0].Pos)
			appendAll(t, other, engine.Append{Event: numbered(n)})
		}
	}
	add()
	time.Sleep(2 * time.Millisecond) //nolint:forbidigo // so that the times of acceptance differ
	between := time.Now()
	add()
	// From here on the second ten are known to this process and not to the replica.
	lag(t, s, "CAR_EV_0")
	lagging := time.Now()
	add()
	for _, r := range []engine.Range{
		{}, {Limit: 7}, {Limit: 20}, {Limit: 25}, {After: pos[15].Seq}, {After: pos[15].Seq, UpTo: pos[24].Seq}, {UpTo: pos[24].Seq, Limit: 20}, {After: pos[19].Seq, Limit: 3},
	} {
		want := pos
		for len(want) > 0 && want[0].Seq <= r.After {
			want = want[1:]
		}
		for r.UpTo > 0 && want[len(want)-1].Seq > r.UpTo {
			want = want[:len(want)-1]
		}
		var got []carillon.Position
		for next := r; ; {
			end, err := log.Read(t.Context(), next, func(entry *carillon.Entry) error {
				got = append(got, entry.Pos)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if !end.More {
				if end.Seen < want[len(want)-1].Seq {
					t.Errorf("%+v: seen up to %d only", r, end.Seen)
				}
				break
			}
			next.After = end.Seen
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %d entries, want %d", r, len(got), len(want))
		}
	}
	for _, p := range pos {
		if out, err := log.Resume(t.Context(), p); err != nil || out.Status != engine.OK {
			t.Errorf("resume at %v: %v %v", p, out, err)
		}
	}
	if at, err := log.At(t.Context(), between); err != nil || at.Seq < pos[9].Seq || at.Seq >= pos[10].Seq {
		t.Errorf("at the middle is %v (%v), want %v", at, err, pos[9])
	}
	if at, err := log.At(t.Context(), lagging); err != nil || at.Seq < pos[19].Seq || at.Seq >= pos[20].Seq {
		t.Errorf("at what the replica does not know is %v (%v), want %v", at, err, pos[19])
	}
	appendAll(t, other, engine.Append{Event: numbered(0)})
	if at, err := log.At(t.Context(), time.Now().Add(time.Hour)); err != nil || at.Seq < pos[29].Seq {
		t.Errorf("at the end is %v (%v)", at, err)
	}
}
