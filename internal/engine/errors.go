package engine

import (
	"context"
	"errors"

	"github.com/carillon-rt/carillon"
)

// Sentinels callers branch on.
var (
	ErrNoKey      = errors.New("engine: no such key")
	ErrKeyExists  = errors.New("engine: key exists")
	ErrKeyChanged = errors.New("engine: key was changed meanwhile")
	ErrClosed     = errors.New("engine: closed")
	// ErrStoreInUse: another process has the store directory.
	ErrStoreInUse = errors.New("engine: the store is in use by another process")
)

// AppendWait appends and waits for the receipts. When ctx ends first the events
// may still be stored.
func AppendWait(ctx context.Context, log Log, batch []Append) ([]carillon.Receipt, error) {
	type answer struct {
		receipts []carillon.Receipt
		err      error
	}
	ch := make(chan answer, 1)
	log.Append(batch, func(r []carillon.Receipt, err error) { ch <- answer{r, err} })
	select {
	case a := <-ch:
		return a.receipts, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
