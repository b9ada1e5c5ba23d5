package ledger_test

import (
	"cmp"
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

// counted are the counters as they would be if nobody kept them, and how many
// notes belong to no row.
func counted(t *testing.T, path string) (all []ledger.Count, orphans int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "SELECT org, source, state, count(*) FROM delivery GROUP BY org, source, state")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var c ledger.Count
		if err := rows.Scan(&c.Org, &c.Source, &c.State, &c.N); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b ledger.Count) int {
		return cmp.Or(cmp.Compare(a.Org, b.Org), cmp.Compare(a.Source, b.Source), cmp.Compare(a.State, b.State))
	})
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM attempt WHERE place NOT IN (SELECT place FROM delivery)").Scan(&orphans); err != nil {
		t.Fatal(err)
	}
	return all, orphans
}

// days is a history of 3,000 days with a delivery each, of two organizations.
func days() *history {
	h := &history{}
	for i := range 3000 {
		at := noon.Add(time.Duration(i) * 24 * time.Hour)
		e := h.received(delivery{org: orgs[i%2], source: []string{"github", "stripe", "slack"}[i%3], id: fmt.Sprint(i), at: at})
		switch i % 5 {
		case 0:
			h.noteOf(e.Org, at, intake.TypeDone, intake.Note{Ref: e.Pos.Seq, Outcome: intake.Filtered, Attempts: 1})
		case 1:
			h.noteOf(e.Org, at, intake.TypeDead, intake.Note{Ref: e.Pos.Seq, Attempts: 1})
		case 2:
			h.refused(delivery{org: e.Org, at: at})
		}
	}
	return h
}

func TestCountsAreThoseOfTheRowsAlsoAfterRowsWereDeleted(t *testing.T) {
	cfg := inFile(t)
	l := open(t, cfg)
	h := days()
	fold(t, l, h)
	total := 3600
	for _, c := range []struct {
		what string
		do   func() (int, error)
		want int
	}{
		{"nothing is old enough", func() (int, error) { return l.Prune(t.Context(), noon.Add(ledger.DefaultKeep)) }, 0},
		{"one is a millisecond too old", func() (int, error) { return l.Prune(t.Context(), noon.Add(ledger.DefaultKeep+time.Millisecond)) }, 1},
		{"a third", func() (int, error) {
			return l.Prune(t.Context(), noon.Add(ledger.DefaultKeep+1000*24*time.Hour))
		}, 1199},
		{"what the log has dropped", func() (int, error) { return l.Forget(t.Context(), 0, h.entries[2000].Pos.Seq) }, -1},
		{"all", func() (int, error) { return l.Prune(t.Context(), noon.Add(10_000*24*time.Hour)) }, -1},
	} {
		n, err := c.do()
		if err != nil {
			t.Fatal(err)
		}
		if c.want >= 0 && n != c.want {
			t.Errorf("%s: %d are gone, not %d", c.what, n, c.want)
		}
		total -= n
		counts, err := l.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want, orphans := counted(t, cfg.Path)
		if diff := gocmp.Diff(want, counts); diff != "" || orphans != 0 {
			t.Errorf("%s: %d notes of nobody; %s", c.what, orphans, diff)
		}
		sum := int64(0)
		for _, c := range counts {
			sum += c.N
		}
		if sum != int64(total) {
			t.Errorf("%s: %d are left, not %d", c.what, sum, total)
		}
	}
	if s := l.Stats(); total != 0 || s.Pruned != 3600 {
		t.Errorf("%d are left; %+v", total, s)
	}
}

func TestForgetDropsWhatLiesBelowASequenceOfThatPartitionOnly(t *testing.T) {
	l := open(t, ledger.Config{})
	a, b := &history{}, &history{partition: 1}
	for range 5 {
		a.received(delivery{org: "acme"})
		b.received(delivery{org: "beta"})
	}
	fold(t, l, a)
	fold(t, l, b)
	if n, err := l.Forget(t.Context(), 0, 3); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n := len(all(t, l, "acme", ledger.Query{})); n != 3 {
		t.Errorf("%d are left", n)
	}
	if n := len(all(t, l, "beta", ledger.Query{})); n != 5 {
		t.Errorf("of the other, %d", n)
	}
}

func TestANoteAboutARowThatIsGoneIsIgnored(t *testing.T) {
	h := &history{}
	h.received(delivery{id: "x"})
	l := open(t, ledger.Config{})
	fold(t, l, h)
	if n, err := l.Prune(t.Context(), noon.Add(31*24*time.Hour)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	apply(t, l, h, h.published(1))
	if s := l.Stats(); s.Ignored != 1 {
		t.Errorf("%+v", s)
	}
	if counts, err := l.Counts(t.Context()); len(counts) != 0 || err != nil {
		t.Errorf("%v, %v", counts, err)
	}
}
