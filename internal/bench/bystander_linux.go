package bench

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	otherBefore     = 2 * time.Second // how long the other org is measured in peace
	otherPublishers = 16
)

// others measures what happens to another org meanwhile.
type others struct {
	rate             float64 // publishes per second; 0: there is none
	alone, meanwhile bystanding
}

// bystanding is what a bystander saw.
type bystanding struct{ latency, ack Histogram }

// beside calls do while the other org publishes and receives, and measures it
// before that too.
func (o *others) beside(r *rig, do func() error) error {
	if o.rate == 0 {
		return do()
	}
	b, err := r.newBystander(o.rate)
	if err != nil {
		return err
	}
	defer b.close()
	r.log("the other org alone, %s …", otherBefore)
	if err := b.alone(otherBefore); err != nil {
		return err
	}
	b.addTo(&o.alone)
	b.start()
	err = do()
	if err := errors.Join(err, b.finish()); err != nil {
		return err
	}
	b.addTo(&o.meanwhile)
	return nil
}

// report adds what was seen.
func (o *others) report(r *rig) {
	if o.rate == 0 {
		return
	}
	for _, row := range []struct {
		name string
		saw  *bystanding
	}{{"other meanwhile", &o.meanwhile}, {"other alone", &o.alone}} {
		var v Values
		v.add("events", "", float64(row.saw.latency.Count()))
		v.addLatency("", &row.saw.latency)
		v.addLatency("ack", &row.saw.ack)
		r.report.Rows = append(r.report.Rows, Row{row.name, v})
	}
}

// bystander is another org that publishes and subscribes. It has a loop and a
// thread of its own, and takes its times from the kernel, so that it measures the
// server and not our own queue.
type bystander struct {
	f    *fleet
	l    *loop
	rate float64
	over atomic.Bool
	wg   sync.WaitGroup
	err  error // after wg
}

func (r *rig) newBystander(rate float64) (*bystander, error) {
	l, err := newLoop(r.clock, &r.stop)
	if err != nil {
		return nil, err
	}
	b := &bystander{f: &fleet{rig: r, loops: []*loop{l}}, l: l, rate: rate}
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1) // its thread keeps a place
	st := r.stream("bench-other", "other")
	l.stamped = true
	l.pub = &schedule{size: 256, pick: ownLane, lenient: true}
	for lane := range otherPublishers {
		l.conns = append(l.conns, r.publisher(st.org, lane, st))
	}
	l.conns = append(l.conns, r.subscriber(0, st, otherPublishers, ""))
	if err := b.f.connect(); err != nil {
		b.close()
		return nil, err
	}
	l.blocking = true
	return b, nil
}

func (b *bystander) close() {
	b.f.close()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) - 1)
}

func (b *bystander) expect(*loop) (n uint64) {
	for i := range b.l.conns {
		n += b.l.conns[i].seq
	}
	return n
}

func (b *bystander) alone(d time.Duration) error {
	b.l.latency.Reset()
	b.l.pub.begin(b.l.clock.now(), b.rate, max(1, uint64(b.rate*d.Seconds())), 0)
	return b.f.play(b.expect)
}

// start begins an open loop without end, on a thread of its own.
func (b *bystander) start() {
	const endless = 1 << 40
	b.l.latency.Reset()
	b.l.pub.begin(b.l.clock.now(), b.rate, endless, 0)
	b.wg.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid := unix.Gettid()
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, -10) // only root may; then the client's other work delays it less
		defer func() { _ = unix.Setpriority(unix.PRIO_PROCESS, tid, 0) }()
		b.err = b.l.run(func(int64) bool { return b.over.Load() })
	})
}

// finish ends it, waits for what is on its way and judges it.
func (b *bystander) finish() error {
	b.over.Store(true)
	b.wg.Wait()
	if b.err != nil {
		return b.err
	}
	b.l.pub.total = b.l.pub.sent
	if err := b.f.play(b.expect); err != nil {
		return err
	}
	b.f.collect(func(*conn) []uint64 {
		var n []uint64
		for i := range b.l.conns {
			if c := &b.l.conns[i]; c.kind == publisher {
				n = append(n, c.seq)
			}
		}
		return n
	}, false)
	return nil
}

func (b *bystander) addTo(saw *bystanding) {
	saw.latency.Merge(&b.l.latency)
	saw.ack.Merge(&b.l.pub.ack)
}
