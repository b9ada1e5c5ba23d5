package jetstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Faults breaks an engine on purpose. It is for tests only.
type Faults struct{ engine *Engine }

// Faults returns the means to break the engine. For tests only.
func (e *Engine) Faults() Faults { return Faults{e} }

// RecreateStream makes a partition anew: empty, with another identity and
// sequences from 1.
func (f Faults) RecreateStream(ctx context.Context, partition int) error {
	p := f.engine.parts[partition]
	if err := f.engine.manage.DeleteStream(ctx, p.stream); err != nil {
		return wrap(err, "recreate")
	}
	if _, err := f.engine.manage.CreateStream(ctx, f.engine.streamConfig(p)); err != nil {
		return wrap(err, "recreate")
	}
	p.head.Store(nil)
	return nil
}

// ExpireBefore removes every entry of a partition below seq, as retention does.
func (f Faults) ExpireBefore(ctx context.Context, partition int, seq uint64) error {
	stream, err := f.engine.manage.Stream(ctx, f.engine.parts[partition].stream)
	if err != nil {
		return wrap(err, "expire")
	}
	return wrap(stream.Purge(ctx, jetstream.WithPurgeSequence(seq)), "expire")
}

// StopServer stops the embedded server until RestartServer: nothing answers.
func (f Faults) StopServer() { f.engine.server.stop() }

// RestartServer stops the embedded server and starts it again on the same
// directory: every connection breaks, nothing is lost.
func (f Faults) RestartServer(ctx context.Context) error {
	return f.restart(ctx, nil)
}

// TruncateStream restarts the embedded server with a partition that has lost
// everything above last, as a power cut without a flush can leave it. The
// sequences are used again; the identity stays.
func (f Faults) TruncateStream(ctx context.Context, partition int, last uint64) error {
	dir := filepath.Join(f.engine.dir.path, "jetstream", "$G", "streams", f.engine.parts[partition].stream, "msgs")
	return f.restart(ctx, func() error { return truncateBlocks(dir, last) })
}

func (f Faults) restart(ctx context.Context, meanwhile func() error) error {
	if err := f.engine.server.restart(ctx, meanwhile); err != nil {
		return err
	}
	// The caller goes on when the engine is back.
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for _, nc := range []*nats.Conn{f.engine.signals, f.engine.replays} {
		err := nc.FlushWithContext(ctx)
		for errors.Is(err, nats.ErrConnectionClosed) && ctx.Err() == nil { // it had not noticed yet
			<-time.After(inProcessWait)
			err = nc.FlushWithContext(ctx)
		}
		if err != nil {
			return wrap(err, "restart")
		}
	}
	return nil
}

// The server's block files: records of a length, a sequence and more, one after
// the other.
const (
	recordHasHeaders = 1 << 31
	recordErased     = 1 << 63
	recordHead       = 12 // length and sequence
)

// truncateBlocks cuts the records above last off a stopped stream's blocks and
// drops the index, so that the server reads the blocks anew.
func truncateBlocks(dir string, last uint64) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.blk"))
	if err != nil || len(names) == 0 {
		return errors.Join(err, fmt.Errorf("jetstream: no blocks in %s", dir))
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(name), ".blk"))
		return n
	}
	slices.SortFunc(names, func(a, b string) int { return number(a) - number(b) })
	if err := os.Remove(filepath.Join(dir, "index.db")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for i, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		keep := 0
		for keep+recordHead <= len(data) {
			seq := binary.LittleEndian.Uint64(data[keep+4:]) &^ recordErased
			if seq > last {
				break
			}
			keep += int(binary.LittleEndian.Uint32(data[keep:]) &^ recordHasHeaders)
		}
		switch {
		case keep >= len(data):
		case keep == 0 && i > 0:
			err = os.Remove(name)
		default:
			err = os.Truncate(name, int64(keep))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
