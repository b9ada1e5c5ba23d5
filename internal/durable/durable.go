// Package durable writes files that are there, whole, after the machine's power was
// cut.
package durable

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

// WriteFile makes a file with this text, or replaces it: whole or not at all, on disk
// before it returns, and readable for its owner only. Meanwhile the text is in a file
// beside it, whose name begins with a dot. Of calls for the same path that run at the
// same time one wins.
func WriteFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory durable, on systems that can.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" { // NTFS keeps a journal of names itself
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
