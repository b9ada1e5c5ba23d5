//go:build !linux

package listen

import (
	"errors"
	"time"
)

// monotonic is what only managers on Linux ask for.
func monotonic() (time.Duration, error) { return 0, errors.ErrUnsupported }
