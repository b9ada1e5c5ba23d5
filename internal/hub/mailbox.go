package hub

import "sync"

// Task is work for a shard's goroutine. It must not block.
type Task interface{ Run() }

// TaskFunc is a function as a Task.
type TaskFunc func()

// Run calls f.
func (f TaskFunc) Run() { f() }

// notice tells a shard that an entry matched nodes where it has feeds.
type notice struct {
	part  *partition
	d     *Delivery
	nodes []*node
}

// mailbox is how others reach a shard. Notices are bounded: when there is no
// room, one mark per partition says "from this index on, read the ring". So are
// signals, which are ephemeral events: what finds no room is dropped. Tasks are
// bounded by who posts them: each connection has a fixed few outstanding.
type mailbox struct {
	wake func() // the shard

	mu      sync.Mutex // guards what follows
	room    int
	notices []notice
	signals []notice
	marks   []uint64 // per partition; 0: none
	resets  []bool   // per partition: the ring was emptied
	tasks   []Task
	nudged  bool // look at the places once more before sleeping
	asleep  bool
}

func newMailbox(wake func(), room, partitions int) *mailbox {
	return &mailbox{wake: wake, room: room, marks: make([]uint64, partitions), resets: make([]bool, partitions)}
}

// unlock releases the mailbox and wakes the shard once, and only if it sleeps.
func (b *mailbox) unlock() {
	asleep := b.asleep
	b.asleep = false
	b.mu.Unlock()
	if asleep {
		b.wake()
	}
}

// post leaves a notice, or a mark when there is no room.
func (b *mailbox) post(n notice) (marked bool) {
	b.mu.Lock()
	defer b.unlock()
	p := n.part.id
	if b.marks[p] != 0 {
		return true
	}
	if len(b.notices) >= b.room {
		b.marks[p] = n.d.at.n
		return true
	}
	b.notices = append(b.notices, n)
	return false
}

// signal leaves an ephemeral event, if there is room.
func (b *mailbox) signal(n notice) bool {
	b.mu.Lock()
	defer b.unlock()
	if len(b.signals) >= b.room {
		return false
	}
	b.signals = append(b.signals, n)
	return true
}

func (b *mailbox) reset(partition int) {
	b.mu.Lock()
	defer b.unlock()
	b.resets[partition] = true
}

func (b *mailbox) do(t Task) {
	b.mu.Lock()
	defer b.unlock()
	b.tasks = append(b.tasks, t)
}

// nudge has the shard look at the partitions' places: it wakes it, or keeps it
// from going to sleep before it has looked.
func (b *mailbox) nudge() {
	b.mu.Lock()
	b.nudged = true
	b.unlock()
}

// mail is what a shard took out at once.
type mail struct {
	notices []notice
	signals []notice
	marks   []uint64
	resets  []bool
	tasks   []Task
}

// take swaps the contents into m, whose old slices are used again.
func (b *mailbox) take(m *mail) (any bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asleep = false
	m.notices, b.notices = b.notices, m.notices[:0]
	m.signals, b.signals = b.signals, m.signals[:0]
	m.tasks, b.tasks = b.tasks, m.tasks[:0]
	any = len(m.notices)+len(m.signals)+len(m.tasks) > 0
	for p := range b.marks {
		m.marks[p], m.resets[p] = b.marks[p], b.resets[p]
		any = any || m.marks[p] != 0 || m.resets[p]
		b.marks[p], b.resets[p] = 0, false
	}
	return any
}

// sleep reports whether the shard may sleep: the mailbox is empty, and the next
// post will wake it.
func (b *mailbox) sleep() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.notices)+len(b.signals)+len(b.tasks) > 0 || b.nudged {
		b.nudged = false
		return false
	}
	for p := range b.marks {
		if b.marks[p] != 0 || b.resets[p] {
			return false
		}
	}
	b.asleep = true
	return true
}
