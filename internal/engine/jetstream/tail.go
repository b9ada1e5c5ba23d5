package jetstream

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// lookEvery is how often a tail that is fed nothing looks at the stream itself.
const lookEvery = 2 * time.Second

// Tail follows one partition; see engine.Engine. On the embedded server it is fed by
// this process's own appends, elsewhere through a consumer.
func (e *Engine) Tail(ctx context.Context, partition int, after uint64, f func(*carillon.Entry)) error {
	p, err := e.partition(partition)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.server != nil {
		err = e.follow(ctx, p, after, f)
	} else {
		err = e.consume(ctx, p, after, f)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.breaks.Add(1)
	select {
	case <-e.closing:
		return engine.ErrClosed
	default:
		return err
	}
}

// follow follows a partition that only this process writes. What is stored comes
// from the committer as soon as it is acknowledged; nothing that was just written is
// read again, which costs a third of a publish, and makes the server keep its write
// buffers. The stream is read for what the committer does not know or the inlet does
// not hold: at the start, where a sequence is missing, after an append whose answer
// was lost, and every lookEvery without an entry.
//
// The sequences of one server without copies have no holes, so that one that is
// missing is always seen. A stream that was made anew is known by the time at which
// it was made, or by a sequence that comes again.
func (e *Engine) follow(parent context.Context, p *partition, after uint64, f func(*carillon.Entry)) error {
	life, err := e.server.life()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	in := p.feed.join()
	defer p.feed.leave(in)
	t := follower{engine: e, part: p, in: in, f: f, after: after, decode: decoder{partition: uint16(p.number)}}
	err = t.look(ctx)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for err == nil {
		select {
		case <-in.wake:
			err = t.take(ctx)
		case <-tick.C:
			if !t.busy {
				err = t.look(ctx)
			}
			t.busy = false
		case <-e.closing:
			return engine.ErrClosed
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if parent.Err() == nil && ctx.Err() != nil {
		return fmt.Errorf("%w: the server of %s has stopped", errTailBroken, p.stream)
	}
	return fmt.Errorf("%w: %w", errTailBroken, err)
}

// follower is one tail of a partition that only this process writes.
type follower struct {
	engine *Engine
	part   *partition
	in     *inlet
	f      func(*carillon.Entry)
	decode decoder

	made  time.Time // when the stream was
	after uint64    // every entry up to here was passed on, or is gone
	moved bool      // some entry was passed on
	fed   uint64    // the sequence that the committer said last
	busy  bool      // and it did since the last tick
}

// look compares the tail with the stream and reads what is missing.
func (t *follower) look(ctx context.Context) error {
	info, err := t.engine.info(ctx, t.part, "")
	if err != nil {
		return err
	}
	switch last := info.State.LastSeq; {
	case t.made.IsZero():
		t.made = info.Created
	case !info.Created.Equal(t.made):
		return fmt.Errorf("%s was made anew", t.part.stream)
	case t.moved && last < t.after:
		return fmt.Errorf("%s ends at %d, and had %d", t.part.stream, last, t.after)
	}
	if info.State.LastSeq <= t.after {
		return nil
	}
	if err := t.read(ctx, 0); err != nil {
		return err
	}
	t.after = max(t.after, info.State.LastSeq) // what is not there any more
	return nil
}

// take passes on what the committer has put into the inlet.
func (t *follower) take(ctx context.Context) error {
	entries, missed := t.in.take()
	for _, entry := range entries {
		seq := entry.Pos.Seq
		if seq <= t.fed {
			return fmt.Errorf("%s stored %d after %d", t.part.stream, seq, t.fed)
		}
		t.fed, t.busy = seq, true
		if seq > t.after+1 {
			if err := t.read(ctx, seq-1); err != nil {
				return err
			}
		}
		if seq > t.after {
			t.pass(entry)
		}
	}
	if !missed {
		return nil
	}
	t.engine.stats.catchUps.Add(1)
	return t.read(ctx, 0)
}

// read passes on what the stream has after what was passed on, up to a sequence or
// to its end.
func (t *follower) read(ctx context.Context, upTo uint64) error {
	s := scan{
		part: t.part, decode: &t.decode, seen: t.after,
		r: engine.Range{UpTo: upTo, Limit: math.MaxInt, MaxBytes: math.MaxInt},
		f: func(entry *carillon.Entry) error {
			t.part.raise(entry.Pos)
			t.pass(entry)
			return nil
		},
	}
	return s.direct(ctx)
}

func (t *follower) pass(entry *carillon.Entry) {
	t.after, t.moved = entry.Pos.Seq, true
	t.f(entry)
}
