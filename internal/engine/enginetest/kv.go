package enginetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/carillon-rt/carillon/internal/engine"
)

func testKV(t *testing.T, w *bench) {
	kv := w.KV()
	if _, _, err := kv.Get(w.ctx, "nothing.here"); !errors.Is(err, engine.ErrNoKey) {
		t.Errorf("get of nothing: %v", err)
	}
	if _, err := kv.Create(w.ctx, "a.key", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Create(w.ctx, "a.key", []byte("two")); !errors.Is(err, engine.ErrKeyExists) {
		t.Errorf("create again: %v", err)
	}
	value := []byte("three")
	for _, key := range []string{"a.key", "another-key_1"} {
		if err := kv.Put(w.ctx, key, value); err != nil {
			t.Fatal(err)
		}
	}
	copy(value, "xxxxx")
	for _, key := range []string{"a.key", "another-key_1"} {
		if got, _, err := kv.Get(w.ctx, key); err != nil || string(got) != "three" {
			t.Errorf("get %s: %q %v", key, got, err)
		}
	}
	if err := kv.Delete(w.ctx, "a.key", 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := kv.Get(w.ctx, "a.key"); !errors.Is(err, engine.ErrNoKey) {
		t.Errorf("get of what was deleted: %v", err)
	}
	if err := kv.Delete(w.ctx, "a.key", 0); err != nil {
		t.Errorf("delete again: %v", err)
	}
	if _, err := kv.Create(w.ctx, "a.key", []byte("four")); err != nil {
		t.Errorf("create after delete: %v", err)
	}
}

func testKVRevisions(t *testing.T, w *bench) {
	kv := w.KV()
	first, err := kv.Create(w.ctx, "a.key", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := kv.Update(w.ctx, "a.key", []byte("two"), first)
	if err != nil || second <= first {
		t.Fatalf("update of %d: %d %v", first, second, err)
	}
	for _, revision := range []uint64{first, second + 1, 0} {
		if _, err := kv.Update(w.ctx, "a.key", []byte("three"), revision); !errors.Is(err, engine.ErrKeyChanged) {
			t.Errorf("update of revision %d, it is at %d: %v", revision, second, err)
		}
	}
	if err := kv.Delete(w.ctx, "a.key", first); !errors.Is(err, engine.ErrKeyChanged) {
		t.Errorf("delete of revision %d, it is at %d: %v", first, second, err)
	}
	if got, revision, err := kv.Get(w.ctx, "a.key"); err != nil || string(got) != "two" || revision != second {
		t.Errorf("get: %q at %d, %v; it is at %d", got, revision, err, second)
	}
	if err := kv.Delete(w.ctx, "a.key", second); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Update(w.ctx, "a.key", []byte("three"), second); !errors.Is(err, engine.ErrKeyChanged) {
		t.Errorf("update of what was deleted: %v", err)
	}
	if _, err := kv.Update(w.ctx, "no.key", []byte("one"), 1); !errors.Is(err, engine.ErrKeyChanged) {
		t.Errorf("update of nothing: %v", err)
	}
}

func testKVClaim(t *testing.T, w *bench) {
	for round := range 5 {
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				err := w.KV().Claim(w.ctx, fmt.Sprint("claim.", round), time.Minute)
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, engine.ErrKeyExists) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d have the claim", won.Load())
		}
	}
}

func testKVClaimEnds(t *testing.T, w *bench) {
	kv := w.KV()
	if err := kv.Claim(w.ctx, "claim.short", time.Second); err != nil {
		t.Fatal(err)
	}
	for {
		err := kv.Claim(w.ctx, "claim.short", time.Minute)
		if err == nil {
			return
		}
		if !errors.Is(err, engine.ErrKeyExists) {
			t.Fatal(err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-w.ctx.Done():
			t.Fatal("a claim of a second is still there")
		}
	}
}

func testKVWatch(t *testing.T, w *bench) {
	kv := w.KV()
	put := func(key, value string) {
		t.Helper()
		if err := kv.Put(w.ctx, key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	put("org.a", "1")
	put("org.b", "1")
	put("org.b", "2")
	put("other.a", "1")
	put("org.gone", "1")
	if err := kv.Delete(w.ctx, "org.gone", 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	changes := make(chan engine.Change, 100)
	ended := make(chan error, 1)
	go func() { ended <- kv.Watch(ctx, "org.", func(c engine.Change) { changes <- c }) }()
	var got []engine.Change
	take := func(done func(engine.Change) bool) {
		t.Helper()
		for {
			select {
			case c := <-changes:
				got = append(got, c)
				if done(c) {
					return
				}
			case err := <-ended:
				t.Fatalf("the watch ended: %v", err)
			case <-w.ctx.Done():
				t.Fatalf("only %v came", got)
			}
		}
	}
	take(func(c engine.Change) bool { return c.Synced })
	known := map[string]string{}
	for _, c := range got {
		if !c.Deleted && !c.Synced {
			known[c.Key] = string(c.Value)
		}
	}
	if diff := cmp.Diff(map[string]string{"org.a": "1", "org.b": "2"}, known); diff != "" {
		t.Errorf("at the beginning (-want +got):\n%s", diff)
	}
	got = nil
	put("other.b", "1")
	put("org.c", "1")
	put("org.c", "2")
	if err := kv.Delete(w.ctx, "org.a", 0); err != nil {
		t.Fatal(err)
	}
	put("org.d", "1")
	take(func(c engine.Change) bool { return c.Key == "org.d" })
	want := []engine.Change{
		{Key: "org.c", Value: []byte("1")},
		{Key: "org.c", Value: []byte("2")},
		{Key: "org.a", Deleted: true},
		{Key: "org.d", Value: []byte("1")},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(engine.Change{}, "Revision")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i := 1; i < len(got); i++ {
		if got[i].Revision <= got[i-1].Revision {
			t.Errorf("revision %d after %d", got[i].Revision, got[i-1].Revision)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("at the end: %v", err)
	}
}
