package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/limit"
)

const (
	// recordPrefix begins the keys of sources in the KV: then come the organization
	// and the name.
	recordPrefix = "hook.source."

	// attempts at a change that others make too.
	attempts = 8

	// storeRetry is the pause after the store did not answer.
	storeRetry = time.Second
)

// record is a source in the KV.
type record struct {
	Definition string         `json:"definition"` // its text, sealed: rules may have secrets
	Secrets    []sealedSecret `json:"secrets"`
}

type sealedSecret struct {
	ID     string `json:"id"`
	Sealed string `json:"sealed"`
}

// name says which source.
type name struct {
	org    carillon.OrgID
	source string
}

func (n name) key() string { return recordPrefix + string(n.org) + "." + n.source }

func nameOf(key string) name {
	org, source, _ := strings.Cut(strings.TrimPrefix(key, recordPrefix), ".")
	return name{carillon.OrgID(org), source}
}

// Configured is a source of the node's settings.
type Configured struct {
	Org        carillon.OrgID
	Definition Definition
}

// Sources are the webhook sources of all organizations: those of the settings, and
// those of the store, which every node follows. All methods may be called from any
// goroutine.
type Sources struct {
	vault *vault
	keeps bool // what the vault encrypts can be decrypted after a restart
	kv    engine.KV
	most  int // of one organization
	log   *slog.Logger

	configured []Configured
	limits     limit.Hits

	mu  sync.RWMutex // guards what follows
	all map[name]*Source
	of  map[carillon.OrgID]int
}

// NewSources makes those of the settings. keys is the text of the file that secrets
// of the store are encrypted with; "": there are none, and none can be stored. most is
// how many sources an organization may have.
func NewSources(configured []Configured, kv engine.KV, keys string, most int, log *slog.Logger) (*Sources, error) {
	keeps := keys != ""
	if !keeps {
		keys = NewKeyFile()
	}
	v, err := newVault(keys)
	if err != nil {
		return nil, err
	}
	s := &Sources{vault: v, keeps: keeps, kv: kv, most: most, log: log, configured: configured, limits: limit.Of("hook_sources"), all: map[name]*Source{}, of: map[carillon.OrgID]int{}}
	for _, c := range configured {
		one, err := s.fromConfig(c)
		if err != nil {
			return nil, err
		}
		n := name{c.Org, one.Name}
		if s.all[n] != nil {
			return nil, fmt.Errorf("hook: the organization %q has the source %q twice", c.Org, one.Name)
		}
		s.put(n, one)
	}
	return s, nil
}

// CheckConfigured says what is wrong with the sources of the settings.
func CheckConfigured(configured []Configured) error {
	_, err := NewSources(configured, nil, "", 0, slog.New(slog.DiscardHandler))
	return err
}

func (s *Sources) fromConfig(c Configured) (*Source, error) {
	d := c.Definition
	texts := slices.Clone(d.Secrets)
	if d.SecretFile != "" {
		text, err := os.ReadFile(d.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("hook: the secrets of %q: %w", d.Name, err)
		}
		texts = append(texts, lines(string(text))...)
	}
	if d.SecretEnv != "" {
		text, ok := os.LookupEnv(d.SecretEnv)
		if !ok {
			return nil, fmt.Errorf("hook: the secrets of %q: the variable %s is not set", d.Name, d.SecretEnv)
		}
		texts = append(texts, lines(text)...)
	}
	secrets := make([]Secret, 0, len(texts))
	for _, text := range texts {
		secrets = append(secrets, s.remembered(name{c.Org, d.Name}, s.vault.secret(c.Org, d.Name, text)))
	}
	one, err := build(c.Org, d, secrets)
	if err != nil {
		return nil, fmt.Errorf("hook: organization %q: %w", c.Org, err)
	}
	one.FromConfig = true
	return one, nil
}

// Reload reads the files of secrets again. A source whose file is not readable, or
// makes no sense, stays as it was.
func (s *Sources) Reload() error {
	var errs []error
	for _, c := range s.configured {
		if c.Definition.SecretFile == "" {
			continue
		}
		one, err := s.fromConfig(c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.mu.Lock()
		s.put(name{c.Org, one.Name}, one)
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

// remembered is a secret with the usage of the same one before.
func (s *Sources) remembered(n name, secret Secret) Secret {
	if old, ok := s.Get(n.org, n.source); ok {
		for i := range old.Secrets {
			if old.Secrets[i].ID == secret.ID {
				secret.use = old.Secrets[i].use
			}
		}
	}
	return secret
}

// put is called with mu held, or before anybody else knows s.
func (s *Sources) put(n name, one *Source) {
	if s.all[n] == nil {
		s.of[n.org]++
	}
	s.all[n] = one
}

// Get returns a source.
func (s *Sources) Get(org carillon.OrgID, source string) (*Source, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	one, ok := s.all[name{org, source}]
	return one, ok
}

// Limits counts how often an organization met the limit of sources.
func (s *Sources) Limits() map[string]uint64 { return s.limits.Load() }

// Has reports whether there is such a source.
func (s *Sources) Has(org carillon.OrgID, source string) bool {
	_, ok := s.Get(org, source)
	return ok
}

// List is an organization's sources, by name.
func (s *Sources) List(org carillon.OrgID) []*Source {
	s.mu.RLock()
	var list []*Source
	for n, one := range s.all {
		if n.org == org {
			list = append(list, one)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(list, func(a, b *Source) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// All is every source there is, in no order.
func (s *Sources) All() []*Source {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.all))
}

func (s *Sources) count(org carillon.OrgID) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.of[org]
}

// source is what a record describes.
func (s *Sources) source(n name, r *record, revision uint64) (*Source, error) {
	secrets := make([]Secret, 0, len(r.Secrets))
	for _, sealed := range r.Secrets {
		text, err := s.vault.open(n.org, n.source, sealed.Sealed)
		if err != nil {
			return nil, err
		}
		secret := s.vault.secret(n.org, n.source, text)
		secret.ID, secret.sealed = sealed.ID, sealed.Sealed
		secrets = append(secrets, s.remembered(n, secret))
	}
	d, err := s.definition(n, r)
	if err != nil {
		return nil, err
	}
	one, err := build(n.org, d, secrets)
	if err != nil {
		return nil, err
	}
	one.Revision = revision
	return one, nil
}

// definition is that of a record.
func (s *Sources) definition(n name, r *record) (Definition, error) {
	text, err := s.vault.open(n.org, n.source, r.Definition)
	if err != nil {
		return Definition{}, err
	}
	d, err := ParseDefinition([]byte(text))
	d.Name = n.source
	return d, err
}

// set makes one what is known, unless that is newer.
func (s *Sources) set(n name, one *Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.all[n]; old == nil || !old.FromConfig && old.Revision < one.Revision {
		s.put(n, one)
	}
}

func (s *Sources) drop(n name, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.all[n]; old != nil && !old.FromConfig && old.Revision <= revision {
		delete(s.all, n)
		if s.of[n.org]--; s.of[n.org] == 0 {
			delete(s.of, n.org)
		}
	}
}

// Follow keeps the sources as the store is, until ctx ends. It calls synced once,
// when it has everything that was there at the beginning.
func (s *Sources) Follow(ctx context.Context, synced func()) {
	for {
		unseen := s.stored()
		err := s.kv.Watch(ctx, recordPrefix, func(c engine.Change) {
			switch {
			case c.Synced:
				for n, revision := range unseen { // removed while nobody watched
					s.drop(n, revision)
				}
				if clear(unseen); synced != nil {
					synced()
					synced = nil
				}
			case c.Deleted:
				s.drop(nameOf(c.Key), c.Revision)
			default:
				n := nameOf(c.Key)
				delete(unseen, n)
				s.follow(n, c)
			}
		})
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("hook: the watch of the store broke; watching again", "err", err)
		select {
		case <-time.After(storeRetry):
		case <-ctx.Done():
			return
		}
	}
}

func (s *Sources) follow(n name, c engine.Change) {
	if one, ok := s.Get(n.org, n.source); ok && one.FromConfig {
		s.log.Warn("hook: the settings have a source that the store has too; the settings count", "org", n.org, "source", n.source)
		return
	}
	var r record
	err := json.Unmarshal(c.Value, &r)
	if err == nil {
		var one *Source
		if one, err = s.source(n, &r, c.Revision); err == nil {
			s.set(n, one)
			return
		}
	}
	s.log.Error("hook: a source of the store cannot be used; it stays as it was", "org", n.org, "source", n.source, "err", err)
}

// stored are the sources of the store that are known, and their revisions.
func (s *Sources) stored() map[name]uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	known := map[name]uint64{}
	for n, one := range s.all {
		if !one.FromConfig {
			known[n] = one.Revision
		}
	}
	return known
}
