package enginetest

import (
	"fmt"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// RunRestart tests that both logs are there again when the engine is. open gives a
// new, empty one, and what opens the same store again once it is closed.
func RunRestart(t *testing.T, open func(t *testing.T) (e engine.Engine, again func() engine.Engine)) {
	t.Run("RestartKeepsBothLogs", func(t *testing.T) {
		e, again := open(t)
		testRestart(t, e, again)
	})
}

func testRestart(t *testing.T, e engine.Engine, again func() engine.Engine) {
	kinds := map[string]logs{"events": ofEvents, "intake": ofIntake}
	others := map[string]logs{"events": ofIntake, "intake": ofEvents}
	kept, gone := make(map[string][]carillon.Position), make(map[string][]carillon.Position)
	keyed := func(n int) engine.Append { return engine.Append{Event: event(n), Key: fmt.Sprintf("k:%d", n)} }
	before := newBench(t, e, ofEvents)
	for name, which := range kinds {
		for n := range 5 {
			kept[name] = append(kept[name], before.append(which(e, orgA), keyed(n))[0].Pos)
		}
		kept[name] = append(kept[name], positionsOf(before.append(which(e, orgA), events(5, 5)...))...)
		// Somebody whose log of this kind is purged, and the other is not.
		purged := carillon.OrgID("purged-" + name)
		gone[name] = before.fill(which(e, purged), 3)
		before.fill(others[name](e, purged), 3)
		if err := which(e, purged).Purge(before.ctx, gone[name][2].Seq); err != nil {
			t.Fatal(err)
		}
	}
	// And somebody who has one log only, which is purged.
	before.fill(beside(e, ofEvents, e.Open("lonely").Partition()), 2)
	lonely := before.fill(e.Intake("lonely"), 2)
	if err := e.Intake("lonely").Purge(before.ctx, lonely[1].Seq); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(before.ctx); err != nil {
		t.Fatal(err)
	}

	e = again()
	closeAfter(t, e)
	w := newBench(t, e, ofEvents)
	zero := func(log engine.Log) carillon.Position { return carillon.Position{Partition: uint16(log.Partition())} }
	for name, which := range kinds {
		log := which(e, orgA)
		w.positions(w.all(log), kept[name])
		for i, entry := range w.all(log) {
			if string(entry.Data) != string(event(i).Data) {
				t.Errorf("%s: entry %d is %s", name, i, entry.Data)
			}
		}
		for _, pos := range append(kept[name], zero(log)) {
			w.resume(log, pos, engine.OK)
		}
		for n := range 5 {
			if r := w.append(log, keyed(n))[0]; !r.Duplicate || r.Pos != kept[name][n] {
				t.Errorf("%s: key %d again: %+v, want a duplicate of %v", name, n, r, kept[name][n])
			}
		}
		purged := carillon.OrgID("purged-" + name)
		w.resume(which(e, purged), zero(which(e, purged)), engine.Expired)
		w.resume(which(e, purged), gone[name][0], engine.Expired)
		w.resume(others[name](e, purged), zero(others[name](e, purged)), engine.OK)
		if got := w.all(others[name](e, purged)); len(got) != 3 {
			t.Errorf("%s: %d entries of the other log, want 3", name, len(got))
		}
	}
	w.resume(e.Intake("lonely"), zero(e.Intake("lonely")), engine.Expired)
	w.resume(e.Open("lonely"), zero(e.Open("lonely")), engine.OK)
}
