package bench

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	resumeQuiet = 15 * time.Second // without a new event: give up
	otherBefore = 2 * time.Second  // how long the other org is measured in peace
	fillSize    = 100_000
	fillArray   = 10
	arrayBytes  = 4 << 20 // of one request when publishing what will be missed
)

func (r *rig) resume(s *Resume) error {
	p := &r.report.Params
	p.add("clients", "", float64(s.Clients))
	p.add("missed", "", float64(s.Missed))
	p.add("size", "B", float64(s.Size))
	p.add("filled", "MB", float64(s.FillMB))
	p.add("other org", "/s", s.OtherRate)

	const org = "bench"
	r.log("resume: publishing %d events …", s.Missed)
	after, err := r.publishAll(org, r.stream(org, "marker"), 1, s.Size)
	if err != nil {
		return err
	}
	st := r.stream(org, "missed")
	if _, err := r.publishAll(org, st, s.Missed, s.Size); err != nil {
		return err
	}
	if err := r.fillRing(s.FillMB); err != nil {
		return err
	}

	f, err := r.newFleet()
	if err != nil {
		return err
	}
	defer f.close()
	for id := range s.Clients {
		l := f.loops[id%len(f.loops)]
		l.conns = append(l.conns, r.subscriber(id, st, 1, after))
		l.size = s.Clients
	}

	var other *bystander
	if s.OtherRate > 0 {
		if other, err = r.newBystander(s.OtherRate); err != nil {
			return err
		}
		defer other.close()
		r.log("resume: the other org alone, %s …", otherBefore)
		v, err := other.alone(otherBefore)
		if err != nil {
			return err
		}
		defer func() { r.report.Rows = append(r.report.Rows, Row{"other alone", v}) }()
		other.start()
	}
	r.log("resume: %d clients come back …", s.Clients)
	x, err := r.measure(r.server.pid, func() error { return f.comeBack(uint64(s.Missed)) })
	if other != nil {
		v, otherErr := other.finish()
		if err = errors.Join(err, otherErr); err == nil {
			defer func() { r.report.Rows = append(r.report.Rows, Row{"other meanwhile", v}) }()
		}
	}
	if err != nil {
		return err
	}
	f.collect(func(*conn) []uint64 { return []uint64{uint64(s.Missed)} }, true)

	var done, first, opened Histogram
	var start, last, lastOpen int64
	f.receivers(func(_ *loop, c *conn) {
		if start == 0 || c.dialed < start {
			start = c.dialed
		}
		last, lastOpen = max(last, c.last), max(lastOpen, c.opened)
		if c.opened > 0 {
			opened.Record(c.opened - c.dialed)
		}
		if c.first > 0 {
			first.Record(c.first - c.dialed)
			done.Record(c.last - c.dialed)
		}
	})
	total := time.Duration(max(last-start, 0))
	delivered := uint64(0)
	for _, l := range f.loops {
		delivered += l.received()
	}
	var v Values
	v.add("first dial to last event", "ms", ms(total))
	v.add("first dial to all subscribed", "ms", ms(time.Duration(max(lastOpen-start, 0))))
	v.add("deliveries", "/s", perSecond(delivered, max(total, 1)))
	v.addLatency("client's first event", &first)
	v.addLatency("client's last event", &done)
	if r.server.pid != 0 {
		v.add("server CPU per delivery", "µs", micros(x.user+x.sys, delivered))
		v.add("server CPU per client", "µs", micros(x.user+x.sys, uint64(s.Clients)))
		v.add("RSS before", "MB", float64(x.rss[0])/1e6)
		v.add("RSS after", "MB", float64(x.rss[1])/1e6)
	}
	v.add("client CPU", "%", 100*x.client.Seconds()/x.elapsed.Seconds())
	r.report.Rows = append(r.report.Rows, Row{"carillon", v})
	if share := x.client.Seconds() / x.elapsed.Seconds() / float64(len(f.loops)); share > 0.95 {
		r.report.note("the client used %.0f %% of its CPU: it may be the limit, not the server", 100*share)
	}
	return nil
}

// comeBack dials everybody and waits until each has what it missed.
func (f *fleet) comeBack(missed uint64) error {
	return f.run(func(l *loop, _ int) func(int64) bool {
		want := missed * uint64(len(l.conns))
		got, at := uint64(0), l.clock.now()
		return func(now int64) bool {
			if l.received() != got {
				got, at = l.received(), now
			}
			if got >= want {
				return now-at >= int64(linger)
			}
			return now-at > int64(resumeQuiet)
		}
	})
}

// publishAll publishes n events of one stream in order, in arrays where there are
// many, and returns the id of the last.
func (r *rig) publishAll(org string, s *stream, n, size int) (lastID string, err error) {
	f, err := r.newFleet()
	if err != nil {
		return "", err
	}
	defer f.close()
	l := f.loops[0]
	l.pub = &schedule{size: size, pick: ownLane}
	l.conns = append(l.conns, r.publisher(org, 0, s))
	if err := f.connect(); err != nil {
		return "", err
	}
	array := max(1, min(n, 500, arrayBytes/(size+200)))
	for n > 0 {
		l.pub.array = min(n, array)
		requests := n / l.pub.array
		if err := f.publishNow(uint64(requests)); err != nil {
			return "", err
		}
		n -= requests * l.pub.array
	}
	return string(l.pub.lastID), nil
}

// publishNow sends so many requests as fast as they are answered.
func (f *fleet) publishNow(requests uint64) error {
	l := f.loops[0]
	const atOnce = 1e9
	l.pub.begin(l.clock.now(), atOnce, requests, 0)
	if err := f.play(func(*loop) uint64 { return 0 }); err != nil {
		return err
	}
	if l.pub.errors > 0 {
		return fmt.Errorf("bench: %s", l.pub.first)
	}
	if l.pub.sent < requests || l.checker.Closed > 0 {
		return fmt.Errorf("bench: publishing broke off: %s", l.checker.First)
	}
	return nil
}

// fillRing publishes so many MB in orgs that nobody reads.
func (r *rig) fillRing(mb int) error {
	if mb <= 0 {
		return nil
	}
	r.log("filling the ring with %d MB …", mb)
	f, err := r.newFleet()
	if err != nil {
		return err
	}
	defer f.close()
	l := f.loops[0]
	l.pub = &schedule{size: fillSize, array: fillArray, pick: ownLane}
	for k := range fillOrgs {
		org := fmt.Sprintf("bench-fill-%d", k)
		l.conns = append(l.conns, r.publisher(org, 0, r.stream(org, "fill")))
	}
	if err := f.connect(); err != nil {
		return err
	}
	return f.publishNow(uint64(max(1, mb*1_000_000/(fillSize*fillArray))))
}

// bystander is another org that publishes and subscribes meanwhile. It has a loop
// and a thread of its own, so that it measures the server and not our own queue.
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
	const publishers = 16
	st := r.stream("bench-other", "other")
	l.pub = &schedule{size: 256, pick: ownLane}
	for lane := range publishers {
		l.conns = append(l.conns, r.publisher(st.org, lane, st))
	}
	l.conns = append(l.conns, r.subscriber(0, st, publishers, ""))
	if err := b.f.connect(); err != nil {
		b.close()
		return nil, err
	}
	l.blocking = true
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1) // its thread keeps a place
	return b, nil
}

func (b *bystander) close() { b.f.close() }

func (b *bystander) expect(*loop) (n uint64) {
	for i := range b.l.conns {
		n += b.l.conns[i].seq
	}
	return n
}

func (b *bystander) alone(d time.Duration) (Values, error) {
	b.l.latency.Reset()
	b.l.pub.begin(b.l.clock.now(), b.rate, max(1, uint64(b.rate*d.Seconds())), 0)
	if err := b.f.play(b.expect); err != nil {
		return nil, err
	}
	return b.values(), nil
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
func (b *bystander) finish() (Values, error) {
	b.over.Store(true)
	b.wg.Wait()
	if b.err != nil {
		return nil, b.err
	}
	b.l.pub.total = b.l.pub.sent
	if err := b.f.play(b.expect); err != nil {
		return nil, err
	}
	v := b.values()
	b.f.collect(func(*conn) []uint64 {
		var n []uint64
		for i := range b.l.conns {
			if c := &b.l.conns[i]; c.kind == publisher {
				n = append(n, c.seq)
			}
		}
		return n
	}, false)
	return v, nil
}

func (b *bystander) values() Values {
	var v Values
	v.add("events", "", float64(b.l.latency.Count()))
	v.addLatency("", &b.l.latency)
	v.addLatency("ack", &b.l.pub.ack)
	return v
}
