package bench

import (
	"context"
	"fmt"
	"net/url"
)

// maxReadBack is below what an org keeps by default.
const maxReadBack = 900_000

func (r *rig) publish(ctx context.Context, s *Publish) error {
	p := &r.report.Params
	p.add("publishers", "", float64(s.Publishers))
	p.add("batch", "", float64(s.Batch))
	p.add("orgs", "", float64(s.Orgs))
	p.add("size", "B", float64(s.Size))
	p.addText("duration", s.Duration.String())

	f, err := r.newFleet()
	if err != nil {
		return err
	}
	defer f.close()
	streams := make([]*stream, s.Orgs)
	lanes := make([]int, s.Orgs)
	for k := range streams {
		streams[k] = r.stream(orgName(k), "publish")
	}
	for _, l := range f.loops {
		l.pub = &schedule{size: s.Size, array: arrayOf(s.Batch), pick: ownLane}
	}
	for k := range s.Publishers {
		l, org := f.loops[k%len(f.loops)], k%s.Orgs
		l.conns = append(l.conns, r.publisher(orgName(org), lanes[org], streams[org]))
		lanes[org]++
	}
	if err := f.connect(); err != nil {
		return err
	}
	nothing := func(*loop) uint64 { return 0 }
	if s.Warmup > 0 {
		r.log("publish: warming up …")
		f.begin(int64(s.Warmup))
		if err := f.play(nothing); err != nil {
			return err
		}
	}
	r.log("publish: measuring …")
	f.begin(int64(s.Duration))
	x, err := f.measurePlay(r.server.pid, nothing)
	if err != nil {
		return err
	}
	v := Values{}
	v.add("events", "/s", perSecond(x.events, x.elapsed))
	v.add("requests", "/s", perSecond(x.ack.Count(), x.elapsed))
	v.addLatency("", &x.ack)
	if r.server.pid != 0 {
		v.add("server CPU per event", "µs", micros(x.user+x.sys, x.events))
		v.add("of it user", "µs", micros(x.user, x.events))
		v.add("server CPU", "%", 100*(x.user+x.sys).Seconds()/x.elapsed.Seconds())
		v.add("RSS before", "MB", float64(x.rss[0])/1e6)
		v.add("RSS after", "MB", float64(x.rss[1])/1e6)
	}
	v.add("client CPU", "%", 100*x.client.Seconds()/x.elapsed.Seconds())
	r.report.Rows = append(r.report.Rows, Row{"carillon", v})
	r.warn("carillon", x, len(f.loops))
	f.collect(nil, false)
	if s.NoReadBack {
		return nil
	}
	r.log("publish: reading everything back …")
	sent := make([][]uint64, s.Orgs)
	for k := range sent {
		sent[k] = make([]uint64, lanes[k])
	}
	for _, l := range f.loops {
		for i := range l.conns {
			c := &l.conns[i]
			for k := range streams {
				if streams[k] == c.stream {
					sent[k][c.lane] = c.seq
				}
			}
		}
	}
	var check checker
	for k, st := range streams {
		rcv := newReceiver(k, st, lanes[k])
		total := uint64(0)
		for _, n := range sent[k] {
			total += n
		}
		if total > maxReadBack {
			r.report.note("org %s holds %d events, about as many as an org keeps: not read back", st.org, total)
			continue
		}
		if err := r.readBack(ctx, st, &check, &rcv); err != nil {
			return err
		}
		check.finish(&rcv, sent[k])
	}
	r.report.Checks.Add(&check.Checks)
	return nil
}

// arrayOf is a schedule's array for so many events per request.
func arrayOf(batch int) int {
	if batch == 1 {
		return 0
	}
	return batch
}

// begin starts closed loops of this length.
func (f *fleet) begin(length int64) {
	now := f.rig.clock.now()
	for _, l := range f.loops {
		l.pub.begin(now, 0, 0, now+length)
	}
}

func orgName(k int) string {
	if k == 0 {
		return "bench"
	}
	return fmt.Sprintf("bench-%d", k)
}

// readBack reads a stream's history and judges it.
func (r *rig) readBack(ctx context.Context, st *stream, check *checker, rcv *receiver) error {
	var m message
	cursor := "earliest"
	for {
		body, err := r.history(ctx, st.org, url.Values{"pattern": {st.eventType}, "limit": {"1000"}, "after": {cursor}})
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		more := false
		f := object(body)
		for {
			key, value, ok := f.next()
			if !ok {
				break
			}
			switch string(key) {
			case "events":
				each(value, func(event []byte) {
					m.read(event)
					check.event(rcv, &m)
				})
			case "cursor":
				cursor = string(text(value))
			case "more":
				more = string(value) == "true"
			case "gap":
				check.Gaps++
				check.note("history of %s: gap %.200s", st.org, value)
			}
		}
		if f.bad {
			return fmt.Errorf("bench: history is not JSON: %.100s", body)
		}
		if !more {
			return nil
		}
	}
}
