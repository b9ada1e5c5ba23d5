package hook_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

func TestWhatASourceDoesNotWantIsNotPublished(t *testing.T) {
	r := newRig(t, nil, `{name: gh, kind: github, events: ["pull_request.*", "push"], when: {match: {type: value, value: main, parameter: {source: payload, name: branch}}}}`)
	r.deliver("gh", "1", "pull_request", `{"action":"opened","branch":"main"}`)
	r.deliver("gh", "2", "issues", `{"action":"opened","branch":"main"}`)
	r.deliver("gh", "3", "push", `{"branch":"other"}`)
	r.deliver("gh", "4", "push", `{"branch":"main"}`)
	if got := types(r.published(2)); !slices.Equal(got, []string{"gh.pull_request.opened", "gh.push"}) {
		t.Errorf("published %q", got)
	}
	if n := len(r.deliveries(ledger.Filtered)); n != 2 {
		t.Errorf("%d are filtered; want 2", n)
	}
}

func types(entries []*carillon.Entry) (all []string) {
	for _, e := range entries {
		all = append(all, string(e.Type))
	}
	return all
}

func TestAPayloadIsShaped(t *testing.T) {
	r := newRig(t, nil, `{name: gh, kind: github, pick: [repository, number], drop: [repository.owner], rename: {number: n}}`)
	r.deliver("gh", "1", "pull_request", `{"action":"opened","number":5,"repository":{"full_name":"a/b","owner":{"login":"a"}}}`)
	if e := r.published(1)[0]; string(e.Data) != `{"n":5,"repository":{"full_name":"a/b"}}` || e.Type != "gh.pull_request.opened" {
		t.Errorf("%s %s", e.Type, e.Data)
	}
}

// What cannot be read was signed all the same: it is a dead letter, and stops nobody.
func TestAPoisonedBodyIsADeadLetter(t *testing.T) {
	r := newRig(t, nil, "{name: gh, kind: github, order_by: key}")
	r.deliver("gh", "1", "push", `{"a":`)
	r.deliver("gh", "2", "push", "\x00\xff")
	r.deliver("gh", "3", "push", strings.Repeat("[", 200_000))
	r.deliver("gh", "4", "push", `{"key":"k"}`)
	r.published(1)
	dead := r.deliveries(ledger.Dead)
	if len(dead) != 3 {
		t.Fatalf("%d dead letters; want 3", len(dead))
	}
	for _, d := range dead {
		if d.Attempts != 1 || d.Error == "" || strings.Contains(d.Error, "\x00") {
			t.Errorf("%d attempts, %q", d.Attempts, d.Error)
		}
	}
	// Somebody may want it tried again, or not any more.
	r.note(intake.TypeRetry, &dead[0])
	r.note(intake.TypeDiscarded, &dead[1])
	eventually(t, "one is discarded, one was tried again", func() bool {
		all := r.deliveries(ledger.Dead)
		return len(all) == 2 && len(r.deliveries(ledger.Discarded)) == 1 && all[0].Again+all[1].Again == 1
	})
}

// target is an HTTP server that actions call.
type target struct {
	*httptest.Server

	fail atomic.Int64 // so many requests fail

	mu  sync.Mutex
	got []string
}

func newTarget(t *testing.T) *target {
	x := &target{}
	x.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x.mu.Lock()
		x.got = append(x.got, r.Header.Get("X-GitHub-Delivery"))
		x.mu.Unlock()
		if x.fail.Add(-1) >= 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(x.Close)
	return x
}

func (x *target) requests() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.got)
}

func TestWhatFailsIsTriedAgainAndThenADeadLetter(t *testing.T) {
	x := newTarget(t)
	x.fail.Store(1 << 30)
	// The log knows no keys: what was published is not published again all the same.
	r := newRigOn(t, memory.New(memory.Config{DedupeWindow: time.Nanosecond}), nil, fmt.Sprintf("{name: gh, kind: github, tries: 2, order_by: key, actions: [{forward: %q, pass: [X-GitHub-Delivery]}]}", x.URL))
	r.deliver("gh", "1", "push", `{"key":"k","n":1}`)
	r.deliver("gh", "2", "push", `{"key":"k","n":2}`) // waits for the first one
	r.deliver("gh", "3", "push", `{"key":"other"}`)   // does not
	eventually(t, "the first one waits for its second attempt, and the third was tried", func() bool {
		got := x.requests()
		return slices.Contains(got, "1") && slices.Contains(got, "3")
	})
	if got := x.requests(); slices.Contains(got, "2") {
		t.Errorf("the second one was tried before the first one was done: %q", got)
	}
	eventually(t, "all are dead letters", func() bool { return len(r.deliveries(ledger.Dead)) == 3 })
	if got := len(x.requests()); got != 6 {
		t.Errorf("%d requests; want two of each", got)
	}
	if n := r.processor.Stats().Retries; n != 3 {
		t.Errorf("%d attempts were followed by another; want 3", n)
	}
	r.published(3) // each once, although each was tried twice

	x.fail.Store(0)
	dead := r.deliveries(ledger.Dead)
	r.note(intake.TypeRetry, &dead[0])
	eventually(t, "one is done", func() bool { return len(r.deliveries(ledger.Published)) == 1 })
	_, attempts, err := r.ledger.Get(t.Context(), acme, dead[0].Pos)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, a := range attempts {
		kinds = append(kinds, string(a.Kind))
	}
	if want := []string{"hook.failed", "hook.dead", "hook.retry", "hook.done"}; !slices.Equal(kinds, want) {
		t.Errorf("its history is %q; want %q", kinds, want)
	}
}

// What an attempt said before it failed is not said again by the next one.
func TestWhatActionsSaidIsOfTheAttemptThatDidIt(t *testing.T) {
	said, fails := newTarget(t), newTarget(t)
	said.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("here")) })
	fails.fail.Store(1)
	r := newRig(t, nil, fmt.Sprintf("{name: gh, kind: github, actions: [{forward: %q}, {forward: %q}]}", said.URL, fails.URL))
	r.deliver("gh", "1", "push", opened)
	eventually(t, "it is done", func() bool { return len(r.deliveries(ledger.Published)) == 1 })
	if d := r.deliveries()[0]; d.Attempts != 2 || strings.Count(d.Text, "here") != 1 {
		t.Errorf("%d attempts, and it says %q; want 2 and one answer", d.Attempts, d.Text)
	}
}

func TestAProvidersRedeliveryRunsADeadLetterAgain(t *testing.T) {
	x := newTarget(t)
	x.fail.Store(1)
	r := newRig(t, nil, fmt.Sprintf("{name: gh, kind: github, tries: 1, actions: [{forward: %q, pass: [X-GitHub-Delivery]}]}", x.URL))
	r.deliver("gh", "1", "push", opened)
	eventually(t, "it is a dead letter", func() bool { return len(r.deliveries(ledger.Dead)) == 1 })
	r.deliver("gh", "1", "push", opened)
	eventually(t, "the second one is done", func() bool { return len(r.deliveries(ledger.Published)) == 1 })
}

func TestOrderIsKeptWhereASourceNamesAKey(t *testing.T) {
	r := newRig(t, func(c *hook.Config) { c.Workers = 8 }, "{name: gh, kind: github, order_by: key}")
	const keys, each = 5, 40
	for i := range each {
		for k := range keys {
			r.deliver("gh", fmt.Sprintf("%d-%d", k, i), "push", fmt.Sprintf(`{"key":"%d","n":%d}`, k, i))
		}
	}
	next := map[string]int{}
	for _, e := range r.published(keys * each) {
		var k string
		var i int
		if _, err := fmt.Sscanf(strings.ReplaceAll(e.Delivery, "-", " "), "%s %d", &k, &i); err != nil {
			t.Fatal(err)
		}
		if next[k] != i {
			t.Fatalf("key %s: %d where %d is next", k, i, next[k])
		}
		next[k]++
	}
}

// What was stored is published by the next process, once, whatever the one before it
// had done.
func TestWhatWasStoredIsPublishedOnceAfterARestart(t *testing.T) {
	r := newRig(t, nil, github)
	r.stop()
	r.store("1")
	pos := r.store("2") // this one was published, and the process ended before it was noted
	published := make(chan error, 1)
	r.gate.SubmitFrom(acme, "gh", "2", carillon.Draft{
		Type: "gh.push.opened", Data: []byte(opened), ID: fmt.Sprintf("%d.%x.0", pos.Seq, pos.Check),
	}, func(_ []carillon.Receipt, err error) { published <- err })
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	r.start()
	r.published(2)
	if n := len(r.deliveries(ledger.Published)); n != 2 {
		t.Errorf("%d are noted as published; want 2", n)
	}
	r.restart()
	r.published(2)
}

// When the log does not know the key of what was published any more, it is looked for.
func TestWhatWasPublishedLongAgoIsFoundInTheLog(t *testing.T) {
	r := newRigOn(t, memory.New(memory.Config{DedupeWindow: time.Nanosecond}), nil, github)
	r.deliver("gh", "1", "push", opened)
	r.published(1)
	first := r.deliveries()[0]
	r.stop()
	// The outcome is lost, as if the process had ended before: the intake is cut
	// behind the delivery.
	r.engine.Truncate(r.engine.Partitions(), first.Pos.Seq)
	r.start()
	eventually(t, "it is noted again", func() bool { return r.deliveries()[0].State != ledger.Pending })
	r.published(1)
	if d := r.deliveries()[0]; d.State != ledger.Published || d.Published != first.Published {
		t.Errorf("it is %s as %v; want published as %v", d.State, d.Published, first.Published)
	}
}

func TestMoreThanMemoryHoldsWaitsInTheLedgerInOrder(t *testing.T) {
	x := newTarget(t)
	hold := make(chan struct{})
	var ran atomic.Int64
	x.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran.Add(1); <-hold })
	r := newRig(t, func(c *hook.Config) { c.Waiting, c.Workers = 10, 4 }, fmt.Sprintf("{name: gh, kind: github, order_by: key, actions: [{forward: %q, pass: [X-GitHub-Delivery]}]}", x.URL))
	const n = 120
	for i := range n {
		r.deliver("gh", fmt.Sprint(i), "push", `{"key":"k"}`)
	}
	eventually(t, "memory is full", func() bool { return r.processor.Stats().Waiting == 10 })
	close(hold)
	for i, e := range r.published(n) {
		if e.Delivery != fmt.Sprint(i) {
			t.Fatalf("event %d is of delivery %s", i, e.Delivery)
		}
	}
	if got := ran.Load(); got != n {
		t.Errorf("the action ran %d times; want %d", got, n)
	}
}

func TestASourceThatIsGoneLeavesDeadLetters(t *testing.T) {
	r := newRig(t, nil)
	d := source(t, "{name: gh, kind: github}").Definition
	if _, _, err := r.sources.Put(t.Context(), acme, d); err != nil {
		t.Fatal(err)
	}
	r.deliver("gh", "1", "push", opened)
	r.published(1)
	one := r.deliveries()[0]
	if err := r.sources.Remove(t.Context(), acme, "gh"); err != nil {
		t.Fatal(err)
	}
	r.note(intake.TypeRetry, &one)
	eventually(t, "it is a dead letter", func() bool { return len(r.deliveries(ledger.Dead)) == 1 })
	if d := r.deliveries(ledger.Dead)[0]; !strings.Contains(d.Error, `the source "gh" does not exist any more`) {
		t.Errorf("it says %q", d.Error)
	}
}

func TestADeliveryThatWasPublishedIsPublishedAgainWhenSomebodyWantsIt(t *testing.T) {
	r := newRig(t, nil, github)
	r.deliver("gh", "1", "push", opened)
	r.published(1)
	one := r.deliveries()[0]
	r.note(intake.TypeRetry, &one)
	r.published(2)
}

func TestOneOfSeveralNodesProcesses(t *testing.T) {
	x := newTarget(t)
	r := newRig(t, func(c *hook.Config) { c.Lease = true }, fmt.Sprintf("{name: gh, kind: github, actions: [{forward: %q, pass: [X-GitHub-Delivery]}]}", x.URL))
	eventually(t, "the first one leads", func() bool { return r.processor.Stats().Leader })
	second, err := ledger.Open(t.Context(), ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := r.cfg
	cfg.Ledger = second
	other := hook.NewProcessor(cfg)
	stop := running(other.Run)
	defer func() {
		stop()
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i := range 20 {
		r.deliver("gh", fmt.Sprint(i), "push", opened)
	}
	r.published(20)
	if other.Stats().Leader {
		t.Error("both lead")
	}
	r.stop() // the first node goes, and gives the lease back
	eventually(t, "the other one leads", func() bool { return other.Stats().Leader })
	r.start()
	for i := 20; i < 40; i++ {
		r.deliver("gh", fmt.Sprint(i), "push", opened)
	}
	eventually(t, "the other one has done them", func() bool { return len(x.requests()) >= 40 })
	r.published(40)
	if n := len(x.requests()); n != 40 {
		t.Errorf("the action ran %d times; want once for each of 40", n)
	}
}

// A node that has lost its lease leaves what waits to the one that has it.
func TestANodeThatLostItsLeaseForgetsWhatWaits(t *testing.T) {
	x := newTarget(t)
	x.fail.Store(1 << 30)
	r := newRig(t, func(c *hook.Config) { c.Lease = true }, fmt.Sprintf("{name: gh, kind: github, order_by: key, actions: [{forward: %q, pass: [X-GitHub-Delivery]}]}", x.URL))
	for i := range 5 {
		r.deliver("gh", fmt.Sprint(i), "push", `{"key":"k"}`)
	}
	eventually(t, "one was tried, and all wait", func() bool { return len(x.requests()) > 0 && r.processor.Stats().Waiting == 5 })
	if err := r.engine.KV().Put(t.Context(), "hook.lease", []byte("somebody else")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has forgotten them", func() bool { s := r.processor.Stats(); return !s.Leader && s.Waiting == 0 })
	tried := len(x.requests())
	r.deliver("gh", "5", "push", `{"key":"another"}`)
	eventually(t, "six wait in the ledger", func() bool {
		page, _, err := r.ledger.List(t.Context(), acme, ledger.Query{States: []ledger.State{ledger.Pending}, Limit: 10})
		return err == nil && len(page) == 6 && r.processor.Stats().Lag == 0
	})
	if s := r.processor.Stats(); s.Waiting != 0 || len(x.requests()) != tried {
		t.Errorf("%d wait, and %d were tried; it has not the lease", s.Waiting, len(x.requests())-tried)
	}
	x.fail.Store(0)
	if err := r.engine.KV().Delete(t.Context(), "hook.lease", 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has the lease again, and has done all", func() bool { return len(x.requests()) >= tried+6 })
	r.published(6)
	if got := x.requests(); len(got) != tried+6 {
		t.Errorf("%q were done; want each once after %d attempts", got, tried)
	}
}

// The intake is not the one the ledger was made from: its tail was lost and written
// again, or all of it.
func TestALedgerOfAnotherIntakeIsMadeAgain(t *testing.T) {
	for name, lose := range map[string]func(e *memory.Engine){
		"a tail": func(e *memory.Engine) { e.Truncate(e.Partitions(), 1) },
		"all":    func(e *memory.Engine) { e.Recreate(e.Partitions()) },
	} {
		t.Run(name, func(t *testing.T) {
			kept := filepath.Join(t.TempDir(), "hooks.db") // outlives the rig
			r := newRig(t, nil, github)
			r.stop()
			r.kept = kept
			r.start()
			for i := range 5 {
				r.deliver("gh", fmt.Sprint("lost-", i), "push", opened)
			}
			r.published(5)
			r.stop()
			lose(r.engine)
			for i := range 20 { // beyond where the ledger stands
				r.store(fmt.Sprint("new-", i))
			}
			r.start()
			eventually(t, "all that is in the intake is done", func() bool {
				n := 0
				for _, e := range r.events() {
					if strings.HasPrefix(e.Delivery, "new-") {
						n++
					}
				}
				return n == 20
			})
			r.settled()
		})
	}
}

// What waits for the ledger is bounded: the tail stops, and goes on.
func TestAnIntakeThatIsLongIsFoldedInPieces(t *testing.T) {
	const n, backlog = 2_000, 100
	r := newRig(t, func(c *hook.Config) { c.Backlog = backlog }, github)
	r.stop()
	var batch []engine.Append
	refused, err := (&intake.Refused{Source: "gh", At: time.Now(), Provider: "github", Status: 401, Reason: "signature"}).Entry()
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		batch = append(batch, engine.Append{Event: refused})
	}
	for range n / len(batch) {
		r.append(batch)
	}
	r.start()
	most := uint64(0)
	eventually(t, "all of it is folded", func() bool {
		most = max(most, r.processor.Stats().Lag)
		_, at, err := r.ledger.Cursor(t.Context(), r.engine.Partitions())
		return err == nil && at.Seq == n
	})
	if most > backlog {
		t.Errorf("%d entries waited for the ledger; at most %d may", most, backlog)
	}
}

func TestAnOrganizationThatIsDisabledGetsNoEvents(t *testing.T) {
	var disabled atomic.Bool
	r := newRig(t, func(c *hook.Config) {
		usable := c.Usable
		c.Usable = func(id carillon.OrgID) bool { return !disabled.Load() && usable(id) }
	}, github)
	r.stop()
	r.store("1")
	disabled.Store(true)
	r.start()
	eventually(t, "it is a dead letter", func() bool { return len(r.deliveries(ledger.Dead)) == 1 })
	r.published(0)
	if d := r.deliveries()[0]; !strings.Contains(d.Error, "disabled") {
		t.Errorf("it says %q", d.Error)
	}
}

// One that cannot be done yet keeps only those of its own key waiting.
func TestDeliveriesWithoutAKeyDoNotWaitForEachOther(t *testing.T) {
	x := newTarget(t)
	x.fail.Store(1)
	r := newRig(t, func(c *hook.Config) { c.Workers = 1 }, fmt.Sprintf("{name: gh, kind: github, actions: [{forward: %q, pass: [X-GitHub-Delivery]}]}", x.URL))
	for i := range 5 {
		r.deliver("gh", fmt.Sprint(i), "push", opened)
	}
	r.published(5)
	if got, want := x.requests(), []string{"0", "1", "2", "3", "4", "0"}; !slices.Equal(got, want) {
		t.Errorf("done in the order %q; want %q", got, want)
	}
}

// What is received waits while more comes in, and not without end: of ten looks at
// whether more comes in, one lets it be processed.
func TestWhileMuchIsReceivedProcessingWaitsAndGoesOn(t *testing.T) {
	var looks atomic.Int64
	r := newRig(t, func(c *hook.Config) { c.Busy = func() bool { looks.Add(1); return true } }, github)
	eventually(t, "processing is held", func() bool { return looks.Load()%10 == 2 })
	before := looks.Load()
	r.deliver("gh", "1", "push", opened)
	eventually(t, "it is published", func() bool { return len(r.events()) == 1 })
	if after := looks.Load(); after < before+8 {
		t.Errorf("it was published after %d of 8 looks; want it held until then", after-before)
	}
	r.published(1)
}

// What an entry of the intake says of its parts is not believed.
func TestADeliveryWithAnImpossibleNumberOfPartsIsADeadLetter(t *testing.T) {
	r := newRig(t, nil, github)
	for _, parts := range []string{"-2", "1000000"} {
		r.append([]engine.Append{{Event: &carillon.Event{
			Type: intake.TypeReceived, Time: time.Now(), Source: "gh", Delivery: parts, Data: []byte(opened),
			CE: []byte(`{"provider":"github","event":"push","size":9,"digest":"` + parts + `","parts":` + parts + `}`),
		}}})
	}
	eventually(t, "both are dead letters", func() bool { return len(r.deliveries(ledger.Dead)) == 2 })
	for _, d := range r.deliveries(ledger.Dead) {
		if !strings.Contains(d.Error, d.Delivery+" parts") {
			t.Errorf("of %s parts it says %q", d.Delivery, d.Error)
		}
	}
}
