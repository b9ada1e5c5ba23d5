package ledger_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

// BenchmarkApply folds deliveries, each followed by its outcome; an op is an entry.
func BenchmarkApply(b *testing.B) {
	for _, batch := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			h := &history{}
			for i := range b.N {
				if i%2 == 0 {
					h.received(delivery{id: fmt.Sprintf("72d3162e-cc78-11e3-81ab-%012d", i), event: "pull_request.opened", body: "b"})
				} else {
					h.published(uint64(i))
				}
			}
			l := open(b, inFile(b))
			if err := l.Reset(b.Context(), 0, identity); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for rest := h.entries; len(rest) > 0; {
				n := min(batch, len(rest))
				apply(b, l, h, rest[:n]...)
				rest = rest[n:]
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

// fill puts rows into the file of a closed ledger: deliveries of two
// organizations, one in ten of the second, with a second between them, nearly all
// of them published. Their indexes are made afterwards.
func fill(b *testing.B, path string, rows int) {
	b.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	indexes := map[string]string{}
	found, err := db.QueryContext(b.Context(), "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
	if err != nil {
		b.Fatal(err)
	}
	for found.Next() {
		var name, statement string
		if err := found.Scan(&name, &statement); err != nil {
			b.Fatal(err)
		}
		indexes[name] = statement
	}
	found.Close()
	run := func(statement string, args ...any) {
		if _, err := db.ExecContext(b.Context(), statement, args...); err != nil {
			b.Fatal(statement, err)
		}
	}
	run("PRAGMA synchronous = OFF")
	for name := range indexes {
		run("DROP INDEX " + name)
	}
	run(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
		INSERT INTO delivery
		SELECT i, i, iif(i % 10 = 9, 'beta', 'acme'), iif(i % 4 = 3, 'stripe', 'github'), 'github',
			CASE i % 8 WHEN 0 THEN 'push' WHEN 1 THEN 'issues.opened' WHEN 2 THEN 'pull_request.opened' WHEN 3 THEN 'pull_request.closed'
				WHEN 4 THEN 'pull_request.synchronize' WHEN 5 THEN 'star.created' WHEN 6 THEN 'check_run.completed' ELSE 'status' END,
			printf('72d3162e-%04x-11e3-%012d', i * 7919 % 65536, i), hex(randomblob(32)), '192.0.2.' || (i * 31 % 16), 7000, ?2 + i * 1000,
			'ok', '2026', 0, 0, 0, iif(i % 200 = 0, 5, iif(i > ?1 - 100, 0, 1)), 1, 1, 800, 0, iif(i % 200 = 0, 'exit 1', ''), '', 'github.push', 0, i, 7, 0, 1,
			randomblob(16)
		FROM n`, rows, noon.UnixMilli())
	for _, statement := range indexes {
		run(statement)
	}
}

// BenchmarkLarge asks a ledger of a million rows; with -short, of 50,000.
func BenchmarkLarge(b *testing.B) {
	rows := 1_000_000
	if testing.Short() {
		rows = 50_000
	}
	cfg := inFile(b)
	l, err := ledger.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(l.Reset(b.Context(), 0, identity), l.Close()); err != nil {
		b.Fatal(err)
	}
	fill(b, cfg.Path, rows)
	info, err := os.Stat(cfg.Path)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d rows; the file has %d MiB", rows, info.Size()>>20)
	l = open(b, cfg)
	at := func(i int) time.Time { return noon.Add(time.Duration(i) * time.Second) }
	id := func(i int) string { return fmt.Sprintf("72d3162e-%04x-11e3-%012d", i*7919%65536, i) }

	// The newest ones are folded.
	h := &history{partition: 1}
	for i := range 1000 {
		h.received(delivery{id: id(rows + i), body: "b", at: at(rows + i)})
	}
	fold(b, l, h)
	b.Run("Apply/batch=256", func(b *testing.B) {
		from := len(h.entries)
		for i := range b.N {
			if i%2 == 0 {
				h.received(delivery{id: id(rows + from + i), event: "pull_request.opened", body: "b", at: at(rows + i)})
			} else {
				h.published(uint64(from + i))
			}
		}
		b.ResetTimer()
		for rest := h.entries[from:]; len(rest) > 0; {
			n := min(256, len(rest))
			apply(b, l, h, rest[:n]...)
			rest = rest[n:]
		}
	})
	b.Run("Known/seen", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i = (i*7919 + 1) % 1000
			if _, ok, err := l.Known(b.Context(), "acme", "github", id(rows+i), digest("b"), at(rows+i+10)); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("Known/new", func(b *testing.B) {
		for b.Loop() {
			if _, ok, err := l.Known(b.Context(), "acme", "github", "new", "x", at(rows)); ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	middle, late := at(rows/2), at(rows-rows/10)
	for _, c := range []struct {
		what string
		q    ledger.Query
	}{
		{"all", ledger.Query{}},
		{"all,500", ledger.Query{Limit: 500}},
		{"middle", ledger.Query{Until: middle}},
		{"dead", ledger.Query{States: []ledger.State{ledger.Dead}}},
		{"pending,dead", ledger.Query{States: []ledger.State{ledger.Pending, ledger.Dead}}},
		{"source", ledger.Query{Source: "stripe"}},
		{"source,dead,until", ledger.Query{Source: "stripe", States: []ledger.State{ledger.Dead}, Until: middle}},
		{"event", ledger.Query{Event: "star.created"}},
		{"event*", ledger.Query{Event: "pull_request.*"}},
		{"event*,500", ledger.Query{Event: "pull_request.*", Limit: 500}},
		{"event*,dead,source,since,until", ledger.Query{Event: "pull_request.*", States: []ledger.State{ledger.Dead}, Source: "github", Since: middle, Until: late}},
		{"remote", ledger.Query{Remote: "192.0.2.7"}},
		{"remote,source,event", ledger.Query{Remote: "192.0.2.7", Source: "stripe", Event: "status"}},
		{"remote,source: none", ledger.Query{Remote: "192.0.2.7", Source: "none"}},
		{"delivery", ledger.Query{Delivery: id(rows / 3)}},
	} {
		b.Run("List/"+c.what, func(b *testing.B) {
			n := 0
			for b.Loop() {
				page, _, err := l.List(b.Context(), "acme", c.q)
				if err != nil {
					b.Fatal(err)
				}
				n = len(page)
			}
			b.ReportMetric(float64(n), "rows")
		})
	}
	b.Run("Counts", func(b *testing.B) {
		for b.Loop() {
			if _, err := l.Counts(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Waiting", func(b *testing.B) {
		for b.Loop() {
			if _, err := l.Waiting(b.Context(), 0, 0, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Prune/500", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n += 500
			if _, err := l.Prune(b.Context(), at(n).Add(ledger.DefaultKeep)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
