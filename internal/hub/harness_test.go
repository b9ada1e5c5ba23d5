package hub_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader is a feed with an owner that takes what it is allowed to.
type reader struct {
	hub.Member
	feed  hub.Feed
	shard *hub.Shard

	mu sync.Mutex

	room  int // how many entries it may still take; < 0: no bound
	seqs  []uint64
	gaps  []carillon.Gap
	marks []any
	start hub.Start
	err   error
	moved chan struct{} // capacity 1: something was taken
}

func (r *reader) Timeout(time.Time) {}

func (r *reader) Turn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.room != 0 {
		it, ok := r.feed.Next()
		if !ok {
			break
		}
		switch {
		case it.Delivery != nil:
			r.seqs = append(r.seqs, it.Delivery.Entry.Pos.Seq)
			if r.room > 0 {
				r.room--
			}
		case it.Gap != nil:
			r.gaps = append(r.gaps, *it.Gap)
		case it.Mark != nil:
			r.marks = append(r.marks, it.Mark)
		}
	}
	if r.room == 0 {
		r.feed.Rest()
	}
	select {
	case r.moved <- struct{}{}:
	default:
	}
}

// do runs f on the reader's shard and waits for it.
func (r *reader) do(f func()) {
	done := make(chan struct{})
	r.shard.Post(hub.TaskFunc(func() { f(); close(done) }))
	<-done
}

// allow lets the reader take n more entries (< 0: any number).
func (r *reader) allow(n int) {
	r.do(func() {
		r.mu.Lock()
		r.room = n
		r.mu.Unlock()
		r.Turn() // as when a socket takes something again: it is not asked whose turn it is
	})
}

func (r *reader) seen() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]uint64(nil), r.seqs...)
}

// await waits until ok holds of the reader, which is locked meanwhile.
func (r *reader) await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		r.mu.Lock()
		yes := ok()
		n, gaps := len(r.seqs), len(r.gaps)
		r.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-r.moved:
		case <-deadline:
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("%s did not come; %d entries, %d gaps and %d marks did: %v", what, n, gaps, len(r.marks), r.seqs)
		}
	}
}

type node struct {
	hub    *hub.Hub
	engine *memory.Engine
}

func newNode(t testing.TB, engineConfig memory.Config, cfg hub.Config) *node {
	t.Helper()
	e := memory.New(engineConfig)
	cfg.Engine = e
	h := hub.New(cfg)
	if err := h.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Stop()
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &node{hub: h, engine: e}
}

// read makes a reader of org at cursor, subscribed to patterns, and waits until
// it has begun.
func (n *node) read(t testing.TB, org carillon.OrgID, cursor carillon.Cursor, room int, wanted ...wanted) *reader {
	t.Helper()
	r := &reader{shard: n.hub.Shard(), room: room, moved: make(chan struct{}, 1)}
	began := make(chan struct{})
	r.shard.Post(hub.TaskFunc(func() {
		r.shard.Join(&r.Member, r)
		r.Enter(org)
		r.shard.Resolve(r.Realm(), cursor, func(start hub.Start, err error) {
			defer close(began)
			if r.start, r.err = start, err; err != nil {
				return
			}
			r.shard.Open(&r.feed, &r.Member, start.Pos)
			for _, w := range wanted {
				if w.user != "" {
					r.feed.For(w.user)
					r.feed.OpenInbox()
				} else if _, err := r.feed.Add(w.pattern, w.subject, carillon.OverflowReplay, start.Pos.Seq); err != nil {
					r.err = err
				}
			}
			r.feed.Mark(r.shard.Head(r.Realm()).Seq, "caught up")
			r.feed.Release()
		})
	}))
	<-began
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() {
		r.do(func() { r.feed.Close(); r.Leave() })
	})
	return r
}

// wanted is a subscription to a pattern, or a user's inbox.
type wanted struct {
	pattern carillon.Pattern
	subject string
	user    string
}

func pattern(p carillon.Pattern) wanted { return wanted{pattern: p} }

func (n *node) publish(t testing.TB, org carillon.OrgID, typ carillon.Type, count int) []carillon.Receipt {
	t.Helper()
	var batch []engine.Append
	for i := range count {
		batch = append(batch, engine.Append{Event: &carillon.Event{Type: typ, Data: fmt.Appendf(nil, "%d", i)}})
	}
	r, err := engine.AppendWait(context.Background(), n.engine.Open(org), batch)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// settle waits until the tail has passed what was published.
func (n *node) settle(t testing.TB, published []carillon.Receipt) {
	t.Helper()
	r := n.read(t, org, carillon.At(published[len(published)-2].Pos), -1, pattern(">"))
	r.await(t, "the tail", func() bool { return len(r.seqs) > 0 })
}

func seqsOf(receipts []carillon.Receipt) (seqs []uint64) {
	for _, r := range receipts {
		seqs = append(seqs, r.Pos.Seq)
	}
	return seqs
}

// logged are the sequences of the org's kept entries that ok accepts.
func (n *node) logged(t testing.TB, org carillon.OrgID, after uint64, ok func(*carillon.Entry) bool) (seqs []uint64) {
	t.Helper()
	log := n.engine.Open(org)
	for {
		end, err := log.Read(context.Background(), engine.Range{After: after, Limit: 1000, MaxBytes: 1 << 30}, func(e *carillon.Entry) error {
			if ok(e) {
				seqs = append(seqs, e.Pos.Seq)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !end.More {
			return seqs
		}
		after = end.Seen
	}
}
