package jetstream

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// firsts remembers which organizations ever had an entry, so that one that lost
// none is not told it did. Records are written in the background: until one is
// there the log itself shows that the organization is known.
//
// Where several nodes share a log, another one's entry may have come first. Then
// the writer looks which is the first, and what this process does not know is
// looked up.
type firsts struct {
	kind   *kind
	shared bool

	mu      sync.Mutex
	known   map[carillon.OrgID]uint64
	waiting []firstEntry
	writing chan struct{} // closed when the running writer ends; nil: none runs
}

// undecided is what is known of an organization while its record is on its way.
const undecided = math.MaxUint64

type firstEntry struct {
	org carillon.OrgID
	seq uint64
}

func (k *kind) loadFirsts(ctx context.Context) (*firsts, error) {
	f := &firsts{kind: k, shared: k.engine.config.NATS != nil, known: make(map[carillon.OrgID]uint64)}
	prefix := k.key(recordFirst, "")
	watch, err := k.engine.ours.Watch(ctx, prefix+">", jetstream.IgnoreDeletes())
	if err != nil {
		return nil, wrap(err, "read the organizations")
	}
	defer func() { _ = watch.Stop() }()
	for {
		select {
		case record := <-watch.Updates():
			if record == nil {
				return f, nil
			}
			seq, _ := strconv.ParseUint(string(record.Value()), 10, 64)
			f.known[carillon.OrgID(strings.TrimPrefix(record.Key(), prefix))] = seq
		case <-ctx.Done():
			return nil, wrap(ctx.Err(), "read the organizations")
		}
	}
}

// get returns the sequence of the organization's first ever entry as far as this
// process knows it; 0 when it knows only that there was one, undecided when it
// will know soon.
func (f *firsts) get(org carillon.OrgID) (seq uint64, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	seq, known = f.known[org]
	return seq, known
}

// find is get, and waits for or looks up what this process does not know.
func (f *firsts) find(ctx context.Context, org carillon.OrgID) (seq uint64, known bool, err error) {
	for {
		f.mu.Lock()
		seq, known = f.known[org]
		writing := f.writing
		f.mu.Unlock()
		if seq != undecided {
			break
		}
		select {
		case <-writing:
		case <-ctx.Done():
			return 0, true, ctx.Err()
		}
	}
	if known || !f.shared {
		return seq, known, nil
	}
	record, _, err := f.kind.engine.kv.Get(ctx, f.kind.key(recordFirst, org))
	if errors.Is(err, engine.ErrNoKey) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	seq, err = strconv.ParseUint(string(record), 10, 64)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[org] = seq
	return seq, true, err
}

// put remembers the first entry that this process has stored of an organization
// that had none, and writes the record soon.
func (f *firsts) put(org carillon.OrgID, seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.known[org]; known {
		return
	}
	f.known[org] = seq
	if f.shared {
		f.known[org] = undecided
	}
	f.waiting = append(f.waiting, firstEntry{org, seq})
	if f.writing == nil {
		f.writing = make(chan struct{})
		go f.write(f.writing)
	}
}

// recordTimeout bounds the writing of one record.
const recordTimeout = 10 * time.Second

func (f *firsts) write(done chan struct{}) {
	defer close(done)
	for {
		f.mu.Lock()
		if len(f.waiting) == 0 {
			f.waiting, f.writing = nil, nil
			f.mu.Unlock()
			return
		}
		entry := f.waiting[0]
		f.waiting = f.waiting[1:]
		f.mu.Unlock()
		if err := f.record(entry); err != nil {
			f.mu.Lock()
			if f.known[entry.org] == undecided {
				f.known[entry.org] = 0
			}
			f.mu.Unlock()
			f.kind.engine.config.Logger.Warn("jetstream: the record of an organization's first entry was not written", "org", entry.org, "err", err)
		}
	}
}

func (f *firsts) record(entry firstEntry) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout) //nolint:forbidigo // it outlives every append
	defer cancel()
	e, key := f.kind.engine, f.kind.key(recordFirst, entry.org)
	if !f.shared {
		return e.kv.Put(ctx, key, strconv.AppendUint(nil, entry.seq, 10))
	}
	l := f.kind.log(entry.org)
	oldest, err := e.get(ctx, l.part, getRequest{Seq: 1, NextFor: l.org.subject}, true)
	if err != nil {
		return err
	}
	seq := oldest.seq
	if seq > entry.seq { // it is gone already: nobody can say which was the first
		seq = 0
	}
	_, err = e.kv.Create(ctx, key, strconv.AppendUint(nil, seq, 10))
	if errors.Is(err, engine.ErrKeyExists) {
		f.mu.Lock()
		delete(f.known, entry.org)
		f.mu.Unlock()
		_, _, err = f.find(ctx, entry.org)
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[entry.org] = seq
	return err
}

// flush waits until every record is written.
func (f *firsts) flush() {
	f.mu.Lock()
	writing := f.writing
	f.mu.Unlock()
	if writing != nil {
		<-writing
	}
}
