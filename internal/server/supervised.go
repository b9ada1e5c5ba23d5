package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/listen"
)

// certificates are where those of the public port come from. The zero value is
// nowhere.
type certificates struct {
	files  *listen.Files
	acme   *listen.ACME
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// open reads the files, and watches them until stop.
func (c *certificates) open(ctx context.Context, cfg *config.TLS, log *slog.Logger) (err error) {
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	switch {
	case cfg.Cert != "":
		if c.files, err = listen.LoadFiles(cfg.Cert, cfg.Key, log); err != nil {
			return fmt.Errorf("server: tls: %w", err)
		}
		c.ended.Go(func() { c.files.Watch(ctx, listen.DefaultWatch) })
	case len(cfg.ACME.Hosts) > 0:
		a := &cfg.ACME
		if c.acme, err = listen.NewACME(ctx, listen.ACMEConfig(*a)); err != nil {
			return fmt.Errorf("server: tls.acme: %w", err)
		}
	}
	return nil
}

// tls is the settings of the public port, or nil if it speaks in the clear.
func (c *certificates) tls() *tls.Config {
	switch {
	case c.files != nil:
		return c.files.TLS()
	case c.acme != nil:
		return c.acme.TLS()
	}
	return nil
}

func (c *certificates) reload() {
	if c.files != nil {
		c.files.Reload()
	}
}

func (c *certificates) stop() {
	if c.cancel == nil {
		return
	}
	c.cancel()
	if c.acme != nil {
		c.acme.Close()
	}
	c.ended.Wait()
}

// watchdog tells the service manager that the node is alive: that its shards do
// what they are asked to. The zero value tells nobody.
type watchdog struct {
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

func (w *watchdog) start(ctx context.Context, m *listen.Manager, h *hub.Hub, log *slog.Logger) {
	if m.Watchdog() == 0 {
		return
	}
	ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	w.ended.Go(func() {
		every := m.Watchdog() / 3 // so that one that comes late is in time
		tick := time.NewTicker(max(every, time.Millisecond))
		defer tick.Stop()
		for {
			asked, cancel := context.WithTimeout(ctx, every)
			h.Stats(asked)
			if asked.Err() == nil {
				if err := m.Alive(); err != nil {
					log.Warn("server: the service manager was not told", "err", err)
				}
			}
			cancel()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

func (w *watchdog) stop() {
	if w.cancel != nil {
		w.cancel()
	}
	w.ended.Wait()
}
