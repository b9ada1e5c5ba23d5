package jetstream

import (
	"errors"
	"os"
	"syscall"
)

var errLocked = errors.New("locked by another process")

const errSharingViolation = syscall.Errno(32)

// lockExclusive opens a file that nobody else may open meanwhile.
func lockExclusive(path string) (*os.File, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil,
		syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, errSharingViolation) {
		return nil, errLocked
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(h), path), nil
}

func diskFree(string) (free int64, known bool) { return 0, false }
