package enginetest

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// The budgets of acme in RunBudget.
const (
	orgBudget = 300_000 // bytes
	orgEvents = 200
)

// RunBudget tests budgets of events. open gives a new, empty engine in which an
// organization's events have the budget that it is told.
func RunBudget(t *testing.T, open func(t *testing.T, budget func(carillon.OrgID) engine.Budget) engine.Engine) {
	runBudget(t, open, ofEvents)
}

// RunIntakeBudget tests those of intakes: open's budget is theirs, and events have
// none.
func RunIntakeBudget(t *testing.T, open func(t *testing.T, budget func(carillon.OrgID) engine.Budget) engine.Engine) {
	runBudget(t, open, ofIntake)
}

func runBudget(t *testing.T, open func(t *testing.T, budget func(carillon.OrgID) engine.Budget) engine.Engine, which logs) {
	for _, tt := range []struct {
		name   string
		test   func(*testing.T, *bench)
		budget engine.Budget
	}{
		{"OrganizationKeepsItsNewestWithinItsBudget", testBudget, engine.Budget{Bytes: orgBudget}},
		{"ReadersBelowABudgetAreExpired", testBudgetReaders, engine.Budget{Bytes: orgBudget}},
		{"BatchLargerThanTheBudgetKeepsItsEnd", testBudgetBatch, engine.Budget{Bytes: orgBudget}},
		{"OrganizationWithinItsBudgetKeepsAll", testBudgetWithin, engine.Budget{Bytes: orgBudget}},
		{"BudgetOfEventsKeepsTheNewest", testBudgetOfEvents, engine.Budget{Events: orgEvents}},
		{"BudgetThatComesAndGoesCounts", testBudgetChanges, engine.Budget{}},
		{"BudgetIsOfOneLogOnly", testBudgetOfOne, engine.Budget{Bytes: orgBudget}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var budget atomic.Pointer[engine.Budget]
			budget.Store(&tt.budget)
			e := open(t, func(org carillon.OrgID) engine.Budget {
				if org == orgA {
					return *budget.Load()
				}
				return engine.Budget{}
			})
			w := newBench(t, e, which)
			w.budget = &budget
			t.Cleanup(func() {
				if err := e.Close(context.WithoutCancel(w.ctx)); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			tt.test(t, w)
		})
	}
}

func testBudgetOfOne(_ *testing.T, w *bench) {
	other := w.other(orgA)
	theirs := w.fillSized(other, 600)
	mine := w.fillSized(w.a, 600)
	w.within(w.a, mine)
	w.positions(w.all(other), theirs)
	w.resume(other, carillon.Position{Partition: theirs[0].Partition}, engine.OK)
}

// sized are n events whose data has 1,000 bytes.
func sized(n int) []engine.Append {
	batch := events(0, n)
	for i := range batch {
		batch[i].Event.Data = append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 998)...), '"')
	}
	return batch
}

// fillSized appends n such events, some at a time.
func (w *bench) fillSized(log engine.Log, n int) (out []carillon.Position) {
	w.t.Helper()
	for left := n; left > 0; left -= 20 {
		out = append(out, positionsOf(w.append(log, sized(min(left, 20))...))...)
	}
	return out
}

// within waits until the organization keeps at most a tenth more than its budget
// and checks that it still has its newest entries, up to nine tenths.
func (w *bench) within(log engine.Log, appended []carillon.Position) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		kept := w.all(log)
		var size int64
		for _, e := range kept {
			size += engine.StoredSize(&e.Event)
		}
		// The first is still there, so none of them went while they were read.
		out, err := log.Resume(w.ctx, kept[0].Pos)
		if err != nil {
			w.t.Fatal(err)
		}
		if out.Status == engine.OK && size <= orgBudget/10*11 {
			w.positions(kept, appended[len(appended)-len(kept):])
			if next := engine.StoredSize(sized(1)[0].Event); size+next <= orgBudget/10*9 && len(kept) < len(appended) {
				w.t.Fatalf("%d bytes are kept of a budget of %d", size, orgBudget)
			}
			return
		}
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			w.t.Fatalf("%d bytes are kept of a budget of %d", size, orgBudget)
		}
	}
}

func testBudget(t *testing.T, w *bench) {
	var mine, others []carillon.Position
	for range 5 {
		mine = append(mine, w.fillSized(w.a, 200)...)
		others = append(others, w.fillSized(w.b, 100)...)
		w.within(w.a, mine)
	}
	w.positions(w.all(w.b), others)
	if s := w.Stats(); s.Cuts == 0 {
		t.Errorf("no cut is counted: %+v", s)
	}
}

func testBudgetReaders(t *testing.T, w *bench) {
	zero := carillon.Position{Partition: uint16(w.a.Partition())}
	other := w.fillSized(w.b, 20)
	mine := w.fillSized(w.a, 600)
	w.within(w.a, mine)
	for _, at := range []carillon.Position{zero, other[3], mine[0], mine[150], mine[250]} {
		for { // until no cut comes between the answer and the reading
			out := w.resume(w.a, at, engine.Expired)
			got, _ := w.read(w.a, engine.Range{After: out.From.Seq, Limit: 1000, MaxBytes: 1 << 30})
			again, err := w.a.Resume(w.ctx, out.From)
			if err != nil {
				t.Fatal(err)
			}
			if again.Status == engine.OK {
				next, _ := slices.BinarySearchFunc(mine, out.From.Seq+1, func(p carillon.Position, seq uint64) int { return cmp.Compare(p.Seq, seq) })
				w.positions(got, mine[next:])
				break
			}
		}
	}
	for _, at := range mine[len(mine)-200:] {
		w.resume(w.a, at, engine.OK)
	}
	for _, at := range append([]carillon.Position{zero, mine[0]}, other...) {
		w.resume(w.b, at, engine.OK)
	}
}

func testBudgetOfEvents(t *testing.T, w *bench) {
	var mine, others []carillon.Position
	for range 5 {
		mine = append(mine, w.fill(w.a, 150)...)
		others = append(others, w.fill(w.b, 300)...)
		w.keeps(w.a, mine, orgEvents)
	}
	w.positions(w.all(w.b), others)
	if s := w.Stats(); s.Cuts == 0 {
		t.Errorf("no cut is counted: %+v", s)
	}
}

func testBudgetChanges(t *testing.T, w *bench) {
	mine := w.fill(w.a, 600)
	w.positions(w.all(w.a), mine)
	for _, events := range []int64{400, 100, 0, 300} {
		w.budget.Store(&engine.Budget{Events: events})
		mine = append(mine, w.fill(w.a, 150)...)
		if events > 0 {
			w.keeps(w.a, mine, events)
			continue
		}
		kept := w.all(w.a) // what the last budget kept, and all that came since
		w.positions(kept, mine[len(mine)-len(kept):])
		if len(kept) < 90+150 {
			t.Errorf("without a budget %d events are kept", len(kept))
		}
	}
}

// keeps waits until the organization keeps at most a tenth more events than its
// budget, and checks that they are its newest and at least nine tenths of it.
func (w *bench) keeps(log engine.Log, appended []carillon.Position, budget int64) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		kept := w.all(log)
		out, err := log.Resume(w.ctx, kept[0].Pos) // as in within
		if err != nil {
			w.t.Fatal(err)
		}
		if n := int64(len(kept)); out.Status == engine.OK && n <= budget/10*11 {
			w.positions(kept, appended[len(appended)-len(kept):])
			if n < budget/10*9 && len(kept) < len(appended) {
				w.t.Fatalf("%d events are kept of a budget of %d", n, budget)
			}
			return
		}
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			w.t.Fatalf("%d events are kept of a budget of %d", len(kept), budget)
		}
	}
}

func testBudgetBatch(_ *testing.T, w *bench) {
	mine := positionsOf(w.append(w.a, sized(600)...))
	w.within(w.a, mine)
}

func testBudgetWithin(t *testing.T, w *bench) {
	mine := w.fillSized(w.a, 220)
	// One key, again and again, is stored once.
	keyed := sized(1)
	keyed[0].Key = "k"
	mine = append(mine, w.append(w.a, keyed...)[0].Pos)
	for range 200 {
		w.append(w.a, keyed...)
	}
	// Those that were purged do not count.
	if err := w.a.Purge(w.ctx, mine[99].Seq); err != nil {
		t.Fatal(err)
	}
	mine = append(mine[100:], w.fillSized(w.a, 100)...)
	w.positions(w.all(w.a), mine)
	if s := w.Stats(); s.Cuts != 0 {
		t.Errorf("%d cuts", s.Cuts)
	}
}
