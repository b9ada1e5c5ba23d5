package engine

import (
	"context"
	"time"
)

// KV is a small consistent store: settings, not events. A key is 1–200 of
// [A-Za-z0-9._=-], without a dot at either end. Keys that begin with "log." are
// the engine's own. Every change of a key gives it a revision, higher than any
// before.
type KV interface {
	// Get returns ErrNoKey when the key does not exist.
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	// Create fails with ErrKeyExists when the key exists.
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	// Claim is Create for a key that goes by itself after ttl, rounded up to
	// seconds.
	Claim(ctx context.Context, key string, ttl time.Duration) error
	// Put makes the key or replaces its value.
	Put(ctx context.Context, key string, value []byte) error
	// Update replaces the value of a key that stands at the revision, and fails
	// with ErrKeyChanged when it does not, or does not exist.
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	// Delete removes a key that stands at the revision, or fails with
	// ErrKeyChanged. Revision 0 is any, and none.
	Delete(ctx context.Context, key string, revision uint64) error
	// Watch calls f for every key that begins with the prefix, which ends with a
	// dot, once with Synced, and then for each change, in order and none
	// skipped. It returns an error when it cannot go on, and ctx's error when
	// ctx ends. f runs on one goroutine; what it is given is its to keep.
	Watch(ctx context.Context, prefix string, f func(Change)) error
}

// Change of a key, or, with Synced alone, the end of what there was at the
// beginning.
type Change struct {
	Key      string
	Value    []byte
	Revision uint64
	Deleted  bool
	Synced   bool
}
