package hub_test

import (
	"context"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
)

// stuck is an engine that does not say where a time is before it is let go.
type stuck struct {
	engine.Engine
	asked chan struct{}
	goOn  chan struct{} // closed by the test
}

func (e *stuck) Open(org carillon.OrgID) engine.Log { return stuckLog{e.Engine.Open(org), e} }

type stuckLog struct {
	engine.Log
	e *stuck
}

func (l stuckLog) At(ctx context.Context, t time.Time) (carillon.Position, error) {
	l.e.asked <- struct{}{}
	<-l.e.goOn
	return l.Log.At(ctx, t)
}

func TestWhatFindsEveryScanWorkerBusyIsCounted(t *testing.T) {
	e := &stuck{memory.New(memory.Config{}), make(chan struct{}, 8), make(chan struct{})}
	h := hub.New(hub.Config{Engine: e, ScanWorkers: 2})
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	realm, shard := h.Enter(org), h.Shard()
	done := make(chan error, 8)
	ask := func() {
		shard.Post(hub.TaskFunc(func() {
			shard.Resolve(realm, carillon.Cursor{Kind: carillon.CursorAgo, Ago: time.Hour}, func(_ hub.Start, err error) { done <- err })
		}))
	}
	for range 2 { // each has a worker
		ask()
		<-e.asked
	}
	if n := h.Stats(t.Context()).Queued; n != 0 {
		t.Errorf("%d were counted while a worker was free", n)
	}
	for range 3 {
		ask()
	}
	asked := make(chan struct{})
	shard.Post(hub.TaskFunc(func() { close(asked) }))
	<-asked
	if n := h.Stats(t.Context()).Queued; n != 3 {
		t.Errorf("%d were counted, want 3", n)
	}
	close(e.goOn)
	for range 5 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	ask()
	if err := <-done; err != nil {
		t.Error(err)
	}
	h.Leave(realm)
	h.Stop()
	if err := e.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
