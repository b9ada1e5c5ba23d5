package ledger_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

const identity = "log-1"

// history is an intake log, of one partition.
type history struct {
	partition uint16
	entries   []*carillon.Entry
}

func (h *history) seq() uint64 { return uint64(len(h.entries)) }

func (h *history) add(org carillon.OrgID, e *carillon.Event) *carillon.Entry {
	seq := h.seq() + 1
	entry := &carillon.Entry{
		Event: *e, Org: org, Accepted: e.Time,
		Pos: carillon.Position{Partition: h.partition, Seq: seq, Check: uint32(seq*2654435761) | 1},
	}
	h.entries = append(h.entries, entry)
	return entry
}

// delivery is what a test says of one; "" is what most are.
type delivery struct {
	org                             carillon.OrgID
	source, event, id, body, remote string
	at                              time.Time
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func digest(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

func (h *history) received(d delivery) *carillon.Entry {
	r := &intake.Received{
		Source: or(d.source, "github"), Delivery: or(d.id, fmt.Sprint("id-", h.seq()+1)), Remote: or(d.remote, "192.0.2.1"),
		At: or(d.at, noon), Body: []byte(d.body),
		Meta: intake.Meta{
			Provider: "github", Event: or(d.event, "push"), Header: http.Header{"User-Agent": {"GitHub-Hookshot/1"}},
			Digest: digest(d.body), Secret: "2026", Order: "o-1",
		},
	}
	events, err := r.Events(nil)
	if err != nil {
		panic(err)
	}
	return h.add(or(d.org, "acme"), events[0])
}

func (h *history) refused(d delivery) *carillon.Entry {
	r := &intake.Refused{
		Source: or(d.source, "github"), Delivery: d.id, Remote: or(d.remote, "198.51.100.9"), At: or(d.at, noon),
		Provider: "github", Event: d.event, Size: int64(len(d.body)), Status: 401, Reason: "signature",
	}
	e, err := r.Entry()
	if err != nil {
		panic(err)
	}
	return h.add(or(d.org, "acme"), e)
}

func (h *history) note(of carillon.Type, n intake.Note) *carillon.Entry {
	return h.noteOf("acme", noon, of, n)
}

func (h *history) noteOf(org carillon.OrgID, at time.Time, of carillon.Type, n intake.Note) *carillon.Entry {
	e, err := n.Entry(of, at, "github")
	if err != nil {
		panic(err)
	}
	return h.add(org, e)
}

// published is the note of a delivery that became an event.
func (h *history) published(ref uint64) *carillon.Entry {
	return h.note(intake.TypeDone, intake.Note{
		Ref: ref, Outcome: intake.Published, Type: "github.push", Event: &carillon.Position{Partition: 4, Seq: 1000 + ref, Check: 5}, Attempts: 1, Micros: 800,
	})
}

func open(t testing.TB, cfg ledger.Config) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func inFile(t testing.TB) ledger.Config {
	return ledger.Config{Path: filepath.Join(t.TempDir(), "ledger.db")}
}

// fold resets the ledger and folds the whole history.
func fold(t testing.TB, l *ledger.Ledger, h *history) []ledger.Verdict {
	t.Helper()
	if err := l.Reset(t.Context(), int(h.partition), identity); err != nil {
		t.Fatal(err)
	}
	return apply(t, l, h, h.entries...)
}

func apply(t testing.TB, l *ledger.Ledger, h *history, entries ...*carillon.Entry) []ledger.Verdict {
	t.Helper()
	verdicts, err := l.Apply(t.Context(), int(h.partition), identity, entries)
	if err != nil {
		t.Fatal(err)
	}
	return verdicts
}

func get(t testing.TB, l *ledger.Ledger, e *carillon.Entry) (ledger.Delivery, []ledger.Attempt) {
	t.Helper()
	d, attempts, err := l.Get(t.Context(), e.Org, e.Pos)
	if err != nil {
		t.Fatalf("%v: %v", e.Pos, err)
	}
	return d, attempts
}

// all lists everything that fits a query, in pages.
func all(t testing.TB, l *ledger.Ledger, org carillon.OrgID, q ledger.Query) (found []ledger.Delivery) {
	t.Helper()
	for {
		page, next, err := l.List(t.Context(), org, q)
		if err != nil {
			t.Fatal(err)
		}
		if limit := or(q.Limit, ledger.DefaultPage); len(page) > limit {
			t.Fatalf("a page of %d, where at most %d are wanted", len(page), limit)
		}
		found = append(found, page...)
		if next == "" {
			return found
		}
		q.Before = next
	}
}
