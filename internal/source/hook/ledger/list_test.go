package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

// wanted is what List promises, row by row.
func wanted(d *ledger.Delivery, q ledger.Query) bool {
	event := q.Event == "" || q.Event == d.Event
	if begin, ok := strings.CutSuffix(q.Event, "*"); ok {
		event = strings.HasPrefix(d.Event, begin)
	}
	return event && (q.Source == "" || q.Source == d.Source) && (q.Delivery == "" || q.Delivery == d.Delivery) &&
		(q.Remote == "" || q.Remote == d.Remote) && (len(q.States) == 0 || slices.Contains(q.States, d.State)) &&
		(q.Since.IsZero() || !d.Received.Before(q.Since)) && (q.Until.IsZero() || d.Received.Before(q.Until))
}

func TestAListHasWhatFitsTheQueryNewestFirstWhateverThePages(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := aHistory(rt)
		m := newModel(72 * time.Hour)
		for _, e := range h.entries {
			m.apply(e)
		}
		l, err := ledger.Open(t.Context(), ledger.Config{})
		if err != nil {
			rt.Fatal(err)
		}
		defer l.Close()
		fold(t, l, h)
		for range 5 {
			org := rapid.SampledFrom(orgs).Draw(rt, "org")
			q := ledger.Query{
				Source:   rapid.SampledFrom([]string{"", "github", "none"}).Draw(rt, "source"),
				Event:    rapid.SampledFrom([]string{"", "push", "pull_request.*", "p*", "*", "x*"}).Draw(rt, "event"),
				Delivery: rapid.SampledFrom([]string{"", "", "1"}).Draw(rt, "delivery"),
				Remote:   rapid.SampledFrom([]string{"", "", "2001:db8::7"}).Draw(rt, "remote"),
				States:   rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ledger.State { return ledger.State(rapid.IntRange(0, 7).Draw(t, "state")) }), 0, 3).Draw(rt, "states"),
				Limit:    rapid.SampledFrom([]int{0, 1, 3}).Draw(rt, "limit"),
			}
			if rapid.Bool().Draw(rt, "since?") {
				q.Since = noon.Add(time.Duration(rapid.IntRange(-100, 200).Draw(rt, "since")) * time.Hour)
			}
			if rapid.Bool().Draw(rt, "until?") {
				q.Until = noon.Add(time.Duration(rapid.IntRange(-100, 200).Draw(rt, "until")) * time.Hour)
			}
			var want []uint64
			for _, d := range m.newestFirst(org) {
				if wanted(d, q) {
					want = append(want, d.Pos.Seq)
				}
			}
			var got []uint64
			for _, d := range all(t, l, org, q) {
				got = append(got, d.Pos.Seq)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatalf("%+v: %s", q, diff)
			}
		}
	})
}

func TestPagesStayWhatTheyAreWhileNewDeliveriesComeIn(t *testing.T) {
	h := &history{}
	for i := range 20 {
		h.received(delivery{at: noon.Add(time.Duration(i/4) * time.Second)}) // some at the same time
	}
	l := open(t, ledger.Config{})
	fold(t, l, h)
	var got []uint64
	for q := (ledger.Query{Limit: 3}); ; {
		page, next, err := l.List(t.Context(), "acme", q)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page {
			got = append(got, d.Pos.Seq)
		}
		if next == "" {
			break
		}
		q.Before = next
		apply(t, l, h, h.received(delivery{at: noon.Add(time.Minute)}), h.published(page[0].Pos.Seq))
	}
	for i := range 20 {
		if len(got) != 20 || got[i] != uint64(20-i) {
			t.Fatalf("%v", got)
		}
	}
}

func TestAQueryThatNoIndexHasLooksAtABoundedPartOfTheHistoryInACall(t *testing.T) {
	h := &history{}
	e := h.received(delivery{source: "stripe", remote: "192.0.2.9", at: noon.Add(-time.Hour)})
	for i := range 12_000 {
		h.received(delivery{source: "github", remote: "192.0.2.9", at: noon.Add(time.Duration(i) * time.Millisecond)})
	}
	l := open(t, ledger.Config{})
	fold(t, l, h)
	q := ledger.Query{Source: "stripe", Remote: "192.0.2.9"}
	page, next, err := l.List(t.Context(), "acme", q)
	if len(page) != 0 || next == "" || err != nil {
		t.Errorf("at first: %d, %q, %v", len(page), next, err)
	}
	if found := all(t, l, "acme", q); len(found) != 1 || found[0].Pos != e.Pos {
		t.Errorf("in the end: %v", found)
	}
}

func TestEventsThatBeginAlikeAreFoundAlsoWhereTheyAreMany(t *testing.T) {
	h := &history{}
	for i := range 200 {
		h.received(delivery{event: fmt.Sprintf("a.%d", i%100), at: noon.Add(time.Duration(i) * time.Second)})
		h.received(delivery{event: "b", at: noon.Add(time.Duration(i) * time.Second)})
	}
	h.received(delivery{event: "a"})
	h.received(delivery{event: "a/"})
	l := open(t, ledger.Config{})
	fold(t, l, h)
	for event, n := range map[string]int{"a.*": 200, "a.1*": 22, "a*": 202, "*": 402, "a.10": 2, "b*": 200, "c*": 0} {
		if found := all(t, l, "acme", ledger.Query{Event: event, Limit: 7}); len(found) != n {
			t.Errorf("%q: %d, not %d", event, len(found), n)
		}
	}
}

func TestAQueryThatCannotBeMeantIsRefusedForWhoAsked(t *testing.T) {
	l := open(t, ledger.Config{})
	for what, c := range map[string]struct {
		q    ledger.Query
		says string
	}{
		"a page too large":         {ledger.Query{Limit: 501}, "1 to 500"},
		"a page of less than none": {ledger.Query{Limit: -1}, "1 to 500"},
		"a cursor made up":         {ledger.Query{Before: "abc"}, "take what the page before"},
		"a cursor not of base64":   {ledger.Query{Before: "??"}, "take what the page before"},
	} {
		_, _, err := l.List(t.Context(), "acme", c.q)
		var refusal *carillon.Error
		if !errors.As(err, &refusal) || refusal.Code != carillon.CodeBadRequest || !strings.Contains(refusal.Message, c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzAnyCursorIsReadOrRefused(f *testing.F) {
	f.Add("")
	f.Add("AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("'; DROP TABLE delivery; --")
	h := &history{}
	h.received(delivery{})
	l, err := ledger.Open(f.Context(), ledger.Config{})
	if err != nil {
		f.Fatal(err)
	}
	fold(f, l, h)
	f.Fuzz(func(t *testing.T, s string) {
		page, _, err := l.List(t.Context(), "acme", ledger.Query{Before: s, Source: s, Event: s, Delivery: s, Remote: s})
		var refusal *carillon.Error
		if err != nil && !errors.As(err, &refusal) || s != "" && len(page) > 0 {
			t.Errorf("%d rows, %v", len(page), err)
		}
	})
}
