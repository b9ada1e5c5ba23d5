package hub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/match"
)

const org = carillon.OrgID("acme")

var (
	now      = carillon.Cursor{Kind: carillon.CursorNow}
	earliest = carillon.Cursor{Kind: carillon.CursorEarliest}
)

func wantSeqs(t *testing.T, r *reader, want []uint64) {
	t.Helper()
	r.await(t, fmt.Sprintf("%d entries", len(want)), func() bool { return len(r.seqs) >= len(want) })
	if diff := cmp.Diff(want, r.seen()); diff != "" {
		t.Errorf("got %d entries, want %d; (-want +got):\n%.600s", len(r.seen()), len(want), diff)
	}
}

func TestLiveFeedGetsWhatMatchesInOrder(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{})
	r := n.read(t, org, now, -1, pattern("order.*"))
	a := n.publish(t, org, "order.made", 3)
	n.publish(t, org, "invoice.made", 2)
	n.publish(t, "other", "order.made", 2)
	b := n.publish(t, org, "order.paid", 2)
	wantSeqs(t, r, append(seqsOf(a), seqsOf(b)...))
}

func TestEachEntryOnceHoweverManyPatternsMatch(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{})
	r := n.read(t, org, now, -1, pattern("order.*"), pattern(">"), pattern("order.made"), pattern("*.made"))
	wantSeqs(t, r, seqsOf(n.publish(t, org, "order.made", 5)))
}

func TestFeedResumesFromTheRing(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{})
	a := n.publish(t, org, "a.b", 500)
	r := n.read(t, org, carillon.At(a[99].Pos), -1, pattern("a.>"))
	b := n.publish(t, org, "a.c", 50)
	wantSeqs(t, r, append(seqsOf(a[100:]), seqsOf(b)...))
	if st := n.hub.Stats(context.Background()); st.Passes != 0 {
		t.Errorf("%d passes over the log, want none", st.Passes)
	}
}

func TestLiteralFeedResumesThroughItsOwnKeys(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{})
	first := n.publish(t, org, "a.b", 1)
	var want []uint64
	for range 20 {
		n.publish(t, org, "a.b", 200)
		want = append(want, seqsOf(n.publish(t, org, "mine", 2))...)
		want = append(want, seqsOf(n.publish(t, org, "too", 1))...)
	}
	n.settle(t, n.publish(t, org, "a.b", 2))
	before := n.hub.Stats(context.Background()).Replayed
	r := n.read(t, org, carillon.At(first[0].Pos), -1, pattern("mine"), pattern("too"))
	want = append(want, seqsOf(n.publish(t, org, "mine", 3))...)
	wantSeqs(t, r, want)
	if n := n.hub.Stats(context.Background()).Replayed - before; n != 0 {
		t.Errorf("%d entries were found one by one, want none", n)
	}
}

func TestFeedResumesBelowTheRing(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{RingBytes: 1})
	a := n.publish(t, org, "a.b", 3000)
	n.settle(t, a)
	r := n.read(t, org, carillon.At(a[99].Pos), -1, pattern("a.>"))
	b := n.publish(t, org, "a.c", 50)
	wantSeqs(t, r, append(seqsOf(a[100:]), seqsOf(b)...))
	if st := n.hub.Stats(context.Background()); st.Passes == 0 {
		t.Error("the log was not read; the ring is too large for this test")
	}
}

func TestEarliestHasEverythingKeptAndNoGap(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{RingBytes: 1})
	a := n.publish(t, org, "a.b", 2000)
	n.settle(t, a)
	n.engine.ExpireBefore(int(a[0].Pos.Partition), a[500].Pos.Seq)
	r := n.read(t, org, earliest, -1, pattern("a.>"))
	wantSeqs(t, r, seqsOf(a[500:]))
	if len(r.gaps) != 0 {
		t.Errorf("gaps: %v", r.gaps)
	}
}

func TestSlowReaderReturnsToTheLogAndMissesNothing(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{RingBytes: 1, FeedQueue: 8})
	slow := n.read(t, org, now, 3, pattern(">"))
	fast := n.read(t, org, now, -1, pattern(">"))
	var all []uint64
	for range 30 {
		all = append(all, seqsOf(n.publish(t, org, "a.b", 100))...)
	}
	wantSeqs(t, fast, all)
	wantSeqs(t, slow, all[:3])
	slow.allow(500)
	wantSeqs(t, slow, all[:503])
	slow.allow(-1)
	wantSeqs(t, slow, all)
	all = append(all, seqsOf(n.publish(t, org, "a.c", 10))...)
	wantSeqs(t, slow, all)
}

func TestInboxBringsWhatIsSentToTheUserOnly(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{})
	alice := n.read(t, org, now, -1, wanted{user: "alice"})
	all := n.read(t, org, now, -1, pattern(">"))
	send := func(users ...string) []uint64 {
		r, err := engine.AppendWait(context.Background(), n.engine.Open(org), []engine.Append{
			{Event: &carillon.Event{Type: "note.sent", To: carillon.Audience{Users: users}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return seqsOf(r)
	}
	want := send("alice")
	send("bob")
	want = append(want, send("bob", "alice")...)
	public := seqsOf(n.publish(t, org, "a.b", 1))
	wantSeqs(t, alice, want)
	wantSeqs(t, all, public)
}

func TestSubjectNarrowsASubscription(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{})
	r := n.read(t, org, now, -1, wanted{pattern: "a.b", subject: "two"})
	var want []uint64
	for _, subject := range []string{"one", "two", "", "two"} {
		rc, err := engine.AppendWait(context.Background(), n.engine.Open(org), []engine.Append{{Event: &carillon.Event{Type: "a.b", Subject: subject}}})
		if err != nil {
			t.Fatal(err)
		}
		if subject == "two" {
			want = append(want, seqsOf(rc)...)
		}
	}
	wantSeqs(t, r, want)
}

func TestCursorOfAnEntryThatExpiredIsAGap(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{RingBytes: 1})
	a := n.publish(t, org, "a.b", 2000)
	n.settle(t, a)
	n.engine.ExpireBefore(int(a[0].Pos.Partition), a[500].Pos.Seq)
	r := n.read(t, org, carillon.At(a[10].Pos), -1, pattern(">"))
	if r.start.Gap == nil || r.start.Gap.Reason != carillon.GapExpired {
		t.Fatalf("gap %v, want expired", r.start.Gap)
	}
	wantSeqs(t, r, seqsOf(a[500:]))
}

func TestReaderOvertakenByRetentionIsTold(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{RingBytes: 1, FeedQueue: 8})
	r := n.read(t, org, now, 10, pattern(">"))
	a := n.publish(t, org, "a.b", 3000)
	r.await(t, "ten entries", func() bool { return len(r.seqs) == 10 })
	n.settle(t, a)
	n.engine.ExpireBefore(int(a[0].Pos.Partition), a[1000].Pos.Seq)
	r.allow(-1)
	r.await(t, "the newest entry", func() bool { return r.seqs[len(r.seqs)-1] == a[2999].Pos.Seq })
	// What a pass had at hand before retention came may still be given.
	got := r.seen()
	cut := slices.Index(got, a[1000].Pos.Seq)
	if cut < 10 || !slices.Equal(got[cut:], seqsOf(a[1000:])) || !slices.Equal(got[:cut], seqsOf(a[:cut])) {
		t.Errorf("got %d entries, %d of them before the first kept", len(got), cut)
	}
	if len(r.gaps) != 1 || r.gaps[0].Reason != carillon.GapExpired {
		t.Errorf("gaps %v, want one expired", r.gaps)
	}
}

func TestTruncatedLogIsAResetForEveryReaderOfThePartition(t *testing.T) {
	for name, damage := range map[string]func(e *memory.Engine, p int, last uint64){
		"tail lost":       func(e *memory.Engine, p int, last uint64) { e.Truncate(p, last-5) },
		"partition anew":  func(e *memory.Engine, p int, _ uint64) { e.Recreate(p) },
		"tail only broke": func(e *memory.Engine, p int, _ uint64) { e.BreakTails(p) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, memory.Config{}, hub.Config{})
			live := n.read(t, org, now, -1, pattern(">"))
			quiet := n.read(t, org, now, -1, pattern("never.comes"))
			a := n.publish(t, org, "a.b", 20)
			wantSeqs(t, live, seqsOf(a))
			damage(n.engine, int(a[0].Pos.Partition), a[19].Pos.Seq)
			if name == "tail only broke" {
				b := n.publish(t, org, "a.b", 3)
				wantSeqs(t, live, append(seqsOf(a), seqsOf(b)...))
				if len(live.gaps)+len(quiet.gaps) != 0 {
					t.Errorf("gaps %v %v, want none", live.gaps, quiet.gaps)
				}
				return
			}
			for _, r := range []*reader{live, quiet} {
				r.await(t, "a gap", func() bool { return len(r.gaps) == 1 && r.gaps[0].Reason == carillon.GapReset })
			}
			b := n.publish(t, org, "a.b", 3)
			wantSeqs(t, live, append(seqsOf(a), seqsOf(b)...))
			// A cursor from before the loss is not of this log.
			r := n.read(t, org, carillon.At(a[19].Pos), -1, pattern(">"))
			if r.start.Gap == nil || r.start.Gap.Reason != carillon.GapReset {
				t.Errorf("gap %v, want reset", r.start.Gap)
			}
		})
	}
}

func TestJustPublishedPositionIsNeverAFalseGap(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{RingBytes: 1})
	for range 200 {
		a := n.publish(t, org, "a.b", 1)
		r := n.read(t, org, carillon.At(a[0].Pos), -1, pattern(">"))
		if r.start.Gap != nil {
			t.Fatalf("gap %v", r.start.Gap)
		}
	}
}

// The whole of it: publishers, readers that come, stall, change their minds and
// come back, a ring and queues too small for comfort. Every reader must have got
// exactly what the log says it should.
func TestEveryReaderGetsExactlyItsEntries(t *testing.T) {
	for _, size := range []struct {
		name string
		cfg  hub.Config
	}{
		{"roomy", hub.Config{}},
		{"tight", hub.Config{RingBytes: 1, FeedQueue: 4, Mailbox: 4, Offers: 1, Shards: 3, ScanWorkers: 2}},
		{"tiny mailbox", hub.Config{Mailbox: 1, Shards: 4}},
		{"a few offers at a time", hub.Config{Offers: 2, Shards: 2}},
	} {
		t.Run(size.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, memory.Config{Partitions: 2}, size.cfg)
			orgs := []carillon.OrgID{"a", "b", "c"}
			types := []carillon.Type{"x.a", "x.b", "y.a", "y.b.c", "z"}
			patterns := []carillon.Pattern{"x.*", ">", "*.a", "y.>", "z", "x.a", "y.b.c", "z", "x.b"}
			var wg sync.WaitGroup
			var mu sync.Mutex
			var positions []carillon.Position // published, of any org
			orgOf := map[carillon.Position]carillon.OrgID{}
			for _, o := range orgs {
				wg.Go(func() {
					for range 150 {
						rc := n.publish(t, o, types[rand.N(len(types))], 1+rand.N(20))
						mu.Lock()
						for _, r := range rc {
							positions = append(positions, r.Pos)
							orgOf[r.Pos] = o
						}
						mu.Unlock()
					}
				})
			}
			type expectation struct {
				r     *reader
				org   carillon.OrgID
				start uint64
				pats  []carillon.Pattern
			}
			var all []expectation
			for range 3 {
				wg.Go(func() {
					for range 25 {
						o := orgs[rand.N(len(orgs))]
						cursor := now
						mu.Lock()
						if len(positions) > 0 && rand.N(2) == 0 {
							p := positions[rand.N(len(positions))]
							o, cursor = orgOf[p], carillon.At(p)
						} else if rand.N(4) == 0 {
							cursor = earliest
						}
						mu.Unlock()
						var pats []carillon.Pattern
						var subs []wanted
						for range 1 + rand.N(3) {
							p := patterns[rand.N(len(patterns))]
							pats = append(pats, p)
							subs = append(subs, pattern(p))
						}
						r := n.read(t, o, cursor, rand.N(50), subs...)
						mu.Lock()
						all = append(all, expectation{r, o, r.start.Pos.Seq, pats})
						mu.Unlock()
						if rand.N(3) == 0 {
							r.allow(rand.N(200))
						}
					}
				})
			}
			wg.Wait()
			for _, x := range all {
				x.r.allow(-1)
			}
			for _, x := range all {
				if x.r.start.Gap != nil {
					t.Errorf("start with gap %v", x.r.start.Gap)
				}
				want := n.logged(t, x.org, x.start, func(e *carillon.Entry) bool {
					return slices.ContainsFunc(x.pats, func(p carillon.Pattern) bool { return match.Match(p, e.Type) })
				})
				x.r.await(t, fmt.Sprintf("all %d of %v after %d: %v", len(want), x.pats, x.start, want), func() bool { return len(x.r.seqs) >= len(want) && len(x.r.marks) == 1 })
				if got := x.r.seen(); !slices.Equal(got, want) {
					t.Fatalf("%v after %d: got %d entries, want %d: %s", x.pats, x.start, len(got), len(want), cmp.Diff(want, got))
				}
			}
		})
	}
}
