package hook_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/gate"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/action"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
	"github.com/carillon-rt/carillon/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// acme is the organization of the tests; its sources are those of the settings.
const acme = carillon.OrgID("acme")

// secretText is what the sources of the tests sign with, unless they say otherwise.
const secretText = "it is no secret here"

// rig is everything between a request and the log: real parts, with the engine in
// memory.
type rig struct {
	t       testing.TB
	cfg     hook.Config
	engine  *memory.Engine
	kept    string // where the ledger is, if it outlives a process
	log     *lossy
	gate    *gate.Gate
	ledger  *ledger.Ledger
	sources *hook.Sources
	server  *httptest.Server
	runner  *action.Runner

	receiver  *hook.Receiver
	processor *hook.Processor
	stop      func()
}

// lossy is an engine whose log can be away.
type lossy struct {
	engine.Engine

	away       atomic.Bool
	unreadable atomic.Bool  // the intakes cannot be read
	reads      atomic.Int64 // of intakes
}

func (l *lossy) Intake(org carillon.OrgID) engine.Log { return &lossyLog{l.Engine.Intake(org), l} }

type lossyLog struct {
	engine.Log

	of *lossy
}

func (l *lossyLog) Append(batch []engine.Append, done func([]carillon.Receipt, error)) {
	if l.of.away.Load() {
		done(nil, carillon.Unavailable(time.Second, errors.New("it is away"), "the log is away"))
		return
	}
	l.Log.Append(batch, done)
}

func (l *lossyLog) Read(ctx context.Context, r engine.Range, f func(*carillon.Entry) error) (engine.End, error) {
	l.of.reads.Add(1)
	if l.of.unreadable.Load() {
		return engine.End{Seen: r.After, More: true}, errors.New("it is away")
	}
	return l.Log.Read(ctx, r, f)
}

// ids print places plainly.
type ids struct{}

func (ids) ID(_ carillon.OrgID, pos carillon.Position) string { return fmt.Sprint("d", pos.Seq) }

func (ids) Position(carillon.OrgID, string) (carillon.Position, bool) {
	return carillon.Position{}, false
}

// source is a source of acme as YAML, with the secret of the tests.
func source(t testing.TB, text string) hook.Configured {
	t.Helper()
	d, err := hook.ParseDefinition([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if d.Secrets == nil {
		d.Secrets = []string{secretText}
		if d.Kind == provider.KindStandard {
			d.Secrets = []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
		}
	}
	return hook.Configured{Org: acme, Definition: d}
}

// newRig makes a rig that runs, with these sources.
func newRig(t testing.TB, change func(*hook.Config), sources ...string) *rig {
	t.Helper()
	return newRigOn(t, memory.New(memory.Config{}), change, sources...)
}

func newRigOn(t testing.TB, e *memory.Engine, change func(*hook.Config), sources ...string) *rig {
	t.Helper()
	r := &rig{t: t, engine: e}
	r.log = &lossy{Engine: r.engine}
	var configured []hook.Configured
	for _, text := range sources {
		configured = append(configured, source(t, text))
	}
	var err error
	if r.sources, err = hook.NewSources(configured, r.engine.KV(), hook.NewKeyFile(), 10, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: acme}, {ID: "other"}, {ID: "off", Disabled: true}}})
	if err != nil {
		t.Fatal(err)
	}
	r.gate = gate.New(gate.Config{Open: r.engine.Open, Signals: r.engine.Signals, Orgs: dir, Source: r.sources.Has})
	r.runner = action.NewRunner(action.Config{Client: http.DefaultClient, Timeout: 10 * time.Second})
	r.cfg = hook.Config{
		Log: r.log, Sources: r.sources, IDs: ids{}, Publish: r.gate.SubmitFrom, Actions: r.runner,
		Usable: func(id carillon.OrgID) bool { o, ok := dir.Lookup(id); return ok && !o.Disabled },
	}
	if change != nil {
		change(&r.cfg)
	}
	r.start()
	mux := http.NewServeMux()
	mux.HandleFunc("/hooks/{org}/{source}", func(w http.ResponseWriter, q *http.Request) { r.receiver.ServeHTTP(w, q) })
	r.server = httptest.NewServer(mux)
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		r.server.Close()
		r.stop()
		if err := r.runner.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := r.engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// start makes receiver and processor, with a ledger that is built from the log, if none
// is kept, and runs them.
func (r *rig) start() {
	r.t.Helper()
	var err error
	if r.ledger, err = ledger.Open(context.Background(), ledger.Config{Path: r.kept}); err != nil {
		r.t.Fatal(err)
	}
	r.cfg.Ledger = r.ledger
	if r.receiver, err = hook.NewReceiver(r.cfg); err != nil {
		r.t.Fatal(err)
	}
	r.processor = hook.NewProcessor(r.cfg)
	r.stop = running(r.receiver.Run, r.processor.Run)
	closeLedger := r.ledger.Close
	stop := r.stop
	r.stop = sync.OnceFunc(func() {
		stop()
		if err := closeLedger(); err != nil {
			r.t.Error(err)
		}
	})
}

// running runs them until what it returns is called.
func running(run ...func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, f := range run {
		all.Go(func() { f(ctx) })
	}
	return func() { cancel(); all.Wait() }
}

// restart is a new process on the same log.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

// answer is what a sender gets.
type answer struct {
	status int
	header http.Header
	body   string
}

// send sends a request as it is.
func (r *rig) send(q *http.Request) answer {
	r.t.Helper()
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func (r *rig) request(method, path, body string) *http.Request {
	r.t.Helper()
	q, err := http.NewRequestWithContext(context.Background(), method, r.server.URL+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	return q
}

// signed is a delivery of a source, signed with the secret.
func (r *rig) signed(name, id, event, body, secret string) *http.Request {
	r.t.Helper()
	src, ok := r.sources.Get(acme, name)
	if !ok {
		r.t.Fatalf("there is no source %q", name)
	}
	q := r.request(http.MethodPost, "/hooks/acme/"+name, body)
	q.Header.Set("Content-Type", "application/json")
	p, err := provider.New(provider.Config{Kind: src.Definition.Kind})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := p.Sign(q.Header, []byte(body), id, event, provider.Secret{Key: []byte(secret)}, time.Now()); err != nil {
		r.t.Fatal(err)
	}
	return q
}

// deliver sends a good delivery, which must be taken.
func (r *rig) deliver(name, id, event, body string) answer {
	r.t.Helper()
	a := r.send(r.signed(name, id, event, body, secretText))
	if a.status != http.StatusOK {
		r.t.Fatalf("%s: %d %s", id, a.status, a.body)
	}
	return a
}

// eventually waits until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !f() {
		select {
		case <-deadline:
			t.Fatalf("it never came to this: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// events are those in acme's log.
func (r *rig) events() (all []*carillon.Entry) {
	r.t.Helper()
	_, err := r.engine.Open(acme).Read(context.Background(), engine.Range{Limit: 1 << 20, MaxBytes: 1 << 30}, func(e *carillon.Entry) error {
		all = append(all, e)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// published waits for so many events, and until nothing waits any more.
func (r *rig) published(n int) []*carillon.Entry {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d events", n), func() bool { return len(r.events()) >= n })
	r.settled()
	all := r.events()
	if len(all) != n {
		r.t.Fatalf("%d events, want %d", len(all), n)
	}
	return all
}

// settled waits until the ledger has all that is in the intake, and nothing waits.
func (r *rig) settled() {
	r.t.Helper()
	partition := r.engine.Partitions()
	eventually(r.t, "everything is settled", func() bool {
		if r.processor.Stats().Waiting != 0 {
			return false
		}
		state, err := r.engine.State(context.Background(), partition)
		if err != nil {
			r.t.Fatal(err)
		}
		_, at, err := r.ledger.Cursor(context.Background(), partition)
		if err != nil || at.Seq != state.Last.Seq {
			return false
		}
		left, err := r.ledger.Waiting(context.Background(), partition, 0, 1)
		return err == nil && len(left) == 0
	})
}

// deliveries are what the ledger has, newest first.
func (r *rig) deliveries(states ...ledger.State) []ledger.Delivery {
	r.t.Helper()
	r.settled()
	page, _, err := r.ledger.List(context.Background(), acme, ledger.Query{States: states, Limit: ledger.MaxPage})
	if err != nil {
		r.t.Fatal(err)
	}
	return page
}

// store puts a delivery of gh into the intake, as a receiver does.
func (r *rig) store(id string) carillon.Position {
	r.t.Helper()
	return r.storeBody(id, opened)
}

func (r *rig) storeBody(id, body string) carillon.Position {
	r.t.Helper()
	received := &intake.Received{
		Source: "gh", Delivery: id, Remote: "192.0.2.1:1", At: time.Now(), Body: []byte(body),
		Meta: intake.Meta{Provider: "github", Event: "push", Digest: "x", Header: http.Header{"X-Github-Event": {"push"}, "X-Github-Delivery": {id}, "Content-Type": {"application/json"}}},
	}
	events, err := received.Events(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.append([]engine.Append{{Event: events[0]}})
}

// append appends to the intake, and returns where the first is.
func (r *rig) append(batch []engine.Append) (pos carillon.Position) {
	r.t.Helper()
	done := make(chan error, 1)
	r.engine.Intake(acme).Append(batch, func(receipts []carillon.Receipt, err error) {
		if err == nil {
			pos = receipts[0].Pos
		}
		done <- err
	})
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
	return pos
}

// note appends what somebody wants of a delivery.
func (r *rig) note(t carillon.Type, d *ledger.Delivery) {
	r.t.Helper()
	ev, err := (&intake.Note{Ref: d.Pos.Seq, By: "ann"}).Entry(t, time.Now(), d.Source)
	if err != nil {
		r.t.Fatal(err)
	}
	r.append([]engine.Append{{Event: ev}})
}

// problem is the code of an answer that is a problem.
func (a answer) problem(t testing.TB) (code string) {
	t.Helper()
	var p struct{ Code string }
	if a.header.Get("Content-Type") != wire.ProblemContentType || json.Unmarshal([]byte(a.body), &p) != nil {
		t.Errorf("the answer is no problem: %s %s", a.header.Get("Content-Type"), a.body)
	}
	return p.Code
}
