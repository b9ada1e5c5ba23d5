package memory

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// partition is one ordered log, shared by the organizations that live in it.
type partition struct {
	number uint16
	limits limits
	wake   chan struct{}
	head   atomic.Pointer[carillon.Position]

	mu       sync.Mutex // never held while calling out
	closed   bool       // no more appends
	queue    []pending
	identity string
	entries  []*carillon.Entry // dense from base on; nil where an entry is gone
	base     uint64            // sequence of entries[0], or of the next entry
	kept     int
	bytes    int64
	orgs     map[carillon.OrgID]*orgLog
	known    map[string]carillon.Position // by message id, within the dedupe window
	ids      []knownID                    // in the order they were stored
	changed  chan struct{}                // closed and replaced when entries are added
	broken   chan struct{}                // replaced when the log is cut; its address is the generation
}

// orgLog is what the partition knows of one organization.
type orgLog struct {
	entries []*carillon.Entry
	bytes   int64  // of the entries, as its budget counts them
	lost    uint64 // highest sequence of the organization that is gone
}

type knownID struct {
	id   string
	seq  uint64
	time time.Time
}

func newPartition(number uint16, l limits, identity string) *partition {
	p := &partition{number: number, limits: l, wake: make(chan struct{}, 1)}
	p.reset(identity)
	return p
}

func (p *partition) reset(identity string) {
	p.identity = identity
	p.entries, p.base, p.kept, p.bytes = nil, 1, 0, 0
	p.orgs = make(map[carillon.OrgID]*orgLog)
	p.known, p.ids = make(map[string]carillon.Position), nil
	p.head.Store(nil)
	p.cut()
}

// cut makes the tails that run now end with an error.
func (p *partition) cut() {
	p.broken = make(chan struct{}, 1) // never closed, only compared
	p.announce()
}

func (p *partition) announce() {
	if p.changed != nil {
		close(p.changed)
	}
	p.changed = make(chan struct{})
}

func (p *partition) last() uint64 { return p.base + uint64(len(p.entries)) - 1 }

func (p *partition) first() uint64 {
	for i, entry := range p.entries {
		if entry != nil {
			return p.base + uint64(i)
		}
	}
	return p.last() + 1
}

func (p *partition) entry(seq uint64) *carillon.Entry {
	if seq < p.base || seq > p.last() {
		return nil
	}
	return p.entries[seq-p.base]
}

// at is the position of seq, with the check of its entry or 0 when it is gone.
func (p *partition) at(seq uint64) carillon.Position {
	pos := carillon.Position{Partition: p.number, Seq: seq}
	if entry := p.entry(seq); entry != nil {
		pos.Check = entry.Pos.Check
	}
	return pos
}

// after appends at most a chunk of entries above seq to buf and says how far
// it has looked.
func (p *partition) after(buf []*carillon.Entry, seq uint64) ([]*carillon.Entry, uint64) {
	p.expire(time.Now())
	for next := max(seq+1, p.base); next <= p.last(); next++ {
		seq = next
		if entry := p.entry(next); entry != nil {
			if buf = append(buf, entry); len(buf) == chunk {
				break
			}
		}
	}
	return buf, seq
}

// add stores one event; the id is known not to be there.
func (p *partition) add(org carillon.OrgID, event *carillon.Event, id string, now time.Time) carillon.Position {
	entry := &carillon.Entry{
		Event:    *event,
		Org:      org,
		Pos:      carillon.Position{Partition: p.number, Seq: p.last() + 1, Check: checkOf(id)},
		Accepted: now,
	}
	p.entries = append(p.entries, entry)
	p.kept++
	p.bytes += int64(entry.Size())
	o := p.orgs[org]
	if o == nil {
		o = &orgLog{}
		p.orgs[org] = o
	}
	o.entries = append(o.entries, entry)
	o.bytes += engine.StoredSize(event)
	p.known[id] = entry.Pos
	p.ids = append(p.ids, knownID{id, entry.Pos.Seq, now})
	return entry.Pos
}

// expire applies the limits.
func (p *partition) expire(now time.Time) {
	for len(p.ids) > 0 && now.Sub(p.ids[0].time) >= p.limits.dedupe {
		p.forget(p.ids[0])
		p.ids[0] = knownID{}
		p.ids = p.ids[1:]
	}
	for len(p.entries) > 0 {
		oldest := p.entries[0]
		if oldest != nil && now.Sub(oldest.Accepted) < p.limits.retention && p.bytes <= p.limits.bytes {
			return
		}
		if oldest != nil {
			p.drop(oldest)
		}
		p.entries = p.entries[1:]
		p.base++
	}
}

// forget drops an id, unless a later entry has taken it over.
func (p *partition) forget(k knownID) {
	if p.known[k.id].Seq == k.seq {
		delete(p.known, k.id)
	}
}

// limit keeps the newest entries of org, at most perOrg, and of those what fits
// into its budget; cut says that the budget took some.
func (p *partition) limit(org carillon.OrgID) (cut bool) {
	o := p.orgs[org]
	if o == nil {
		return false
	}
	for len(o.entries) > p.limits.perOrg {
		p.drop(o.entries[0])
	}
	budget := p.limits.budget(org)
	for budget.Bytes > 0 && o.bytes > budget.Bytes || budget.Events > 0 && int64(len(o.entries)) > budget.Events {
		p.drop(o.entries[0])
		cut = true
	}
	return cut
}

// drop takes out an entry that is the oldest of its organization.
func (p *partition) drop(entry *carillon.Entry) {
	p.entries[entry.Pos.Seq-p.base] = nil
	p.kept--
	p.bytes -= int64(entry.Size())
	o := p.orgs[entry.Org]
	o.bytes -= engine.StoredSize(&entry.Event)
	o.entries[0] = nil
	o.entries = o.entries[1:]
	o.lost = entry.Pos.Seq
}

// checkOf is the check of the entry stored under a message id; never 0.
func checkOf(id string) uint32 {
	if check := uint32(xxhash.Sum64String(id)); check != 0 {
		return check
	}
	return 1
}
