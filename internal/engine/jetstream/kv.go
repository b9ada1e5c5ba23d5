package jetstream

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/internal/engine"
)

// markerTTL is how long the bucket tells watchers that a key has gone by itself.
const markerTTL = 10 * time.Second

// adoptBucket opens the bucket of settings, making it, or making it able to let
// keys go by themselves, which those of the first version were not.
func (e *Engine) adoptBucket(ctx context.Context) (jetstream.KeyValue, error) {
	want := jetstream.KeyValueConfig{
		Bucket: e.bucketName(), History: 5, Storage: jetstream.FileStorage, LimitMarkerTTL: markerTTL,
		Replicas: e.config.replicas(),
	}
	bucket, err := e.manage.KeyValue(ctx, want.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		bucket, err = e.manage.CreateKeyValue(ctx, want)
		if errors.Is(err, jetstream.ErrBucketExists) { // another node was first
			bucket, err = e.manage.KeyValue(ctx, want.Bucket)
		}
	}
	if err != nil {
		return nil, err
	}
	status, err := bucket.Status(ctx)
	if err != nil {
		return nil, err
	}
	if status.LimitMarkerTTL() == 0 {
		if bucket, err = e.manage.UpdateKeyValue(ctx, want); err != nil {
			return nil, err
		}
	}
	if e.config.NATS != nil {
		return e.leaderOnly(ctx, bucket)
	}
	return bucket, nil
}

func (e *Engine) bucketName() string { return e.config.streamPrefix() + "_cfg" }

// settingsStream is the stream behind the bucket.
func (e *Engine) settingsStream() string { return "KV_" + e.bucketName() }

// kv is engine.KV on a bucket.
type kv struct{ bucket jetstream.KeyValue }

func (k *kv) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	entry, err := k.bucket.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, engine.ErrNoKey
	}
	if err != nil {
		return nil, 0, wrap(err, "get "+strconv.Quote(key))
	}
	return entry.Value(), entry.Revision(), nil
}

func (k *kv) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	revision, err := k.bucket.Create(ctx, key, value)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return 0, engine.ErrKeyExists
	}
	return revision, wrap(err, "create "+strconv.Quote(key))
}

func (k *kv) Claim(ctx context.Context, key string, ttl time.Duration) error {
	ttl = (ttl + time.Second - 1).Truncate(time.Second)
	_, err := k.bucket.Create(ctx, key, nil, jetstream.KeyTTL(max(ttl, time.Second)))
	if errors.Is(err, jetstream.ErrKeyExists) {
		return engine.ErrKeyExists
	}
	return wrap(err, "claim "+strconv.Quote(key))
}

func (k *kv) Put(ctx context.Context, key string, value []byte) error {
	_, err := k.bucket.Put(ctx, key, value)
	return wrap(err, "put "+strconv.Quote(key))
}

func (k *kv) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if revision == 0 { // to the bucket this would mean a key that does not exist
		return 0, engine.ErrKeyChanged
	}
	now, err := k.bucket.Update(ctx, key, value, revision)
	if changed(err) {
		return 0, engine.ErrKeyChanged
	}
	return now, wrap(err, "update "+strconv.Quote(key))
}

func (k *kv) Delete(ctx context.Context, key string, revision uint64) error {
	var opts []jetstream.KVDeleteOpt
	if revision != 0 {
		opts = append(opts, jetstream.LastRevision(revision))
	}
	err := k.bucket.Delete(ctx, key, opts...)
	if changed(err) {
		return engine.ErrKeyChanged
	}
	return wrap(err, "delete "+strconv.Quote(key))
}

// changed reports that a key was not at the revision that was expected.
func changed(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) // of a replicated bucket
}

func (k *kv) Watch(ctx context.Context, prefix string, f func(engine.Change)) error {
	w, err := k.bucket.Watch(ctx, prefix+">")
	if err != nil {
		return wrap(err, "watch "+strconv.Quote(prefix))
	}
	defer func() { _ = w.Stop() }() // its consumer goes by itself
	for {
		select {
		case entry, ok := <-w.Updates():
			switch {
			case !ok && ctx.Err() != nil:
				return ctx.Err()
			case !ok:
				return engine.ErrClosed
			case entry == nil:
				f(engine.Change{Synced: true})
				continue
			}
			c := engine.Change{Key: entry.Key(), Revision: entry.Revision(), Deleted: entry.Operation() != jetstream.KeyValuePut}
			if !c.Deleted {
				c.Value = entry.Value()
			}
			f(c)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
