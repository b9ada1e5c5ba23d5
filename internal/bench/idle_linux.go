package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

func (r *rig) idle(ctx context.Context, s *Idle) error {
	p := &r.report.Params
	p.add("connections", "", float64(s.Connections))
	p.add("orgs", "", float64(s.Orgs))
	p.add("filled", "MB", float64(s.FillMB))
	p.addText("settle", s.Settle.String())
	if err := r.fillRing(s.FillMB); err != nil {
		return err
	}
	if s.FillMB > 0 {
		if err := r.calm(ctx); err != nil {
			return err
		}
		r.report.note("with a full ring, connections find room in what the collector keeps free: RSS grows by less than they use; see the parts")
	}
	server, err := r.idleServer(ctx, s)
	if err != nil {
		return err
	}
	r.report.Rows = append(r.report.Rows, Row{"carillon", server})
	if r.cfg.NoFloor {
		return nil
	}
	r.log("idle: floor …")
	bare, err := r.idleFloor(ctx, s)
	if err != nil {
		return err
	}
	r.report.Rows = append(r.report.Rows, Row{"floor", bare})
	return nil
}

const (
	calmStep  = time.Second
	calmSteps = 3 // without change
	calmLimit = 60
)

// calm waits until the server has given back the memory it worked with.
func (r *rig) calm(ctx context.Context) error {
	if r.server.opsURL != "" {
		if _, err := readMemory(ctx, r.server.opsURL); err != nil {
			return err
		}
	}
	r.log("waiting for the server's memory to settle …")
	f, err := r.newFleet()
	if err != nil {
		return err
	}
	defer f.close()
	least, same := uint64(math.MaxUint64), 0
	for range calmLimit {
		u, err := readUsage(r.server.pid)
		if err != nil {
			return err
		}
		if same++; float64(u.rss) < 0.995*float64(least) {
			least, same = u.rss, 0
		}
		if same >= calmSteps {
			return nil
		}
		if err := f.pause(calmStep); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) idleServer(ctx context.Context, s *Idle) (Values, error) {
	f, err := r.newFleet()
	if err != nil {
		return nil, err
	}
	defer f.close()
	for id := range s.Connections {
		st := r.stream(orgName(id%s.Orgs), fmt.Sprintf("idle.%d", id))
		f.addReceiver(id, st, 1, nil)
	}
	var before *memory
	if r.server.opsURL != "" {
		if before, err = readMemory(ctx, r.server.opsURL); err != nil {
			return nil, err
		}
	}
	r.log("idle: %d connections …", s.Connections)
	v, err := r.idleSpan(f, r.server.pid, s)
	if err != nil {
		return nil, err
	}
	if before != nil {
		after, err := readMemory(ctx, r.server.opsURL)
		if err != nil {
			return nil, err
		}
		if r.server.pid != 0 {
			u, err := readUsage(r.server.pid)
			if err != nil {
				return nil, err
			}
			v.add("RSS after a forced GC", "MB", float64(u.rss)/1e6)
		}
		n := float64(s.Connections)
		v.add("memory in use", "B/conn", (after.used()-before.used())/n)
		for _, part := range []struct {
			name string
			a, b float64
		}{
			{"live heap", before.alloc, after.alloc},
			{"heap spans in use", before.inuse, after.inuse},
			{"heap free, not returned", before.idle, after.idle},
			{"stacks", before.stack, after.stack},
			{"span and cache records", before.spans + before.caches, after.spans + after.caches},
			{"garbage collector", before.gc, after.gc},
			{"runtime, other", before.other + before.buckets, after.other + after.buckets},
		} {
			v.add(part.name, "B/conn", (part.b-part.a)/n)
		}
		v.add("goroutines", "/conn", (after.goroutines-before.goroutines)/n)
	}
	f.collect(func(*conn) []uint64 { return []uint64{0} }, false)
	return v, nil
}

func (r *rig) idleFloor(ctx context.Context, s *Idle) (v Values, err error) {
	f, fl, err := r.bareFleet(ctx, s.Connections)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fl.child.stop()) }()
	defer f.close()
	return r.idleSpan(f, fl.child.pid(), s)
}

// bareFleet is a floor server and readers for it that are not connected yet.
func (r *rig) bareFleet(ctx context.Context, readers int) (*fleet, *floor, error) {
	fl, err := startFloor(ctx, &r.cfg, r.dir, readers)
	if err != nil {
		return nil, nil, err
	}
	f, err := r.newFleet()
	if err != nil {
		return nil, nil, errors.Join(err, fl.child.stop())
	}
	l := f.loops[0]
	l.pub = &schedule{}
	l.conns = append(l.conns, conn{fd: -1, addr: fl.ctl, kind: bareSender})
	st := r.stream("bench", "bare")
	for id := range readers {
		f.addReceiver(id, st, 1, fl)
	}
	return f, fl, nil
}

// idleSpan connects everybody, waits, and measures both.
func (r *rig) idleSpan(f *fleet, pid int, s *Idle) (Values, error) {
	up, err := r.measure(pid, f.connect)
	if err != nil {
		return nil, err
	}
	if err := f.pause(s.Settle); err != nil {
		return nil, err
	}
	settled, err := readUsage(pid)
	if err != nil {
		return nil, err
	}
	hold, err := r.measure(pid, func() error { return f.pause(s.Hold) })
	if err != nil {
		return nil, err
	}
	var dials Histogram
	for _, l := range f.loops {
		dials.Merge(&l.dials)
	}
	n := uint64(s.Connections)
	var v Values
	if pid != 0 {
		v.add("RSS per connection", "B", (float64(settled.rss)-float64(up.rss[0]))/float64(n))
		v.add("RSS before", "MB", float64(up.rss[0])/1e6)
		v.add("RSS settled", "MB", float64(settled.rss)/1e6)
		v.add("server CPU per handshake", "µs", micros(up.user+up.sys, n))
		v.add("idle CPU", "%", 100*(hold.user+hold.sys).Seconds()/hold.elapsed.Seconds())
	}
	v.add("handshakes", "/s", perSecond(n, up.elapsed))
	v.addLatency("handshake", &dials)
	v.add("client CPU while connecting", "%", 100*up.client.Seconds()/max(up.elapsed, time.Millisecond).Seconds())
	return v, nil
}
