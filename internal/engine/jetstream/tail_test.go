package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
)

// tailed runs a tail of an organization's partition, from its start, whose every
// entry goes through pass. It returns what the tail ended with.
func tailed(t *testing.T, e *jetstream.Engine, org carillon.OrgID, pass func(*carillon.Entry)) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended <- e.Tail(ctx, e.Open(org).Partition(), 0, pass)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return ended
}

// liveTail is tailed into a channel, with one entry that has come the usual way.
func liveTail(t *testing.T, e *jetstream.Engine, org carillon.OrgID) (entries <-chan *carillon.Entry, ended <-chan error) {
	t.Helper()
	ch := make(chan *carillon.Entry, 4*jetstream.InletEntries)
	ended = tailed(t, e, org, func(entry *carillon.Entry) { ch <- entry })
	appendAll(t, e.Open(org), engine.Append{Event: numbered(0)})
	wantNumber(t, ch, 0)
	return ch, ended
}

func wantNumber(t *testing.T, ch <-chan *carillon.Entry, n int) {
	t.Helper()
	select {
	case entry := <-ch:
		if string(entry.Data) != fmt.Sprint(n) {
			t.Fatalf("entry %s at %v, want %d", entry.Data, entry.Pos, n)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("entry %d did not come", n)
	}
}

// An event whose answer was lost is in the log like any other.
func TestTailPassesWhatWasNotAnswered(t *testing.T) {
	for name, after := range map[string]func(*jetstream.Engine){
		"BeforeWhatIsAnsweredNext":    func(e *jetstream.Engine) { appendAll(t, e.Open("acme"), engine.Append{Event: numbered(2)}) },
		"WhenTheCommitterDoesNotKnow": func(e *jetstream.Engine) { e.Doubt("acme") },
		"AtTheNextLook":               func(*jetstream.Engine) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := open(t, jetstream.Config{Durability: jetstream.Relaxed, Partitions: 1})
			defer closeEngine(t, e)
			ch, _ := liveTail(t, e, "acme")
			if err := e.Unanswered(t.Context(), "acme", numbered(1)); err != nil {
				t.Fatal(err)
			}
			after(e)
			wantNumber(t, ch, 1)
			if name == "BeforeWhatIsAnsweredNext" {
				wantNumber(t, ch, 2)
			}
			appendAll(t, e.Open("acme"), engine.Append{Event: numbered(3)})
			wantNumber(t, ch, 3)
		})
	}
}

// A tail whose reader is slow holds a bounded number of entries, and bytes of them,
// and loses none.
func TestTailThatIsSlowReadsTheLog(t *testing.T) {
	for name, c := range map[string]struct{ entries, size int }{
		"Entries": {jetstream.InletEntries + 1000, 1},
		"Bytes":   {3 * jetstream.InletBytes / 500_000, 500_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := open(t, jetstream.Config{Durability: jetstream.Relaxed, Partitions: 1})
			defer closeEngine(t, e)
			log := e.Open("acme")
			blocked, release := make(chan struct{}), make(chan struct{})
			seqs := make(chan uint64, c.entries+1)
			_ = tailed(t, e, "acme", func(entry *carillon.Entry) {
				if entry.Pos.Seq == 1 {
					close(blocked)
					<-release
				}
				seqs <- entry.Pos.Seq
			})
			appendAll(t, log, engine.Append{Event: numbered(0)})
			<-blocked
			ev := *numbered(1)
			ev.Data = make([]byte, c.size)
			for i := 0; i < c.entries; i += 20 {
				batch := make([]engine.Append, min(20, c.entries-i))
				for j := range batch {
					batch[j].Event = &ev
				}
				appendAll(t, log, batch...)
			}
			close(release)
			for want := range uint64(c.entries) + 1 {
				select {
				case seq := <-seqs:
					if seq != want+1 {
						t.Fatalf("sequence %d, want %d", seq, want+1)
					}
				case <-time.After(30 * time.Second):
					t.Fatalf("sequence %d did not come", want+1)
				}
			}
			if e.Stats().TailCatchUps == 0 {
				t.Error("all of it lay in memory")
			}
		})
	}
}

// A stream that is made anew begins with sequences that a live tail has passed.
func TestTailBreaksWhereTheLogBeginsAgain(t *testing.T) {
	e := open(t, jetstream.Config{Durability: jetstream.Relaxed, Partitions: 1})
	defer closeEngine(t, e)
	ch, ended := liveTail(t, e, "acme")
	if err := e.Faults().RecreateStream(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		appendAll(t, e.Open("acme"), engine.Append{Event: numbered(n)})
	}
	if err := <-ended; err == nil || errors.Is(err, context.Canceled) {
		t.Fatalf("the tail ended with %v", err)
	}
	if len(ch) > 0 {
		t.Errorf("%d entries of the new log were passed on as what follows in the old one", len(ch))
	}
}

// While its server is stopped a tail ends at once, and does not begin.
func TestTailEndsWithItsServer(t *testing.T) {
	e := open(t, jetstream.Config{Durability: jetstream.Relaxed, Partitions: 1})
	defer closeEngine(t, e)
	_, ended := liveTail(t, e, "acme")
	e.Faults().StopServer()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "has stopped") { // not that it did not answer
		t.Fatalf("the tail ended with %v", err)
	}
	if err := <-tailed(t, e, "acme", func(*carillon.Entry) {}); err == nil || errors.Is(err, context.Canceled) {
		t.Fatalf("another ended with %v", err)
	}
	if err := e.Faults().RestartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	ch := make(chan *carillon.Entry, 10)
	_ = tailed(t, e, "acme", func(entry *carillon.Entry) { ch <- entry })
	wantNumber(t, ch, 0)
	appendAll(t, e.Open("acme"), engine.Append{Event: numbered(1)})
	wantNumber(t, ch, 1)
}
