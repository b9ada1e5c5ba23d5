package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
)

// Act is what follows from an entry.
type Act uint8

// The acts.
const (
	Nothing Act = iota
	Process     // the delivery is new, or somebody wants it to be processed again
)

// Verdict says what follows from one entry.
type Verdict struct {
	Act Act
	// Ref is the sequence of the delivery that the entry is about; 0 where it is
	// about none that is known.
	Ref uint64
	// Delivery is how that stands after the entry, or nil where Ref is 0.
	Delivery *Delivery
}

// Cursor is where the fold of the partition stands: the log it is of, and the
// last entry. The identity is "" before the first Reset.
func (l *Ledger) Cursor(ctx context.Context, partition int) (identity string, pos carillon.Position, err error) {
	if err := checkPartition(partition); err != nil {
		return "", carillon.Position{}, err
	}
	pos.Partition = uint16(partition)
	err = l.view(ctx, func(q querier) error {
		identity, pos, err = cursorOf(q.QueryRowContext(ctx, sqlCursor, partition), partition)
		return err
	})
	return identity, pos, err
}

func cursorOf(r *sql.Row, partition int) (identity string, pos carillon.Position, err error) {
	pos.Partition = uint16(partition)
	err = r.Scan(&identity, &pos.Seq, &pos.Check)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return identity, pos, err
}

// Apply folds entries of one partition, in order, in one transaction, and moves
// the cursor. It gives a verdict for each. Entries at or below the cursor are
// passed over, and nothing follows from them. An identity other than the
// cursor's is ErrOtherLog.
func (l *Ledger) Apply(ctx context.Context, partition int, identity string, entries []*carillon.Entry) ([]Verdict, error) {
	if err := checkPartition(partition); err != nil {
		return nil, err
	}
	for _, e := range entries {
		if int(e.Pos.Partition) != partition || e.Pos.Seq == 0 || e.Pos.Seq > maxSeq {
			return nil, fmt.Errorf("ledger: the entry %v is to be in partition %d, with a sequence from 1 to %d", e.Pos, partition, uint64(maxSeq))
		}
	}
	if len(entries) == 0 {
		return nil, nil
	}
	var verdicts []Verdict
	var f *fold
	err := l.change(ctx, func(w *writer) (err error) {
		f = &fold{ctx: context.WithoutCancel(ctx), w: w, partition: partition, known: l.known, counts: map[countKey]int64{}}
		verdicts, err = f.run(ctx, identity, entries)
		return err
	})
	if err != nil {
		return nil, err
	}
	c := &l.count
	c.applied.Add(f.applied)
	c.duplicates.Add(f.duplicates)
	c.ignored.Add(f.ignored)
	c.malformed.Add(f.malformed)
	c.transactions.Add(1)
	c.last.Store(l.now().UnixNano())
	return verdicts, nil
}

// fold is one Apply.
type fold struct {
	ctx       context.Context //nolint:containedctx // a fold is one call; it is asked between entries whether that goes on, not within
	w         *writer
	partition int
	known     time.Duration
	counts    map[countKey]int64 // changes

	applied, duplicates, ignored, malformed uint64
}

func (f *fold) run(ctx context.Context, identity string, entries []*carillon.Entry) ([]Verdict, error) {
	s, err := f.w.prepare(f.ctx, sqlCursor)
	if err != nil {
		return nil, err
	}
	stands, at, err := cursorOf(s.QueryRowContext(f.ctx, f.partition), f.partition)
	if err != nil {
		return nil, err
	}
	if stands != identity || identity == "" {
		return nil, fmt.Errorf("entries of the log %q: %w, but in %q", identity, ErrOtherLog, stands)
	}
	verdicts := make([]Verdict, len(entries))
	for i, e := range entries {
		if e.Pos.Seq <= at.Seq {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if verdicts[i], err = f.entry(e); err != nil {
			return nil, fmt.Errorf("entry %v: %w", e.Pos, err)
		}
		at = e.Pos
		f.applied++
	}
	if f.applied == 0 {
		return verdicts, nil
	}
	if err := f.w.count(f.ctx, f.counts); err != nil {
		return nil, err
	}
	return verdicts, f.w.exec(f.ctx, sqlMove, f.partition, identity, int64(at.Seq), int64(at.Check))
}

func (f *fold) entry(e *carillon.Entry) (Verdict, error) {
	switch e.Type {
	case intake.TypeReceived:
		return f.received(e)
	case intake.TypeRefused:
		return Verdict{}, f.refused(e)
	case intake.TypeDone, intake.TypeFailed, intake.TypeDead, intake.TypeRetry, intake.TypeDiscarded:
		return f.note(e)
	case intake.TypePart:
		return Verdict{}, nil
	}
	f.malformed++ // of a version to come
	return Verdict{}, nil
}

func (f *fold) received(e *carillon.Entry) (Verdict, error) {
	in, err := intake.ParseReceived(&e.Event)
	if err != nil {
		f.malformed++
		return Verdict{}, nil //nolint:nilerr // the log cannot be changed, and goes on
	}
	r := f.row(e)
	d := &r.Delivery
	d.Provider, d.Event, d.Delivery = clip(in.Meta.Provider, maxName), clip(in.Meta.Event, maxName), clip(in.Delivery, maxName)
	d.Digest, d.Secret = clip(in.Meta.Digest, maxName), clip(in.Meta.Secret, maxName)
	d.Order = clip(in.Meta.Order, maxName)
	d.Size, d.Spooled, d.Signature = max(in.Meta.Size, 0), in.Meta.Spooled, Signed
	seen := seenKey(e.Org, in.Source, in.Delivery, in.Meta.Digest)
	var found repeated
	if err := found.scan(f.w.row(f.ctx, sqlSeen, []any{seen, since(r.received, f.known)}, found.into()...)); err != nil {
		return Verdict{}, err
	}
	v := Verdict{Act: Process, Ref: e.Pos.Seq}
	if place, check, ok := found.judge(); ok {
		v.Act = Nothing
		d.State, r.duplicateOf, d.DuplicateOf.Check = Duplicate, place, check
		f.duplicates++
	}
	if err := f.insert(r, seen); err != nil {
		return Verdict{}, err
	}
	out := r.delivery()
	v.Delivery = &out
	return v, nil
}

func (f *fold) refused(e *carillon.Entry) error {
	in, err := intake.ParseRefused(&e.Event)
	if err != nil {
		f.malformed++
		return nil //nolint:nilerr // as above
	}
	r := f.row(e)
	d := &r.Delivery
	d.Provider, d.Event, d.Delivery = clip(in.Provider, maxName), clip(in.Event, maxName), clip(in.Delivery, maxName)
	d.Size, d.Status, d.Signature, d.State = max(in.Size, 0), in.Status, clip(in.Reason, maxName), Refused
	return f.insert(r, nil)
}

// row has what every entry has.
func (f *fold) row(e *carillon.Entry) *row {
	r := &row{place: placeOf(f.partition, e.Pos.Seq), received: millis(e)}
	r.Pos, r.Org, r.Source, r.Remote = e.Pos, e.Org, clip(e.Source, maxName), clip(host(e.From), maxName)
	return r
}

func (f *fold) insert(r *row, seen []byte) error {
	f.counts[countKey{r.Org, r.Source, r.State}]++
	args := r.values()
	if seen == nil {
		return f.w.exec(f.ctx, sqlInsert, append(args, nil)...)
	}
	return f.w.exec(f.ctx, sqlInsert, append(args, seen)...)
}

// millis is when an entry says that it happened, in Unix milliseconds.
func millis(e *carillon.Entry) int64 {
	if e.Time.IsZero() {
		return e.Accepted.UnixMilli()
	}
	return e.Time.UnixMilli()
}

// since is d before t, in milliseconds; it does not overflow.
func since(t int64, d time.Duration) int64 {
	if ms := d.Milliseconds(); t >= math.MinInt64+ms {
		return t - ms
	}
	return math.MinInt64
}

// seenKey stands for what makes two deliveries the same.
func seenKey(org carillon.OrgID, source, delivery, digest string) []byte {
	all := make([]byte, 0, 256)
	for _, s := range [...]string{string(org), source, delivery, digest} {
		all = binary.AppendUvarint(all, uint64(len(s)))
		all = append(all, s...)
	}
	sum := sha256.Sum256(all)
	return sum[:16]
}

// repeated is what sqlSeen finds.
type repeated struct {
	place, original      int64
	check, originalCheck uint32
	state, originalState State
	found                bool
}

func (r *repeated) into() []any {
	return []any{&r.place, &r.check, &r.state, &r.original, &r.originalCheck, &r.originalState}
}

func (r *repeated) scan(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	r.found = err == nil
	return err
}

// judge says whether a delivery after what was found is a duplicate, and of which.
func (r *repeated) judge() (place int64, check uint32, ok bool) {
	if !r.found {
		return 0, 0, false
	}
	place, check, state := r.place, r.check, r.state
	if state == Duplicate && r.original != 0 { // else it is pruned, and this one stands for it
		place, check, state = r.original, r.originalCheck, r.originalState
	}
	return place, check, state != Dead && state != Discarded
}

func checkPartition(partition int) error {
	if partition < 0 || partition > math.MaxUint16 {
		return fmt.Errorf("ledger: there is no partition %d: it is 0 to %d", partition, math.MaxUint16)
	}
	return nil
}

// host is a client's address without its port.
func host(remote string) string {
	if h, _, err := net.SplitHostPort(remote); err == nil {
		return h
	}
	return remote
}
