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

// A feed that resumes from the ring: verified, opened, subscribed, given what it
// missed, and live. Run on its shard, as a session does it.
func BenchmarkRingAttach(b *testing.B) {
	for _, missed := range []int{0, 1, 100} {
		b.Run(map[int]string{0: "nothing missed", 1: "one missed", 100: "100 missed"}[missed], func(b *testing.B) {
			n := newNode(b, memory.Config{}, hub.Config{})
			a := n.publish(b, org, "a.b", 1000)
			for range 20 { // other organizations' entries lie between
				n.publish(b, "other", "a.b", 1000)
			}
			n.settle(b, a)
			cursor := carillon.At(a[len(a)-1-missed].Pos)
			r := &benchReader{shard: n.hub.Shard()}
			done := make(chan struct{})
			b.ReportAllocs()
			b.ResetTimer()
			r.shard.Post(hub.TaskFunc(func() {
				defer close(done)
				r.shard.Join(&r.Member, r)
				r.Enter(org)
				defer r.Leave()
				for b.Loop() {
					if !r.attach(cursor, missed) {
						b.Errorf("the feed did not become live with %d entries", missed)
						return
					}
				}
			}))
			<-done
		})
	}
}

type benchReader struct {
	hub.Member
	feed  hub.Feed
	shard *hub.Shard
	got   int
}

func (r *benchReader) Timeout(time.Time) {}
func (r *benchReader) Turn() {
	for {
		it, ok := r.feed.Next()
		if !ok {
			return
		}
		if it.Delivery != nil {
			r.got++
		}
	}
}

func (r *benchReader) attach(cursor carillon.Cursor, missed int) bool {
	r.feed = hub.Feed{}
	r.got = 0
	r.shard.Resolve(r.Realm(), cursor, func(start hub.Start, err error) {
		if err == nil && start.Gap == nil {
			r.shard.Open(&r.feed, &r.Member, start.Pos)
			_, _ = r.feed.Add("a.*", "", carillon.OverflowReplay, start.Pos.Seq) // one plain pattern is accepted
			r.feed.Release()
		}
	})
	r.Turn()
	live := r.feed.Live() && r.got == missed
	r.feed.Close()
	return live
}

// One entry to 1,000 live feeds of one organization: tail, ring, match, notice,
// offer, Next. Without sockets.
func BenchmarkFanOut1000(b *testing.B) {
	n := newNode(b, memory.Config{}, hub.Config{})
	const readers = 1000
	took := make(chan struct{}, 1<<20)
	for range readers {
		r := &countReader{took: took}
		shard := n.hub.Shard()
		began := make(chan struct{})
		shard.Post(hub.TaskFunc(func() {
			shard.Join(&r.Member, r)
			r.Enter(org)
			shard.Resolve(r.Realm(), now, func(start hub.Start, _ error) {
				shard.Open(&r.feed, &r.Member, start.Pos)
				_, _ = r.feed.Add("a.*", "", carillon.OverflowReplay, start.Pos.Seq) // as above
				r.feed.Release()
				close(began)
			})
		}))
		<-began
		b.Cleanup(func() {
			done := make(chan struct{})
			shard.Post(hub.TaskFunc(func() { r.feed.Close(); r.Leave(); close(done) }))
			<-done
		})
	}
	log := n.engine.Open(org)
	event := []engine.Append{{Event: &carillon.Event{Type: "a.b", Data: []byte(`{"x":1}`)}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := engine.AppendWait(context.Background(), log, event); err != nil {
			b.Fatal(err)
		}
		for range readers {
			<-took
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/readers, "ns/delivery")
}

type countReader struct {
	hub.Member
	feed hub.Feed
	took chan struct{}
}

func (r *countReader) Timeout(time.Time) {}

func (r *countReader) Turn() {
	for {
		it, ok := r.feed.Next()
		if !ok {
			return
		}
		if it.Delivery != nil {
			r.took <- struct{}{}
		}
	}
}
