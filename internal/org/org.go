// Package org knows the organizations of an install: which exist, what each may
// use, and the API keys of each.
//
// They come from the config, which is fixed while the node runs, and from the
// engine's KV, where [Store] changes them and every node's [Directory.Follow]
// sees it. Authentication asks a [Directory] whether an organization exists; the
// gate and the sessions ask it for limits. Asking does no I/O.
package org

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// Limits are what one organization may use on one node. 0 means no limit.
type Limits struct {
	PublishPerSecond      int   // events a second, on average
	PublishBurst          int   // events at once above that; 0: one second's worth
	PublishBytesPerSecond int64 // bytes of events a second, on average
	Connections           int   // connections at the same time
}

// Retention is how much of an organization's log is kept, where that is less
// than what the node keeps of everybody's. 0 means as much as the node keeps.
type Retention struct {
	Age    time.Duration // looked at once a minute
	Events int64
	Bytes  int64 // as engine.StoredSize counts them
}

// Budget is what the engine keeps to.
func (r Retention) Budget() engine.Budget { return engine.Budget{Bytes: r.Bytes, Events: r.Events} }

// Org is one organization. It is immutable: a change makes another.
type Org struct {
	ID        carillon.OrgID
	Limits    Limits
	Retention Retention
	Disabled  bool // it exists, but nobody may use it
	Keys      []Key

	Settings Settings // of one from the store, as they were given
	Revision uint64   // in the store; 0: it is not from there
}

// Config says which organizations exist from the beginning.
type Config struct {
	Orgs []Org

	// Open lets every organization exist from its first use. It is for
	// development: with it, whoever signs tokens makes organizations.
	Open bool

	// Defaults and Retention are of those that Open makes, and of those in the
	// store where they have none of their own.
	Defaults  Limits
	Retention Retention
}

// Directory is the set of organizations. All methods may be called from any
// goroutine.
type Directory struct {
	open     bool
	defaults defaults
	config   map[carillon.OrgID]bool // from the config; the store cannot change them

	mu     sync.RWMutex // guards what follows
	orgs   map[carillon.OrgID]*Org
	keys   map[string]Key // by id
	notify []func(old, now *Org)
}

// defaults are what holds where an organization says nothing.
type defaults struct {
	limits    Limits
	retention Retention
}

// NewDirectory makes a directory. It refuses an organization or key named twice,
// an invalid name and a negative limit.
func NewDirectory(cfg Config) (*Directory, error) {
	d := &Directory{
		open: cfg.Open, defaults: defaults{cfg.Defaults, cfg.Retention}, config: map[carillon.OrgID]bool{},
		orgs: make(map[carillon.OrgID]*Org, len(cfg.Orgs)), keys: map[string]Key{},
	}
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
		for _, k := range o.Keys {
			if !validKeyID(k.ID) {
				return nil, fmt.Errorf("org: %q: key %q: an id is 1–%d characters of a–z and 0–9", o.ID, k.ID, maxKeyID)
			}
			if known, twice := d.keys[k.ID]; twice {
				return nil, fmt.Errorf("org: the key %q is there twice, of %q and of %q", k.ID, known.Org, o.ID)
			}
			k.Org = o.ID
			d.keys[k.ID] = k
		}
		d.orgs[o.ID], d.config[o.ID] = &o, true
	}
	return d, nil
}

// Get returns an organization that exists, disabled ones too. In an open
// directory every valid id exists from its first Get on: ask only for ids that
// come from a credential whose signature is good. The same id gives the same
// pointer until the organization changes.
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
		o = &Org{ID: id, Limits: d.defaults.limits, Retention: d.defaults.retention}
		d.orgs[id] = o
	}
	return o, true
}

// Lookup is Get without making an organization where the directory is open.
func (d *Directory) Lookup(id carillon.OrgID) (*Org, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	o, ok := d.orgs[id]
	return o, ok
}

// Budget is the budget of an organization, whether it exists or not.
func (d *Directory) Budget(id carillon.OrgID) engine.Budget {
	if o, ok := d.Lookup(id); ok {
		return o.Retention.Budget()
	}
	return d.defaults.retention.Budget()
}

// Key returns the API key with this id.
func (d *Directory) Key(id string) (Key, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	k, ok := d.keys[id]
	return k, ok
}

// Open reports whether an organization exists from its first use.
func (d *Directory) Open() bool { return d.open }

// FromConfig reports whether the config names the organization, which then
// cannot be changed while the node runs.
func (d *Directory) FromConfig(id carillon.OrgID) bool { return d.config[id] }

// IDs lists the organizations that exist now, sorted.
func (d *Directory) IDs() []carillon.OrgID {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Sorted(maps.Keys(d.orgs))
}

// Notify has f called after each change of an organization: with nil for old
// when it is new, and for now when it is gone. f runs on the goroutine that
// brought the change and must not block.
func (d *Directory) Notify(f func(old, now *Org)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notify = append(d.notify, f)
}

// set makes o what the directory knows, unless it knows a later revision.
func (d *Directory) set(o *Org) {
	d.mu.Lock()
	old := d.orgs[o.ID]
	if old != nil && old.Revision >= o.Revision {
		d.mu.Unlock()
		return
	}
	d.swap(old, o)
	d.orgs[o.ID] = o
	d.mu.Unlock()
	d.tell(old, o)
}

// drop forgets one of the store that was deleted at the revision.
func (d *Directory) drop(id carillon.OrgID, revision uint64) {
	d.mu.Lock()
	old := d.orgs[id]
	if old == nil || old.Revision == 0 || old.Revision > revision {
		d.mu.Unlock()
		return
	}
	d.swap(old, nil)
	delete(d.orgs, id)
	d.mu.Unlock()
	d.tell(old, nil)
}

// swap replaces the keys of old by those of now. d.mu is held.
func (d *Directory) swap(old, now *Org) {
	if old != nil {
		for _, k := range old.Keys {
			delete(d.keys, k.ID)
		}
	}
	if now != nil {
		for _, k := range now.Keys {
			d.keys[k.ID] = k
		}
	}
}

func (d *Directory) tell(old, now *Org) {
	d.mu.RLock()
	notify := d.notify
	d.mu.RUnlock()
	for _, f := range notify {
		f(old, now)
	}
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
