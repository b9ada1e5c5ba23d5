// Package enginetest holds the promises of package engine as a test. Every
// engine runs it.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// Run tests the engines that open makes, with the organizations' events: each call
// gives a new, empty one with at least two partitions. Run closes them.
func Run(t *testing.T, open func(t *testing.T) engine.Engine) {
	run(t, open, ofEvents, append(logTests(), engineTests()...))
}

// promise is one, with its test.
type promise struct {
	name string
	test func(*testing.T, *bench)
}

// logTests are what every log promises.
func logTests() []promise {
	return []promise{
		{"AppendAnswersWithIncreasingPositions", testPositions},
		{"EntryIsReadAsItWasAppended", testRoundTrip},
		{"BatchIsConsecutive", testConsecutive},
		{"BatchIsStoredWholeOrNotAtAll", testWhole},
		{"EmptyBatchIsAnswered", testEmptyBatch},
		{"LargestBatchIsStored", testLargestBatch},
		{"TooLargeBatchIsRefused", testTooLargeBatch},
		{"KnownKeyAnswersWithTheFirstPosition", testDedupe},
		{"KeyTwiceInABatchCountsOnce", testDedupeInBatch},
		{"KnownKeysInABatchDoNotStopTheOthers", testDedupeMixed},
		{"KeyIsTheOrganizationsOwn", testDedupePerOrg},
		{"SameKeyAtOnceIsStoredOnce", testDedupeAtOnce},
		{"OneGoroutinesAppendsKeepTheirOrder", testAppendOrder},
		{"DoneIsCalledOnce", testDoneOnce},
		{"OrganizationsNeverSeeEachOther", testIsolation},
		{"TailPassesEveryEntryThenNewOnes", testTail},
		{"TailStartsInTheMiddle", testTailMiddle},
		{"TailOfAnEmptyPartitionWaits", testTailEmpty},
		{"TailFromTheEndGetsOnlyWhatFollows", testTailEnd},
		{"TailEndsWithItsContext", testTailContext},
		{"TailsDoNotDisturbEachOther", testTails},
		{"ReadHonoursRangeAndLimits", testRead},
		{"ReadOfManyEntriesIsComplete", testReadMany},
		{"ReadEndsWithTheCallbacksError", testReadError},
		{"ReadThroughTheLeaderIsTheSame", testReadLeader},
		{"ReadLooksPastOtherOrganizations", testReadSeen},
		{"HeadKnowsAReceiptAtOnce", testHead},
		{"StateTellsTheBounds", testState},
		{"CheckIsThatOfTheReceipt", testCheck},
		{"ResumeGoesOnFromAnyOfItsPositions", testResumeOK},
		{"ResumeGoesOnFromAnotherOrganizationsEntry", testResumeForeignEntry},
		{"ResumeInAnEmptyPartition", testResumeEmpty},
		{"ResumeOfAForeignPositionIsReset", testResumeReset},
		{"ResumeAfterLossIsExpired", testResumeExpired},
		{"ResumeOfAnOrganizationThatLostNothingIsNeverExpired", testResumeOthersLoss},
		{"BoundsAreTheKeptOnes", testBounds},
		{"AtIsJustBeforeWhatFollows", testAt},
		{"PurgeTakesOnlyItsOwn", testPurge},
		{"StatsCount", testStats},
		{"CloseAnswersWhatWasAppended", testCloseFlushes},
		{"ClosedEngineRefuses", testClosed},
	}
}

// engineTests are what an engine promises beside its logs.
func engineTests() []promise {
	return []promise{
		{"KVKeepsValues", testKV},
		{"KVChangesOnlyWhatIsKnown", testKVRevisions},
		{"KVGivesAClaimToOne", testKVClaim},
		{"KVLetsAClaimGo", testKVClaimEnds},
		{"KVTellsThoseWhoWatch", testKVWatch},
		{"SignalIsHeardAsItWasPublished", testSignals},
		{"SignalsComeInOrderToAllWhoListen", testSignalOrder},
		{"SignalsAreHeardFromListenUntilStop", testSignalsListen},
		{"SignalsAreTheOrganizationsOwn", testSignalIsolation},
		{"SlowListenerHoldsUpNobody", testSlowListener},
		{"TooLargeSignalRefusesItsBatch", testTooLargeSignal},
		{"ClosedEngineHandsNothingOn", testClosedSignals},
		{"HealthyWhileOpen", testHealthy},
	}
}

func run(t *testing.T, open func(t *testing.T) engine.Engine, which logs, tests []promise) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := open(t)
			if e.Partitions() < 2 {
				t.Fatalf("the test needs two partitions, the engine has %d", e.Partitions())
			}
			closeAfter(t, e)
			tt.test(t, newBench(t, e, which))
		})
	}
}

func closeAfter(t *testing.T, e engine.Engine) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

// logs says which log of an organization is meant.
type logs func(engine.Engine, carillon.OrgID) engine.Log

func ofEvents(e engine.Engine, org carillon.OrgID) engine.Log { return e.Open(org) }
func ofIntake(e engine.Engine, org carillon.OrgID) engine.Log { return e.Intake(org) }

// bench is an engine with some organizations' logs of the kind that is tested: a
// and b share a partition, c lives in another. Where they all share one, c is a log
// of the other kind.
type bench struct {
	engine.Engine
	t       testing.TB
	ctx     context.Context
	which   logs
	a, b, c engine.Log

	budget *atomic.Pointer[engine.Budget] // of a, in RunBudget
}

const (
	orgA = carillon.OrgID("acme")
)

func newBench(t testing.TB, e engine.Engine, which logs) *bench {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	w := &bench{Engine: e, t: t, ctx: ctx, which: which}
	w.a = w.log(orgA)
	w.b = w.log(w.orgIn(true))
	if w.a.Partition() >= e.Partitions() && e.IntakePartitions() == 1 {
		w.c = e.Open("elsewhere")
	} else {
		w.c = w.log(w.orgIn(false))
	}
	return w
}

// log is an organization's log of the kind that is tested.
func (w *bench) log(org carillon.OrgID) engine.Log { return w.which(w.Engine, org) }

// orgIn finds an organization in a's partition, or in another.
func (w *bench) orgIn(same bool) carillon.OrgID {
	for i := 0; ; i++ {
		org := carillon.OrgID(fmt.Sprintf("org_%d", i))
		if (w.log(org).Partition() == w.a.Partition()) == same {
			return org
		}
	}
}

func event(n int) *carillon.Event {
	return &carillon.Event{
		Type: "test.happened",
		Time: time.UnixMilli(1_700_000_000_000 + int64(n)).UTC(),
		Data: fmt.Appendf(nil, `{"n":%d}`, n),
	}
}

func events(from, n int) []engine.Append {
	batch := make([]engine.Append, n)
	for i := range batch {
		batch[i].Event = event(from + i)
	}
	return batch
}

func (w *bench) append(log engine.Log, batch ...engine.Append) []carillon.Receipt {
	w.t.Helper()
	receipts, err := engine.AppendWait(w.ctx, log, batch)
	if err != nil {
		w.t.Fatalf("append: %v", err)
	}
	if len(receipts) != len(batch) {
		w.t.Fatalf("append of %d events: %d receipts", len(batch), len(receipts))
	}
	return receipts
}

// fill appends n events one by one.
func (w *bench) fill(log engine.Log, n int) []carillon.Position {
	w.t.Helper()
	out := make([]carillon.Position, n)
	for i := range out {
		out[i] = w.append(log, events(i, 1)...)[0].Pos
	}
	return out
}

func (w *bench) read(log engine.Log, r engine.Range) ([]*carillon.Entry, engine.End) {
	w.t.Helper()
	var out []*carillon.Entry
	end, err := log.Read(w.ctx, r, func(e *carillon.Entry) error {
		out = append(out, e)
		return nil
	})
	if err != nil {
		w.t.Fatalf("read %+v: %v", r, err)
	}
	return out, end
}

// all reads everything, in as many reads as it takes.
func (w *bench) all(log engine.Log) []*carillon.Entry {
	w.t.Helper()
	var out []*carillon.Entry
	var after uint64
	for {
		part, end := w.read(log, engine.Range{After: after})
		out = append(out, part...)
		if !end.More {
			return out
		}
		if end.Seen <= after {
			w.t.Fatalf("read after %d has seen %d and says there is more", after, end.Seen)
		}
		after = end.Seen
	}
}

func (w *bench) resume(log engine.Log, pos carillon.Position, want engine.Status) engine.Outcome {
	w.t.Helper()
	out, err := log.Resume(w.ctx, pos)
	if err != nil {
		w.t.Fatalf("resume at %v: %v", pos, err)
	}
	if out.Status != want {
		w.t.Fatalf("resume at %v: %v, want %v", pos, out.Status, want)
	}
	return out
}

func (w *bench) state(partition int) engine.State {
	w.t.Helper()
	s, err := w.State(w.ctx, partition)
	if err != nil {
		w.t.Fatalf("state: %v", err)
	}
	return s
}

// tail runs a tail that sends its entries to a channel; stop ends it and
// returns its error.
func (w *bench) tail(partition int, after uint64) (entries <-chan *carillon.Entry, stop func() error) {
	ctx, cancel := context.WithCancel(w.ctx)
	ch := make(chan *carillon.Entry, 20000)
	done := make(chan error, 1)
	go func() {
		done <- w.Tail(ctx, partition, after, func(e *carillon.Entry) { ch <- e })
	}()
	w.t.Cleanup(cancel)
	return ch, func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("the tail does not end")
		}
	}
}

// next takes n entries of a tail.
func (w *bench) next(ch <-chan *carillon.Entry, n int) []*carillon.Entry {
	w.t.Helper()
	out := make([]*carillon.Entry, 0, n)
	timeout := time.After(patience)
	for len(out) < n {
		select {
		case e := <-ch:
			out = append(out, e)
		case <-timeout:
			w.t.Fatalf("the tail passed %d entries of %d", len(out), n)
		}
	}
	return out
}

func (w *bench) positions(got []*carillon.Entry, want []carillon.Position) {
	w.t.Helper()
	var have []carillon.Position
	for _, e := range got {
		have = append(have, e.Pos)
	}
	if !slices.Equal(have, want) {
		w.t.Fatalf("entries at %v, want %v", have, want)
	}
}

func positionsOf(receipts []carillon.Receipt) []carillon.Position {
	out := make([]carillon.Position, len(receipts))
	for i, r := range receipts {
		out[i] = r.Pos
	}
	return out
}

func datas(entries []*carillon.Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, string(e.Data))
	}
	return out
}
