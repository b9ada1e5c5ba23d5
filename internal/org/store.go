package org

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

const (
	// recordPrefix begins the keys of organizations in the KV.
	recordPrefix = "org."

	// MaxKeys is how many API keys an organization in the store may have.
	MaxKeys = 100

	// attempts at a change that others make too.
	attempts = 8

	// watchRetry is the pause after a watch of the store broke.
	watchRetry = time.Second
)

// record is an organization in the KV.
type record struct {
	Settings

	Keys []string `json:"keys,omitempty"` // lines, as in the config
}

// Store changes the organizations of an install. Its errors are *carillon.Error.
// All methods may be called from any goroutine.
type Store struct {
	kv  engine.KV
	dir *Directory
}

// NewStore makes a store whose changes dir sees at once, and every other node's
// directory through Follow.
func NewStore(kv engine.KV, dir *Directory) *Store { return &Store{kv, dir} }

// Create makes an organization.
func (s *Store) Create(ctx context.Context, id carillon.OrgID, settings Settings) (*Org, error) {
	if _, err := carillon.ParseOrgID(string(id)); err != nil {
		return nil, carillon.AsError(err)
	}
	if err := s.mayChange(id); err != nil {
		return nil, err
	}
	js, err := json.Marshal(record{Settings: settings})
	if err != nil {
		return nil, carillon.AsError(err)
	}
	revision, err := s.kv.Create(ctx, recordPrefix+string(id), js)
	if errors.Is(err, engine.ErrKeyExists) {
		return nil, carillon.Errorf(carillon.CodeConflict, "the organization %q exists already; change it with PATCH", id)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	o := settings.org(id, s.dir.defaults, nil, revision)
	s.dir.set(o)
	return o, nil
}

// Update changes an organization's settings. With a revision other than 0 it
// fails with conflict when the organization is not at it.
func (s *Store) Update(ctx context.Context, id carillon.OrgID, revision uint64, change func(Settings) (Settings, error)) (*Org, error) {
	return s.update(ctx, id, revision, func(r *record) (err error) {
		r.Settings, err = change(r.Settings)
		return err
	})
}

// AddKey makes an API key. The text is returned once and kept nowhere.
func (s *Store) AddKey(ctx context.Context, id carillon.OrgID) (text string, k Key, err error) {
	text, k = NewKey(id)
	_, err = s.update(ctx, id, 0, func(r *record) error {
		if len(r.Keys) >= MaxKeys {
			return carillon.Errorf(carillon.CodeQuotaExceeded, "an organization has at most %d API keys; remove one that is not used", MaxKeys)
		}
		r.Keys = append(r.Keys, k.Line())
		return nil
	})
	return text, k, err
}

// RemoveKey ends an API key.
func (s *Store) RemoveKey(ctx context.Context, id carillon.OrgID, key string) error {
	_, err := s.update(ctx, id, 0, func(r *record) error {
		n := len(r.Keys)
		r.Keys = slices.DeleteFunc(r.Keys, func(line string) bool { return strings.HasPrefix(line, key+":") })
		if len(r.Keys) == n {
			return carillon.Errorf(carillon.CodeNotFound, "the organization %q has no API key with this id", id)
		}
		return nil
	})
	return err
}

// Delete removes an organization. Its events are not the store's concern.
func (s *Store) Delete(ctx context.Context, id carillon.OrgID) error {
	if err := s.mayChange(id); err != nil {
		return err
	}
	for range attempts {
		_, revision, err := s.kv.Get(ctx, recordPrefix+string(id))
		if errors.Is(err, engine.ErrNoKey) {
			return unknown(id)
		}
		if err != nil {
			return unavailable(err)
		}
		err = s.kv.Delete(ctx, recordPrefix+string(id), revision)
		if errors.Is(err, engine.ErrKeyChanged) {
			continue
		}
		if err != nil {
			return unavailable(err)
		}
		s.dir.drop(id, revision)
		return nil
	}
	return contended(id)
}

func (s *Store) update(ctx context.Context, id carillon.OrgID, revision uint64, change func(*record) error) (*Org, error) {
	if err := s.mayChange(id); err != nil {
		return nil, err
	}
	for range attempts {
		js, at, err := s.kv.Get(ctx, recordPrefix+string(id))
		if errors.Is(err, engine.ErrNoKey) {
			return nil, unknown(id)
		}
		if err != nil {
			return nil, unavailable(err)
		}
		if revision != 0 && revision != at {
			return nil, carillon.Errorf(carillon.CodeConflict, "the organization %q was changed since it was read; read it again", id)
		}
		var r record
		if err := json.Unmarshal(js, &r); err != nil {
			return nil, carillon.AsError(fmt.Errorf("org: record of %q: %w", id, err))
		}
		if err := change(&r); err != nil {
			return nil, carillon.AsError(err)
		}
		if js, err = json.Marshal(r); err != nil {
			return nil, carillon.AsError(err)
		}
		at, err = s.kv.Update(ctx, recordPrefix+string(id), js, at)
		if errors.Is(err, engine.ErrKeyChanged) {
			continue
		}
		if err != nil {
			return nil, unavailable(err)
		}
		o, err := r.org(id, s.dir.defaults, at)
		if err != nil {
			return nil, carillon.AsError(err)
		}
		s.dir.set(o)
		return o, nil
	}
	return nil, contended(id)
}

// mayChange refuses what the config decides.
func (s *Store) mayChange(id carillon.OrgID) error {
	if s.dir.FromConfig(id) {
		return carillon.Errorf(carillon.CodeConflict, "the organization %q is in the node's config; change it there", id)
	}
	return nil
}

func unknown(id carillon.OrgID) error {
	return carillon.Errorf(carillon.CodeNotFound, "there is no organization %q; make it with POST /v1/orgs", id)
}

func contended(id carillon.OrgID) error {
	return carillon.Unavailable(watchRetry, nil, "others change the organization %q too; try again", id)
}

func unavailable(err error) error {
	return carillon.Unavailable(watchRetry, err, "the store does not answer; try again")
}

func (r *record) org(id carillon.OrgID, d defaults, revision uint64) (*Org, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	var keys []Key
	for _, line := range r.Keys {
		k, err := ParseKey(id, line)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return r.Settings.org(id, d, keys, revision), nil
}

// Follow keeps the directory as the store is, until ctx ends. It calls synced
// once, when the directory has everything that was there at the beginning.
func (d *Directory) Follow(ctx context.Context, kv engine.KV, log *slog.Logger, synced func()) {
	for {
		seen := map[carillon.OrgID]bool{}
		newest := uint64(0)
		err := kv.Watch(ctx, recordPrefix, func(c engine.Change) {
			newest = max(newest, c.Revision)
			if !c.Synced {
				d.follow(c, log)
				if seen != nil && !c.Deleted {
					seen[idOf(c.Key)] = true
				}
				return
			}
			d.dropMissing(seen)
			seen = nil
			if synced != nil {
				synced()
				synced = nil
			}
		})
		if ctx.Err() != nil {
			return
		}
		log.Warn("org: the watch of the store broke; watching again", "err", err)
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return
		}
	}
}

func idOf(key string) carillon.OrgID { return carillon.OrgID(strings.TrimPrefix(key, recordPrefix)) }

func (d *Directory) follow(c engine.Change, log *slog.Logger) {
	id := idOf(c.Key)
	switch {
	case d.config[id]:
		log.Warn("org: the config names an organization that the store has too; the config counts", "org", id)
		return
	case c.Deleted:
		d.drop(id, c.Revision)
		return
	}
	var r record
	err := json.Unmarshal(c.Value, &r)
	if err == nil {
		var o *Org
		if o, err = r.org(id, d.defaults, c.Revision); err == nil {
			d.set(o)
			return
		}
	}
	log.Error("org: a record of the store cannot be read; the organization stays as it was", "org", id, "err", err)
}

// dropMissing forgets those of the store that were deleted while nobody watched.
func (d *Directory) dropMissing(seen map[carillon.OrgID]bool) {
	d.mu.RLock()
	var gone []*Org
	for id, o := range d.orgs {
		if o.Revision != 0 && !seen[id] {
			gone = append(gone, o)
		}
	}
	d.mu.RUnlock()
	for _, o := range gone {
		d.drop(o.ID, o.Revision)
	}
}
