package hook_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

// bodyOf is a body that no other delivery has, and that is worth packing.
func bodyOf(id string) string {
	return fmt.Sprintf(`{"action":"opened","id":%q,"text":%q}`, id, strings.Repeat(id+" ", 200))
}

// expectOwnBodies checks that each event is of the delivery that it says.
func (r *rig) expectOwnBodies(n int) {
	r.t.Helper()
	seen := map[string]bool{}
	for _, e := range r.published(n) {
		if string(e.Data) != bodyOf(e.Delivery) {
			r.t.Errorf("the event of %s has the data %.80s", e.Delivery, e.Data)
		}
		if seen[e.Delivery] {
			r.t.Errorf("%s is there twice", e.Delivery)
		}
		seen[e.Delivery] = true
	}
}

// What waited in the ledger is read again from the intake, many at a time.
func TestWhatWaitedInTheLedgerIsReadInRuns(t *testing.T) {
	const n = 600
	r := newRig(t, func(c *hook.Config) { c.Workers = 8 }, github)
	r.stop()
	for i := range n {
		r.storeBody(fmt.Sprint("d", i), bodyOf(fmt.Sprint("d", i)))
	}
	r.log.reads.Store(0)
	r.start()
	r.expectOwnBodies(n)
	if reads := r.log.reads.Load(); reads > n/10 {
		t.Errorf("%d reads for %d deliveries", reads, n)
	}
}

// Where more waits than bodies have room, and notes and other deliveries lie between.
func TestWhatIsReadAheadIsOfWhomItIsFor(t *testing.T) {
	const n = 200
	r := newRig(t, func(c *hook.Config) { c.Workers, c.Waiting = 8, 16 }, github)
	r.stop()
	for i := range n {
		r.storeBody(fmt.Sprint("d", i), bodyOf(fmt.Sprint("d", i)))
	}
	r.start()
	for i := range 50 {
		id := fmt.Sprint("new-", i)
		r.deliver("gh", id, "push", bodyOf(id))
	}
	r.expectOwnBodies(n + 50)
}

// While the intake cannot be read nothing is lost, and nobody becomes a dead letter.
func TestAnIntakeThatCannotBeReadIsReadLater(t *testing.T) {
	const n = 100
	r := newRig(t, nil, github)
	r.stop()
	for i := range n {
		r.storeBody(fmt.Sprint("d", i), bodyOf(fmt.Sprint("d", i)))
	}
	r.log.unreadable.Store(true)
	r.log.reads.Store(0)
	r.start()
	eventually(t, "it was tried", func() bool { return r.log.reads.Load() >= n/2 })
	r.log.unreadable.Store(false)
	r.expectOwnBodies(n)
	if dead := r.deliveries(ledger.Dead); len(dead) != 0 {
		t.Errorf("%d dead letters", len(dead))
	}
}

// Buffers are used again and again; no event has what another one brought.
func TestDeliveriesAtTheSameTimeKeepTheirBodies(t *testing.T) {
	const senders, each = 8, 40
	r := newRig(t, nil, github)
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := range each {
				id := fmt.Sprint("d", s, "-", i)
				if a := r.send(r.signed("gh", id, "push", bodyOf(id), secretText)); a.status != 200 {
					t.Errorf("%s: %d %s", id, a.status, a.body)
				}
			}
		})
	}
	all.Wait()
	r.expectOwnBodies(senders * each)
}

// What waits for the ledger is bounded by its bytes, too.
func TestWhatWaitsForTheLedgerHasALimitOfBytes(t *testing.T) {
	const n = 1000
	r := newRig(t, func(c *hook.Config) { c.BacklogBytes = 64 << 10 }, github)
	r.stop()
	for i := range n {
		r.storeBody(fmt.Sprint("d", i), bodyOf(fmt.Sprint("d", i)))
	}
	r.start()
	most := uint64(0)
	eventually(t, "all of it is folded", func() bool {
		most = max(most, r.processor.Stats().Lag)
		_, at, err := r.ledger.Cursor(t.Context(), r.engine.Partitions())
		return err == nil && at.Seq >= n
	})
	if most > 64<<10/320 {
		t.Errorf("%d entries waited for the ledger", most)
	}
	r.expectOwnBodies(n)
}

// While much is received the intake is read to its end only now and then, and all of it
// once that is over.
func TestTheLedgerRestsWhileMuchIsReceived(t *testing.T) {
	const n = 300
	var busy atomic.Bool
	r := newRig(t, func(c *hook.Config) { c.Backlog, c.Busy = 20, busy.Load }, github)
	r.stop()
	for i := range n {
		r.storeBody(fmt.Sprint("d", i), bodyOf(fmt.Sprint("d", i)))
	}
	busy.Store(true)
	r.start()
	folded := func() uint64 {
		_, at, err := r.ledger.Cursor(t.Context(), r.engine.Partitions())
		if err != nil {
			t.Fatal(err)
		}
		return at.Seq
	}
	eventually(t, "some of it is folded", func() bool { return folded() > 0 })
	until := time.After(600 * time.Millisecond) // in which it would have had two turns
	for waiting := true; waiting; {
		select {
		case <-until:
			waiting = false
		case <-time.After(10 * time.Millisecond):
		}
	}
	if at := folded(); at > 40 {
		t.Errorf("%d entries are folded while much is received", at)
	}
	busy.Store(false)
	r.expectOwnBodies(n)
}
