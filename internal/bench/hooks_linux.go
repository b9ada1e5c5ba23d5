package bench

import (
	"context"
	"errors"
	"sync"
	"time"
)

// entriesEach is what the ledger takes up of a delivery: that it was received, and
// that it is done.
const entriesEach = 2

func (r *rig) hooks(ctx context.Context, s *Hooks) error {
	p := &r.report.Params
	p.add("senders", "", float64(s.Senders))
	p.add("size", "B", float64(s.Size))
	if s.Rate > 0 {
		p.add("rate", "/s", s.Rate)
	}
	if s.Deliveries > 0 {
		p.add("deliveries", "", float64(s.Deliveries))
	} else {
		p.addText("duration", s.Duration.String())
	}
	p.add("subscribers", "", float64(s.Subscribers))
	r.report.ratio = [2]string{"hooks", "publish"}

	d := door{org: s.Org, source: s.Source, secret: s.HookSecret}
	if r.server.child != nil {
		d.org, d.secret = r.server.org, r.server.hookSecret
	}
	if d.org == "" || d.secret == "" {
		return errors.New("bench: webhooks need an organization, and the secret of a source of kind github there; the server named none")
	}
	v, err := r.intake(ctx, s, &d, true)
	if err != nil {
		return err
	}
	r.report.Rows = append(r.report.Rows, Row{"hooks", v})
	if r.cfg.NoFloor {
		return nil
	}
	if v, err = r.intake(ctx, s, &d, false); err != nil {
		return err
	}
	r.report.Rows = append(r.report.Rows, Row{"publish", v})
	return nil
}

// door is where webhooks come in.
type door struct{ org, source, secret string }

// intake measures deliveries as webhooks, or as durable publishes.
func (r *rig) intake(ctx context.Context, s *Hooks, d *door, hooks bool) (v Values, err error) {
	f, err := r.newFleet()
	if err != nil {
		return nil, err
	}
	defer f.close()
	r.buildIntake(f, s, d, hooks)
	if err := f.connect(); err != nil {
		return nil, err
	}
	name := "publish"
	if hooks {
		name = "webhooks"
	}
	var start ledgerState
	if hooks && r.server.opsURL != "" {
		if start, err = readLedger(ctx, r.server.opsURL); err != nil {
			return nil, err
		}
	}
	if s.Warmup > 0 {
		r.log("hooks: %s, warming up …", name)
		f.beginIntake(s.Rate, s.Warmup, 0)
		if err := f.play(f.arrived(nil)); err != nil {
			return nil, err
		}
	}
	r.log("hooks: %s, measuring …", name)
	begun := r.clock.now()
	f.beginIntake(s.Rate, s.Duration, s.Deliveries)
	watch := r.watch(ctx)
	x, err := f.measurePlay(r.server.pid, f.arrived(func(taken uint64) {
		watch.sent <- start.entries + entriesEach*float64(taken)
	}))
	if err == nil && hooks && !s.NoWait {
		r.log("hooks: waiting for the ledger …")
	}
	if e := watch.finish(err == nil && hooks && !s.NoWait); err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	v = f.intakeValues(x, begun)
	if hooks {
		watch.ledger(&v)
	}
	if r.server.pid != 0 {
		v.add("RSS before", "MB", float64(x.rss[0])/1e6)
		v.add("RSS peak", "MB", float64(watch.peak)/1e6)
		if !s.NoWait {
			if err := r.calm(ctx); err != nil {
				return nil, err
			}
			u, err := readUsage(r.server.pid)
			if err != nil {
				return nil, err
			}
			v.add("RSS settled", "MB", float64(u.rss)/1e6)
		}
	}
	r.warn(name, x, len(f.loops))
	f.judgeIntake(name)
	return v, nil
}

// buildIntake adds senders and subscribers.
func (r *rig) buildIntake(f *fleet, s *Hooks, d *door, hooks bool) {
	st := r.stream(d.org, "plain")
	if hooks {
		st = &stream{run: r.run, org: d.org, eventType: d.source + "." + hookEvent, pattern: d.source + ".>"}
	}
	for _, l := range f.loops {
		l.pub = &schedule{size: s.Size, pick: ownLane}
		if hooks {
			l.pub.hook = newHookMaker(d.secret, s.Size)
		}
	}
	for lane := range s.Senders {
		c := r.publisher(d.org, lane, st)
		if hooks {
			c.head = []byte("POST /hooks/" + d.org + "/" + d.source + " HTTP/1.1\r\nHost: " + r.host +
				"\r\nUser-Agent: GitHub-Hookshot/bench\r\nContent-Type: application/json\r\nX-GitHub-Event: " + hookEvent + "\r\n")
		}
		c.answered = new(marks)
		l := f.loops[lane%len(f.loops)]
		l.conns = append(l.conns, c)
	}
	for id := range s.Subscribers {
		f.addReceiver(id, st, s.Senders, nil)
	}
	if !hooks {
		return
	}
	f.receivers(func(_ *loop, c *conn) { c.receiver.seen = make([]marks, s.Senders) }) // they are processed side by side
}

// beginIntake starts all loops: for a time, or until so many are sent.
func (f *fleet) beginIntake(rate float64, d time.Duration, deliveries int) {
	now, n := f.rig.clock.now(), len(f.loops)
	for k, l := range f.loops {
		mine := uint64(deliveries/n + min(1, max(0, deliveries%n-k)))
		until := now + int64(d)
		switch {
		case deliveries > 0 && mine == 0:
			until = now // there are more loops than deliveries
		case deliveries > 0:
			until = now + int64(tokenLife)
		case rate > 0:
			mine = max(1, uint64(rate*d.Seconds()/float64(n)))
		}
		l.pub.begin(now, rate/float64(n), mine, until)
	}
}

// arrived is what the receivers of a loop may get: all that was sent since the
// beginning, as what was refused can have been stored all the same. tell, if there is
// one, is told how much was taken once all is answered.
func (f *fleet) arrived(tell func(taken uint64)) func(l *loop) uint64 {
	var once sync.Once
	return func(l *loop) (n uint64) {
		all, taken := uint64(0), uint64(0)
		for _, other := range f.loops {
			for i := range other.conns {
				if c := &other.conns[i]; c.answered != nil {
					all += c.seq
					taken += c.answered.count
				}
			}
		}
		if tell != nil {
			once.Do(func() { tell(taken) })
		}
		for i := range l.conns {
			if l.conns[i].kind == subscriber {
				n += all
			}
		}
		return n
	}
}

// intakeValues is what was measured since begun.
func (f *fleet) intakeValues(x *sample, begun int64) (v Values) {
	var sending, last int64
	refused, aside := uint64(0), uint64(0)
	for _, l := range f.loops {
		sending = max(sending, l.pub.answeredAt-begun)
		refused += l.pub.errors
		aside += l.pub.aside
	}
	f.receivers(func(_ *loop, c *conn) { last = max(last, c.last-begun) })
	sending = max(sending, 1)
	v.add("accepted", "/s", perSecond(x.events, time.Duration(sending)))
	v.add("accepted", "", float64(x.events))
	if f.loops[0].pub.hook != nil {
		v.add("of it put aside", "", float64(aside))
	}
	v.add("refused", "", float64(refused))
	v.addLatency("answer", &x.ack)
	if x.late.Count() > 0 {
		v.add("sent late p99", "ms", ms(x.late.Quantile(0.99)))
	}
	v.addLatency("subscriber", &x.latency)
	if last > 0 {
		v.add("last event after the last answer", "ms", ms(time.Duration(max(last-sending, 0))))
	}
	if f.rig.server.pid != 0 {
		v.add("server CPU per delivery", "µs", micros(x.user+x.sys, x.events))
		v.add("of it user", "µs", micros(x.user, x.events))
		v.add("server CPU", "%", 100*(x.user+x.sys).Seconds()/x.elapsed.Seconds())
	}
	v.add("client CPU", "%", 100*x.client.Seconds()/x.elapsed.Seconds())
	return v
}

// ledger adds what was seen of it.
func (g *gauges) ledger(v *Values) {
	if g.begin.at.IsZero() || g.atEnd.at.IsZero() {
		return
	}
	v.add("ledger lag at the last answer", "", g.atEnd.lag)
	v.add("ledger lag at most", "", g.most)
	if g.caught.at.IsZero() {
		return
	}
	v.add("ledger caught up after", "ms", ms(g.caught.at.Sub(g.atEnd.at)))
	v.add("ledger entries", "/s", (g.caught.entries-g.begin.entries)/g.caught.at.Sub(g.begin.at).Seconds())
}

// judgeIntake ends the checks: whatever was answered has come, once.
func (f *fleet) judgeIntake(name string) {
	var senders []*conn
	for _, l := range f.loops {
		for i := range l.conns {
			if c := &l.conns[i]; c.answered != nil {
				senders = append(senders, c)
			}
		}
	}
	unanswered := uint64(0) // as the receiver saw it that saw most of them
	f.receivers(func(l *loop, c *conn) {
		if c.receiver.seen == nil {
			return
		}
		mine := uint64(0)
		for _, from := range senders {
			l.checker.missed(&c.receiver, from.lane, from.answered)
			n, _ := c.receiver.seen[from.lane].without(from.answered)
			mine += n
		}
		unanswered = max(unanswered, mine)
	})
	if unanswered > 0 {
		f.rig.report.note("%s: %d came that were refused or not answered", name, unanswered)
	}
	f.collect(func(c *conn) []uint64 {
		sent := make([]uint64, len(senders))
		if c.receiver.seen == nil {
			for _, from := range senders {
				sent[from.lane] = from.seq
			}
		}
		return sent
	}, false)
}
