package org

import (
	"context"
	"log/slog"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// ageInterval is how often it is looked who keeps too old events.
const ageInterval = time.Minute

// Age removes the events that organizations keep longer than they want, one
// organization after the other, until ctx ends. Several nodes may do so at the
// same time.
func (d *Directory) Age(ctx context.Context, open func(carillon.OrgID) engine.Log, log *slog.Logger) {
	tick := time.NewTicker(ageInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, id := range d.IDs() {
			o, ok := d.Lookup(id)
			if !ok || o.Retention.Age <= 0 {
				continue
			}
			if err := age(ctx, open(id), o.Retention.Age); err != nil && ctx.Err() == nil {
				log.Warn("org: old events were not removed; trying again in a minute", "org", id, "err", err)
			}
		}
	}
}

func age(ctx context.Context, l engine.Log, keep time.Duration) error {
	from, err := l.At(ctx, time.Now().Add(-keep))
	if err != nil {
		return err
	}
	oldest, _, err := l.Bounds(ctx)
	if err != nil || oldest.Seq == 0 || oldest.Seq > from.Seq {
		return err
	}
	return l.Purge(ctx, from.Seq)
}
