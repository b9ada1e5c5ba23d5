package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// stormQuiet is how long nothing may happen before a storm is given up.
const stormQuiet = 30 * time.Second

func (r *rig) storm(ctx context.Context, s *Storm) error {
	p := &r.report.Params
	p.add("clients", "", float64(s.Clients))
	p.add("orgs", "", float64(s.Orgs))
	p.add("missed", "", float64(s.Missed))
	p.add("size", "B", float64(s.Size))
	p.add("at once", "", float64(s.AtOnce))
	p.add("other org", "/s", s.OtherRate)
	if err := r.stormServer(s); err != nil || r.cfg.NoFloor {
		return err
	}
	r.log("storm: floor …")
	bare, err := r.stormFloor(ctx, s)
	if err != nil {
		return err
	}
	r.report.Rows = append(r.report.Rows, Row{"floor", bare})
	return nil
}

func (r *rig) stormServer(s *Storm) error {
	streams, sent := make([]*stream, s.Orgs), make([]uint64, s.Orgs)
	for k := range streams {
		streams[k] = r.stream(orgName(k), "storm")
	}
	sentTo := func(c *conn) []uint64 { k := c.receiver.id % s.Orgs; return sent[k : k+1] }
	publish := func(n int) error {
		f, err := r.publishEach(streams, sent, n, s.Size)
		if err == nil {
			f.close()
		}
		return err
	}

	f, err := r.newFleet()
	if err != nil {
		return err
	}
	defer f.close()
	for id := range s.Clients {
		f.addReceiver(id, streams[id%s.Orgs], 1, nil)
	}
	for _, l := range f.loops {
		l.size, l.patient = s.AtOnce, true
	}
	r.log("storm: %d clients …", s.Clients)
	if err := f.connect(); err != nil {
		return err
	}
	// One event that everybody sees, so that it is known who is there.
	if err := publish(1); err != nil {
		return err
	}
	if err := f.play(promptly(total(sentTo))); err != nil {
		return err
	}
	if err := f.pause(s.Settle); err != nil {
		return err
	}

	var x *sample
	peak := uint64(0)
	other := others{rate: s.OtherRate}
	err = other.beside(r, func() error {
		r.log("storm: all are cut, %d events in each org, and all come back …", s.Missed)
		before, err := readUsage(r.server.pid)
		if err != nil {
			return err
		}
		resetPeak(r.server.pid)
		f.cut()
		if err := publish(s.Missed); err != nil {
			return err
		}
		x, err = r.measure(r.server.pid, func() error { return f.allBack(total(sentTo)) })
		if err != nil {
			return err
		}
		x.rss[0], peak = before.rss, readPeak(r.server.pid)
		return nil
	})
	if err != nil {
		return err
	}
	if err := f.pause(s.Settle); err != nil {
		return err
	}
	settled, err := readUsage(r.server.pid)
	if err != nil {
		return err
	}
	f.collect(sentTo, s.Orgs == 1)
	r.report.Rows = append(r.report.Rows, Row{"carillon", r.stormValues(f, x, s, peak, settled.rss)})
	if share := x.client.Seconds() / x.elapsed.Seconds() / float64(len(f.loops)); share > 0.95 {
		r.report.note("the client used %.0f %% of its CPU: it may be the limit, not the server", 100*share)
	}
	other.report(r)
	return nil
}

// cut resets every subscriber's connection. They stay away until allBack.
func (f *fleet) cut() {
	for _, l := range f.loops {
		l.dials.Reset()
		for i := range l.conns {
			c := &l.conns[i]
			l.hangUp(c)
			c.dialed, c.first = 0, 0
		}
	}
}

// allBack lets everybody come back and waits until each has what it missed.
func (f *fleet) allBack(sentTo func(c *conn) uint64) error {
	return f.run(func(l *loop, _ int) func(int64) bool {
		now := l.clock.now()
		for i := range l.conns {
			l.later = append(l.later, returning{now, i})
		}
		want := promptly(sentTo)(l)
		seen, at := uint64(0), now
		return func(now int64) bool {
			if did := l.prompt + l.refusals + l.dials.Count(); did != seen {
				seen, at = did, now
			}
			if l.settled() && l.prompt >= want {
				return now-at >= int64(linger)
			}
			return now-at > int64(stormQuiet)
		}
	})
}

func (r *rig) stormValues(f *fleet, x *sample, s *Storm, peak, settled uint64) (v Values) {
	var start, lastOpen, last int64
	var dials, missed Histogram
	refusals := uint64(0)
	for _, l := range f.loops {
		dials.Merge(&l.dials)
		refusals += l.refusals
	}
	f.receivers(func(_ *loop, c *conn) {
		if start == 0 || c.dialed < start {
			start = c.dialed
		}
		lastOpen = max(lastOpen, c.opened)
		if c.first > 0 {
			last = max(last, c.last)
			missed.Record(c.last - c.dialed)
		}
	})
	back := time.Duration(max(lastOpen-start, 1))
	n := uint64(s.Clients)
	v.add("first dial to all subscribed", "ms", ms(back))
	v.add("first dial to last missed event", "ms", ms(time.Duration(max(last-start, 0))))
	v.add("handshakes", "/s", perSecond(n, back))
	v.addLatency("handshake", &dials)
	v.addLatency("client's last missed event", &missed)
	v.add("refused, came again", "", float64(refusals))
	if r.server.pid != 0 {
		v.add("server CPU per handshake", "µs", micros(x.user+x.sys, n))
		v.add("RSS before", "MB", float64(x.rss[0])/1e6)
		if peak > 0 {
			v.add("RSS peak", "MB", float64(peak)/1e6)
			v.add("RSS growth at the peak", "%", growth(x.rss[0], peak))
		}
		v.add("RSS settled", "MB", float64(settled)/1e6)
		v.add("RSS growth", "%", growth(x.rss[0], settled))
	}
	v.add("client CPU", "%", 100*x.client.Seconds()/x.elapsed.Seconds())
	return v
}

func growth(before, after uint64) float64 { return 100 * (float64(after)/float64(before) - 1) }

// stormFloor is the same number of connections to a bare server, without
// handshakes and without a past.
func (r *rig) stormFloor(ctx context.Context, s *Storm) (v Values, err error) {
	f, fl, err := r.bareFleet(ctx, s.Clients)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fl.child.stop()) }()
	defer f.close()
	x, err := r.measure(fl.child.pid(), f.connect)
	if err != nil {
		return nil, err
	}
	var dials Histogram
	for _, l := range f.loops {
		dials.Merge(&l.dials)
	}
	n := uint64(s.Clients)
	v.add("first dial to all subscribed", "ms", ms(x.elapsed))
	v.add("handshakes", "/s", perSecond(n, x.elapsed))
	v.addLatency("handshake", &dials)
	v.add("server CPU per handshake", "µs", micros(x.user+x.sys, n))
	v.add("client CPU", "%", 100*x.client.Seconds()/x.elapsed.Seconds())
	return v, nil
}

// resetPeak lets the kernel forget the most memory a process had. Where it may not
// the peak is that since its start.
func resetPeak(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// readPeak is the most memory a process had; 0: not known.
func readPeak(pid int) uint64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	peak, _ := kilobytes(status, "VmHWM:")
	return peak
}
