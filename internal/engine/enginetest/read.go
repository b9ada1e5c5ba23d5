package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

func testTail(t *testing.T, w *bench) {
	p := w.a.Partition()
	old := append(w.fill(w.a, 5), w.fill(w.b, 5)...)
	ch, stop := w.tail(p, 0)
	w.positions(w.next(ch, 10), old)

	var mu sync.Mutex
	var want []carillon.Position
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			log := []engine.Log{w.a, w.b, w.c}[i%3]
			for j := range 50 {
				r, err := engine.AppendWait(w.ctx, log, events(j, 1+j%4))
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				if log.Partition() == p {
					mu.Lock()
					want = append(want, positionsOf(r)...)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	slices.SortFunc(want, func(x, y carillon.Position) int { return int(x.Seq) - int(y.Seq) })
	w.positions(w.next(ch, len(want)), want)
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("the tail ended with %v", err)
	}
	if len(ch) > 0 {
		t.Errorf("%d entries too many", len(ch))
	}
}

func testTailMiddle(t *testing.T, w *bench) {
	old := w.fill(w.a, 10)
	ch, stop := w.tail(w.a.Partition(), old[3].Seq)
	w.positions(w.next(ch, 6), old[4:])
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("the tail ended with %v", err)
	}
}

func testTailEmpty(t *testing.T, w *bench) {
	ch, stop := w.tail(w.a.Partition(), 0)
	pos := w.fill(w.a, 2)
	w.positions(w.next(ch, 2), pos)
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("the tail ended with %v", err)
	}
}

func testTailEnd(t *testing.T, w *bench) {
	old := w.fill(w.a, 3)
	end, _ := w.tail(w.a.Partition(), old[2].Seq)
	beyond, _ := w.tail(w.a.Partition(), old[2].Seq+2)
	pos := w.fill(w.a, 5)
	w.positions(w.next(end, 5), pos)
	w.positions(w.next(beyond, 3), pos[2:])
}

func testTailContext(t *testing.T, w *bench) {
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Millisecond)
	defer cancel()
	if err := w.Tail(ctx, 0, 0, func(*carillon.Entry) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the tail ended with %v", err)
	}
	if err := w.Tail(w.ctx, w.Partitions()+w.IntakePartitions(), 0, func(*carillon.Entry) {}); err == nil {
		t.Error("there is a partition too many")
	}
}

func testTails(t *testing.T, w *bench) {
	first, stopFirst := w.tail(w.a.Partition(), 0)
	second, _ := w.tail(w.a.Partition(), 0)
	pos := w.fill(w.a, 3)
	w.positions(w.next(first, 3), pos)
	w.positions(w.next(second, 3), pos)
	_ = stopFirst()
	pos = w.fill(w.a, 3)
	w.positions(w.next(second, 3), pos)
}

func testRead(t *testing.T, w *bench) {
	var pos []carillon.Position
	for range 10 { // a's entries have b's between
		pos = append(pos, w.fill(w.a, 1)...)
		w.fill(w.b, 1)
	}
	last := w.state(w.a.Partition()).Last.Seq
	for _, tt := range []struct {
		name string
		r    engine.Range
		want []carillon.Position
		seen uint64 // at least
		more bool
	}{
		{"everything", engine.Range{}, pos, last, false},
		{"after the third", engine.Range{After: pos[2].Seq}, pos[3:], last, false},
		{"after another's entry", engine.Range{After: pos[2].Seq + 1}, pos[3:], last, false},
		{"at most four", engine.Range{Limit: 4}, pos[:4], pos[3].Seq, true},
		{"at most ten", engine.Range{Limit: 10}, pos, pos[9].Seq, false},
		{"up to the fifth", engine.Range{UpTo: pos[4].Seq}, pos[:5], pos[4].Seq, false},
		{"up to another's entry", engine.Range{UpTo: pos[4].Seq + 1}, pos[:5], pos[4].Seq + 1, false},
		{"between two of its own", engine.Range{After: pos[4].Seq, UpTo: pos[4].Seq + 1}, nil, pos[4].Seq + 1, false},
		{"two of three", engine.Range{UpTo: pos[2].Seq, Limit: 2}, pos[:2], pos[1].Seq, true},
		{"three of three", engine.Range{UpTo: pos[2].Seq, Limit: 3}, pos[:3], pos[2].Seq, false},
		{"three of three with another's behind", engine.Range{UpTo: pos[2].Seq + 1, Limit: 3}, pos[:3], pos[2].Seq, false},
		{"one byte", engine.Range{MaxBytes: 1}, pos[:1], pos[0].Seq, true},
		{"up to beyond the end", engine.Range{UpTo: last + 100}, pos, last, false},
		{"after the end", engine.Range{After: last}, nil, last, false},
		{"an empty range", engine.Range{After: pos[5].Seq, UpTo: pos[5].Seq}, nil, pos[5].Seq, false},
	} {
		for _, leader := range []bool{false, true} {
			tt.r.Leader = leader
			got, end := w.read(w.a, tt.r)
			var have []carillon.Position
			for _, e := range got {
				have = append(have, e.Pos)
			}
			if !slices.Equal(have, tt.want) {
				t.Errorf("%s: entries at %v, want %v", tt.name, have, tt.want)
			}
			limit := last
			if tt.r.UpTo > 0 {
				limit = min(limit, tt.r.UpTo)
			}
			if end.Seen < tt.seen || end.Seen > limit || end.More != tt.more {
				t.Errorf("%s: %+v, want seen from %d to %d, more %v", tt.name, end, tt.seen, limit, tt.more)
			}
		}
	}
}

func testReadMany(t *testing.T, w *bench) {
	const n = 2500
	var want []carillon.Position
	for i := 0; i < n; i += 500 {
		want = append(want, positionsOf(w.append(w.a, events(i, 500)...))...)
		w.fill(w.b, 1)
	}
	got, end := w.read(w.a, engine.Range{Limit: n + 1})
	w.positions(got, want)
	if end.More {
		t.Errorf("end %+v", end)
	}
	w.positions(w.all(w.a), want)
	// Entries that are large come in parts.
	batch := events(0, 5)
	for i := range batch {
		batch[i].Event.Data = bytes.Repeat([]byte("x"), 400_000)
	}
	for i := range batch {
		want = append(want, w.append(w.a, batch[i])[0].Pos)
	}
	w.positions(w.all(w.a), want)
}

func testReadError(t *testing.T, w *bench) {
	w.fill(w.a, 5)
	stop := errors.New("enough")
	n := 0
	_, err := w.a.Read(w.ctx, engine.Range{}, func(*carillon.Entry) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 3 {
		t.Fatalf("%d calls, %v", n, err)
	}
	if got := w.all(w.a); len(got) != 5 {
		t.Fatalf("%d entries afterwards", len(got))
	}
}

func testReadLeader(t *testing.T, w *bench) {
	pos := w.fill(w.a, 20)
	got, end := w.read(w.a, engine.Range{After: pos[4].Seq, Leader: true})
	w.positions(got, pos[5:])
	if end.More || end.Seen < pos[19].Seq {
		t.Errorf("end %+v", end)
	}
}

func testReadSeen(t *testing.T, w *bench) {
	w.fill(w.a, 1)
	others := w.fill(w.b, 20)
	got, end := w.read(w.a, engine.Range{After: others[0].Seq})
	if len(got) != 0 || end.More || end.Seen < others[19].Seq {
		t.Fatalf("%d entries, %+v; everything to %d was stored before", len(got), end, others[19].Seq)
	}
}

func testHead(t *testing.T, w *bench) {
	p := w.a.Partition()
	if head := w.Head(p); head.Seq != 0 || int(head.Partition) != p {
		t.Fatalf("head of an empty partition: %v", head)
	}
	for i := range 20 {
		r := w.append(w.a, events(i, 1+i%3)...)
		if head := w.Head(p); head != r[len(r)-1].Pos {
			t.Fatalf("head %v after a receipt for %v", head, r[len(r)-1].Pos)
		}
		w.resume(w.a, r[len(r)-1].Pos, engine.OK)
	}
}

func testState(t *testing.T, w *bench) {
	p := w.a.Partition()
	s := w.state(p)
	if s.Identity == "" || s.First != 1 || s.Last.Seq != 0 || s.Last.Check != 0 || s.Entries != 0 || int(s.Last.Partition) != p {
		t.Fatalf("an empty partition: %+v", s)
	}
	pos := w.fill(w.a, 5)
	again := w.state(p)
	if again.Identity != s.Identity || again.First != pos[0].Seq || again.Last != pos[4] || again.Entries != 5 || again.Bytes == 0 {
		t.Fatalf("after five entries: %+v", again)
	}
	if other := w.state(w.c.Partition()); other.Identity == s.Identity || other.Last.Seq != 0 {
		t.Fatalf("the other partition: %+v", other)
	}
	if err := w.a.Purge(w.ctx, pos[4].Seq); err != nil {
		t.Fatal(err)
	}
	if s := w.state(p); s.First != pos[4].Seq+1 || s.Last.Seq != pos[4].Seq || s.Last.Check != 0 || s.Entries != 0 {
		t.Fatalf("with everything gone: %+v", s)
	}
	if _, err := w.State(w.ctx, -1); err == nil {
		t.Error("there is a partition -1")
	}
}

func testCheck(t *testing.T, w *bench) {
	pos := append(w.fill(w.a, 3), w.append(w.a, engine.Append{Event: event(0), Key: "k:ö 1"})[0].Pos)
	pos = append(pos, positionsOf(w.append(w.a, events(0, 3)...))...)
	for _, p := range pos {
		check, found, err := w.Check(w.ctx, int(p.Partition), p.Seq)
		if err != nil || !found || check != p.Check {
			t.Errorf("check of %v: %08x %v %v", p, check, found, err)
		}
	}
	for _, seq := range []uint64{0, pos[len(pos)-1].Seq + 1, 1 << 40} {
		if _, found, err := w.Check(w.ctx, w.a.Partition(), seq); found || err != nil {
			t.Errorf("check of nothing at %d: %v %v", seq, found, err)
		}
	}
}

func testBounds(t *testing.T, w *bench) {
	oldest, newest, err := w.a.Bounds(w.ctx)
	if err != nil || oldest.Seq != 0 || newest.Seq != 0 {
		t.Fatalf("of nothing: %v %v %v", oldest, newest, err)
	}
	w.fill(w.b, 2)
	pos := w.fill(w.a, 4)
	w.fill(w.b, 2)
	oldest, newest, err = w.a.Bounds(w.ctx)
	if err != nil || oldest != pos[0] || newest != pos[3] {
		t.Fatalf("%v %v %v, want %v and %v", oldest, newest, err, pos[0], pos[3])
	}
	if err := w.a.Purge(w.ctx, pos[1].Seq); err != nil {
		t.Fatal(err)
	}
	oldest, newest, err = w.a.Bounds(w.ctx)
	if err != nil || oldest != pos[2] || newest != pos[3] {
		t.Fatalf("%v %v %v, want %v and %v", oldest, newest, err, pos[2], pos[3])
	}
}

func testAt(t *testing.T, w *bench) {
	follows := func(at time.Time) []string {
		t.Helper()
		pos, err := w.a.At(w.ctx, at)
		if err != nil {
			t.Fatalf("at %v: %v", at, err)
		}
		w.resume(w.a, pos, engine.OK)
		got, _ := w.read(w.a, engine.Range{After: pos.Seq})
		return datas(got)
	}
	if got := follows(time.Now().Add(-time.Hour)); len(got) != 0 {
		t.Fatalf("in an empty partition: %v", got)
	}
	for range 3 {
		w.fill(w.a, 1)
		w.fill(w.b, 1)
	}
	entries := w.all(w.a)
	for i, e := range entries {
		// Entries of one moment are either all in or all out.
		want := slices.IndexFunc(entries, func(x *carillon.Entry) bool { return !x.Accepted.Before(e.Accepted) })
		if got := follows(e.Accepted); len(got) != len(entries)-want {
			t.Errorf("at entry %d: %d follow, want %d", i, len(got), len(entries)-want)
		}
	}
	if got := follows(time.Now().Add(-time.Hour)); len(got) != 3 {
		t.Errorf("an hour ago: %d follow", len(got))
	}
	if got := follows(time.Now().Add(time.Hour)); len(got) != 0 {
		t.Errorf("in an hour: %d follow", len(got))
	}
}

func testPurge(t *testing.T, w *bench) {
	var mine, others []carillon.Position
	for range 5 {
		mine = append(mine, w.fill(w.a, 1)...)
		others = append(others, w.fill(w.b, 1)...)
	}
	if err := w.a.Purge(w.ctx, mine[2].Seq); err != nil {
		t.Fatal(err)
	}
	w.positions(w.all(w.a), mine[3:])
	w.positions(w.all(w.b), others)
	ch, _ := w.tail(w.a.Partition(), 0)
	w.next(ch, 7)
	if err := w.a.Purge(w.ctx, 1<<60); err != nil {
		t.Fatal(err)
	}
	w.positions(w.all(w.a), nil)
	w.positions(w.all(w.b), others)
	pos := w.fill(w.a, 1)
	if pos[0].Seq <= others[4].Seq {
		t.Errorf("a sequence was used again: %v after %v", pos[0], others[4])
	}
	w.positions(w.all(w.a), pos)
}

// testIsolation lets random organizations do random things: nobody ever sees
// another's entry, and everybody sees exactly their own.
func testIsolation(t *testing.T, w *bench) {
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		type org struct {
			id   carillon.OrgID
			log  engine.Log
			want []string
			keys map[string]carillon.Position
		}
		var orgs []*org
		for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9_-]{1,8}`), 2, 5, rapid.ID).Draw(r, "orgs") {
			id, err := carillon.ParseOrgID(fmt.Sprintf("%d-%s", run, name))
			if err != nil {
				r.Fatal(err)
			}
			orgs = append(orgs, &org{id: id, log: w.log(id), keys: make(map[string]carillon.Position)})
		}
		check := func(o *org, after uint64, entries []*carillon.Entry) {
			for _, e := range entries {
				if e.Org != o.id || !strings.Contains(string(e.Data), `"`+string(o.id)+`"`) {
					r.Fatalf("%s sees %s at %v of %s", o.id, e.Data, e.Pos, e.Org)
				}
				if e.Pos.Seq <= after {
					r.Fatalf("%s: %v after %d", o.id, e.Pos, after)
				}
			}
		}
		n := 0
		r.Repeat(map[string]func(*rapid.T){
			"append": func(r *rapid.T) {
				o := rapid.SampledFrom(orgs).Draw(r, "org")
				var batch []engine.Append
				fresh := make(map[string]bool)
				var data []string
				for range rapid.IntRange(1, 5).Draw(r, "events") {
					n++
					ev := event(n)
					ev.Data = fmt.Appendf(nil, `[%d,"%s"]`, n, o.id)
					key := rapid.SampledFrom([]string{"", "k:1", "k:2", "u.x:1", "*", ">", "a.b", "~"}).Draw(r, "key")
					batch = append(batch, engine.Append{Event: ev, Key: key})
					if _, known := o.keys[key]; key == "" || !known && !fresh[key] {
						data = append(data, string(ev.Data))
					}
					if key != "" {
						fresh[key] = true
					}
				}
				receipts, err := engine.AppendWait(w.ctx, o.log, batch)
				if err != nil {
					r.Fatal(err)
				}
				o.want = append(o.want, data...)
				for i, a := range batch {
					if a.Key == "" {
						continue
					}
					if pos, known := o.keys[a.Key]; known && (pos != receipts[i].Pos || !receipts[i].Duplicate) {
						r.Fatalf("%s: key %q is at %v, answered %+v", o.id, a.Key, pos, receipts[i])
					}
					o.keys[a.Key] = receipts[i].Pos
				}
			},
			"read": func(r *rapid.T) {
				o := rapid.SampledFrom(orgs).Draw(r, "org")
				rg := engine.Range{After: rapid.Uint64Range(0, 50).Draw(r, "after"), Limit: rapid.IntRange(0, 5).Draw(r, "limit")}
				var got []*carillon.Entry
				if _, err := o.log.Read(w.ctx, rg, func(e *carillon.Entry) error { got = append(got, e); return nil }); err != nil {
					r.Fatal(err)
				}
				check(o, rg.After, got)
			},
		})
		for _, o := range orgs {
			got := w.all(o.log)
			check(o, 0, got)
			if have := datas(got); !slices.Equal(have, o.want) {
				r.Fatalf("%s has %v, want %v", o.id, have, o.want)
			}
		}
	})
}
