package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

func testPositions(t *testing.T, w *bench) {
	var last carillon.Position
	for i := range 20 {
		r := w.append(w.a, events(i, 1)...)[0]
		switch {
		case r.Duplicate:
			t.Fatal("an event without a key is a duplicate")
		case r.Pos.Seq <= last.Seq:
			t.Fatalf("position %v after %v", r.Pos, last)
		case r.Pos.Check == 0:
			t.Fatalf("position %v has no check", r.Pos)
		case int(r.Pos.Partition) != w.a.Partition():
			t.Fatalf("position %v in partition %d", r.Pos, w.a.Partition())
		}
		last = r.Pos
	}
}

func testRoundTrip(t *testing.T, w *bench) {
	odd := " leading, 100% \"quoted\" \\ 雪☃ é\u00a0"
	want := []*carillon.Event{
		event(1),
		{
			Type: "a.b-c.D_9", Time: time.UnixMilli(1).UTC(), Subject: odd, Data: []byte(`[1,"\u0000",null]`),
			To: carillon.Audience{Room: "Room:1.x_y-z"}, From: odd, Source: "stripe", Delivery: odd,
			CE: []byte(`{"source":"/x y","dataschema":"é ` + "\u3000" + `"}`),
		},
		{Type: "direct", Time: time.UnixMilli(0).UTC(), Data: []byte(`0`), To: carillon.Audience{Users: []string{"a", "b,c", " ", "%", odd}}},
		{Type: "large", Time: event(0).Time, Data: bytes.Repeat([]byte("x"), 200_000)},
	}
	before := time.Now()
	ch, stop := w.tail(w.a.Partition(), 0)
	w.next(ch, len(w.fill(w.b, 1))) // it is live
	var batch []engine.Append
	for i, ev := range want {
		batch = append(batch, engine.Append{Event: ev, Key: fmt.Sprintf("u.%s:%d", odd, i)})
	}
	single := w.append(w.a, batch[1])
	receipts := append(single, w.append(w.a, batch[0], batch[2], batch[3])...)
	want[0], want[1] = want[1], want[0]

	check := func(from string, got []*carillon.Entry) {
		t.Helper()
		w.positions(got, positionsOf(receipts))
		for i, e := range got {
			if e.Org != orgA || e.Accepted.Before(before.Add(-time.Minute)) || e.Accepted.After(time.Now().Add(time.Minute)) {
				t.Errorf("%s: org %q, accepted %v", from, e.Org, e.Accepted)
			}
			if err := sameEvent(&e.Event, want[i]); err != nil {
				t.Errorf("%s: event %d: %v", from, i, err)
			}
		}
	}
	got, _ := w.read(w.a, engine.Range{})
	check("read", got)
	leader, _ := w.read(w.a, engine.Range{Leader: true})
	check("leader", leader)
	live := w.next(ch, len(want))
	_ = stop()
	check("live tail", live)
	ch, stop = w.tail(w.a.Partition(), got[0].Pos.Seq-1)
	tailed := w.next(ch, len(want))
	_ = stop()
	check("tail", tailed)
	for i := range got {
		if !got[i].Accepted.Equal(tailed[i].Accepted) || !got[i].Accepted.Equal(leader[i].Accepted) || live[i].Accepted.After(got[i].Accepted) {
			t.Errorf("event %d was accepted at %v, %v and %v, live %v", i, got[i].Accepted, tailed[i].Accepted, leader[i].Accepted, live[i].Accepted)
		}
		// What is live is what is read, down to what is missing and what is empty.
		live[i].Accepted = got[i].Accepted
		if !reflect.DeepEqual(live[i], got[i]) {
			t.Errorf("event %d: live %#v, read %#v", i, live[i], got[i])
		}
	}
	if r := w.append(w.a, batch[3])[0]; !r.Duplicate || r.Pos != receipts[3].Pos {
		t.Errorf("a key of odd characters: %+v, want a duplicate of %v", r, receipts[3].Pos)
	}
}

func sameEvent(got, want *carillon.Event) error {
	switch {
	case got.Type != want.Type, got.Subject != want.Subject, got.From != want.From, got.Source != want.Source,
		got.Delivery != want.Delivery, got.To.Room != want.To.Room, !slices.Equal(got.To.Users, want.To.Users),
		!got.Time.Equal(want.Time), !bytes.Equal(got.Data, want.Data), !bytes.Equal(got.CE, want.CE):
		return fmt.Errorf("%+v, want %+v", got, want)
	}
	return nil
}

func testConsecutive(t *testing.T, w *bench) {
	w.fill(w.b, 3)
	for _, n := range []int{1, 2, 3, 40, 300} {
		// Others append meanwhile.
		stop := make(chan struct{})
		var others sync.WaitGroup
		for range 4 {
			others.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := engine.AppendWait(w.ctx, w.b, events(i, 1)); err != nil {
						t.Errorf("append: %v", err)
						return
					}
				}
			})
		}
		receipts := w.append(w.a, events(0, n)...)
		close(stop)
		others.Wait()
		for i, r := range receipts {
			if r.Pos.Seq != receipts[0].Pos.Seq+uint64(i) {
				t.Fatalf("event %d of %d at %v, the first at %v", i, n, r.Pos, receipts[0].Pos)
			}
		}
	}
}

func testWhole(t *testing.T, w *bench) {
	// Batches of different orgs, all at once: each is either there or not.
	const each, size = 8, 30
	var mu sync.Mutex
	stored := make(map[engine.Log]int)
	var all sync.WaitGroup
	for _, log := range []engine.Log{w.a, w.b, w.c} {
		for i := range each {
			all.Go(func() {
				if _, err := engine.AppendWait(w.ctx, log, events(i*1000, size)); err == nil {
					mu.Lock()
					stored[log]++
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	for log, n := range stored {
		if got := w.all(log); len(got) != n*size {
			t.Errorf("%d batches of %d are stored, %d entries", n, size, len(got))
		}
	}
	// One event that cannot be stored keeps the rest of its batch out.
	before := len(w.all(w.a))
	batch := events(0, 3)
	batch[1].Event.Data = bytes.Repeat([]byte("x"), 64<<20)
	_, err := engine.AppendWait(w.ctx, w.a, batch)
	after := len(w.all(w.a))
	if err != nil && after != before {
		t.Errorf("a refused batch left %d entries", after-before)
	}
	if err != nil && carillon.AsError(err).Code != carillon.CodeTooLarge {
		t.Errorf("an event that is too large: %v", err)
	}
}

func testEmptyBatch(t *testing.T, w *bench) {
	if receipts := w.append(w.a); len(receipts) != 0 {
		t.Fatalf("receipts %v", receipts)
	}
}

func testLargestBatch(t *testing.T, w *bench) {
	receipts := w.append(w.a, events(0, 1000)...)
	w.positions(w.all(w.a), positionsOf(receipts))
}

func testTooLargeBatch(t *testing.T, w *bench) {
	_, err := engine.AppendWait(w.ctx, w.a, events(0, 1001))
	if err == nil {
		return // an engine may take more
	}
	if carillon.AsError(err).Code != carillon.CodeTooLarge {
		t.Fatalf("1001 events: %v", err)
	}
	if got := w.all(w.a); len(got) != 0 {
		t.Fatalf("%d of them are stored", len(got))
	}
}

func testDedupe(t *testing.T, w *bench) {
	first := w.append(w.a, engine.Append{Event: event(1), Key: "k:1"})[0]
	w.fill(w.a, 3)
	again := w.append(w.a, engine.Append{Event: event(2), Key: "k:1"})[0]
	if first.Duplicate || !again.Duplicate || again.Pos != first.Pos {
		t.Fatalf("first %+v, again %+v", first, again)
	}
	if got := datas(w.all(w.a)); len(got) != 4 || got[0] != `{"n":1}` {
		t.Fatalf("entries %v", got)
	}
}

func testDedupeInBatch(t *testing.T, w *bench) {
	r := w.append(w.a,
		engine.Append{Event: event(1), Key: "k:1"},
		engine.Append{Event: event(2)},
		engine.Append{Event: event(3), Key: "k:1"},
		engine.Append{Event: event(4), Key: "k:4"},
	)
	if r[0].Duplicate || r[1].Duplicate || !r[2].Duplicate || r[3].Duplicate || r[2].Pos != r[0].Pos {
		t.Fatalf("receipts %+v", r)
	}
	if r[1].Pos.Seq != r[0].Pos.Seq+1 || r[3].Pos.Seq != r[0].Pos.Seq+2 {
		t.Fatalf("not consecutive: %+v", r)
	}
	if got := datas(w.all(w.a)); len(got) != 3 {
		t.Fatalf("entries %v", got)
	}
}

func testDedupeMixed(t *testing.T, w *bench) {
	known := w.append(w.a, engine.Append{Event: event(0), Key: "k:0"}, engine.Append{Event: event(5), Key: "k:5"})
	var batch []engine.Append
	for i := range 10 {
		batch = append(batch, engine.Append{Event: event(i), Key: fmt.Sprintf("k:%d", i)})
	}
	r := w.append(w.a, batch...)
	next := uint64(0)
	for i := range r {
		if i == 0 || i == 5 {
			if want := known[i/5]; !r[i].Duplicate || r[i].Pos != want.Pos {
				t.Errorf("event %d: %+v, want a duplicate of %v", i, r[i], want.Pos)
			}
			continue
		}
		if r[i].Duplicate || next != 0 && r[i].Pos.Seq != next {
			t.Errorf("event %d: %+v, want a new one at %d", i, r[i], next)
		}
		next = r[i].Pos.Seq + 1
	}
	again := w.append(w.a, batch...)
	for i := range again {
		if !again[i].Duplicate || again[i].Pos != r[i].Pos {
			t.Errorf("event %d again: %+v, want a duplicate of %v", i, again[i], r[i].Pos)
		}
	}
	if got := w.all(w.a); len(got) != 10 {
		t.Errorf("%d entries, want 10", len(got))
	}
}

func testDedupePerOrg(t *testing.T, w *bench) {
	for _, log := range []engine.Log{w.a, w.b, w.c} {
		if r := w.append(log, engine.Append{Event: event(1), Key: "k:1"})[0]; r.Duplicate {
			t.Errorf("another organization's key counts: %+v", r)
		}
	}
}

func testDedupeAtOnce(t *testing.T, w *bench) {
	const n = 100
	var all sync.WaitGroup
	var fresh atomic.Int64
	receipts := make([]carillon.Receipt, n)
	for i := range n {
		all.Go(func() {
			batch := []engine.Append{{Event: event(0), Key: "k:same"}}
			if i%10 == 0 {
				batch = append(batch, events(i, 3)...)
			}
			r, err := engine.AppendWait(w.ctx, w.a, batch)
			if err != nil {
				t.Errorf("append: %v", err)
				return
			}
			receipts[i] = r[0]
			if !r[0].Duplicate {
				fresh.Add(1)
			}
		})
	}
	all.Wait()
	if fresh.Load() != 1 {
		t.Errorf("%d of %d were new", fresh.Load(), n)
	}
	for _, r := range receipts {
		if r.Pos != receipts[0].Pos {
			t.Errorf("positions %v and %v", r.Pos, receipts[0].Pos)
		}
	}
}

func testAppendOrder(t *testing.T, w *bench) {
	const publishers, each = 8, 60
	logs := []engine.Log{w.a, w.b, w.c}
	var answered sync.WaitGroup
	got := make([][]uint64, publishers) // sequences, in the order appended
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			log := logs[p%len(logs)]
			got[p] = make([]uint64, each)
			for i := range each {
				batch := events(i, 1)
				if i%7 == 3 {
					batch = events(i, 5)
				}
				answered.Add(1)
				log.Append(batch, func(r []carillon.Receipt, err error) {
					defer answered.Done()
					if err != nil {
						t.Errorf("append: %v", err)
						return
					}
					got[p][i] = r[0].Pos.Seq // each i has its own place
				})
			}
		})
	}
	all.Wait()
	answered.Wait()
	for p, seqs := range got {
		if !slices.IsSorted(seqs) {
			t.Errorf("publisher %d: %v", p, seqs)
		}
	}
}

func testDoneOnce(t *testing.T, w *bench) {
	const n = 200
	var calls [n]atomic.Int64
	var answered sync.WaitGroup
	for i := range n {
		answered.Add(1)
		batch := events(i, 1+i%3)
		batch[0].Key = fmt.Sprintf("k:%d", i/2)
		w.a.Append(batch, func([]carillon.Receipt, error) {
			if calls[i].Add(1) == 1 {
				answered.Done()
			}
		})
	}
	answered.Wait()
	if err := w.Close(w.ctx); err != nil {
		t.Fatal(err)
	}
	for i := range calls {
		if c := calls[i].Load(); c != 1 {
			t.Errorf("batch %d was answered %d times", i, c)
		}
	}
}

func testCloseFlushes(t *testing.T, w *bench) {
	const n = 50
	var answered sync.WaitGroup
	var stored atomic.Int64
	for i := range n {
		answered.Add(1)
		log := []engine.Log{w.a, w.b, w.c}[i%3]
		log.Append(events(i, 1), func(_ []carillon.Receipt, err error) {
			defer answered.Done()
			if err == nil {
				stored.Add(1)
			}
		})
	}
	if err := w.Close(w.ctx); err != nil {
		t.Fatal(err)
	}
	answered.Wait()
	if stored.Load() != n {
		t.Fatalf("%d of %d were stored", stored.Load(), n)
	}
}

func testClosed(t *testing.T, w *bench) {
	pos := w.fill(w.a, 1)[0]
	_, stop := w.tail(w.a.Partition(), 0)
	if err := w.Close(w.ctx); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err == nil {
		t.Error("a tail of a closed engine ends without an error")
	}
	_, err := engine.AppendWait(w.ctx, w.a, events(0, 1))
	if !errors.Is(err, engine.ErrClosed) || carillon.AsError(err).Code != carillon.CodeUnavailable {
		t.Errorf("append: %v", err)
	}
	if _, err := w.a.Read(w.ctx, engine.Range{}, func(*carillon.Entry) error { return nil }); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := w.a.Resume(w.ctx, pos); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("resume: %v", err)
	}
	if _, err := w.State(w.ctx, 0); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("state: %v", err)
	}
	if err := w.Tail(w.ctx, 0, 0, func(*carillon.Entry) {}); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("tail: %v", err)
	}
	if err := w.Healthy(w.ctx); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("healthy: %v", err)
	}
	if err := w.Close(w.ctx); err != nil {
		t.Errorf("close again: %v", err)
	}
}

func testStats(t *testing.T, w *bench) {
	w.append(w.a, engine.Append{Event: event(0), Key: "k"})
	w.append(w.a, engine.Append{Event: event(0), Key: "k"})
	w.append(w.a, events(0, 5)...)
	w.all(w.a)
	s := w.Stats()
	if s.Appends != 6 || s.Duplicates != 1 || s.Flights < 3 || s.Failures != 0 || s.QueueDepth != 0 || s.ReadEntries != 6 ||
		s.AckCount != 3 || s.AckNanosTotal == 0 {
		t.Errorf("stats %+v", s)
	}
}

func testHealthy(t *testing.T, w *bench) {
	if err := w.Healthy(w.ctx); err != nil {
		t.Error(err)
	}
	if c := w.Caps(); c.DedupeWindow <= 0 || c.Retention <= 0 || c.Describe == "" {
		t.Errorf("caps %+v", c)
	}
}
