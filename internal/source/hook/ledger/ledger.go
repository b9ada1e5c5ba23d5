package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
)

// Defaults of a Config.
const (
	DefaultKeep  = 30 * 24 * time.Hour
	DefaultKnown = 72 * time.Hour
)

// Config of a ledger.
type Config struct {
	Path   string           // of the file; "": in memory
	Keep   time.Duration    // how long a row is kept; 0: DefaultKeep
	Known  time.Duration    // how long a delivery is recognised, at most Keep; 0: DefaultKnown
	Logger *slog.Logger     // nil: nobody is told
	Now    func() time.Time // for Stats; nil: time.Now
}

// Errors that callers tell apart.
var (
	// ErrOtherLog: what was to be applied is of another log than the cursor, or the
	// ledger is new. Read the Cursor, and Reset the partition.
	ErrOtherLog = errors.New("its cursor is not in this log")
	// ErrRebuilt: the file was damaged, and is made anew. Read the Cursor again.
	ErrRebuilt = errors.New("the file was damaged and is made anew")
	// ErrNotFound: there is no such delivery, or it is another organization's.
	ErrNotFound = errors.New("no such delivery")
	// ErrClosed: the ledger is closed.
	ErrClosed = errors.New("it is closed")
	// ErrInUse: another process has the file; each process needs one of its own.
	ErrInUse = errors.New("another process has the file; each process needs one of its own")
)

// Ledger is a projection of the intake log.
type Ledger struct {
	path  string
	keep  time.Duration
	known time.Duration
	log   *slog.Logger
	now   func() time.Time
	lock  *os.File // nil: in memory, or the system has none
	count counters

	mu sync.RWMutex // held for reading by whoever uses db, for writing by who replaces it
	db *database    // nil: closed
}

// Open opens the ledger, or makes it. A file that is damaged, of another version,
// or of a machine that lost its power, is made anew, and the logger told.
func Open(ctx context.Context, cfg Config) (*Ledger, error) {
	l := &Ledger{path: cfg.Path, keep: cfg.Keep, known: cfg.Known, log: cfg.Logger, now: cfg.Now}
	if l.keep == 0 {
		l.keep = DefaultKeep
	}
	if l.known == 0 {
		l.known = min(DefaultKnown, l.keep)
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.known < 0 || l.keep < l.known {
		return nil, fmt.Errorf("ledger: deliveries are to be known for %v and kept for %v; the first is at least 0 and at most the second", l.known, l.keep)
	}
	if l.path != "" {
		var err error
		if l.lock, err = lock(l.path); err != nil {
			return nil, fmt.Errorf("ledger: %s: %w", l.path, err)
		}
	}
	db, err := l.open(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ledger: %w", err), l.unlock())
	}
	l.db = db
	return l, nil
}

func (l *Ledger) unlock() error {
	if l.lock == nil {
		return nil
	}
	return l.lock.Close()
}

// Close writes what there is to the disk, and closes the file.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.db == nil {
		return nil
	}
	db := l.db
	l.db = nil
	if err := errors.Join(db.close(true), l.unlock()); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}

// change runs f in a transaction, alone.
func (l *Ledger) change(ctx context.Context, f func(*writer) error) error {
	return l.use(ctx, func(db *database) error { return db.transact(ctx, f) })
}

// view runs f on what the last transaction left.
func (l *Ledger) view(ctx context.Context, f func(querier) error) error {
	return l.use(ctx, func(db *database) error { return db.view(ctx, f) })
}

// use runs f with the database. If that turns out to be damaged, it is made anew.
func (l *Ledger) use(ctx context.Context, f func(*database) error) error {
	l.mu.RLock()
	db := l.db
	if db == nil {
		l.mu.RUnlock()
		return fmt.Errorf("ledger: %w", ErrClosed)
	}
	err := f(db)
	l.mu.RUnlock()
	if err == nil {
		return nil
	}
	if damaged(err) {
		err = l.replace(ctx, db, err)
	}
	var refusal *carillon.Error
	if errors.As(err, &refusal) {
		return refusal // for who asked
	}
	return fmt.Errorf("ledger: %w", err)
}

// replace puts a new database in the place of the damaged one, unless somebody
// has done so.
func (l *Ledger) replace(ctx context.Context, old *database, why error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.db != old {
		return fmt.Errorf("%w: %w", ErrRebuilt, why)
	}
	_ = old.close(false) // it is damaged; what that says is known
	l.db = nil
	var db *database
	ctx = context.WithoutCancel(ctx)
	err := l.anew(ctx, "the file is damaged", why)
	if err == nil {
		db, err = l.open(ctx)
	}
	if err != nil {
		return fmt.Errorf("a damaged file could not be made anew: %w", err)
	}
	l.db = db
	return fmt.Errorf("%w: %w", ErrRebuilt, why)
}
