// Package org knows the organizations of an install: which exist, and what
// each may use.
//
// Authentication asks it whether an organization exists; the gate and the
// sessions ask it for limits. It holds no events and does no I/O.
package org

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/carillon-rt/carillon"
)

// Limits are what one organization may use on one node. 0 means no limit.
type Limits struct {
	PublishPerSecond      int   // events a second, on average
	PublishBurst          int   // events at once above that; 0: one second's worth
	PublishBytesPerSecond int64 // bytes of events a second, on average
	Connections           int   // connections at the same time
}

// Org is one organization. It is immutable.
type Org struct {
	ID       carillon.OrgID
	Limits   Limits
	Disabled bool // it exists, but nobody may use it
}

// Config says which organizations exist.
type Config struct {
	Orgs []Org

	// Open lets every organization exist from its first use, with the limits
	// in Defaults. It is for development: with it, whoever signs tokens makes
	// organizations.
	Open     bool
	Defaults Limits
}

// Directory is the set of organizations. All methods may be called from any
// goroutine.
type Directory struct {
	open     bool
	defaults Limits

	mu   sync.RWMutex
	orgs map[carillon.OrgID]*Org
}

// NewDirectory makes a directory. It refuses an organization named twice, an
// invalid name and a negative limit.
func NewDirectory(cfg Config) (*Directory, error) {
	d := &Directory{open: cfg.Open, defaults: cfg.Defaults, orgs: make(map[carillon.OrgID]*Org, len(cfg.Orgs))}
	if err := cfg.Defaults.check(); err != nil {
		return nil, fmt.Errorf("org: default limits: %w", err)
	}
	for _, o := range cfg.Orgs {
		if _, err := carillon.ParseOrgID(string(o.ID)); err != nil {
			return nil, fmt.Errorf("org: %w", err)
		}
		if d.orgs[o.ID] != nil {
			return nil, fmt.Errorf("org: %q is there twice", o.ID)
		}
		if err := o.Limits.check(); err != nil {
			return nil, fmt.Errorf("org: %q: %w", o.ID, err)
		}
		d.orgs[o.ID] = &o
	}
	return d, nil
}

// Get returns an organization that exists, disabled ones too. In an open
// directory every valid id exists from its first Get on: ask only for ids that
// come from a credential whose signature is good. The same id always gives the
// same pointer.
func (d *Directory) Get(id carillon.OrgID) (*Org, bool) {
	d.mu.RLock()
	o := d.orgs[id]
	d.mu.RUnlock()
	if o != nil || !d.open {
		return o, o != nil
	}
	if _, err := carillon.ParseOrgID(string(id)); err != nil {
		return nil, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if o = d.orgs[id]; o == nil {
		o = &Org{ID: id, Limits: d.defaults}
		d.orgs[id] = o
	}
	return o, true
}

// Open reports whether an organization exists from its first use.
func (d *Directory) Open() bool { return d.open }

// IDs lists the organizations that exist now, sorted.
func (d *Directory) IDs() []carillon.OrgID {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Sorted(maps.Keys(d.orgs))
}

func (l Limits) check() error {
	for _, n := range []struct {
		name string
		n    int64
	}{
		{"publishes per second", int64(l.PublishPerSecond)},
		{"publish burst", int64(l.PublishBurst)},
		{"published bytes per second", l.PublishBytesPerSecond},
		{"connections", int64(l.Connections)},
	} {
		if n.n < 0 {
			return fmt.Errorf("the limit of %s is %d; it is 0 for none, or more", n.name, n.n)
		}
	}
	return nil
}
