//go:build !unix

package jetstream_test

import "time"

func cpuTime() time.Duration { return 0 }
