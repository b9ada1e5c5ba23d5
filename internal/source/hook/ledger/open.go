package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// checkTime bounds how long a file is looked at when it was not closed. One that
// is too large for it is used: nothing but a power cut, which is known, damages
// what SQLite has written, and what is met later is dealt with then.
const checkTime = 10 * time.Second

// open opens the file, or a new one in its place.
func (l *Ledger) open(ctx context.Context) (*database, error) {
	if l.path == "" {
		return create(ctx, "")
	}
	marked, err := lost(l.path)
	if err != nil {
		return nil, err
	}
	if marked == cutOff {
		// A part of what was written is missing, and the rest may look right.
		if err := l.anew(ctx, "the machine stopped while it was open", nil); err != nil {
			return nil, err
		}
	}
	if err := mark(l.path); err != nil {
		return nil, err
	}
	db, err := create(ctx, l.path)
	if err == nil && marked == left {
		if err = l.check(ctx, db); err != nil {
			err = errors.Join(err, db.close(false))
		}
	}
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, errVersion):
		err = l.anew(ctx, "the file is of another version", err)
	case damaged(err) || errors.Is(err, errForeign) || errors.Is(err, errDamaged):
		err = l.anew(ctx, "the file is damaged", err)
	}
	if err != nil {
		return nil, err
	}
	return create(ctx, l.path)
}

// What is wrong with a file that opens.
var (
	errVersion = errors.New("its schema is of another version")
	errForeign = errors.New("it is not a ledger")
	errDamaged = errors.New("the check of the file failed")
)

// create connects to a database, which gets its schema if it is empty.
func create(ctx context.Context, path string) (*database, error) {
	if path != "" { // SQLite would let everybody read it; what lies beside it has its mode
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return nil, err
		}
	}
	db, err := connect(ctx, path)
	if err != nil {
		return nil, err
	}
	if err = db.transact(ctx, func(w *writer) error { return prepare(ctx, w) }); err == nil {
		err = db.serve(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, db.close(false))
	}
	return db, nil
}

func prepare(ctx context.Context, w *writer) error {
	var app, ver, tables int
	for pragma, into := range map[string]*int{
		"PRAGMA application_id": &app, "PRAGMA user_version": &ver, "SELECT count(*) FROM sqlite_schema": &tables,
	} {
		if err := w.conn.QueryRowContext(ctx, pragma).Scan(into); err != nil {
			return err
		}
	}
	switch {
	case tables == 0:
		_, err := w.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d; %s", application, version, schema))
		return err
	case app != application:
		return errForeign
	case ver != version:
		return fmt.Errorf("%w: %d instead of %d", errVersion, ver, version)
	}
	return nil
}

// check looks at a file whose process ended without closing it.
func (l *Ledger) check(ctx context.Context, db *database) error {
	bounded, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var found string
	err := db.w.conn.QueryRowContext(bounded, "PRAGMA quick_check(1)").Scan(&found)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case bounded.Err() != nil:
		l.log.Warn("ledger: it was not closed, and is too large to be checked; it is used as it is", "path", l.path)
		return nil
	case err != nil:
		return err
	case found != "ok":
		return fmt.Errorf("%w: %s", errDamaged, clip(found, maxName))
	}
	return nil
}

// anew puts the file aside, in the place of the one before it, or deletes it
// where it is a good one of another version. The log says so.
func (l *Ledger) anew(ctx context.Context, what string, why error) error {
	aside := l.path + ".damaged"
	err := os.Rename(l.path, aside)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if errors.Is(why, errVersion) && err == nil {
		err = os.Remove(aside)
	}
	for _, end := range []string{"-wal", "-shm"} {
		if e := os.Remove(l.path + end); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("%s, and cannot be put aside: %w", what, err)
	}
	l.count.rebuilt.Add(1)
	l.log.WarnContext(ctx, "ledger: it is built again from the log", "reason", what, "path", l.path, "err", why)
	return nil
}
