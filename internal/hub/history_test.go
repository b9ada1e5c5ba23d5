package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/match"
)

// past is a log in memory with one partition, so that organizations share it.
type past struct {
	*memory.Engine
	t testing.TB
}

func newPast(t testing.TB, cfg memory.Config) *past {
	t.Helper()
	cfg.Partitions = 1
	e := memory.New(cfg)
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	return &past{e, t}
}

func (l *past) add(org carillon.OrgID, events ...carillon.Event) []carillon.Position {
	l.t.Helper()
	batch := make([]engine.Append, len(events))
	for i := range events {
		events[i].Data = append([]byte{}, events[i].Data...)
		batch[i].Event = &events[i]
	}
	receipts, err := engine.AppendWait(context.Background(), l.Open(org), batch)
	if err != nil {
		l.t.Fatal(err)
	}
	pos := make([]carillon.Position, len(receipts))
	for i := range receipts {
		pos[i] = receipts[i].Pos
	}
	return pos
}

func (l *past) history(cfg hub.HistoryConfig) *hub.History {
	cfg.Open, cfg.Head = l.Open, l.Head
	return hub.NewHistory(cfg)
}

func typed(types ...string) []carillon.Event {
	events := make([]carillon.Event, len(types))
	for i, s := range types {
		events[i] = carillon.Event{Type: carillon.Type(s), Data: []byte("1")}
	}
	return events
}

func types(page *hub.Page) string {
	var out []string
	for _, e := range page.Entries {
		out = append(out, string(e.Type))
	}
	return strings.Join(out, " ")
}

var alice = &carillon.Principal{Org: "acme", User: "alice", Role: carillon.RoleMember}

func read(t testing.TB, h *hub.History, p *carillon.Principal, q hub.Query) *hub.Page {
	t.Helper()
	page, err := h.Read(context.Background(), p, q)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func TestHistoryIsWhatTheCallerMayReceive(t *testing.T) {
	l := newPast(t, memory.Config{})
	l.add("other", typed("not.yours")...)
	l.add("acme",
		carillon.Event{Type: "order.paid", Subject: "o-1"},
		carillon.Event{Type: "order.sent", Subject: "o-1"},
		carillon.Event{Type: "user.joined"},
		carillon.Event{Type: "note.secret", To: carillon.Audience{Users: []string{"bob"}}},
		carillon.Event{Type: "note.shared", To: carillon.Audience{Users: []string{"bob", "alice"}}},
		carillon.Event{Type: "presence.kept"},
		carillon.Event{Type: "presence.direct", To: carillon.Audience{Users: []string{"alice"}}},
		carillon.Event{Type: "chat.message", To: carillon.Audience{Room: "ops"}},
	)
	l.add("other", typed("not.yours")...)
	h := l.history(hub.HistoryConfig{})
	permitted := func(patterns ...carillon.Pattern) *carillon.Principal {
		return &carillon.Principal{Org: "acme", User: "alice", Permissions: &carillon.Permissions{Subscribe: patterns}}
	}
	key := &carillon.Principal{Org: "acme", Role: carillon.RoleAdmin, KeyID: "k"}
	for _, tc := range []struct {
		name string
		who  *carillon.Principal
		q    hub.Query
		want string
	}{
		{"everything", alice, hub.Query{}, "order.paid order.sent user.joined note.shared"},
		{"newest first", alice, hub.Query{Desc: true}, "note.shared user.joined order.sent order.paid"},
		{"a pattern filters direct events too", alice, hub.Query{Patterns: []carillon.Pattern{"order.*"}}, "order.paid order.sent"},
		{"several patterns, each event once", alice, hub.Query{Patterns: []carillon.Pattern{"order.*", "order.paid", "note.>"}}, "order.paid order.sent note.shared"},
		{"a first wildcard does not open presence", alice, hub.Query{Patterns: []carillon.Pattern{"*.kept", "*.direct"}}, ""},
		{"its name does", alice, hub.Query{Patterns: []carillon.Pattern{"presence.*"}}, "presence.kept presence.direct"},
		{"a subject", alice, hub.Query{Subject: "o-1", Patterns: []carillon.Pattern{"*.sent"}}, "order.sent"},
		{"a key has no inbox", key, hub.Query{}, "order.paid order.sent user.joined"},
		{"no pattern: what the permissions grant, and one's own", permitted("order.sent"), hub.Query{}, "order.sent note.shared"},
		{"permissions that grant nothing", permitted(), hub.Query{}, "note.shared"},
		{"a pattern within the permissions", permitted("order.>"), hub.Query{Patterns: []carillon.Pattern{"order.paid"}}, "order.paid"},
		{"nobody's organization is empty", &carillon.Principal{Org: "new", User: "alice"}, hub.Query{}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			page := read(t, h, tc.who, tc.q)
			if got := types(page); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if page.More || page.Gap != nil {
				t.Errorf("more %v, gap %v", page.More, page.Gap)
			}
		})
	}
}

func TestHistoryRefuses(t *testing.T) {
	h := newPast(t, memory.Config{}).history(hub.HistoryConfig{Page: 50})
	limited := &carillon.Principal{Org: "acme", User: "alice", Permissions: &carillon.Permissions{Subscribe: []carillon.Pattern{"order.*"}}}
	for _, tc := range []struct {
		name string
		who  *carillon.Principal
		q    hub.Query
		code carillon.Code
		says string
	}{
		{"one uncovered pattern", limited, hub.Query{Patterns: []carillon.Pattern{"order.paid", "order.>"}}, carillon.CodeForbidden, `"order.>"`},
		{"everything, asked for by name", limited, hub.Query{Patterns: []carillon.Pattern{">"}}, carillon.CodeForbidden, `">"`},
		{"a room nobody knows", alice, hub.Query{Rooms: []string{"ops"}}, carillon.CodeNotFound, `"ops"`},
		{"a large limit", alice, hub.Query{Limit: 51}, carillon.CodeBadRequest, "1–50"},
		{"a negative limit", alice, hub.Query{Limit: -1}, carillon.CodeBadRequest, "1–50"},
		{"after, newest first", alice, hub.Query{Desc: true, Start: carillon.Cursor{Kind: carillon.CursorEarliest}}, carillon.CodeBadRequest, "'before'"},
		{"before, oldest first", alice, hub.Query{Before: carillon.Cursor{Kind: carillon.CursorNow}}, carillon.CodeBadRequest, "desc"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := h.Read(t.Context(), tc.who, tc.q)
			if e := carillon.AsError(err); err == nil || e.Code != tc.code || !strings.Contains(e.Message, tc.says) {
				t.Errorf("%v\nwant %s with %q", err, tc.code, tc.says)
			}
		})
	}
}

func TestHistoryStartsWhereTheCursorSays(t *testing.T) {
	l := newPast(t, memory.Config{})
	at := l.add("acme", typed("a", "b", "c", "d")...)
	foreign := at[1]
	foreign.Check++
	otherPartition := at[1]
	otherPartition.Partition = 7
	h := l.history(hub.HistoryConfig{Retention: 24 * time.Hour})
	reset := &carillon.Gap{Reason: carillon.GapReset, Pos: at[3]}
	for _, tc := range []struct {
		name string
		c    carillon.Cursor
		asc  string
		desc string
		gap  *carillon.Gap
	}{
		{"none", carillon.Cursor{}, "a b c d", "d c b a", nil},
		{"earliest", carillon.Cursor{Kind: carillon.CursorEarliest}, "a b c d", "", nil},
		{"now", carillon.Cursor{Kind: carillon.CursorNow}, "", "d c b a", nil},
		{"a position, itself excluded", carillon.At(at[1]), "c d", "a", nil},
		{"an hour ago", carillon.Cursor{Kind: carillon.CursorAgo, Ago: time.Hour}, "a b c d", "", nil},
		{"a position that was never here", carillon.At(foreign), "", "d c b a", reset},
		{"a position of another partition", carillon.At(otherPartition), "", "d c b a", reset},
		{"a foreign id", carillon.Cursor{Kind: carillon.CursorForeign}, "", "d c b a", reset},
	} {
		t.Run(tc.name, func(t *testing.T) {
			page := read(t, h, alice, hub.Query{Start: tc.c})
			if got := types(page); got != tc.asc || page.More {
				t.Errorf("got %q, want %q; more %v", got, tc.asc, page.More)
			}
			if diff := cmp.Diff(tc.gap, page.Gap); diff != "" {
				t.Error(diff)
			}
			if page.Cursor != at[3] {
				t.Errorf("looking stopped at %v, the end is %v", page.Cursor, at[3])
			}
			page = read(t, h, alice, hub.Query{Before: tc.c, Desc: true})
			if got := types(page); got != tc.desc || page.More {
				t.Errorf("newest first: got %q, want %q; more %v", got, tc.desc, page.More)
			}
			if diff := cmp.Diff(tc.gap, page.Gap); diff != "" {
				t.Error(diff)
			}
		})
	}
	page := read(t, h, alice, hub.Query{Start: carillon.Cursor{Kind: carillon.CursorAgo, Ago: 48 * time.Hour}})
	if page.Gap == nil || page.Gap.Reason != carillon.GapExpired || types(page) != "a b c d" {
		t.Errorf("a span beyond retention: %v %q", page.Gap, types(page))
	}
}

func TestRelativeCursorsGoByTheTimeOfAcceptance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New(memory.Config{Partitions: 1})
		l := &past{e, t}
		for _, s := range []string{"a", "b", "c"} {
			l.add("acme", carillon.Event{Type: carillon.Type(s), Time: time.Unix(0, 0)})
			<-time.After(10 * time.Minute)
		}
		h := l.history(hub.HistoryConfig{})
		ago := carillon.Cursor{Kind: carillon.CursorAgo, Ago: 25 * time.Minute}
		if got := types(read(t, h, alice, hub.Query{Start: ago})); got != "b c" {
			t.Errorf("since 25 minutes: %q", got)
		}
		if got := types(read(t, h, alice, hub.Query{Before: ago, Desc: true})); got != "a" {
			t.Errorf("before that: %q", got)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestExpiredEntriesAreAGap(t *testing.T) {
	l := newPast(t, memory.Config{})
	at := l.add("acme", typed("a", "b", "c", "d")...)
	l.ExpireBefore(0, at[2].Seq)
	h := l.history(hub.HistoryConfig{})

	page := read(t, h, alice, hub.Query{Start: carillon.At(at[0])})
	if page.Gap == nil || page.Gap.Reason != carillon.GapExpired || page.Gap.Pos.Seq != at[1].Seq || types(page) != "c d" {
		t.Errorf("gap %v, %q", page.Gap, types(page))
	}
	if page = read(t, h, alice, hub.Query{Start: carillon.At(at[1])}); page.Gap != nil || types(page) != "c d" {
		t.Errorf("nothing was lost, but: %v, %q", page.Gap, types(page))
	}
	if page = read(t, h, alice, hub.Query{}); page.Gap != nil || types(page) != "c d" {
		t.Errorf("earliest never gaps, but: %v, %q", page.Gap, types(page))
	}
	page = read(t, h, alice, hub.Query{Desc: true, Before: carillon.At(at[0])})
	if page.Gap == nil || page.Gap.Reason != carillon.GapExpired || types(page) != "" || page.More {
		t.Errorf("newest first: %v, %q, %v", page.Gap, types(page), page.More)
	}
}

func TestTheCursorPassesOthersEntries(t *testing.T) {
	l := newPast(t, memory.Config{})
	end := l.add("other", typed("x", "x", "x")...)[2]
	h := l.history(hub.HistoryConfig{})
	page := read(t, h, alice, hub.Query{})
	if page.Cursor != end {
		t.Errorf("an organization without entries stands at %v, the end is %v", page.Cursor, end)
	}
	l.add("acme", typed("a")...)
	l.add("other", typed("x")...)
	if page = read(t, h, alice, hub.Query{Start: carillon.At(page.Cursor)}); types(page) != "a" || page.Gap != nil {
		t.Errorf("%q, gap %v", types(page), page.Gap)
	}
}

func TestPagesAreBounded(t *testing.T) {
	l := newPast(t, memory.Config{})
	large := carillon.Event{Type: "large", Data: make([]byte, 600)}
	l.add("acme", large, large, large)
	h := l.history(hub.HistoryConfig{Bytes: 2000})
	for _, desc := range []bool{false, true} {
		if page := read(t, h, alice, hub.Query{Desc: desc}); len(page.Entries) != 2 || !page.More {
			t.Errorf("desc %v: %d entries, more %v", desc, len(page.Entries), page.More)
		}
		if page := read(t, h, alice, hub.Query{Desc: desc, MaxBytes: 10}); len(page.Entries) != 1 || !page.More {
			t.Errorf("desc %v: at least one entry, not %d; more %v", desc, len(page.Entries), page.More)
		}
	}
}

func TestTheWorkOfOneRequestIsBounded(t *testing.T) {
	l := newPast(t, memory.Config{})
	types := make([]string, 5000)
	for i := range types {
		types[i] = "noise"
	}
	types[0], types[4999] = "rare", "rare"
	at := l.add("acme", typed(types...)...)
	h := l.history(hub.HistoryConfig{Look: 1000})
	q := hub.Query{Patterns: []carillon.Pattern{"rare"}}
	page := read(t, h, alice, q)
	if len(page.Entries) != 1 || !page.More || page.Cursor != at[999] {
		t.Errorf("%d entries, more %v, at %v", len(page.Entries), page.More, page.Cursor)
	}
	before := l.Stats().ReadEntries
	q.Desc = true
	page = read(t, h, alice, q)
	if len(page.Entries) != 1 || !page.More {
		t.Errorf("newest first: %d entries, more %v", len(page.Entries), page.More)
	}
	if n := l.Stats().ReadEntries - before; n > 3000 {
		t.Errorf("newest first read %d entries", n)
	}
}

func TestReadersWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{enter: make(chan struct{}, 10), leave: make(chan struct{})}
		h := hub.NewHistory(hub.HistoryConfig{Open: func(carillon.OrgID) engine.Log { return log }, Concurrent: 1})
		first := make(chan error)
		go func() {
			_, err := h.Read(t.Context(), alice, hub.Query{})
			first <- err
		}()
		<-log.enter
		began := time.Now()
		_, err := h.Read(t.Context(), alice, hub.Query{})
		if e := carillon.AsError(err); err == nil || e.Code != carillon.CodeUnavailable || e.RetryAfter <= 0 {
			t.Errorf("%v", err)
		}
		if waited := time.Since(began); waited != 5*time.Second {
			t.Errorf("waited %v", waited)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := h.Read(ctx, alice, hub.Query{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		close(log.leave)
		if err := <-first; err != nil {
			t.Error(err)
		}
		if _, err := h.Read(t.Context(), alice, hub.Query{}); err != nil {
			t.Errorf("the turn was not given back: %v", err)
		}
		if n := h.Limits()["history_concurrent"]; n != 2 {
			t.Errorf("%d reads were counted that had to wait, want 2", n)
		}
	})
}

// slowLog is an empty log that waits.
type slowLog struct {
	engine.Log
	enter, leave chan struct{}
}

func (l *slowLog) Partition() int { return 0 }

func (l *slowLog) Bounds(context.Context) (oldest, newest carillon.Position, err error) {
	l.enter <- struct{}{}
	<-l.leave
	return oldest, newest, nil
}

func TestAReplicaThatLagsIsNotBelieved(t *testing.T) {
	l := newPast(t, memory.Config{})
	l.add("acme", typed("a", "b", "c")...)
	h := hub.NewHistory(hub.HistoryConfig{Open: func(org carillon.OrgID) engine.Log { return &lagging{l.Open(org), 1} }})
	for _, desc := range []bool{false, true} {
		if page := read(t, h, alice, hub.Query{Desc: desc}); len(page.Entries) != 3 {
			t.Errorf("desc %v: %q", desc, types(page))
		}
	}
}

// lagging is a log that knows entries beyond end only when its leader is asked.
type lagging struct {
	engine.Log
	end uint64
}

func (l *lagging) Read(ctx context.Context, r engine.Range, f func(*carillon.Entry) error) (engine.End, error) {
	if !r.Leader && (r.UpTo == 0 || r.UpTo > l.end) {
		if r.After >= l.end {
			return engine.End{Seen: r.After}, nil
		}
		r.UpTo = l.end
	}
	return l.Log.Read(ctx, r, f)
}

// Pages one after the other give what one look at the log gives: every entry
// wanted once, in order, whatever the limits and the order.
func TestPagesTogetherAreTheWholeHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := memory.New(memory.Config{Partitions: 1})
		defer func() { _ = e.Close(context.Background()) }()
		l := &past{e, t}
		var all []*carillon.Entry
		for i := range rapid.IntRange(0, 60).Draw(rt, "runs") {
			org := rapid.SampledFrom([]carillon.OrgID{"acme", "acme", "other"}).Draw(rt, "org")
			n := rapid.SampledFrom([]int{1, 1, 3, 40, 700}).Draw(rt, "n")
			typ := rapid.SampledFrom([]string{"a.x", "a.y", "b.x"}).Draw(rt, "type")
			to := rapid.SampledFrom([][]string{nil, nil, {"alice"}, {"bob"}}).Draw(rt, "to")
			if i > 3 && n > 100 {
				n = 5
			}
			events := make([]carillon.Event, n)
			for j := range events {
				events[j] = carillon.Event{Type: carillon.Type(typ), Data: fmt.Appendf(nil, "%d.%d", i, j), To: carillon.Audience{Users: to}}
			}
			l.add(org, events...)
		}
		if _, err := e.Open("acme").Read(context.Background(), engine.Range{Limit: 1 << 20, MaxBytes: 1 << 30}, func(e *carillon.Entry) error {
			all = append(all, e)
			return nil
		}); err != nil {
			rt.Fatal(err)
		}
		h := l.history(hub.HistoryConfig{Look: rapid.IntRange(1, 2000).Draw(rt, "look")})
		q := hub.Query{
			Desc:     rapid.Bool().Draw(rt, "desc"),
			Limit:    rapid.IntRange(1, 300).Draw(rt, "limit"),
			MaxBytes: rapid.IntRange(1, 50_000).Draw(rt, "bytes"),
			Patterns: rapid.SampledFrom([][]carillon.Pattern{nil, {"a.*"}, {"*.x"}, {"a.x", "b.x"}, {"none"}}).Draw(rt, "patterns"),
		}
		var want []uint64
		for _, e := range all {
			wanted := len(q.Patterns) == 0 || slices.ContainsFunc(q.Patterns, func(p carillon.Pattern) bool { return match.Match(p, e.Type) })
			if wanted && (e.To.Whole() || slices.Contains(e.To.Users, "alice")) {
				want = append(want, e.Pos.Seq)
			}
		}
		if q.Desc {
			slices.Reverse(want)
		}
		var got []uint64
		for pages := 0; ; pages++ {
			page := read(t, h, alice, q)
			for _, e := range page.Entries {
				got = append(got, e.Pos.Seq)
			}
			if len(page.Entries) > q.Limit || page.Gap != nil {
				rt.Fatalf("%d entries, gap %v", len(page.Entries), page.Gap)
			}
			if !page.More {
				break
			}
			if pages > 2*len(all)+5 {
				rt.Fatal("it does not come to an end")
			}
			if q.Desc {
				q.Before = carillon.At(page.Cursor)
			} else {
				q.Start = carillon.At(page.Cursor)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("%+v: %s", q, diff)
		}
	})
}
