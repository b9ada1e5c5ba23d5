package hub_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
)

// overtaking is an engine in which entries go just before they are read.
type overtaking struct {
	*memory.Engine

	purge atomic.Pointer[func(engine.Log)]
}

func (o *overtaking) Open(org carillon.OrgID) engine.Log {
	return &overtakenLog{o.Engine.Open(org), o}
}

type overtakenLog struct {
	engine.Log
	engine *overtaking
}

func (l *overtakenLog) Read(ctx context.Context, r engine.Range, f func(*carillon.Entry) error) (engine.End, error) {
	if purge := l.engine.purge.Swap(nil); purge != nil {
		(*purge)(l.Log)
	}
	return l.Log.Read(ctx, r, f)
}

func TestPurgeInTheMiddleOfAPassIsNeverSilent(t *testing.T) {
	e := &overtaking{Engine: memory.New(memory.Config{})}
	h := hub.New(hub.Config{Engine: e, RingBytes: 1, FeedQueue: 8})
	if err := h.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	n := &node{hub: h, engine: e.Engine}
	t.Cleanup(func() {
		h.Stop()
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	a := n.publish(t, org, "a.b", 3000)
	n.settle(t, a)
	purge := func(log engine.Log) {
		if err := log.Purge(t.Context(), a[999].Pos.Seq); err != nil {
			t.Error(err)
		}
	}
	e.purge.Store(&purge)
	r := n.read(t, org, carillon.At(a[9].Pos), -1, pattern(">"))
	r.await(t, "the newest entry", func() bool { return len(r.seqs) > 0 && r.seqs[len(r.seqs)-1] == a[2999].Pos.Seq })
	if got := r.seen(); !slices.Equal(got, seqsOf(a[1000:])) {
		t.Errorf("got %d entries from %d on, want those from %d on", len(got), got[0], a[1000].Pos.Seq)
	}
	if len(r.gaps) != 1 || r.gaps[0].Reason != carillon.GapExpired {
		t.Errorf("gaps %v, want one expired", r.gaps)
	}
}
