package jetstream

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/carillon-rt/carillon/internal/engine"
)

const (
	lockFile       = "LOCK"
	modeFile       = "MODE"
	modeStandalone = "standalone"
)

// storeDir is a store directory that this process holds.
type storeDir struct {
	path string
	lock *os.File
}

// claimDir makes the directory if needed, locks it and checks that it was made
// for a standalone server. The server itself guards against neither: two of
// them corrupt a store, and one that was standalone is erased half a minute
// after it joins a cluster.
func claimDir(path string) (*storeDir, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("jetstream: store directory: %w", err)
	}
	lock, err := lockExclusive(filepath.Join(path, lockFile))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("jetstream: %s: %w", path, engine.ErrStoreInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("jetstream: lock the store: %w", err)
	}
	d := &storeDir{path: path, lock: lock}
	if err := d.checkMode(); err != nil {
		return nil, errors.Join(err, d.release())
	}
	return d, nil
}

func (d *storeDir) checkMode() error {
	path := filepath.Join(d.path, modeFile)
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		if mode := strings.TrimSpace(string(data)); mode != modeStandalone {
			return fmt.Errorf("jetstream: %s is the store of a %q server and this one is %s: "+
				"a server erases a store that was made in another mode; export it there and import it into an empty directory",
				d.path, mode, modeStandalone)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("jetstream: store mode: %w", err)
	}
	if _, err := os.Stat(filepath.Join(d.path, "jetstream")); err == nil {
		return fmt.Errorf("jetstream: %s holds a store but no %s file, so it may have been made in another mode; "+
			"if it was standalone, write %q into %s", d.path, modeFile, modeStandalone, path)
	}
	if err := os.WriteFile(path, []byte(modeStandalone+"\n"), 0o640); err != nil {
		return fmt.Errorf("jetstream: store mode: %w", err)
	}
	return nil
}

func (d *storeDir) release() error { return d.lock.Close() }

// used is how many bytes the files of the store hold.
func (d *storeDir) used() int64 {
	var total int64
	_ = filepath.WalkDir(d.path, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it went while we looked
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	return total
}

// budget decides how many bytes the events may use, in so many partitions, and the
// intakes: see divide.
func (d *storeDir) budget(events, intake int64, partitions int) (ofEvents, ofIntake int64, err error) {
	free, known := diskFree(d.path)
	if !known {
		free = math.MaxInt64 / 2
	}
	return divide(d.path, free+d.used(), events, intake, partitions)
}

func byteSize(n int64) string {
	if n >= 10<<30 {
		return fmt.Sprintf("%d GiB", n>>30)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
