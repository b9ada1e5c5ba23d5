package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/carillon-rt/carillon/internal/durable"
)

// While a ledger is open, a file beside it says since which start of the machine.
// It is on the disk before anything of the ledger changes, and gone when all of
// the ledger is on the disk.

// ending is how a ledger was left.
type ending int

const (
	closed ending = iota
	left          // its process ended; what it wrote is there
	cutOff        // the machine stopped, or may have: something may be missing
)

// lost says how the ledger was left.
func lost(path string) (ending, error) {
	then, err := os.ReadFile(marker(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return closed, nil
	case err != nil:
		return closed, err
	}
	if now := boot(); now == "" || now != string(then) {
		return cutOff, nil
	}
	return left, nil
}

func mark(path string) error {
	f, err := os.OpenFile(marker(path), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(boot())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

func unmark(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err = errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = durable.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return os.Remove(marker(path))
}

func marker(path string) string { return path + ".open" }

// boot names this start of the machine, or is "" where the system has no name for
// it.
func boot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
