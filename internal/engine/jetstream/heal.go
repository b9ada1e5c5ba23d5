package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	healthCheck = time.Second
	healMax     = 30 * time.Second // between attempts that do not help
	probeFile   = "PROBE"
	probeBytes  = 4 << 20
)

// heal looks after the embedded server until ctx ends. After one failed write,
// on a full disk for example, the server never writes that stream again: it
// answers no publish, and only opening the store anew helps. So as soon as the
// disk takes some megabytes, heal restarts the server. To everybody else that is
// a restart like any other: connections break and come back, nothing that was
// acknowledged is lost. Until then, and while the disk is full, appends are
// refused at once, and reads go on.
func (e *Engine) heal(ctx context.Context) {
	wait, since := healthCheck, time.Now()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		timer.Reset(wait)
		broken := e.server.broken()
		switch reason := cmp.Or(broken, e.dir.full()); {
		case reason == nil && e.shut.Load() == nil:
			if time.Since(since) > 2*healMax {
				wait = healthCheck
			}
			continue
		case e.shut.Load() == nil:
			e.shut.Store(&reason)
			e.config.Logger.Error("jetstream: the store cannot be written; events are refused until there is room", "dir", e.config.Dir, "err", reason)
		}
		if e.dir.takes(probeBytes) != nil {
			continue
		}
		if broken != nil {
			wait, since = min(2*wait, healMax), time.Now()
			if err := e.server.restart(ctx, nil); err != nil {
				e.config.Logger.Error("jetstream: the store was not opened anew; trying again", "dir", e.config.Dir, "err", err)
				continue
			}
		}
		e.shut.Store(nil)
		e.config.Logger.Warn("jetstream: the store can be written again", "dir", e.config.Dir)
	}
}

// broken returns why a stream of the server is not written any more, or nil.
func (s *embedded) broken() error {
	srv := s.current.Load()
	if srv == nil {
		return nil
	}
	for _, e := range srv.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if e.Type == server.HealthzErrorJetStream || strings.Contains(e.Error, "write error") {
			return errors.New(e.Error)
		}
	}
	return nil
}

// full returns an error when the disk is full.
func (d *storeDir) full() error {
	if free, known := diskFree(d.path); !known || free >= probeBytes {
		return nil
	}
	return d.takes(probeBytes) // some systems do not know what is free
}

// takes returns nil when the disk takes so many bytes.
func (d *storeDir) takes(bytes int) error {
	path := filepath.Join(d.path, probeFile)
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("jetstream: probe the disk: %w", err)
	}
	_, err = f.Write(make([]byte, bytes))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(path))
}
