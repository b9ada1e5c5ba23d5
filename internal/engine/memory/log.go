package memory

import (
	"context"
	"sort"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// log is the log of one organization.
type log struct {
	engine *Engine
	part   *partition
	org    carillon.OrgID
}

// Partition is where the organization lives.
func (l *log) Partition() int { return int(l.part.number) }

// look runs f under the partition's lock, with the limits applied and the
// organization's entries at hand.
func (l *log) look(ctx context.Context, f func(p *partition, o *orgLog)) error {
	p, err := l.engine.partition(int(l.part.number))
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(time.Now())
	o := p.orgs[l.org]
	if o == nil {
		o = &orgLog{}
	}
	f(p, o)
	return nil
}

// Read calls f for the organization's entries in r; see engine.Log.
func (l *log) Read(ctx context.Context, r engine.Range, f func(*carillon.Entry) error) (engine.End, error) {
	if r.Limit <= 0 {
		r.Limit = engine.DefaultReadLimit
	}
	if r.MaxBytes <= 0 {
		r.MaxBytes = engine.DefaultReadBytes
	}
	var end engine.End
	var found []*carillon.Entry
	err := l.look(ctx, func(p *partition, o *orgLog) {
		last := p.last()
		if r.UpTo > 0 {
			last = min(last, r.UpTo)
		}
		end.Seen = max(last, r.After)
		size := 0
		for i := o.after(r.After); i < len(o.entries) && o.entries[i].Pos.Seq <= last; i++ {
			if len(found) == r.Limit || size >= r.MaxBytes {
				end = engine.End{Seen: found[len(found)-1].Pos.Seq, More: true}
				break
			}
			found = append(found, o.entries[i])
			size += len(o.entries[i].Data)
		}
	})
	if err != nil {
		return engine.End{Seen: r.After}, err
	}
	for _, entry := range found {
		if err := ctx.Err(); err != nil {
			return engine.End{Seen: r.After}, err
		}
		l.engine.stats.read.Add(1)
		if err := f(entry); err != nil {
			return engine.End{Seen: r.After, More: true}, err
		}
	}
	return end, nil
}

// after is the index of the first entry above seq.
func (o *orgLog) after(seq uint64) int {
	return sort.Search(len(o.entries), func(i int) bool { return o.entries[i].Pos.Seq > seq })
}

// Resume says whether a reader at pos has lost nothing; see engine.Log.
func (l *log) Resume(ctx context.Context, pos carillon.Position) (engine.Outcome, error) {
	var out engine.Outcome
	err := l.look(ctx, func(p *partition, o *orgLog) {
		entry := p.entry(pos.Seq)
		switch {
		case pos.Partition != p.number, pos.Seq > p.last(),
			pos.Seq == 0 && pos.Check != 0,
			entry != nil && entry.Pos.Check != pos.Check:
			out.Status = engine.Reset
		case o.lost > pos.Seq:
			out = engine.Outcome{Status: engine.Expired, From: p.at(p.last())}
			if len(o.entries) > 0 {
				out.From = p.at(o.entries[0].Pos.Seq - 1)
			}
		}
	})
	return out, err
}

// Bounds reads the first and last kept entry.
func (l *log) Bounds(ctx context.Context) (oldest, newest carillon.Position, err error) {
	oldest.Partition, newest.Partition = l.part.number, l.part.number
	err = l.look(ctx, func(_ *partition, o *orgLog) {
		if n := len(o.entries); n > 0 {
			oldest, newest = o.entries[0].Pos, o.entries[n-1].Pos
		}
	})
	return oldest, newest, err
}

// At is the position before the first entry accepted at or after t.
func (l *log) At(ctx context.Context, t time.Time) (carillon.Position, error) {
	pos := carillon.Position{Partition: l.part.number}
	err := l.look(ctx, func(p *partition, o *orgLog) {
		pos = p.at(p.last())
		i := sort.Search(len(o.entries), func(i int) bool { return !o.entries[i].Accepted.Before(t) })
		if i < len(o.entries) {
			pos = p.at(o.entries[i].Pos.Seq - 1)
		}
	})
	return pos, err
}

// Purge removes the organization's entries up to and including upTo.
func (l *log) Purge(ctx context.Context, upTo uint64) error {
	return l.look(ctx, func(p *partition, o *orgLog) {
		for len(o.entries) > 0 && o.entries[0].Pos.Seq <= upTo {
			p.drop(o.entries[0])
		}
	})
}
