//go:build linux || darwin || freebsd

package ledger

import (
	"errors"
	"os"
	"syscall"
)

// lock claims the ledger at a path for this process: two that fold into one file would
// each miss what the other has folded. Closing the file, or the end of the process,
// gives it back.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, err
	}
	return f, nil
}
