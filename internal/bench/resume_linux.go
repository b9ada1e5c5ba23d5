package bench

import (
	"fmt"
	"time"
)

const (
	resumeQuiet = 15 * time.Second // without a new event: give up
	fillSize    = 100_000
	fillArray   = 10
	arrayBytes  = 4 << 20 // of one request when publishing what will be missed
	atOnce      = 2048    // handshakes under way; more than a listener's queue holds would be dropped and try again
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
	after, err := r.publishAll(r.stream(org, "marker"), 1, s.Size)
	if err != nil {
		return err
	}
	st := r.stream(org, "missed")
	if _, err := r.publishAll(st, s.Missed, s.Size); err != nil {
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
		l.size = atOnce
	}

	var x *sample
	other := others{rate: s.OtherRate}
	err = other.beside(r, func() (err error) {
		r.log("resume: %d clients come back …", s.Clients)
		x, err = r.measure(r.server.pid, func() error { return f.comeBack(uint64(s.Missed)) })
		return err
	})
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
		delivered += l.checker.Received
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
	other.report(r)
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
			if l.checker.Received != got {
				got, at = l.checker.Received, now
			}
			if got >= want {
				return now-at >= int64(linger)
			}
			return now-at > int64(resumeQuiet)
		}
	})
}

// publishAll publishes n events of one stream in order, and returns the id of the
// last.
func (r *rig) publishAll(s *stream, n, size int) (lastID string, err error) {
	f, err := r.publishEach([]*stream{s}, []uint64{0}, n, size)
	if err != nil {
		return "", err
	}
	defer f.close()
	return string(f.loops[0].pub.lastID), nil
}

// publishEach publishes n events of each stream in order, in arrays where there
// are many. sent is how many of each there are, as many of one as of another. The
// fleet that did it is still connected.
func (r *rig) publishEach(streams []*stream, sent []uint64, n, size int) (_ *fleet, err error) {
	f, err := r.newFleet()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	l := f.loops[0]
	l.pub = &schedule{size: size, pick: ownLane}
	for k, s := range streams {
		c := r.publisher(s.org, 0, s)
		c.seq = sent[k]
		l.conns = append(l.conns, c)
	}
	if err := f.connect(); err != nil {
		return nil, err
	}
	array := max(1, min(n, 500, arrayBytes/(size+200)))
	for n > 0 {
		l.pub.array = min(n, array)
		requests := n / l.pub.array
		l.pub.quota = l.conns[0].seq + uint64(requests*l.pub.array)
		l.pub.idle = l.pub.idle[:0]
		for i := range l.conns {
			l.pub.rest(i, &l.conns[i])
		}
		if err := f.publishNow(uint64(requests * len(streams))); err != nil {
			return nil, err
		}
		n -= requests * l.pub.array
	}
	for k := range streams {
		sent[k] = l.conns[k].seq
	}
	return f, nil
}

// publishNow sends so many requests as fast as they are answered.
func (f *fleet) publishNow(requests uint64) error {
	l := f.loops[0]
	const noWait = 1e9
	l.pub.begin(l.clock.now(), noWait, requests, 0)
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
