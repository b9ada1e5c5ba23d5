package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite" // registers itself as the driver "sqlite"
)

// How much a ledger takes.
const (
	readers       = 3        // connections that read, beside the one that writes
	writerCache   = 4 << 10  // KiB of pages, of the connection that writes
	readerCache   = 1 << 10  // KiB, of each that reads
	checkpoint    = 1000     // pages in the write-ahead log before they go to the file
	walLeft       = 16 << 20 // bytes of a write-ahead log that has grown nevertheless which stay
	busyTimeout   = 5 * 1000 // milliseconds
	memoryName    = ":memory:"
	codeCorrupt   = 11 // SQLITE_CORRUPT
	codeNotSQLite = 26 // SQLITE_NOTADB
)

// database is an open file: one connection that writes, and some that read. In
// memory there is only the first.
type database struct {
	path  string
	write *sql.DB // of one connection, which is writer's
	read  *sql.DB // nil: in memory
	seen  *sql.Stmt

	turn chan struct{} // who has put something in may use writer; never closed
	w    *writer
}

// writer is the connection that writes, in a transaction.
type writer struct {
	conn *sql.Conn
	stmt map[string]*sql.Stmt // by what they say
}

// querier is a connection that reads.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// connect opens the connections. The disk is never waited for: what a power cut
// takes away is in the intake log, and whether there was one is asked when the
// ledger is opened.
func connect(ctx context.Context, path string) (*database, error) {
	db := &database{path: path, turn: make(chan struct{}, 1)}
	var err error
	pragmas := []string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeout), "journal_mode(WAL)", "synchronous(OFF)", "temp_store(MEMORY)",
		fmt.Sprintf("cache_size(-%d)", writerCache), fmt.Sprintf("wal_autocheckpoint(%d)", checkpoint), fmt.Sprintf("journal_size_limit(%d)", walLeft),
	}
	if db.write, err = sql.Open("sqlite", name(path, pragmas)); err != nil {
		return nil, err
	}
	db.write.SetMaxOpenConns(1)
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.write.Close())
	}
	db.w = &writer{conn: conn, stmt: map[string]*sql.Stmt{}}
	return db, nil
}

// serve readies a database that has its schema for readers.
func (db *database) serve(ctx context.Context) (err error) {
	if db.path == "" {
		return nil
	}
	pragmas := []string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeout), "query_only(1)", "temp_store(MEMORY)", fmt.Sprintf("cache_size(-%d)", readerCache),
	}
	if db.read, err = sql.Open("sqlite", name(db.path, pragmas)); err != nil {
		return err
	}
	db.read.SetMaxOpenConns(readers)
	db.read.SetMaxIdleConns(readers)
	db.seen, err = db.read.PrepareContext(ctx, sqlSeen)
	return err
}

// name is what the driver opens.
func name(path string, pragmas []string) string {
	query := url.Values{"_pragma": pragmas}.Encode()
	if path == "" {
		return "file:" + memoryName + "?" + query
	}
	path = filepath.ToSlash(path)
	if filepath.VolumeName(path) != "" {
		path = "/" + path
	}
	escaped := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
	return "file:" + escaped + "?" + query
}

// take waits for the writer's turn; whoever has it gives it back.
func (db *database) take(ctx context.Context) error {
	select {
	case db.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (db *database) give() { <-db.turn }

// transact runs f in a transaction, alone: all or nothing.
func (db *database) transact(ctx context.Context, f func(*writer) error) error {
	if err := db.take(ctx); err != nil {
		return err
	}
	defer db.give()
	end := context.WithoutCancel(ctx) // half a COMMIT helps nobody
	if err := db.w.exec(end, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := f(db.w)
	if err == nil {
		if err = db.w.exec(end, "COMMIT"); err == nil {
			return nil
		}
	}
	_ = db.w.exec(end, "ROLLBACK") // where an error has ended the transaction there is none
	return err
}

// view runs f on what the last transaction left.
func (db *database) view(ctx context.Context, f func(querier) error) error {
	if db.read == nil {
		if err := db.take(ctx); err != nil {
			return err
		}
		defer db.give()
		return f(db.w.conn)
	}
	tx, err := db.read.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	err = f(tx)
	_ = tx.Rollback() // it has changed nothing
	return err
}

// exec runs a statement, which is kept for the next time.
func (w *writer) exec(ctx context.Context, query string, args ...any) error {
	s, err := w.prepare(ctx, query)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(ctx, args...)
	return err
}

// row runs a statement that is kept, for one row.
func (w *writer) row(ctx context.Context, query string, args []any, into ...any) error {
	s, err := w.prepare(ctx, query)
	if err != nil {
		return err
	}
	return s.QueryRowContext(ctx, args...).Scan(into...)
}

func (w *writer) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if s := w.stmt[query]; s != nil {
		return s, nil
	}
	s, err := w.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	w.stmt[query] = s
	return s, nil
}

// How long a connection that closes late is waited for.
const (
	closePoll  = 10 * time.Millisecond
	closePolls = 300
)

// close closes the connections. Clean: what was written is on the disk
// afterwards, and known to be.
func (db *database) close(clean bool) error {
	var errs []error
	if db.seen != nil {
		errs = append(errs, db.seen.Close())
	}
	if db.read != nil {
		errs = append(errs, db.read.Close())
	}
	for _, s := range db.w.stmt {
		errs = append(errs, s.Close())
	}
	errs = append(errs, db.w.conn.Close(), db.write.Close())
	err := errors.Join(errs...)
	if !clean || err != nil || db.path == "" {
		return err
	}
	// The last one to close moves the write-ahead log to the file, and deletes it. A
	// connection whose query was canceled closes a moment after its database.
	for range closePolls {
		if _, err := os.Stat(db.path + "-wal"); err != nil {
			break
		}
		<-time.After(closePoll)
	}
	if _, err := os.Stat(db.path + "-wal"); err == nil {
		return errors.New("somebody else has the file open")
	}
	return unmark(db.path)
}

// damaged reports whether the file is not what it should be.
func damaged(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff // without its details
	return code == codeCorrupt || code == codeNotSQLite
}
