package server

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	paceEvery = time.Second     // between two looks
	paceLooks = 3               // a load counts that is there at so many in a row
	paceAhead = 4 * time.Second // of allocation between two collections, if there is room
	paceMost  = 1000            // percent
	paceLeast = 16 << 20        // bytes that may gather anyway, if as much lives
	paceBase  = 100             // percent; what Go begins with

	restFor   = time.Minute // what allocates less in it than there lives is no load
	restWorth = 4 << 20     // bytes

	spareShare = 16      // of what is needed, the part that may be free beside it
	spareLeast = 8 << 20 // bytes
	swiftly    = 1 << 30 // bytes allocated in a second, with which what lives changes more between two looks
)

// pace says how much garbage may gather before it is collected. Go collects when
// the heap has doubled. Where that is once a second or more often, one event in
// thirty falls into a collection, and with two processors the collector may keep
// both for milliseconds. So under a load that lasts there is more room, up to a
// limit, and none any more once the load is over.
//
// Where the heap is larger than the limit Go would let more gather than that, as much as
// there lives. What lives here has mostly no pointers in it, as events and buffers have
// none, and costs a collection nothing. So there the limit holds, unless what a
// collection must look at is more: then so much, as Go would do if there were nothing
// else.
//
// Go gives back what is free in pieces, over minutes: under a load that changes, a
// burst of webhooks whose buffers grow and go, it would hold a tenth more than it
// needs. So it has a limit of memory a little above that, which follows what lives.
//
// What a load leaves behind, a storm of reconnects by way of example, nobody would
// collect for minutes, and of what is then free Go keeps as much as there lives.
// Where there is no load any more it is given back at once.
type pace struct {
	most uint64 // bytes of garbage

	rates   [paceLooks]uint64 // bytes per second
	next    int
	percent int  // what look said last
	loaded  bool // there was a load, and what it left has not been given back
}

// look takes what lives, how much of it a collection looks at, and what was allocated per
// second since the last look. It returns what GOGC should be.
func (p *pace) look(live, scanned, rate uint64) (percent int) {
	p.rates[p.next] = rate
	p.next = (p.next + 1) % paceLooks
	p.loaded = p.loaded || rate > quiet(live)
	steady := p.rates[0]
	for _, r := range p.rates {
		steady = min(steady, r)
	}
	room := max(min(live, max(p.most, scanned, paceLeast)), min(steady*uint64(paceAhead/time.Second), p.most))
	want := max(int(min(room*100/max(live, 1), paceMost)), 1)
	// Each change moves the goal of the collection that is under way.
	if want == paceBase || want*4 <= p.percent*3 || want*4 >= p.percent*5 {
		p.percent = want
	}
	return p.percent
}

// ceiling is how much memory Go may hold, where so much lives, and is lost between
// objects, and is no heap: the garbage that may gather, and some room.
// Where much is allocated there is none: Go would collect for what comes and goes
// between two looks, events of 200 KB by way of example.
func (p *pace) ceiling(live, unused, other, rate uint64) int64 {
	if rate > swiftly {
		return math.MaxInt64
	}
	needs := live + live*uint64(p.percent)/100 + unused + other
	return int64(needs + max(needs/spareShare, spareLeast))
}

// rest reports whether a load is over, and so much is held beside what lives that it is
// worth a collection to give it back. It is once after each load: what gathers while it
// is quiet is Go's to collect.
func (p *pace) rest(live, beside uint64) bool {
	for _, r := range p.rates {
		if r > quiet(live) {
			return false
		}
	}
	over := p.loaded && beside > max(live/4, restWorth)
	p.loaded = p.loaded && !over
	return over
}

// quiet is how many bytes per second are no load.
func quiet(live uint64) uint64 { return live / uint64(restFor/time.Second) }

// collector keeps the pace of the garbage collector while the node runs. The zero
// value does nothing.
type collector struct {
	alone bool // nobody else in the process may have a limit of memory

	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// start begins, unless most is 0 or somebody has told Go how to collect (GOGC).
func (c *collector) start(ctx context.Context, most, available uint64) {
	sample := []metrics.Sample{
		{Name: "/gc/gogc:percent"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/gc/scan/heap:bytes"},
		{Name: "/gc/gomemlimit:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/total:bytes"},
	}
	of := func(i int) uint64 { return sample[i].Value.Uint64() }
	metrics.Read(sample)
	if most == 0 || of(0) != paceBase {
		return
	}
	p := pace{most: most, percent: paceBase, loaded: true} // by the start
	if available > 0 {
		p.most = min(most, available/8)
	}
	limits := c.alone && of(6) == math.MaxInt64 // the operator has set none
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.ended.Go(func() {
		defer debug.SetGCPercent(paceBase)
		if limits {
			defer debug.SetMemoryLimit(math.MaxInt64)
		}
		tick := time.NewTicker(paceEvery)
		defer tick.Stop()
		percent, before, at := paceBase, of(2), time.Now()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			metrics.Read(sample)
			allocated, now := of(2), time.Now()
			rate := uint64(float64(allocated-before) / now.Sub(at).Seconds())
			before, at = allocated, now
			live := of(1)
			if want := p.look(live, of(5), rate); want != percent {
				percent = want
				debug.SetGCPercent(percent)
			}
			if limits {
				heap := of(3) + of(4) + of(7) + of(8)
				debug.SetMemoryLimit(p.ceiling(live, of(7), of(9)-min(of(9), heap), rate))
			}
			if held := of(3) + of(4); p.rest(live, held-min(held, live)) {
				debug.FreeOSMemory()
			}
		}
	})
}

func (c *collector) stop() {
	if c.cancel != nil {
		c.cancel()
		c.ended.Wait()
	}
}
