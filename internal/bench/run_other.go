//go:build !linux

package bench

import (
	"context"
	"errors"
	"runtime"
)

var errLinux = errors.New("bench: the load client needs Linux (epoll and /proc), not " + runtime.GOOS)

// Run measures one scenario.
func Run(context.Context, Config, Scenario) (*Report, error) { return nil, errLinux }

// FloorServer is the bare write(2) loop that a server is compared with.
func FloorServer(context.Context, int, string) error { return errLinux }

// EngineServer is the bare engine that a server is compared with.
func EngineServer(context.Context, string, string, string, string) error { return errLinux }
