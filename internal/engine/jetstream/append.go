package jetstream

import (
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// Limits of one flight. An array that is larger flies alone. joinBytes is what may
// be on its way to the server together with what joins: less than it lets lie.
const (
	flightEvents = 1000
	flightBytes  = 1 << 20
	joinBytes    = 16 << 20
)

// item is one event on its way into the log.
type item struct {
	event *carillon.Event
	id    string // its message id
	keyed bool
	same  *item // goes out in this flight under the same id; this one does not
	owner *pending

	stored  bool
	refused bool // in this flight
	unsure  bool // an earlier flight may have stored it
	dup     bool
	seq     uint64
	sent    time.Time
}

// pending is a batch on its way into the log.
type pending struct {
	org      *orgState
	items    []item
	done     func([]carillon.Receipt, error)
	since    time.Time
	size     int
	left     int    // items not stored yet
	attempts int    // flights it was in
	floor    uint64 // the last sequence stored before the first of them
	err      error  // refused for good
	answered bool

	one        [1]item
	oneReceipt [1]carillon.Receipt
}

// orgState is what a committer knows of one organization.
type orgState struct {
	id      carillon.OrgID
	subject string
	account account

	// Owned by the committer's goroutine.
	known         bool   // it has had an entry
	later, unsure uint64 // flights with an event that was stored, or may have been; see settle

	// Guarded by the committer's mu.
	queue  []*pending
	inTurn bool
}

// committer stores what is appended to one partition.
type committer struct {
	engine *Engine
	part   *partition
	wake   chan struct{}
	// trouble is why the oldest append does not get through, or nil.
	trouble atomic.Pointer[error]

	mu     sync.Mutex
	closed bool
	orgs   map[carillon.OrgID]*orgState
	turns  []*orgState // organizations with something queued, next first
	queued int         // events

	// Owned by the goroutine.
	conn    *nats.Conn
	gone    <-chan struct{}
	acks    chan *nats.Msg
	inbox   string
	batches string // begins the ids of atomic batches
	flight  uint64
	careful bool   // the next batch asks for an answer to each item
	head    uint64 // the last sequence this goroutine saw stored
	cost    cost
	msg     nats.Msg
	made    decoder // of entries from what was appended
	headers headers
	reply   []byte
	taken   []*pending
	items   []*item
	bytes   int // of the batches on their way
	sent    map[string]*item
	timer   *time.Timer
}

func newCommitter(e *Engine, p *partition) *committer {
	c := &committer{
		engine:  e,
		part:    p,
		wake:    make(chan struct{}, 1),
		orgs:    make(map[carillon.OrgID]*orgState),
		batches: rand.Text()[:16] + "-",
		cost:    newCost(e.config.Durability),
		headers: newHeaders(),
		sent:    make(map[string]*item),
	}
	c.msg.Header = c.headers.m
	return c
}

// org returns the state of an organization, the same each time.
func (c *committer) org(id carillon.OrgID) *orgState {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.orgs[id]
	if o == nil {
		o = &orgState{id: id, account: account{kind: c.part.kind, org: id}, subject: subjectFor(c.engine.config.Prefix, c.part.branch, id)}
		_, o.known = c.part.kind.firsts.get(id)
		c.orgs[id] = o
	}
	return o
}

// Append queues a batch for the partition's next flight; see engine.Log.
func (l *log) Append(batch []engine.Append, done func([]carillon.Receipt, error)) {
	c := l.part.committer
	p := &pending{org: l.org, done: done, since: time.Now(), left: len(batch)}
	if len(batch) == 1 {
		p.items = p.one[:]
	} else {
		p.items = make([]item, len(batch))
	}
	for i, a := range batch {
		it := &p.items[i]
		it.event, it.owner, it.keyed = a.Event, p, a.Key != ""
		it.id = messageID(l.org.id, a.Key)
		size, err := messageSize(a.Event, it.id, i, len(batch))
		if err != nil {
			p.err = err
		}
		p.size += size
	}
	if len(batch) > maxBatch {
		p.err = carillon.Errorf(carillon.CodeTooLarge, "%d events in one batch; at most %d", len(batch), maxBatch)
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		l.engine.stats.failures.Add(uint64(len(batch)))
		go done(nil, carillon.Unavailable(time.Second, engine.ErrClosed, "the server is stopping; try again"))
		return
	}
	o := p.org
	o.queue = append(o.queue, p)
	if !o.inTurn {
		o.inTurn = true
		c.turns = append(c.turns, o)
	}
	c.queued += len(batch)
	l.engine.stats.depth.Add(int64(len(batch)))
	c.mu.Unlock()
	c.poke()
}

func (c *committer) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.poke()
}

// messageID is the id the server knows an event by. A made-up one cannot be
// guessed, so no key can meet it.
func messageID(org carillon.OrgID, key string) string {
	if key == "" {
		return string(org) + ":~" + rand.Text()
	}
	return string(org) + ":" + escape(key)
}

// run stores what is queued until the committer is closed and the queue empty.
func (c *committer) run() {
	c.timer = time.NewTimer(time.Hour)
	for {
		c.taken = c.take(c.taken[:0])
		if len(c.taken) > 0 {
			c.commit(c.taken, true)
			clear(c.taken)
			clear(c.items)
			continue
		}
		c.mu.Lock()
		ended := c.closed && len(c.turns) == 0
		c.mu.Unlock()
		if ended {
			return
		}
		<-c.wake
	}
}

// take removes the next flight from the queue: one batch per organization in
// turn, until it is full. An array that has to fly alone lets this flight go, and
// is the next one.
func (c *committer) take(out []*pending) []*pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	events, bytes := 0, 0
	for i := 0; i < len(c.turns); {
		p := c.turns[i].queue[0]
		if len(out) > 0 && p.size > flightBytes {
			i++
			continue
		}
		if len(out) > 0 && (events+len(p.items) > flightEvents || bytes+p.size > flightBytes) {
			break
		}
		events += len(p.items)
		bytes += p.size
		out = append(out, c.pop(i))
		if bytes > flightBytes {
			break
		}
	}
	return out
}

// pop removes the next batch of the organization at place i in the line, which goes
// to its end. mu is held.
func (c *committer) pop(i int) *pending {
	o := c.turns[i]
	p := o.queue[0]
	o.queue[0] = nil
	o.queue = o.queue[1:]
	copy(c.turns[1:], c.turns[:i]) // those before it keep their places
	c.turns[0] = nil
	c.turns = c.turns[1:]
	if len(o.queue) > 0 {
		c.turns = append(c.turns, o)
	} else {
		o.queue, o.inTurn = nil, false
	}
	c.queued -= len(p.items)
	c.engine.stats.depth.Add(int64(-len(p.items)))
	return p
}

// answer calls done, once.
func (c *committer) answer(p *pending, err error) {
	if p.answered {
		return
	}
	p.answered = true
	s := &c.engine.stats
	s.acks.Add(1)
	s.ackNanos.Add(uint64(time.Since(p.since)))
	if err != nil {
		s.failures.Add(uint64(len(p.items)))
		p.done(nil, err)
		return
	}
	receipts := p.oneReceipt[:]
	if len(p.items) != 1 {
		receipts = make([]carillon.Receipt, len(p.items))
	}
	dups := 0
	for i := range p.items {
		it := &p.items[i]
		receipts[i] = carillon.Receipt{Pos: c.position(it), Duplicate: it.dup}
		if it.dup {
			dups++
		}
	}
	s.appends.Add(uint64(len(p.items) - dups))
	s.duplicates.Add(uint64(dups))
	p.done(receipts, nil)
}

func (c *committer) position(it *item) carillon.Position {
	return carillon.Position{Partition: uint16(c.part.number), Seq: it.seq, Check: checkOf(it.id)}
}
