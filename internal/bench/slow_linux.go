package bench

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// slowQuiet is how long nothing may come to slow readers that read on.
const slowQuiet = 15 * time.Second

func (r *rig) slow(ctx context.Context, s *Slow) error {
	p := &r.report.Params
	p.add("subscribers", "", float64(s.Subscribers))
	p.add("slow", "", float64(s.slow()))
	p.add("slow rate", "B/s", s.SlowRate)
	p.add("rate", "/s", s.Rate)
	p.add("publishers", "", float64(s.Publishers))
	p.add("size", "B", float64(s.Size))
	p.addText("duration", s.Duration.String())
	r.report.ratio = [2]string{"some slow", "all read"}
	o := &load{rate: s.Rate, warmup: s.Warmup, duration: s.Duration}
	as := &Fanout{Subscribers: s.Subscribers, Batch: 1, Publishers: s.Publishers, Size: s.Size}

	if err := r.slowServer(s, o, as); err != nil || r.cfg.NoFloor {
		return err
	}
	r.log("slow: floor, all read …")
	x, err := r.deliver(ctx, true, s.Subscribers, o, true, func(f *fleet, fl *floor) (*schedule, func(*conn) []uint64) {
		return r.buildFanout(f, fl, as, r.stream("bench", "slow.floor"))
	})
	if err != nil {
		return err
	}
	r.report.Rows = append(r.report.Rows, Row{"floor", x.deliveries(r.pidOf(true))})
	return nil
}

func (r *rig) slowServer(s *Slow, o *load, as *Fanout) error {
	f, err := r.newFleet()
	if err != nil {
		return err
	}
	defer f.close()
	pub, sent := r.buildFanout(f, nil, as, r.stream("bench", "slow"))
	f.loops[0].pub = pub
	f.receivers(func(l *loop, c *conn) { l.patient, c.slow = true, c.receiver.id < s.slow() })
	if err := f.connect(); err != nil {
		return err
	}
	r.log("slow: all read …")
	all, err := o.play(f, r.server.pid, total(sent))
	if err != nil {
		return err
	}
	r.log("slow: %d of %d do not …", s.slow(), s.Subscribers)
	for _, l := range f.loops {
		l.sleep(s.SlowRate)
	}
	some, err := o.span(f, r.server.pid, total(sent))
	if err != nil {
		return err
	}
	r.log("slow: they read on …")
	var behind uint64
	f.receivers(func(_ *loop, c *conn) { behind += total(sent)(c) - c.receiver.got })
	for _, l := range f.loops {
		l.wake()
	}
	var on Values
	x, err := r.measure(r.server.pid, func() error { return f.readOn(total(sent)) })
	if err != nil {
		return err
	}
	f.collect(sent, true)

	var cut uint64
	for _, l := range f.loops {
		cut += l.cut
	}
	took := x.elapsed - linger
	on.add("deliveries", "/s", perSecond(behind, took))
	if r.server.pid != 0 {
		on.add("server CPU per delivery", "µs", micros(x.user+x.sys, behind))
	}
	on.add("until all had everything", "ms", ms(took))
	on.add("were behind by", "events", float64(behind))
	on.add("the server had cut", "conns", float64(cut))
	for _, row := range []struct {
		name string
		x    *sample
	}{{"all read", all}, {"some slow", some}} {
		r.report.Rows = append(r.report.Rows, Row{row.name, append(row.x.deliveries(r.server.pid), row.x.memory(r.server.pid)...)})
		r.warn(row.name, row.x, len(f.loops))
	}
	r.report.Rows = append(r.report.Rows, Row{"reading on", append(on, x.memory(r.server.pid)...)})
	return nil
}

// readOn waits until every slow reader has what was sent to it.
func (f *fleet) readOn(sentTo func(c *conn) uint64) error {
	return f.run(func(l *loop, _ int) func(int64) bool {
		got, at, quiet := uint64(0), l.clock.now(), int64(0)
		return func(now int64) bool {
			if now < quiet { // looking at everybody takes a while
				return false
			}
			quiet = now + int64(tick)
			if l.checker.Received != got {
				got, at = l.checker.Received, now
			}
			for i := range l.conns {
				if c := &l.conns[i]; c.slow && c.receiver.got < sentTo(c) {
					return now-at > int64(slowQuiet)
				}
			}
			return now-at >= int64(linger)
		}
	})
}

// memory is what the server's memory was around a span.
func (s *sample) memory(pid int) (v Values) {
	if pid == 0 {
		return nil
	}
	v.add("RSS before", "MB", float64(s.rss[0])/1e6)
	v.add("RSS after", "MB", float64(s.rss[1])/1e6)
	return v
}

// sips is how slow readers read slowly.
type sips struct {
	on   bool
	rate float64 // bytes per second of each; 0: they do not read
	last int64
}

const (
	sipSize    = 4096     // how much a slow reader takes at once, about
	slowBuffer = 32 << 10 // of the kernel for a slow reader, so that the rest is the server's to keep
)

// sleep lets slow readers stop reading, or read at a rate.
func (l *loop) sleep(rate float64) {
	l.sips = sips{true, rate, l.clock.now()}
	for i := range l.conns {
		if c := &l.conns[i]; c.slow && c.state == open {
			l.doze(i, c)
		}
	}
}

// doze takes a reader out of the epoll set.
func (l *loop) doze(i int, c *conn) {
	c.asleep = true
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, c.fd, nil); err != nil {
		l.lost(i, c, "to stop reading: %v", err)
	}
}

// wake lets all who sleep read on. What came meanwhile is told by epoll.
func (l *loop) wake() {
	l.sips = sips{}
	for i := range l.conns {
		c := &l.conns[i]
		if !c.asleep {
			continue
		}
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT, Fd: int32(i)}
		c.asleep, c.armed = false, true
		if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, c.fd, &ev); err != nil {
			l.lost(i, c, "to read on: %v", err)
		}
	}
}

// sip lets slow readers read what they may by now.
func (l *loop) sip(now int64) {
	s := &l.sips
	due := float64(now-s.last) * s.rate / 1e9
	if !s.on || due < sipSize {
		return
	}
	s.last = now
	for i := range l.conns {
		if c := &l.conns[i]; c.asleep {
			l.read(i, c, int(min(due, readBuffer)))
		}
	}
}
