package org_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
	"github.com/carillon-rt/carillon/internal/org"
)

// BenchmarkFollow is what a start costs more with 10,000 organizations in the
// store, each with limits and a key, and what each keeps in memory.
func BenchmarkFollow(b *testing.B) {
	const orgs = 10_000
	cfg := jetstream.Config{Dir: b.TempDir(), Durability: jetstream.Relaxed}
	open := func() engine.Engine {
		e, err := jetstream.Open(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		return e
	}
	closed := func(e engine.Engine) {
		if err := e.Close(context.Background()); err != nil {
			b.Error(err)
		}
	}
	e := open()
	dir, _ := org.NewDirectory(org.Config{}) // nothing in it can be wrong
	s := org.NewStore(e.KV(), dir)
	settings, err := org.ParseSettings([]byte(`{"limits":{"publish_per_second":100,"connections":1000},"retention":{"events":100000}}`))
	if err != nil {
		b.Fatal(err)
	}
	for i := range orgs {
		id := carillon.OrgID(fmt.Sprintf("org-%05d", i))
		if _, err := s.Create(b.Context(), id, settings); err != nil {
			b.Fatal(err)
		}
		if _, _, err := s.AddKey(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
	closed(e)

	for b.Loop() {
		b.StopTimer()
		e := open()
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b.StartTimer()
		start := time.Now()
		dir, _ := org.NewDirectory(org.Config{})
		ctx, cancel := context.WithCancel(b.Context())
		synced, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			dir.Follow(ctx, e.KV(), slog.New(slog.DiscardHandler), func() { close(synced) })
		}()
		<-synced
		b.StopTimer()
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/start")
		if n := len(dir.IDs()); n != orgs {
			b.Fatalf("%d organizations", n)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/orgs, "B/org")
		cancel()
		<-ended
		closed(e)
		b.StartTimer()
	}
}
