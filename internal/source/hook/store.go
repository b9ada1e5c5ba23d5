package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// Put makes a source, or replaces its definition. Secrets in the definition are
// added to those it has; where there are none at all one is made, which is returned
// once, by its id.
func (s *Sources) Put(ctx context.Context, org carillon.OrgID, d Definition) (one *Source, made map[string]string, err error) {
	if len(d.Actions) > 0 {
		return nil, nil, carillon.Errorf(carillon.CodeForbidden, "actions run on the node: only its operator can define them, in the settings")
	}
	one, err = s.change(ctx, name{org, d.Name}, true, func(r *record) error {
		r.Definition = s.vault.seal(org, d.Name, d.text)
		for _, text := range d.Secrets {
			s.add(r, org, d.Name, text)
		}
		if len(r.Secrets) == 0 {
			text := newSecret(d.Kind)
			made = map[string]string{s.add(r, org, d.Name, text): text}
		}
		return nil
	})
	return one, made, err
}

// AddSecret adds a secret; an empty text makes one, which is returned once.
func (s *Sources) AddSecret(ctx context.Context, org carillon.OrgID, source, text string) (one *Source, id, made string, err error) {
	one, err = s.change(ctx, name{org, source}, false, func(r *record) error {
		if text == "" {
			d, err := s.definition(name{org, source}, r)
			if err != nil {
				return err
			}
			made = newSecret(d.Kind)
			text = made
		}
		id = s.add(r, org, source, text)
		return nil
	})
	return one, id, made, err
}

// add puts a secret in front.
func (s *Sources) add(r *record, org carillon.OrgID, source, text string) (id string) {
	id = s.vault.secret(org, source, text).ID
	for _, have := range r.Secrets {
		if have.ID == id {
			return id
		}
	}
	r.Secrets = append([]sealedSecret{{id, s.vault.seal(org, source, text)}}, r.Secrets...)
	return id
}

// RemoveSecret ends a secret; the last one stays.
func (s *Sources) RemoveSecret(ctx context.Context, org carillon.OrgID, source, id string) (*Source, error) {
	return s.change(ctx, name{org, source}, false, func(r *record) error {
		n := len(r.Secrets)
		r.Secrets = slices.DeleteFunc(r.Secrets, func(have sealedSecret) bool { return have.ID == id })
		switch {
		case len(r.Secrets) == n:
			return carillon.Errorf(carillon.CodeNotFound, "the source %q has no secret with this id", source)
		case len(r.Secrets) == 0:
			return carillon.Errorf(carillon.CodeConflict, "it is the last secret of the source %q; add the new one first, or remove the source", source)
		}
		return nil
	})
}

// Remove removes a source. What it received stays.
func (s *Sources) Remove(ctx context.Context, org carillon.OrgID, source string) error {
	n := name{org, source}
	one, ok := s.Get(org, source)
	switch {
	case ok && one.FromConfig:
		return configured(source)
	case !ok:
		if _, err := carillon.ParseSource(source); err != nil {
			return unknown(source)
		}
	}
	_, revision, err := s.kv.Get(ctx, n.key())
	if errors.Is(err, engine.ErrNoKey) {
		return unknown(source)
	}
	if err == nil {
		err = s.kv.Delete(ctx, n.key(), revision)
	}
	switch {
	case errors.Is(err, engine.ErrKeyChanged):
		return carillon.Errorf(carillon.CodeConflict, "the source %q was changed meanwhile; look at it again", source)
	case err != nil:
		return storeAway(err)
	}
	s.drop(n, revision)
	return nil
}

// RemoveAll removes every source of an organization that the store has.
func (s *Sources) RemoveAll(ctx context.Context, org carillon.OrgID) error {
	var errs []error
	for _, one := range s.List(org) {
		if !one.FromConfig {
			errs = append(errs, s.Remove(ctx, org, one.Name))
		}
	}
	return errors.Join(errs...)
}

// change makes a change of a record, and a new one if create.
func (s *Sources) change(ctx context.Context, n name, create bool, change func(*record) error) (*Source, error) {
	if _, err := carillon.ParseSource(n.source); err != nil {
		return nil, err
	}
	if one, ok := s.Get(n.org, n.source); ok && one.FromConfig {
		return nil, configured(n.source)
	}
	if !s.keeps {
		return nil, carillon.Errorf(carillon.CodeConflict, "this node cannot keep secrets: its operator has to set hooks.key_file, the same on every node")
	}
	for range attempts {
		js, revision, err := s.kv.Get(ctx, n.key())
		absent := errors.Is(err, engine.ErrNoKey)
		switch {
		case absent && !create:
			return nil, unknown(n.source)
		case absent && s.count(n.org) >= s.most:
			s.limits.Add("hook_sources")
			return nil, carillon.Errorf(carillon.CodeQuotaExceeded, "an organization has at most %d webhook sources; remove one that is not used", s.most).Over("hook_sources")
		case err != nil && !absent:
			return nil, storeAway(err)
		}
		var r record
		if !absent {
			if err := json.Unmarshal(js, &r); err != nil {
				return nil, fmt.Errorf("hook: the record of %q: %w", n.source, err)
			}
		}
		if err := change(&r); err != nil {
			return nil, err
		}
		one, err := s.source(n, &r, 0)
		if err != nil {
			return nil, err
		}
		if js, err = json.Marshal(r); err != nil {
			return nil, fmt.Errorf("hook: %w", err)
		}
		if absent {
			revision, err = s.kv.Create(ctx, n.key(), js)
		} else {
			revision, err = s.kv.Update(ctx, n.key(), js, revision)
		}
		if errors.Is(err, engine.ErrKeyExists) || errors.Is(err, engine.ErrKeyChanged) {
			continue
		}
		if err != nil {
			return nil, storeAway(err)
		}
		one.Revision = revision
		s.set(n, one)
		return one, nil
	}
	return nil, carillon.Unavailable(storeRetry, nil, "others change the source %q too; try again", n.source)
}

func configured(source string) error {
	return carillon.Errorf(carillon.CodeConflict, "the source %q is in the node's settings; change it there", source)
}

func unknown(source string) error {
	return carillon.Errorf(carillon.CodeNotFound, "there is no source %q; make it with PUT /v1/hooks/sources/%s", clip(source), clip(source))
}

func storeAway(err error) error {
	return carillon.Unavailable(storeRetry, err, "the store does not answer; try again")
}
