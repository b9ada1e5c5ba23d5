package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// load is an open loop to one server: floor or carillon.
type load struct {
	rate             float64
	warmup, duration time.Duration
	other            others
}

// play warms up and measures. sentTo is how many events a receiver should have
// got by now.
func (o *load) play(f *fleet, pid int, sentTo func(c *conn) uint64) (s *sample, err error) {
	if o.warmup > 0 {
		f.loops[0].pub.begin(f.rig.clock.now(), o.rate, uint64(o.rate*o.warmup.Seconds()), 0)
		if err := f.play(promptly(sentTo)); err != nil {
			return nil, err
		}
	}
	err = o.other.beside(f.rig, func() error {
		s, err = o.span(f, pid, sentTo)
		return err
	})
	return s, err
}

// span measures, without a warm-up.
func (o *load) span(f *fleet, pid int, sentTo func(c *conn) uint64) (*sample, error) {
	f.loops[0].pub.begin(f.rig.clock.now(), o.rate, max(1, uint64(o.rate*o.duration.Seconds())), 0)
	return f.measurePlay(pid, promptly(sentTo))
}

// promptly sums up, of a loop, what receivers that are not slow should have got.
func promptly(sentTo func(c *conn) uint64) func(l *loop) uint64 {
	return func(l *loop) (n uint64) {
		for i := range l.conns {
			if c := &l.conns[i]; (c.kind == subscriber || c.kind == bareReader) && !c.slow {
				n += sentTo(c)
			}
		}
		return n
	}
}

// deliver loads the floor or the server: build adds the connections, publishers
// first, and says how to publish and what each receiver should have got.
func (r *rig) deliver(ctx context.Context, bare bool, conns int, o *load, oneStream bool,
	build func(f *fleet, bare *floor) (pub *schedule, sent func(c *conn) []uint64),
) (s *sample, err error) {
	var fl *floor
	pid := r.server.pid
	if bare {
		if fl, err = startFloor(ctx, &r.cfg, r.dir, conns); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, fl.child.stop()) }()
		pid = fl.child.pid()
	}
	f, err := r.newFleet()
	if err != nil {
		return nil, err
	}
	defer f.close()
	pub, sent := build(f, fl)
	f.loops[0].pub = pub
	if err := f.connect(); err != nil {
		return nil, err
	}
	s, err = o.play(f, pid, total(sent))
	if err != nil {
		return nil, err
	}
	f.collect(sent, oneStream)
	return s, nil
}

// total is how many events a receiver should have got in all lanes.
func total(sent func(c *conn) []uint64) func(c *conn) uint64 {
	return func(c *conn) (n uint64) {
		for _, k := range sent(c) {
			n += k
		}
		return n
	}
}

// addReceiver puts receiver id into one of the loops.
func (f *fleet) addReceiver(id int, s *stream, lanes int, bare *floor) {
	var c conn
	if bare != nil {
		c = conn{fd: -1, addr: bare.data, kind: bareReader, receiver: f.rig.receiver(id, s, lanes)}
	} else {
		c = f.rig.subscriber(id, s, lanes, "")
	}
	l := f.loops[id%len(f.loops)]
	l.conns = append(l.conns, c)
}

func (r *rig) fanout(ctx context.Context, s *Fanout) error {
	p := &r.report.Params
	p.add("subscribers", "", float64(s.Subscribers))
	p.add("rate", "/s", s.Rate)
	p.add("batch", "", float64(s.Batch))
	p.add("publishers", "", float64(s.Publishers))
	p.add("size", "B", float64(s.Size))
	p.addText("duration", s.Duration.String())
	p.add("runs", "", float64(s.Runs))
	p.add("other org", "/s", s.OtherRate)
	bareLoad := load{rate: s.Rate, warmup: s.Warmup, duration: s.Duration}
	withOther := bareLoad
	withOther.other.rate = s.OtherRate
	var sums [2]*sample
	var each [2][]float64
	for run := range s.Runs {
		for k, bare := range []bool{true, false} {
			if bare && r.cfg.NoFloor {
				continue
			}
			name := rowName(bare)
			r.log("fanout: %s, run %d of %d …", name, run+1, s.Runs)
			o := &withOther
			if bare {
				o = &bareLoad
			}
			x, err := r.deliver(ctx, bare, s.Subscribers, o, true, func(f *fleet, fl *floor) (*schedule, func(*conn) []uint64) {
				return r.buildFanout(f, fl, s, r.stream("bench", fmt.Sprintf("fanout%d", run)))
			})
			if err != nil {
				return err
			}
			each[k] = append(each[k], micros(x.user+x.sys, x.delivered))
			if sums[k] == nil {
				sums[k] = x
			} else {
				sums[k].add(x)
			}
		}
	}
	r.rows(sums, func(x *sample, bare bool) Values { return x.deliveries(r.pidOf(bare)) })
	withOther.other.report(r)
	if s.Runs > 1 && r.server.pid != 0 {
		r.report.note("CPU µs per delivery, run by run: floor %.2f, carillon %.2f", each[0], each[1])
	}
	return nil
}

func (r *rig) buildFanout(f *fleet, fl *floor, s *Fanout, st *stream) (*schedule, func(*conn) []uint64) {
	lanes := s.Publishers
	if fl != nil {
		lanes = 1
	}
	l := f.loops[0]
	for lane := range lanes {
		c := r.publisher(st.org, lane, st)
		if fl != nil {
			c.kind, c.addr, c.target = bareSender, fl.ctl, toAll
		}
		l.conns = append(l.conns, c)
	}
	for id := range s.Subscribers {
		f.addReceiver(id, st, lanes, fl)
	}
	sent := func(*conn) []uint64 {
		n := make([]uint64, lanes)
		for i := range lanes {
			n[i] = l.conns[i].seq
		}
		return n
	}
	return &schedule{size: s.Size, array: arrayOf(s.Batch), numbered: r.cfg.Numbered, pick: ownLane}, sent
}

func (r *rig) many(ctx context.Context, s *Many) error {
	p := &r.report.Params
	p.add("connections", "", float64(s.Connections))
	p.add("rate", "/s", s.Rate)
	p.add("publishers", "", float64(s.Publishers))
	p.add("size", "B", float64(s.Size))
	p.addText("duration", s.Duration.String())
	o := &load{rate: s.Rate, warmup: s.Warmup, duration: s.Duration}
	var sums [2]*sample
	for k, bare := range []bool{true, false} {
		if bare && r.cfg.NoFloor {
			continue
		}
		r.log("many: %s …", rowName(bare))
		var err error
		sums[k], err = r.deliver(ctx, bare, s.Connections, o, false, func(f *fleet, fl *floor) (*schedule, func(*conn) []uint64) {
			return r.buildMany(f, fl, s)
		})
		if err != nil {
			return err
		}
	}
	r.rows(sums, func(x *sample, bare bool) Values { return x.deliveries(r.pidOf(bare)) })
	if r.cfg.NoEngine {
		return nil
	}
	r.log("many: engine …")
	engine, err := r.bareEngine(ctx, o, s.Size)
	if err != nil {
		return err
	}
	r.report.Rows = append(r.report.Rows, *engine)
	r.compare("carillon", engine, "p50", "p99")
	return nil
}

// compare adds to a row how many times another's values its own are.
func (r *rig) compare(name string, with *Row, values ...string) {
	row := r.report.row(name)
	for _, v := range values {
		a, ok1 := row.Values.get(v + " ms")
		b, ok2 := with.Values.get(v + " ms")
		if ok1 && ok2 && b > 0 {
			row.Values.add(v+" / "+with.Name+"'s", "×", a/b)
		}
	}
}

func (r *rig) buildMany(f *fleet, fl *floor, s *Many) (*schedule, func(*conn) []uint64) {
	const org = "bench"
	l := f.loops[0]
	if fl != nil {
		l.conns = append(l.conns, conn{fd: -1, addr: fl.ctl, kind: bareSender})
	} else {
		for k := range s.Publishers {
			l.conns = append(l.conns, r.publisher(org, k, nil))
		}
	}
	streams := make([]*stream, s.Connections)
	for id := range streams {
		streams[id] = r.stream(org, fmt.Sprintf("many.%d", id))
		f.addReceiver(id, streams[id], 1, fl)
	}
	// A type is published by one at a time, so that its order is known.
	seqs := make([]uint64, s.Connections)
	busy := make([]bool, s.Connections)
	next := 0
	pub := &schedule{size: s.Size, numbered: r.cfg.Numbered, done: func(c *conn) { busy[c.target] = false }}
	pub.pick = func(c *conn, n int) (*stream, int, uint64) {
		for busy[next] { // there are more types than publishers
			next = (next + 1) % len(busy)
		}
		c.target = next
		busy[next] = c.kind == publisher
		next = (next + 1) % len(busy)
		seq := seqs[c.target]
		seqs[c.target] += uint64(n)
		return streams[c.target], 0, seq
	}
	return pub, func(c *conn) []uint64 { return seqs[c.receiver.id : c.receiver.id+1] }
}

func rowName(bare bool) string {
	if bare {
		return "floor"
	}
	return "carillon"
}

// pidOf is 0 where CPU and RSS are not known.
func (r *rig) pidOf(bare bool) int {
	if bare {
		return 1 // ours, always known
	}
	return r.server.pid
}

// rows adds the server's column and the floor's.
func (r *rig) rows(sums [2]*sample, values func(x *sample, bare bool) Values) {
	for _, k := range []int{1, 0} {
		if sums[k] == nil {
			continue
		}
		r.report.Rows = append(r.report.Rows, Row{rowName(k == 0), values(sums[k], k == 0)})
		r.warn(rowName(k == 0), sums[k], max(1, len(r.cfg.ClientCPUs)))
	}
}
