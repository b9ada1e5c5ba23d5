package ledger_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

// aFile is a ledger of 600 deliveries that was closed, and their history.
func aFile(t *testing.T) (ledger.Config, *history) {
	t.Helper()
	cfg := inFile(t)
	h := &history{}
	for i := range 600 {
		h.received(delivery{id: fmt.Sprint("an id of some length ", i), at: noon.Add(time.Duration(i) * time.Second)})
	}
	l, err := ledger.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	fold(t, l, h)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg, h
}

func sum(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// spoil overwrites the pages from the second on, and leaves the first, by which a
// file is known.
func spoil(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 2 * 4096; i < len(data); i++ {
		data[i] = byte(i * 31)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAFileThatCannotBeTrustedIsMadeAnewAndTheLogToldWhy(t *testing.T) {
	leave := func(t *testing.T, path, boot string) {
		t.Helper()
		if err := os.WriteFile(path+".open", []byte(boot), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	this, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Skip("this system has no name for the start of the machine, and so every file left open is made anew:", err)
	}
	for _, c := range []struct {
		what  string
		do    func(*testing.T, string)
		kept  bool
		says  string
		aside bool // it is put aside, rather than deleted
	}{
		{"closed", func(*testing.T, string) {}, true, "", false},
		{"left open by a process that ended", func(t *testing.T, path string) { leave(t, path, strings.TrimSpace(string(this))) }, true, "", false},
		{"left open by such a process, and damaged", func(t *testing.T, path string) {
			leave(t, path, strings.TrimSpace(string(this)))
			spoil(t, path)
		}, false, "damaged", true},
		{"left open when the machine stopped", func(t *testing.T, path string) { leave(t, path, "another start") }, false, "the machine stopped", true},
		{"left open by who could not say when", func(t *testing.T, path string) { leave(t, path, "") }, false, "the machine stopped", true},
		{"of another version", func(t *testing.T, path string) { sum(t, path, "PRAGMA user_version = 99") }, false, "another version", false},
		{"of something else", func(t *testing.T, path string) { sum(t, path, "PRAGMA application_id = 7") }, false, "damaged", true},
		{"not a database", func(t *testing.T, path string) {
			if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false, "damaged", true},
		{"cut to half", func(t *testing.T, path string) {
			leave(t, path, strings.TrimSpace(string(this)))
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, info.Size()/2); err != nil {
				t.Fatal(err)
			}
		}, false, "damaged", true},
		{"empty", func(t *testing.T, path string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}, false, "", false},
	} {
		t.Run(c.what, func(t *testing.T) {
			cfg, h := aFile(t)
			c.do(t, cfg.Path)
			var log bytes.Buffer
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			l := open(t, cfg)
			id, pos, err := l.Cursor(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if kept := id == identity && pos == h.entries[599].Pos; kept != c.kept {
				t.Errorf("the cursor is %q, %v", id, pos)
			}
			if !strings.Contains(log.String(), c.says) || (log.Len() > 0) != (c.says != "") {
				t.Errorf("the log says %q", log.String())
			}
			if _, err := os.Stat(cfg.Path + ".damaged"); (err == nil) != c.aside {
				t.Errorf("put aside: %v", err)
			}
			fold(t, l, h)
			if n := len(all(t, l, "acme", ledger.Query{Limit: 500})); n != 600 {
				t.Errorf("%d rows", n)
			}
		})
	}
}

func TestDamageThatIsMetLaterMakesTheFileAnewAndSaysSo(t *testing.T) {
	for _, c := range []struct {
		what string
		do   func(*ledger.Ledger, *history) error
	}{
		{"listing", func(l *ledger.Ledger, _ *history) error {
			_, _, err := l.List(t.Context(), "acme", ledger.Query{})
			return err
		}},
		{"folding", func(l *ledger.Ledger, h *history) error {
			_, err := l.Apply(t.Context(), 0, identity, []*carillon.Entry{h.received(delivery{})})
			return err
		}},
		{"asking what is known", func(l *ledger.Ledger, _ *history) error {
			_, _, err := l.Known(t.Context(), "acme", "github", "x", "y", noon)
			return err
		}},
		{"pruning", func(l *ledger.Ledger, _ *history) error {
			_, err := l.Prune(t.Context(), noon.Add(10_000*time.Hour))
			return err
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			cfg, h := aFile(t)
			spoil(t, cfg.Path)
			l := open(t, cfg)
			if err := c.do(l, h); !errors.Is(err, ledger.ErrRebuilt) {
				t.Fatalf("%v", err)
			}
			if id, _, err := l.Cursor(t.Context(), 0); id != "" || err != nil {
				t.Errorf("the cursor is %q, %v", id, err)
			}
			if s := l.Stats(); s.Rebuilt != 1 {
				t.Errorf("%+v", s)
			}
			n := len(h.entries)
			fold(t, l, h)
			if found := all(t, l, "acme", ledger.Query{Limit: 500}); len(found) != n {
				t.Errorf("%d rows, not %d", len(found), n)
			}
		})
	}
}

func TestAFileThatWasNotClosedIsReadOnAfterItsProcessEnded(t *testing.T) {
	cfg := inFile(t)
	h := &history{}
	e := h.received(delivery{})
	l := open(t, cfg)
	fold(t, l, h)
	// As a process that is killed leaves it: what was written, and no more.
	left := ledger.Config{Path: filepath.Join(t.TempDir(), "ledger.db")}
	for _, end := range []string{"", "-wal", ".open"} {
		data, err := os.ReadFile(cfg.Path + end)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(left.Path+end, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat("/proc/sys/kernel/random/boot_id"); err != nil {
		t.Skip("this system has no name for the start of the machine:", err)
	}
	again := open(t, left)
	want, _ := get(t, l, e)
	got, _ := get(t, again, e)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNothingButTheLockIsLeftBesideAClosedLedger(t *testing.T) {
	cfg, _ := aFile(t)
	files, err := os.ReadDir(filepath.Dir(cfg.Path))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if path := filepath.Join(filepath.Dir(cfg.Path), f.Name()); path != cfg.Path && path != cfg.Path+".lock" {
			t.Errorf("%s is left", f.Name())
		}
	}
}

func TestAPathMayHaveAnyCharacters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "50% of? #1 &c=ü")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Skip("this system has no such names:", err)
	}
	l := open(t, ledger.Config{Path: filepath.Join(dir, "ledger.db")})
	fold(t, l, &history{})
	if _, err := os.Stat(filepath.Join(dir, "ledger.db")); err != nil {
		t.Error(err)
	}
}

func TestALedgerThatCannotBeOpenedSaysWhy(t *testing.T) {
	for _, c := range []struct {
		what string
		cfg  ledger.Config
		says string
	}{
		{"a folder that is not there", ledger.Config{Path: filepath.Join(t.TempDir(), "no", "ledger.db")}, "no such file"},
		{"known for longer than kept", ledger.Config{Keep: time.Hour, Known: 2 * time.Hour}, "known for 2h0m0s and kept for 1h0m0s"},
		{"kept for less than nothing", ledger.Config{Keep: -1}, "at most the second"},
	} {
		l, err := ledger.Open(t.Context(), c.cfg)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "ledger: ") {
			t.Errorf("%s: %v, %v", c.what, l, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ledger.Open(ctx, ledger.Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
