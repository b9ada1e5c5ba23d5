package jetstream_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
)

// eventually waits for what an engine does by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("%s: it does not happen", what)
		}
	}
}

func TestByteBudgetHoldsAcrossRestarts(t *testing.T) {
	const budget = 300_000
	with := func(carillon.OrgID) engine.Budget { return engine.Budget{Bytes: budget} }
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name  string
		first func(carillon.OrgID) engine.Budget
		close context.Context
		log   func(*jetstream.Engine, carillon.OrgID) engine.Log
	}{
		{"AfterAStop", with, t.Context(), (*jetstream.Engine).Open},
		{"WithoutTimeToWriteRecords", with, stopped, (*jetstream.Engine).Open},
		{"OfAStoreThatHadNone", nil, t.Context(), (*jetstream.Engine).Open},
		{"OfAnIntakeAfterAStop", with, t.Context(), (*jetstream.Engine).Intake},
		{"OfAnIntakeWithoutTimeToWriteRecords", with, stopped, (*jetstream.Engine).Intake},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			event := engine.Append{Event: &carillon.Event{Type: "n", Data: bytes.Repeat([]byte("1"), 1000)}}
			size := engine.StoredSize(event.Event)
			fill := func(e *jetstream.Engine, bytes int64) {
				for ; bytes > 0; bytes -= size {
					appendAll(t, tt.log(e, "acme"), event)
				}
			}
			e := open(t, jetstream.Config{Dir: dir, OrgBudget: tt.first, IntakeBudget: tt.first, Durability: jetstream.Relaxed})
			fill(e, budget*95/100)
			if err := e.Close(tt.close); err != nil {
				t.Fatal(err)
			}
			e = open(t, jetstream.Config{Dir: dir, OrgBudget: with, IntakeBudget: with, Durability: jetstream.Relaxed})
			defer func() { closeEngine(t, e) }()
			fill(e, budget*15/100)
			eventually(t, "cut", func() bool { return e.Stats().Cuts > 0 })
			if kept := int64(len(readAll(t, tt.log(e, "acme")))) * size; kept < budget*9/10 || kept > budget*11/10 {
				t.Errorf("%d bytes are kept of a budget of %d", kept, budget)
			}
		})
	}
}
