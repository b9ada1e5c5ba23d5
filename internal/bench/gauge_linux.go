package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

const (
	lookAtRSS    = 50 * time.Millisecond
	lookAtLedger = 10 // every so many looks, while it is loaded; afterwards at each
	ledgerLimit  = 2 * time.Minute
)

// ledgerState is how far the server's ledger of webhooks is.
type ledgerState struct {
	lag     float64 // entries that it knows of and has not taken up
	entries float64 // taken up since the server started
	at      time.Time
}

// readLedger reads it from the operations port.
func readLedger(ctx context.Context, opsURL string) (s ledgerState, err error) {
	text, err := get(ctx, opsURL+"/metrics")
	if err != nil {
		return s, err
	}
	s.at = time.Now()
	found := 0
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		var into *float64
		switch string(name) {
		case "webhook_ledger_lag":
			into = &s.lag
		case "webhook_ledger_entries_total":
			into = &s.entries
		default:
			continue
		}
		if *into, err = strconv.ParseFloat(string(value), 64); err != nil {
			return s, fmt.Errorf("bench: metrics: %s: %w", name, err)
		}
		found++
	}
	if found != 2 {
		return s, errors.New("bench: the operations port does not show webhook_ledger_lag and webhook_ledger_entries_total")
	}
	return s, nil
}

// gauges watches a server's memory, and the ledger of what it takes in.
type gauges struct {
	rig    *rig
	cancel context.CancelFunc
	sent   chan float64  // capacity 1: all is sent, and the ledger should have so many entries
	over   chan struct{} // closed when it watches no more

	// After over.
	err    error
	peak   uint64      // of RSS
	most   float64     // of the ledger's lag
	begin  ledgerState // when the watch began
	atEnd  ledgerState // when all was sent
	caught ledgerState // when it had caught up; no time: it has not
}

func (r *rig) watch(ctx context.Context) *gauges {
	ctx, cancel := context.WithCancel(ctx)
	g := &gauges{rig: r, cancel: cancel, sent: make(chan float64, 1), over: make(chan struct{})}
	go func() {
		defer close(g.over)
		if err := g.look(ctx); err != nil && ctx.Err() == nil {
			g.err = err
		}
	}()
	return g
}

// look watches until the ledger has caught up, or where there is none to ask, until
// all is sent. Memory is looked at to the end.
func (g *gauges) look(ctx context.Context) (err error) {
	srv := g.rig.server
	tick := time.NewTicker(lookAtRSS)
	defer tick.Stop()
	goal := -1.0
	for n := 0; ; n++ {
		if err := g.memory(); err != nil {
			return err
		}
		if srv.opsURL != "" && (goal >= 0 || n%lookAtLedger == 0) {
			now, err := readLedger(ctx, srv.opsURL)
			if err != nil {
				return err
			}
			g.most = max(g.most, now.lag)
			if g.begin.at.IsZero() {
				g.begin = now
			}
			if goal >= 0 && g.atEnd.at.IsZero() {
				g.atEnd = now
			}
			if goal >= 0 && now.lag == 0 && now.entries >= goal {
				g.caught = now
				return nil
			}
		}
		if srv.opsURL == "" && goal >= 0 {
			return nil
		}
		select {
		case goal = <-g.sent:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (g *gauges) memory() error {
	if g.rig.server.pid == 0 {
		return nil
	}
	u, err := readUsage(g.rig.server.pid)
	g.peak = max(g.peak, u.rss)
	return err
}

// finish ends the watch: at once, or when the ledger has caught up.
func (g *gauges) finish(wait bool) error {
	if wait {
		limit := time.NewTimer(ledgerLimit)
		defer limit.Stop()
		select {
		case <-g.over:
		case <-limit.C:
			g.rig.report.note("the ledger had not caught up %s after the last event", ledgerLimit)
		}
	}
	g.cancel()
	<-g.over
	return errors.Join(g.err, g.memory())
}
