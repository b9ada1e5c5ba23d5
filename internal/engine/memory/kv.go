package memory

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carillon-rt/carillon/internal/engine"
)

// kv is a map, and a list of what was done to it for those who watch.
type kv struct {
	mu       sync.Mutex // guards what follows
	revision uint64
	values   map[string]kept
	watchers map[*watcher]struct{}
}

type kept struct {
	value    []byte
	revision uint64
	until    time.Time // zero: for good
}

// watcher is one Watch: what it has not been told yet.
type watcher struct {
	prefix  string
	changes []engine.Change
	more    chan struct{} // capacity 1
}

// get is called with k.mu held.
func (k *kv) get(key string) (kept, bool) {
	v, ok := k.values[key]
	if ok && !v.until.IsZero() && !time.Now().Before(v.until) {
		k.remove(key)
		return kept{}, false
	}
	return v, ok
}

// put is called with k.mu held.
func (k *kv) put(key string, value []byte, until time.Time) uint64 {
	if k.values == nil {
		k.values = map[string]kept{}
	}
	k.revision++
	k.values[key] = kept{slices.Clone(value), k.revision, until}
	k.tell(engine.Change{Key: key, Value: slices.Clone(value), Revision: k.revision})
	return k.revision
}

// remove is called with k.mu held.
func (k *kv) remove(key string) {
	k.revision++
	delete(k.values, key)
	k.tell(engine.Change{Key: key, Revision: k.revision, Deleted: true})
}

func (k *kv) tell(c engine.Change) {
	for w := range k.watchers {
		if strings.HasPrefix(c.Key, w.prefix) {
			w.changes = append(w.changes, c)
			select {
			case w.more <- struct{}{}:
			default:
			}
		}
	}
}

func (k *kv) Get(_ context.Context, key string) ([]byte, uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.get(key)
	if !ok {
		return nil, 0, engine.ErrNoKey
	}
	return slices.Clone(v.value), v.revision, nil
}

func (k *kv) Create(_ context.Context, key string, value []byte) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.get(key); ok {
		return 0, engine.ErrKeyExists
	}
	return k.put(key, value, time.Time{}), nil
}

func (k *kv) Claim(_ context.Context, key string, ttl time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.get(key); ok {
		return engine.ErrKeyExists
	}
	k.forget()
	k.put(key, nil, time.Now().Add(ttl))
	return nil
}

// forget removes a few keys whose time has passed. k.mu is held.
func (k *kv) forget() {
	const look = 8
	n := 0
	for key := range k.values { // begins anywhere
		k.get(key)
		if n++; n == look {
			return
		}
	}
}

func (k *kv) Put(_ context.Context, key string, value []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.put(key, value, time.Time{})
	return nil
}

func (k *kv) Update(_ context.Context, key string, value []byte, revision uint64) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v, ok := k.get(key); !ok || v.revision != revision {
		return 0, engine.ErrKeyChanged
	}
	return k.put(key, value, time.Time{}), nil
}

func (k *kv) Delete(_ context.Context, key string, revision uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.get(key)
	if revision != 0 && (!ok || v.revision != revision) {
		return engine.ErrKeyChanged
	}
	if ok {
		k.remove(key)
	}
	return nil
}

func (k *kv) Watch(ctx context.Context, prefix string, f func(engine.Change)) error {
	w := &watcher{prefix: prefix, more: make(chan struct{}, 1)}
	k.mu.Lock()
	for key, v := range k.values {
		if strings.HasPrefix(key, prefix) {
			w.changes = append(w.changes, engine.Change{Key: key, Value: slices.Clone(v.value), Revision: v.revision})
		}
	}
	slices.SortFunc(w.changes, func(a, b engine.Change) int { return strings.Compare(a.Key, b.Key) })
	w.changes = append(w.changes, engine.Change{Synced: true})
	if k.watchers == nil {
		k.watchers = map[*watcher]struct{}{}
	}
	k.watchers[w] = struct{}{}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.watchers, w)
	}()
	for {
		k.mu.Lock()
		changes := w.changes
		w.changes = nil
		k.mu.Unlock()
		for _, c := range changes {
			f(c)
		}
		if len(changes) > 0 {
			continue
		}
		select {
		case <-w.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
