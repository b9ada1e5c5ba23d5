package jetstream

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// Resume says whether a reader at pos has lost nothing; see engine.Log. Where
// the log no longer can tell, it says that something was.
func (l *log) Resume(ctx context.Context, pos carillon.Position) (engine.Outcome, error) {
	e, p := l.engine, l.part
	if _, err := e.partition(p.number); err != nil {
		return engine.Outcome{}, err
	}
	if int(pos.Partition) != p.number || pos.Seq == 0 && pos.Check != 0 {
		return engine.Outcome{Status: engine.Reset}, nil
	}
	last, err := e.certain(ctx, p)
	if err == nil && pos.Seq > last {
		var s engine.State
		s, err = e.state(ctx, p)
		last = s.Last.Seq
	}
	if err != nil {
		return engine.Outcome{}, err
	}
	if pos.Seq > last {
		return engine.Outcome{Status: engine.Reset}, nil
	}
	if pos.Seq > 0 {
		m, err := e.get(ctx, p, getRequest{Seq: pos.Seq}, false)
		if err == nil && (m.seq == 0 || m.position(p) != pos) { // a replica may lag
			m, err = e.get(ctx, p, getRequest{Seq: pos.Seq}, true)
		}
		switch {
		case err != nil:
			return engine.Outcome{}, err
		case m.seq > 0 && m.position(p) != pos:
			return engine.Outcome{Status: engine.Reset}, nil
		case m.seq > 0 && m.subject == l.org.subject:
			return engine.Outcome{}, nil // entries go from the front, and this one is there
		}
	}
	return l.lost(ctx, pos)
}

// lost decides whether the organization had entries after pos that are gone.
// pos is of this log.
func (l *log) lost(ctx context.Context, pos carillon.Position) (engine.Outcome, error) {
	e, p := l.engine, l.part
	oldest, err := e.get(ctx, p, getRequest{Seq: 1, NextFor: l.org.subject}, true)
	if err != nil {
		return engine.Outcome{}, err
	}
	first, known, err := p.kind.firsts.find(ctx, l.org.id)
	if err != nil {
		return engine.Outcome{}, err
	}
	marked := !p.kind.firsts.shared && oldest.header.Get(hdrFirst) != "" // several nodes may each mark one
	switch {
	case oldest.seq == 0 && !known:
		return engine.Outcome{}, nil // it never had an entry
	case oldest.seq > 0 && (oldest.seq <= pos.Seq+1 || oldest.seq == first || marked):
		return engine.Outcome{}, nil
	}
	info, err := e.info(ctx, p, l.org.subject)
	if err != nil {
		return engine.Outcome{}, err
	}
	state := info.State
	if pos.Seq >= state.LastSeq {
		return engine.Outcome{}, nil
	}
	// Age and size take entries from the front of the partition: with that still
	// before pos, only a purge or the organization's own limit can have taken one
	// after it. One that is below its limit lost to it only what age took since.
	if pos.Seq+1 >= state.FirstSeq && p.kind.below(state.Subjects[l.org.subject]) {
		purged, err := l.purged(ctx)
		if err != nil {
			return engine.Outcome{}, err
		}
		if purged <= pos.Seq {
			return engine.Outcome{}, nil
		}
	}
	from := state.LastSeq
	if oldest.seq > 0 {
		from = oldest.seq - 1
	}
	out := engine.Outcome{Status: engine.Expired}
	out.From, err = e.at(ctx, p, from)
	return out, err
}

// purged is up to where the organization was purged.
func (l *log) purged(ctx context.Context) (uint64, error) {
	record, _, err := l.engine.kv.Get(ctx, l.part.kind.key(recordPurged, l.org.id))
	if errors.Is(err, engine.ErrNoKey) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(record), 10, 64)
}

// Bounds reads the first and last kept entry from the leader.
func (l *log) Bounds(ctx context.Context) (oldest, newest carillon.Position, err error) {
	oldest.Partition, newest.Partition = uint16(l.part.number), uint16(l.part.number)
	if _, err := l.engine.partition(l.part.number); err != nil {
		return oldest, newest, err
	}
	first, err := l.engine.get(ctx, l.part, getRequest{Seq: 1, NextFor: l.org.subject}, true)
	if err != nil || first.seq == 0 {
		return oldest, newest, err
	}
	last, err := l.engine.get(ctx, l.part, getRequest{LastFor: l.org.subject}, true)
	if err != nil || last.seq == 0 {
		return oldest, newest, err
	}
	return first.position(l.part), last.position(l.part), nil
}

// At is the position before the first entry accepted at or after t.
func (l *log) At(ctx context.Context, t time.Time) (carillon.Position, error) {
	e, p := l.engine, l.part
	if _, err := e.partition(p.number); err != nil {
		return carillon.Position{Partition: uint16(p.number)}, err
	}
	// Asked first: what is stored while we look is after t.
	state, err := e.state(ctx, p)
	if err != nil {
		return carillon.Position{Partition: uint16(p.number)}, err
	}
	t = t.UTC()
	m, err := e.get(ctx, p, getRequest{From: &t, NextFor: l.org.subject}, true)
	if err != nil || m.seq == 0 {
		return state.Last, err
	}
	return e.at(ctx, p, m.seq-1)
}

// Purge removes the organization's entries up to and including upTo. A purge
// stalls its partition for a while, so there is one at a time.
func (l *log) Purge(ctx context.Context, upTo uint64) error {
	e := l.engine
	if _, err := e.partition(l.part.number); err != nil {
		return err
	}
	select {
	case e.purging <- struct{}{}:
		defer func() { <-e.purging }()
	case <-ctx.Done():
		return ctx.Err()
	}
	state, err := e.state(ctx, l.part)
	if err != nil {
		return err
	}
	upTo = min(upTo, state.Last.Seq)
	before, err := l.purged(ctx)
	if err != nil {
		return err
	}
	if upTo > before { // first, so that no purged entry is ever missed silently
		if err := e.kv.Put(ctx, l.part.kind.key(recordPurged, l.org.id), strconv.AppendUint(nil, upTo, 10)); err != nil {
			return err
		}
	}
	stream, err := e.manage.Stream(ctx, l.part.stream)
	if err != nil {
		return wrap(err, "purge")
	}
	// The server keeps the sequence it is given.
	return wrap(stream.Purge(ctx, jetstream.WithPurgeSubject(l.org.subject), jetstream.WithPurgeSequence(upTo+1)), "purge")
}
