package server

import (
	"context"
	"errors"
	"sync"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/api"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/org"
)

// orgs keeps the directory of organizations as the store has it.
type orgs struct {
	api    api.Management
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// followOrgs returns when the directory has what is in the store. From then on
// whoever may not be here any more, because an organization was disabled or
// removed or an API key was, is sent away.
func (s *Server) followOrgs(ctx context.Context, dir *org.Directory) error {
	dir.Notify(func(old, now *org.Org) {
		if old != nil {
			s.core.Revoke(old.ID)
		}
	})
	kv := s.engine.KV()
	kept := s.cfg.Engine.Retention
	s.orgs.api = api.Management{
		Orgs: dir, Store: org.NewStore(kv, dir), Purge: s.purge, Logger: s.log,
		Kept: org.Retention{Age: kept.Age.D(), Events: kept.EventsPerOrg},
	}
	watch, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.orgs.cancel = cancel
	synced := make(chan struct{})
	s.orgs.ended.Go(func() { dir.Follow(watch, kv, s.log, func() { close(synced) }) })
	s.orgs.ended.Go(func() { dir.Age(watch, s.engine.Open, s.log) })
	select {
	case <-synced:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *orgs) stop() {
	if o.cancel != nil {
		o.cancel()
	}
	o.ended.Wait()
}

// purge removes every event of an organization, what webhooks brought it, and where
// they came from.
func (s *Server) purge(ctx context.Context, id carillon.OrgID) error {
	err := s.hooks.sources.RemoveAll(ctx, id)
	for _, log := range []engine.Log{s.engine.Open(id), s.engine.Intake(id)} {
		_, newest, e := log.Bounds(ctx)
		if e == nil && newest.Seq != 0 {
			e = log.Purge(ctx, newest.Seq)
		}
		err = errors.Join(err, e)
	}
	return err
}
