package ledger_test

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

// model is the ledger as one would write it without a database.
type model struct {
	known    time.Duration
	rows     map[uint64]*ledger.Delivery
	attempts map[uint64][]ledger.Attempt
}

func newModel(known time.Duration) *model {
	return &model{known: known, rows: map[uint64]*ledger.Delivery{}, attempts: map[uint64][]ledger.Attempt{}}
}

func (m *model) apply(e *carillon.Entry) ledger.Verdict {
	switch e.Type {
	case intake.TypeReceived:
		r, err := intake.ParseReceived(&e.Event)
		if err != nil {
			return ledger.Verdict{}
		}
		d := &ledger.Delivery{
			Pos: e.Pos, Org: e.Org, Source: e.Source, Provider: r.Meta.Provider, Event: r.Meta.Event, Delivery: e.Delivery, Digest: r.Meta.Digest,
			Remote: hostOf(e.From), Size: r.Meta.Size, Received: e.Time, Signature: "ok", Secret: r.Meta.Secret, Order: r.Meta.Order, Spooled: r.Meta.Spooled,
		}
		act := ledger.Process
		if first := m.repeats(d); first != nil {
			d.State, d.DuplicateOf, act = ledger.Duplicate, first.Pos, ledger.Nothing
		}
		m.rows[e.Pos.Seq] = d
		return verdict(act, d)
	case intake.TypeRefused:
		r, err := intake.ParseRefused(&e.Event)
		if err == nil {
			m.rows[e.Pos.Seq] = &ledger.Delivery{
				Pos: e.Pos, Org: e.Org, Source: e.Source, Provider: r.Provider, Event: r.Event, Delivery: r.Delivery, Remote: hostOf(e.From),
				Size: r.Size, Received: e.Time, Signature: r.Reason, Status: r.Status, State: ledger.Refused,
			}
		}
		return ledger.Verdict{}
	}
	n, err := intake.ParseNote(&e.Event)
	d := m.rows[0]
	if err == nil {
		d = m.rows[n.Ref]
	}
	if d == nil || d.Org != e.Org {
		return ledger.Verdict{}
	}
	return m.note(e, n, d)
}

func (m *model) note(e *carillon.Entry, n *intake.Note, d *ledger.Delivery) ledger.Verdict {
	act := ledger.Nothing
	was := d.State
	switch {
	case was == ledger.Refused || was == ledger.Duplicate && e.Type != intake.TypeRetry:
		return verdict(act, d)
	case e.Type == intake.TypeRetry:
		act, d.State, d.Attempts, d.Took, d.Error, d.Due = ledger.Process, ledger.Pending, 0, 0, "", time.Time{}
		d.Again++
	case e.Type == intake.TypeDiscarded:
		if was != ledger.Pending && was != ledger.Dead {
			return verdict(act, d)
		}
		d.State, d.Due = ledger.Discarded, time.Time{}
	default:
		if was != ledger.Pending && e.Type != intake.TypeDone {
			return verdict(act, d)
		}
		if n.Attempts > d.Attempts {
			d.Total += n.Attempts - d.Attempts
		}
		d.Attempts, d.Took, d.Error, d.Due = n.Attempts, time.Duration(n.Micros)*time.Microsecond, n.Error, time.Time{}
		switch e.Type {
		case intake.TypeFailed:
			d.Due = e.Time.Add(time.Duration(n.RetryMS) * time.Millisecond)
		case intake.TypeDead:
			d.State = ledger.Dead
		default:
			d.State = map[string]ledger.State{"published": ledger.Published, "filtered": ledger.Filtered, "ran": ledger.Ran}[n.Outcome]
			d.Text, d.Error, d.Type, d.Published = n.Text, "", "", carillon.Position{}
			if n.Outcome == intake.Published {
				d.Type, d.Published = carillon.Type(n.Type), *n.Event
			}
		}
	}
	notes := append(m.attempts[d.Pos.Seq], ledger.Attempt{
		Seq: e.Pos.Seq, At: e.Time, Kind: e.Type, Outcome: n.Outcome, Attempts: n.Attempts, Took: time.Duration(n.Micros) * time.Microsecond,
		Retry: time.Duration(n.RetryMS) * time.Millisecond, Error: n.Error, Text: n.Text, By: n.By,
	})
	m.attempts[d.Pos.Seq] = notes[max(0, len(notes)-ledger.MaxAttempts):]
	return verdict(act, d)
}

func verdict(act ledger.Act, d *ledger.Delivery) ledger.Verdict {
	now := *d
	return ledger.Verdict{Act: act, Ref: d.Pos.Seq, Delivery: &now}
}

// repeats is the delivery that d is a duplicate of, or nil.
func (m *model) repeats(d *ledger.Delivery) (first *ledger.Delivery) {
	for _, o := range m.newestFirst(d.Org) {
		if o.Source == d.Source && o.Delivery == d.Delivery && o.Digest == d.Digest && o.State != ledger.Refused && d.Received.Sub(o.Received) < m.known {
			first = o
			break
		}
	}
	if first != nil && first.State == ledger.Duplicate {
		first = m.rows[first.DuplicateOf.Seq]
	}
	if first != nil && (first.State == ledger.Dead || first.State == ledger.Discarded) {
		return nil
	}
	return first
}

func (m *model) newestFirst(org carillon.OrgID) (rows []*ledger.Delivery) {
	for d := range maps.Values(m.rows) {
		if d.Org == org {
			rows = append(rows, d)
		}
	}
	slices.SortFunc(rows, func(a, b *ledger.Delivery) int {
		return cmp.Or(b.Received.Compare(a.Received), cmp.Compare(b.Pos.Seq, a.Pos.Seq))
	})
	return rows
}

func (m *model) counts() (all []ledger.Count) {
	type key struct {
		org    carillon.OrgID
		source string
		state  ledger.State
	}
	n := map[key]int64{}
	for _, d := range m.rows {
		n[key{d.Org, d.Source, d.State}]++
	}
	for k, n := range n {
		all = append(all, ledger.Count{Org: k.org, Source: k.source, State: k.state, N: n})
	}
	slices.SortFunc(all, func(a, b ledger.Count) int {
		return cmp.Or(cmp.Compare(a.Org, b.Org), cmp.Compare(a.Source, b.Source), cmp.Compare(a.State, b.State))
	})
	return all
}

var orgs = []carillon.OrgID{"acme", "beta"}

// aHistory draws a log with repeated deliveries, notes that fit and that do not,
// refusals, and entries that nobody can read.
func aHistory(t *rapid.T) *history {
	h := &history{partition: 2}
	now := noon
	for range rapid.IntRange(0, 60).Draw(t, "entries") {
		now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 1000, 3_600_000, 40 * 3_600_000}).Draw(t, "later")) * time.Millisecond)
		d := delivery{
			org:    rapid.SampledFrom(orgs).Draw(t, "org"),
			source: rapid.SampledFrom([]string{"github", "stripe"}).Draw(t, "source"),
			id:     rapid.SampledFrom([]string{"1", "2"}).Draw(t, "id"),
			event:  rapid.SampledFrom([]string{"push", "pull_request.opened", "pull_request.closed"}).Draw(t, "event"),
			body:   rapid.SampledFrom([]string{"", "body"}).Draw(t, "body"),
			remote: rapid.SampledFrom([]string{"192.0.2.1", "2001:db8::7"}).Draw(t, "remote"),
			at:     now.Add(-time.Duration(rapid.SampledFrom([]int{0, 0, 0, 5, 100}).Draw(t, "spooled")) * time.Hour),
		}
		switch kind := rapid.IntRange(0, 9).Draw(t, "kind"); kind {
		case 0, 1, 2:
			h.received(d)
		case 3:
			h.refused(d)
		case 4:
			h.add(d.org, &carillon.Event{
				Type: rapid.SampledFrom([]carillon.Type{intake.TypeReceived, intake.TypeRefused, intake.TypeDone, intake.TypePart, "hook.unheard"}).Draw(t, "broken"),
				Time: now, Source: d.source, Data: []byte("{"), CE: []byte("{"),
			})
		default:
			h.noteOf(d.org, now, rapid.SampledFrom([]carillon.Type{
				intake.TypeDone, intake.TypeFailed, intake.TypeDead, intake.TypeDead, intake.TypeRetry, intake.TypeDiscarded,
			}).Draw(t, "note"), intake.Note{
				Ref:     rapid.Uint64Range(0, h.seq()+2).Draw(t, "ref"),
				Outcome: rapid.SampledFrom([]string{"published", "filtered", "ran"}).Draw(t, "outcome"),
				Type:    "github.push", Event: &carillon.Position{Partition: 7, Seq: 1<<64 - 1, Check: 1<<32 - 1},
				Text: "done", Error: "exit 1", By: "ada", RetryMS: 5000, Micros: rapid.Int64Range(0, 1000).Draw(t, "micros"),
				Attempts: rapid.IntRange(0, 3).Draw(t, "attempts"),
			})
		}
	}
	return h
}

// in are the entries in batches; now and then some come twice.
func in(t *rapid.T, h *history) (batches [][]*carillon.Entry) {
	for from := 0; from < len(h.entries); {
		to := min(from+rapid.IntRange(1, 20).Draw(t, "batch"), len(h.entries))
		batches = append(batches, h.entries[max(0, from-rapid.IntRange(0, 3).Draw(t, "again")):to])
		from = to
	}
	return batches
}

func TestALedgerIsTheSumOfItsEntriesHoweverTheyCome(t *testing.T) {
	known := 72 * time.Hour
	dir := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		h := aHistory(rt)
		m := newModel(known)
		want := map[uint64]ledger.Verdict{}
		for _, e := range h.entries {
			want[e.Pos.Seq] = m.apply(e)
		}

		runs++
		cfg := ledger.Config{Keep: 10_000 * time.Hour, Known: known}
		if rapid.Bool().Draw(rt, "file") {
			cfg.Path = fmt.Sprintf("%s/%d.db", dir, runs)
		}
		l, err := ledger.Open(t.Context(), cfg)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() {
			if err := l.Close(); err != nil {
				rt.Error(err)
			}
		}()
		if err := l.Reset(t.Context(), 2, identity); err != nil {
			rt.Fatal(err)
		}
		seen := uint64(0)
		for _, batch := range in(rt, h) {
			verdicts, err := l.Apply(t.Context(), 2, identity, batch)
			if err != nil {
				rt.Fatal(err)
			}
			for i, e := range batch {
				expected := want[e.Pos.Seq]
				if e.Pos.Seq <= seen {
					expected = ledger.Verdict{}
				}
				if diff := gocmp.Diff(expected, verdicts[i]); diff != "" {
					rt.Fatalf("what follows from %v, a %s: %s", e.Pos, e.Type, diff)
				}
			}
			seen = batch[len(batch)-1].Pos.Seq
		}
		compare(t, rt, l, m)

		again, err := ledger.Open(t.Context(), ledger.Config{Keep: 10_000 * time.Hour, Known: known})
		if err != nil {
			rt.Fatal(err)
		}
		defer again.Close()
		fold(t, again, h)
		compare(t, rt, again, m)
	})
}

// compare holds every row of a ledger against the model.
func compare(t *testing.T, rt *rapid.T, l *ledger.Ledger, m *model) {
	t.Helper()
	for _, org := range orgs {
		want := m.newestFirst(org)
		got := all(t, l, org, ledger.Query{Limit: 7})
		if len(got) != len(want) {
			rt.Fatalf("%s has %d rows, not %d", org, len(got), len(want))
		}
		for i, d := range got {
			if diff := gocmp.Diff(*want[i], d); diff != "" {
				rt.Fatalf("row %d of %s: %s", i, org, diff)
			}
			one, attempts := get(t, l, &carillon.Entry{Org: org, Pos: d.Pos})
			if diff := gocmp.Diff(d, one); diff != "" {
				rt.Fatalf("alone it is another: %s", diff)
			}
			if diff := gocmp.Diff(m.attempts[d.Pos.Seq], attempts, cmpopts.EquateEmpty()); diff != "" {
				rt.Fatalf("the attempts of %v: %s", d.Pos, diff)
			}
		}
	}
	counts, err := l.Counts(t.Context())
	if err != nil {
		rt.Fatal(err)
	}
	if diff := gocmp.Diff(m.counts(), counts, cmpopts.EquateEmpty()); diff != "" {
		rt.Fatalf("the counts: %s", diff)
	}
	var pending []uint64
	for _, seq := range slices.Sorted(maps.Keys(m.rows)) {
		if m.rows[seq].State == ledger.Pending {
			pending = append(pending, seq)
		}
	}
	waiting, err := l.Waiting(t.Context(), 2, 0, 0)
	if err != nil {
		rt.Fatal(err)
	}
	for i, d := range waiting {
		if i >= len(pending) || d.Pos.Seq != pending[i] {
			rt.Fatalf("of %v, %d waits in place %d", pending, d.Pos.Seq, i)
		}
	}
	if len(waiting) != len(pending) {
		rt.Fatalf("%d wait, not %d", len(waiting), len(pending))
	}
}

// hostOf is an address without its port.
func hostOf(remote string) string {
	if h, _, err := net.SplitHostPort(remote); err == nil {
		return h
	}
	return remote
}
