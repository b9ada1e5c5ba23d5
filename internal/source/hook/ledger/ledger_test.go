package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

func TestADeliverySeenLessThan72HoursBeforeIsADuplicateUnlessItEndedBadly(t *testing.T) {
	const hour = time.Hour
	first := delivery{id: "x", body: "b"}
	dead := func(h *history) { h.note(intake.TypeDead, intake.Note{Ref: 1, Attempts: 3, Error: "exit 1"}) }
	discarded := func(h *history) { h.note(intake.TypeDiscarded, intake.Note{Ref: 1, By: "ada"}) }
	retried := func(h *history) { h.note(intake.TypeRetry, intake.Note{Ref: 1, By: "ada"}) }
	came := func(d delivery) func(*history) { return func(h *history) { h.received(d) } }
	for _, c := range []struct {
		what   string
		first  func(*history)
		then   []func(*history)
		last   delivery
		repeat uint64 // 0: it is processed
	}{
		{"the same, at once", came(first), nil, delivery{id: "x", body: "b"}, 1},
		{"the same, published", came(first), []func(*history){func(h *history) { h.published(1) }}, delivery{id: "x", body: "b"}, 1},
		{"a moment before 72 hours", came(first), nil, delivery{id: "x", body: "b", at: noon.Add(72*hour - time.Millisecond)}, 1},
		{"after 72 hours", came(first), nil, delivery{id: "x", body: "b", at: noon.Add(72 * hour)}, 0},
		{"received earlier, but later in the log", came(first), nil, delivery{id: "x", body: "b", at: noon.Add(-100 * hour)}, 1},
		{"another body", came(first), nil, delivery{id: "x", body: "c"}, 0},
		{"another id", came(first), nil, delivery{id: "y", body: "b"}, 0},
		{"another source", came(first), nil, delivery{id: "x", body: "b", source: "gitlab"}, 0},
		{"another organization", came(first), nil, delivery{id: "x", body: "b", org: "beta"}, 0},
		{"the first was refused", func(h *history) { h.refused(first) }, nil, delivery{id: "x", body: "b"}, 0},
		{"the first is dead", came(first), []func(*history){dead}, delivery{id: "x", body: "b"}, 0},
		{"the first is discarded", came(first), []func(*history){discarded}, delivery{id: "x", body: "b"}, 0},
		{"the first was dead, and is retried", came(first), []func(*history){dead, retried}, delivery{id: "x", body: "b"}, 1},
		{"the first is dead, and one came that was processed", came(first), []func(*history){dead, came(first)}, delivery{id: "x", body: "b"}, 3},
		{"the first has a duplicate", came(first), []func(*history){came(first)}, delivery{id: "x", body: "b"}, 1},
		{"the first has a duplicate, and is dead", came(first), []func(*history){came(first), dead}, delivery{id: "x", body: "b"}, 0},
		{"a duplicate in between is less than 72 hours old", came(first), []func(*history){came(delivery{id: "x", body: "b", at: noon.Add(71 * hour)})}, delivery{id: "x", body: "b", at: noon.Add(140 * hour)}, 1},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := &history{}
			c.first(h)
			for _, f := range c.then {
				f(h)
			}
			l := open(t, ledger.Config{})
			fold(t, l, h)

			now := or(c.last.at, noon)
			org, source := or(c.last.org, "acme"), or(c.last.source, "github")
			pos, known, err := l.Known(t.Context(), org, source, c.last.id, digest(c.last.body), now)
			if err != nil {
				t.Fatal(err)
			}
			if known != (c.repeat != 0) || known && pos != h.entries[c.repeat-1].Pos {
				t.Errorf("known: %v, %v", known, pos)
			}

			e := h.received(c.last)
			v := apply(t, l, h, e)[0]
			d, _ := get(t, l, e)
			act, state := ledger.Process, ledger.Pending
			if c.repeat != 0 {
				act, state = ledger.Nothing, ledger.Duplicate
			}
			if v.Act != act || d.State != state || d.DuplicateOf.Seq != c.repeat || known && d.DuplicateOf != pos || v.Ref != e.Pos.Seq {
				t.Errorf("act %d on %d; it is %s, of %v", v.Act, v.Ref, d.State, d.DuplicateOf)
			}
		})
	}
}

func TestANoteChangesADeliveryWhereItFits(t *testing.T) {
	done := func(outcome string) note {
		return note{intake.TypeDone, intake.Note{Ref: 1, Outcome: outcome, Type: "github.push", Event: &carillon.Position{Seq: 9}, Attempts: 1}}
	}
	failed := note{intake.TypeFailed, intake.Note{Ref: 1, Attempts: 1, Error: "exit 1", RetryMS: 1000}}
	dead := note{intake.TypeDead, intake.Note{Ref: 1, Attempts: 2, Error: "exit 2"}}
	retry := note{intake.TypeRetry, intake.Note{Ref: 1, By: "ada"}}
	discard := note{intake.TypeDiscarded, intake.Note{Ref: 1, By: "ada"}}
	for _, c := range []struct {
		what  string
		notes []note
		state ledger.State
		fits  bool // the last one
		act   ledger.Act
	}{
		{"published", []note{done("published")}, ledger.Published, true, ledger.Nothing},
		{"filtered", []note{done("filtered")}, ledger.Filtered, true, ledger.Nothing},
		{"ran", []note{done("ran")}, ledger.Ran, true, ledger.Nothing},
		{"an outcome nobody knows", []note{done("sung")}, ledger.Pending, false, ledger.Nothing},
		{"failed", []note{failed}, ledger.Pending, true, ledger.Nothing},
		{"dead", []note{failed, dead}, ledger.Dead, true, ledger.Nothing},
		{"a dead one is published after all", []note{dead, done("published")}, ledger.Published, true, ledger.Nothing},
		{"a dead one fails", []note{dead, failed}, ledger.Dead, false, ledger.Nothing},
		{"a dead one is retried", []note{dead, retry}, ledger.Pending, true, ledger.Process},
		{"a dead one is discarded", []note{dead, discard}, ledger.Discarded, true, ledger.Nothing},
		{"a discarded one is retried", []note{dead, discard, retry}, ledger.Pending, true, ledger.Process},
		{"a discarded one dies", []note{discard, dead}, ledger.Discarded, false, ledger.Nothing},
		{"a discarded one is discarded", []note{discard, discard}, ledger.Discarded, false, ledger.Nothing},
		{"a waiting one is discarded", []note{failed, discard}, ledger.Discarded, true, ledger.Nothing},
		{"a waiting one is wanted at once", []note{failed, retry}, ledger.Pending, true, ledger.Process},
		{"a published one is processed again", []note{done("published"), retry}, ledger.Pending, true, ledger.Process},
		{"a published one dies", []note{done("published"), dead}, ledger.Published, false, ledger.Nothing},
		{"a published one fails", []note{done("published"), failed}, ledger.Published, false, ledger.Nothing},
		{"a published one is discarded", []note{done("published"), discard}, ledger.Published, false, ledger.Nothing},
		{"a filtered one is retried and published", []note{done("filtered"), retry, done("published")}, ledger.Published, true, ledger.Nothing},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := &history{}
			e := h.received(delivery{})
			for _, n := range c.notes {
				h.note(n.of, n.note)
			}
			l := open(t, ledger.Config{})
			verdicts := fold(t, l, h)
			d, attempts := get(t, l, e)
			last := verdicts[len(verdicts)-1]
			if d.State != c.state || last.Act != c.act || last.Ref != 1 {
				t.Errorf("it is %s; act %d on %d", d.State, last.Act, last.Ref)
			}
			if ignored := l.Stats().Ignored; (ignored == 0) != c.fits {
				t.Errorf("%d notes are ignored", ignored)
			}
			if noted := len(attempts) > 0 && attempts[len(attempts)-1].Seq == h.seq(); noted != c.fits {
				t.Errorf("noted: %v", noted)
			}
			if d.State != ledger.Pending && !d.Due.IsZero() {
				t.Errorf("it is due at %v", d.Due)
			}
		})
	}
}

type note struct {
	of   carillon.Type
	note intake.Note
}

func TestARetryBeginsToCountAgainButTheTotalGoesOn(t *testing.T) {
	h := &history{}
	e := h.received(delivery{})
	h.note(intake.TypeFailed, intake.Note{Ref: 1, Attempts: 1, Error: "one", RetryMS: 5000, Micros: 10})
	h.note(intake.TypeDead, intake.Note{Ref: 1, Attempts: 2, Error: "two", Micros: 5_000_000})
	h.note(intake.TypeRetry, intake.Note{Ref: 1, By: "ada"})
	h.note(intake.TypeFailed, intake.Note{Ref: 1, Attempts: 1, Error: "three", RetryMS: 30_000, Micros: 7})
	l := open(t, ledger.Config{})
	fold(t, l, h)
	d, attempts := get(t, l, e)
	if d.Attempts != 1 || d.Total != 3 || d.Again != 1 || d.Error != "three" || d.Took != 7*time.Microsecond || !d.Due.Equal(noon.Add(30*time.Second)) {
		t.Errorf("%+v", d)
	}
	want := []ledger.Attempt{
		{Seq: 2, At: noon, Kind: intake.TypeFailed, Attempts: 1, Took: 10 * time.Microsecond, Retry: 5 * time.Second, Error: "one"},
		{Seq: 3, At: noon, Kind: intake.TypeDead, Attempts: 2, Took: 5 * time.Second, Error: "two"},
		{Seq: 4, At: noon, Kind: intake.TypeRetry, By: "ada"},
		{Seq: 5, At: noon, Kind: intake.TypeFailed, Attempts: 1, Took: 7 * time.Microsecond, Retry: 30 * time.Second, Error: "three"},
	}
	if diff := cmp.Diff(want, attempts); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsSaidAboutADeliveryThatIsNotKnownIsIgnoredAndCounted(t *testing.T) {
	h := &history{}
	h.received(delivery{})
	h.note(intake.TypeRetry, intake.Note{Ref: 0})
	h.note(intake.TypeRetry, intake.Note{Ref: 2})                           // a note
	h.note(intake.TypeRetry, intake.Note{Ref: 99})                          // to come
	h.note(intake.TypeRetry, intake.Note{Ref: 1 << 63})                     // no place at all
	h.noteOf("beta", noon, intake.TypeDiscarded, intake.Note{Ref: 1})       // another organization's
	h.refused(delivery{})                                                   // nothing can be done about it
	h.note(intake.TypeRetry, intake.Note{Ref: 7})                           // so this is nothing
	h.add("acme", &carillon.Event{Type: "hook.retry", Data: []byte("nil")}) // and this cannot be read
	l := open(t, ledger.Config{})
	for i, v := range fold(t, l, h)[1:] {
		if v.Act != ledger.Nothing {
			t.Errorf("entry %d: act %d", i+2, v.Act)
		}
	}
	if s := l.Stats(); s.Ignored != 6 || s.Malformed != 1 || s.Applied != 9 || s.Transactions != 1 {
		t.Errorf("%+v", s)
	}
	if d, _ := get(t, l, h.entries[0]); d.State != ledger.Pending {
		t.Errorf("it is %s", d.State)
	}
}

func TestOfManyNotesTheLastFiftyAreKept(t *testing.T) {
	h := &history{}
	e := h.received(delivery{})
	for i := range 120 {
		h.note(intake.TypeFailed, intake.Note{Ref: 1, Attempts: i + 1, Error: fmt.Sprint(i)})
	}
	l := open(t, ledger.Config{})
	fold(t, l, h)
	d, attempts := get(t, l, e)
	if len(attempts) != ledger.MaxAttempts || attempts[0].Error != "70" || attempts[49].Error != "119" || d.Total != 120 {
		t.Errorf("%d are kept, from %q; %d in total", len(attempts), attempts[0].Error, d.Total)
	}
}

func TestLongAndBrokenTextsAreCutToValidOnes(t *testing.T) {
	h := &history{}
	e := h.received(delivery{event: strings.Repeat("é", 200), id: strings.Repeat("i", 300)})
	h.note(intake.TypeDead, intake.Note{Ref: 1, Error: strings.Repeat("x", 10_000), Attempts: 1 << 60, Micros: -5})
	r := h.refused(delivery{})
	r.From = "\xff\x00"
	l := open(t, ledger.Config{})
	fold(t, l, h)
	d, _ := get(t, l, e)
	if d.Event != strings.Repeat("é", 128) || len(d.Error) != 4096 || len(d.Delivery) != 256 || d.Attempts != 1<<31-1 || d.Took != 0 {
		t.Errorf("%d of event, %d of error, %d of id, %d attempts, %v", len(d.Event), len(d.Error), len(d.Delivery), d.Attempts, d.Took)
	}
	if found, err := l.ByDelivery(t.Context(), "acme", strings.Repeat("i", 300)); err != nil || found.Pos != e.Pos {
		t.Errorf("by its long id: %v, %v", found.Pos, err)
	}
	if d, _ := get(t, l, r); d.Remote != "\uFFFD\x00" {
		t.Errorf("%q", d.Remote)
	}
}

func TestTheFoldGoesOnFromItsCursor(t *testing.T) {
	cfg := inFile(t)
	h := &history{partition: 3}
	a, b := h.received(delivery{}), h.received(delivery{})
	l, err := ledger.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if id, pos, err := l.Cursor(t.Context(), 3); id != "" || pos != (carillon.Position{Partition: 3}) || err != nil {
		t.Errorf("of a new ledger it is %q, %v, %v", id, pos, err)
	}
	fold(t, l, h)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, cfg)
	if id, pos, err := l.Cursor(t.Context(), 3); id != identity || pos != b.Pos || err != nil {
		t.Errorf("it is %q, %v, %v", id, pos, err)
	}
	n := h.published(1)
	v := apply(t, l, h, a, b, n)
	if v[0] != (ledger.Verdict{}) || v[1] != (ledger.Verdict{}) || v[2].Ref != 1 {
		t.Errorf("%v", v)
	}
	if id, pos, err := l.Cursor(t.Context(), 4); id != "" || pos.Seq != 0 || err != nil {
		t.Errorf("of another partition it is %q, %v, %v", id, pos, err)
	}
}

func TestEntriesOfAnotherLogAreRefusedUntilThePartitionIsReset(t *testing.T) {
	for _, others := range []bool{false, true} {
		t.Run(fmt.Sprintf("other partitions: %v", others), func(t *testing.T) {
			h, other := &history{}, &history{partition: 1}
			e := h.received(delivery{})
			kept := other.received(delivery{org: "beta"})
			l := open(t, ledger.Config{})
			if _, err := l.Apply(t.Context(), 0, identity, h.entries); !errors.Is(err, ledger.ErrOtherLog) {
				t.Errorf("to a new ledger: %v", err)
			}
			fold(t, l, h)
			if others {
				fold(t, l, other)
			}
			if _, err := l.Apply(t.Context(), 0, "log-2", h.entries); !errors.Is(err, ledger.ErrOtherLog) {
				t.Errorf("of another log: %v", err)
			}
			if err := l.Reset(t.Context(), 0, "log-2"); err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.Get(t.Context(), "acme", e.Pos); !errors.Is(err, ledger.ErrNotFound) {
				t.Errorf("what was there: %v", err)
			}
			want := []ledger.Count{{Org: "beta", Source: "github", State: ledger.Pending, N: 1}}
			if !others {
				want = nil
			} else if d, _ := get(t, l, kept); d.State != ledger.Pending {
				t.Errorf("of the other partition: %s", d.State)
			}
			counts, err := l.Counts(t.Context())
			if diff := cmp.Diff(want, counts); diff != "" || err != nil {
				t.Error(diff, err)
			}
			if v, err := l.Apply(t.Context(), 0, "log-2", h.entries); err != nil || v[0].Act != ledger.Process {
				t.Errorf("after that: %v, %v", v, err)
			}
		})
	}
}

func TestWhatIsNotOfThePartitionIsRefusedWithWhatWouldBeRight(t *testing.T) {
	l := open(t, ledger.Config{})
	if err := l.Reset(t.Context(), 0, identity); err != nil {
		t.Fatal(err)
	}
	for _, pos := range []carillon.Position{{Partition: 1, Seq: 1}, {Seq: 0}, {Seq: 1 << 47}} {
		_, err := l.Apply(t.Context(), 0, identity, []*carillon.Entry{{Pos: pos}})
		if err == nil || !strings.Contains(err.Error(), "ledger: the entry") {
			t.Errorf("%v: %v", pos, err)
		}
	}
	for _, partition := range []int{-1, 1 << 16} {
		if _, err := l.Apply(t.Context(), partition, identity, nil); err == nil || !strings.Contains(err.Error(), "0 to 65535") {
			t.Errorf("partition %d: %v", partition, err)
		}
	}
}

func TestABatchIsFoldedAllOrNotAtAll(t *testing.T) {
	h := &history{}
	for range 50 {
		h.received(delivery{})
	}
	l := open(t, inFile(t))
	if err := l.Reset(t.Context(), 0, identity); err != nil {
		t.Fatal(err)
	}
	for _, entries := range []int{0, 1, 49} {
		if _, err := l.Apply(&ending{t.Context(), entries}, 0, identity, h.entries); !errors.Is(err, context.Canceled) {
			t.Errorf("after %d entries: %v", entries, err)
		}
	}
	if _, pos, err := l.Cursor(t.Context(), 0); pos.Seq != 0 || err != nil {
		t.Errorf("the cursor is at %v, %v", pos, err)
	}
	apply(t, l, h, h.entries...)
	if n := len(all(t, l, "acme", ledger.Query{})); n != 50 {
		t.Errorf("%d rows", n)
	}
}

// ending is a context that ends after it was asked so often.
type ending struct {
	context.Context
	asked int
}

func (e *ending) Err() error {
	if e.asked--; e.asked < 0 {
		return context.Canceled
	}
	return nil
}

func TestReadersSeeWholeBatchesWhileOthersAreFolded(t *testing.T) {
	const batch = 10
	for _, cfg := range []ledger.Config{inFile(t), {}} {
		h := &history{}
		for i := range 10 * batch {
			h.received(delivery{id: fmt.Sprint(i)})
		}
		l := open(t, cfg)
		if err := l.Reset(t.Context(), 0, identity); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		done := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					found, _, err := l.List(t.Context(), "acme", ledger.Query{Limit: ledger.MaxPage})
					if err != nil || len(found)%batch != 0 {
						t.Errorf("%d rows, %v", len(found), err)
						return
					}
					if _, _, err := l.Known(t.Context(), "acme", "github", "1", digest(""), noon); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for i := 0; i < len(h.entries); i += batch {
			apply(t, l, h, h.entries[i:i+batch]...)
		}
		close(done)
		wg.Wait()
	}
}

func TestNothingOfAnotherOrganizationComesOut(t *testing.T) {
	h := &history{}
	e := h.received(delivery{org: "acme", id: "x", body: "b"})
	h.noteOf("acme", noon, intake.TypeFailed, intake.Note{Ref: 1, Error: "secret"})
	h.refused(delivery{org: "acme", id: "y"})
	l := open(t, inFile(t))
	fold(t, l, h)
	_, next, err := l.List(t.Context(), "acme", ledger.Query{Limit: 1})
	if err != nil || next == "" {
		t.Fatal(next, err)
	}
	for what, q := range map[string]ledger.Query{
		"everything": {}, "a source": {Source: "github"}, "an event": {Event: "push"}, "events": {Event: "p*"}, "a delivery": {Delivery: "x"},
		"a remote": {Remote: "192.0.2.1"}, "a state": {States: []ledger.State{ledger.Pending}}, "another's cursor": {Before: next},
		"an address and a source": {Remote: "192.0.2.1", Source: "github"},
	} {
		if page, next, err := l.List(t.Context(), "beta", q); len(page) != 0 || next != "" || err != nil {
			t.Errorf("%s: %v, %q, %v", what, page, next, err)
		}
	}
	if d, attempts, err := l.Get(t.Context(), "beta", e.Pos); !errors.Is(err, ledger.ErrNotFound) || d != (ledger.Delivery{}) || attempts != nil {
		t.Errorf("by its place: %v, %v, %v", d, attempts, err)
	}
	if d, err := l.ByDelivery(t.Context(), "beta", "x"); !errors.Is(err, ledger.ErrNotFound) || d != (ledger.Delivery{}) {
		t.Errorf("by its id: %v, %v", d, err)
	}
	if pos, ok, err := l.Known(t.Context(), "beta", "github", "x", digest("b"), noon); ok || !pos.IsZero() || err != nil {
		t.Errorf("known: %v, %v, %v", pos, ok, err)
	}
}

func TestADeliveryIsFoundByItsIdBeforeARequestThatClaimedThatId(t *testing.T) {
	h := &history{}
	h.received(delivery{id: "x", body: "1"})
	e := h.received(delivery{id: "x", body: "2", at: noon.Add(time.Minute)})
	h.published(2)
	h.refused(delivery{id: "x", at: noon.Add(time.Hour)})
	r := h.refused(delivery{id: "y"})
	l := open(t, ledger.Config{})
	fold(t, l, h)
	if d, err := l.ByDelivery(t.Context(), "acme", "x"); err != nil || d.Pos != e.Pos {
		t.Errorf("%v, %v", d.Pos, err)
	}
	if d, err := l.ByDelivery(t.Context(), "acme", "y"); err != nil || d.Pos != r.Pos {
		t.Errorf("one that was only claimed: %v, %v", d.Pos, err)
	}
}

func TestAPlaceWithAnotherCheckIsAnotherDelivery(t *testing.T) {
	h := &history{}
	e := h.received(delivery{})
	l := open(t, ledger.Config{})
	fold(t, l, h)
	pos := e.Pos
	pos.Check++
	if _, _, err := l.Get(t.Context(), "acme", pos); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("%v", err)
	}
	pos.Check = 0
	if _, _, err := l.Get(t.Context(), "acme", pos); err != nil {
		t.Errorf("without a check: %v", err)
	}
}

func TestWhatWaitsIsGivenInOrderAndInParts(t *testing.T) {
	h := &history{}
	for i := range 10 {
		h.received(delivery{org: orgs[i%2]})
	}
	h.published(3)
	l := open(t, ledger.Config{})
	fold(t, l, h)
	other := &history{partition: 1}
	other.received(delivery{})
	fold(t, l, other)
	var got []uint64
	for after := uint64(0); ; {
		part, err := l.Waiting(t.Context(), 0, after, 4)
		if err != nil {
			t.Fatal(err)
		}
		if len(part) == 0 {
			break
		}
		for _, d := range part {
			got = append(got, d.Pos.Seq)
		}
		after = part[len(part)-1].Pos.Seq
	}
	if diff := cmp.Diff([]uint64{1, 2, 4, 5, 6, 7, 8, 9, 10}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAStateHasAName(t *testing.T) {
	for s := range ledger.Refused + 1 {
		if got, err := ledger.ParseState(s.String()); got != s || err != nil {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	if _, err := ledger.ParseState("done"); err == nil || !strings.Contains(err.Error(), "pending, published") {
		t.Errorf("%v", err)
	}
}

func TestStatsSayWhatWasFoldedAndWhen(t *testing.T) {
	h := &history{}
	h.received(delivery{id: "x"})
	h.received(delivery{id: "x"})
	l := open(t, ledger.Config{Now: func() time.Time { return noon }})
	if s := l.Stats(); !s.LastApply.IsZero() {
		t.Errorf("%+v", s)
	}
	fold(t, l, h)
	l.SetLag(12)
	if diff := cmp.Diff(ledger.Stats{Applied: 2, Transactions: 1, Duplicates: 1, LastApply: noon, Lag: 12}, l.Stats()); diff != "" {
		t.Error(diff)
	}
}

func TestAClosedLedgerSaysSo(t *testing.T) {
	l := open(t, inFile(t))
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := l.List(t.Context(), "acme", ledger.Query{}); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("%v", err)
	}
	if err := l.Reset(t.Context(), 0, "x"); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("%v", err)
	}
}
