package org_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/org"
)

func TestAnOrganizationKeepsItsEventsNoLongerThanItWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New(memory.Config{})
		dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: "short", Retention: org.Retention{Age: time.Hour}}, {ID: "long"}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { dir.Age(ctx, e.Open, slog.New(slog.DiscardHandler)) })
		kept := func(id carillon.OrgID) (n int) {
			t.Helper()
			if _, err := e.Open(id).Read(t.Context(), engine.Range{Limit: 1000}, func(*carillon.Entry) error { n++; return nil }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		for range 10 { // one each, every ten minutes
			for _, id := range dir.IDs() {
				if _, err := engine.AppendWait(t.Context(), e.Open(id), []engine.Append{{Event: &carillon.Event{Type: "a", Data: []byte("1")}}}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(10 * time.Minute) //nolint:forbidigo // in a bubble
			synctest.Wait()
		}
		if n := kept("short"); n != 6 && n != 7 { // those of the last hour, and of the minute before
			t.Errorf("%d events are kept", n)
		}
		if n := kept("long"); n != 10 {
			t.Errorf("of the other, %d", n)
		}
		time.Sleep(2 * time.Hour) //nolint:forbidigo // in a bubble
		synctest.Wait()
		if n := kept("short"); n != 0 {
			t.Errorf("after an hour of silence, %d", n)
		}
		cancel()
		wg.Wait()
		if err := e.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
}
