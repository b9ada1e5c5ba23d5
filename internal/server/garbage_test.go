package server

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestGarbageGetsRoomUnderALoadThatLasts(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name  string
		most  uint64 // MiB
		live  uint64 // MiB
		scan  uint64 // MiB
		rates []uint64
		want  []int
	}{
		{"nothing to do", 256, 60, 20, []uint64{1, 1, 1, 1}, []int{100, 100, 100, 100}},
		{"a load that lasts", 256, 60, 20, []uint64{50, 50, 60, 60}, []int{100, 100, 333, 333}},
		{"a load is as steady as its weakest second", 256, 60, 20, []uint64{50, 60, 40}, []int{100, 100, 266}},
		{"a burst", 256, 60, 20, []uint64{500, 500, 1, 500, 500, 1}, []int{100, 100, 100, 100, 100, 100}},
		{"over at once", 256, 60, 20, []uint64{50, 50, 50, 1, 50}, []int{100, 100, 333, 100, 100}},
		{"no more than the limit", 128, 60, 20, []uint64{500, 500, 500}, []int{100, 100, 213}},
		{"a large heap has no more", 256, 512, 20, []uint64{500, 500, 500}, []int{50, 50, 50}},
		{"also at rest", 64, 256, 20, []uint64{0, 0, 0}, []int{25, 25, 25}},
		{"but as much as a collection looks at", 64, 256, 128, []uint64{500, 500, 500}, []int{50, 50, 50}},
		{"and always a little", 1, 160, 4, []uint64{500, 500, 500}, []int{10, 10, 10}},
		{"which is no more than what lives", 64, 256, 300, []uint64{500, 500, 500}, []int{100, 100, 100}},
		{"a small one grows tenfold", 256, 5, 20, []uint64{50, 50, 50}, []int{100, 100, 1000}},
		{"not for a little more or less", 256, 60, 20, []uint64{40, 40, 40, 48, 48, 48, 32, 55, 55, 55}, []int{100, 100, 266, 266, 266, 266, 266, 266, 266, 366}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := pace{most: tt.most * mib, percent: paceBase}
			var got []int
			for _, rate := range tt.rates {
				got = append(got, p.look(tt.live*mib, tt.scan*mib, rate*mib))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("percent %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWhatALoadLeftIsGivenBackWhenItIsQuiet(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name   string
		live   uint64   // MiB
		beside uint64   // MiB
		rates  []uint64 // KiB
		want   bool
	}{
		{"after a load", 60, 40, []uint64{9000, 1000, 1000, 1000}, true},
		{"not in the pauses of one", 60, 40, []uint64{1000, 9000, 1000}, false},
		{"nor just after it", 60, 40, []uint64{9000, 1000, 1000}, false},
		{"a little is kept", 60, 15, []uint64{9000, 0, 0, 0}, false},
		{"also of a small heap", 2, 4, []uint64{9000, 0, 0, 0}, false},
		{"what gathers while it is quiet", 60, 40, []uint64{900, 900, 900, 900}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := pace{most: 256 * mib, percent: paceBase}
			for _, rate := range tt.rates {
				p.look(tt.live*mib, tt.live*mib, rate<<10)
			}
			if got := p.rest(tt.live*mib, tt.beside*mib); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
			if p.rest(tt.live*mib, tt.beside*mib) {
				t.Error("it is given back again, with no load between")
			}
		})
	}
}

func gogc() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}

// forced is how often somebody asked for a collection.
func forced() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/forced:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// garbage is allocated on the heap.
var garbage []byte

// load makes garbage for some seconds, enough that there should be more room.
func load(seconds int) {
	for range seconds * 10 {
		for range 64 {
			garbage = make([]byte, 1<<20)
		}
		<-time.After(100 * time.Millisecond)
	}
	garbage = nil
}

func TestTheCollectorIsGivenBackAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c collector
		c.start(t.Context(), 1<<30, 0)
		load(4)
		if got := gogc(); got <= paceBase {
			t.Errorf("GOGC is %d under a load that lasts", got)
		}
		before := forced()
		<-time.After((paceLooks + 1) * paceEvery)
		synctest.Wait()
		if got := gogc(); got != paceBase {
			t.Errorf("GOGC is %d when the load is over", got)
		}
		if forced() == before {
			t.Error("the garbage of the load is still there")
		}
		load(4)
		c.stop()
		if got := gogc(); got != paceBase {
			t.Errorf("GOGC is %d when the node has stopped", got)
		}
	})
}

// What is needed fits below the ceiling, and what does not is little.
func TestTheCeilingIsALittleAboveWhatIsNeeded(t *testing.T) {
	for _, tt := range []struct {
		percent             int
		live, unused, other uint64 // MiB
		want                int64
	}{
		{100, 10, 1, 10, 31 + 8},
		{100, 1000, 50, 100, 2150 + 134},
		{20, 120, 8, 12, 164 + 10},
		{1000, 10, 0, 0, 110 + 8},
	} {
		p := pace{percent: tt.percent}
		if got := p.ceiling(tt.live<<20, tt.unused<<20, tt.other<<20, swiftly) >> 20; got != tt.want {
			t.Errorf("%+v: %d MiB", tt, got)
		}
		if got := p.ceiling(tt.live<<20, tt.unused<<20, tt.other<<20, swiftly+1); got != math.MaxInt64 {
			t.Errorf("%+v: %d bytes where much is allocated", tt, got)
		}
	}
}

func TestTheLimitOfMemoryFollowsWhatLivesAndIsGivenBack(t *testing.T) {
	limit := func() int64 { return debug.SetMemoryLimit(-1) }
	synctest.Test(t, func(t *testing.T) {
		c := collector{alone: true}
		c.start(t.Context(), 1<<30, 0)
		<-time.After(2 * paceEvery)
		synctest.Wait()
		small := limit()
		lives := make([]byte, 256<<20)
		runtime.GC()
		<-time.After(2 * paceEvery)
		synctest.Wait()
		if large := limit(); small >= 256<<20 || large < 256<<20 || large > 1<<30 {
			t.Errorf("the limit is %d bytes, and %d with 256 MiB more", small, large)
		}
		runtime.KeepAlive(lives)
		c.stop()
		if got := limit(); got != math.MaxInt64 {
			t.Errorf("the limit is %d when the node has stopped", got)
		}
	})
	for name, c := range map[string]*collector{"another node in the process": {}, "the operator's limit": {alone: true}} {
		want := int64(math.MaxInt64)
		if c.alone {
			want = 1 << 40
		}
		func() {
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(want))
			synctest.Test(t, func(t *testing.T) {
				c.start(t.Context(), 1<<30, 0)
				<-time.After(2 * paceEvery)
				synctest.Wait()
				if got := limit(); got != want {
					t.Errorf("%s: the limit is %d", name, got)
				}
				c.stop()
				if got := limit(); got != want {
					t.Errorf("%s: the limit is %d when the node has stopped", name, got)
				}
			})
		}()
	}
}

func TestWhoHasSetTheCollectorKeepsIt(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(300))
	synctest.Test(t, func(t *testing.T) {
		var c collector
		c.start(t.Context(), 1<<30, 0)
		load(4)
		if got := gogc(); got != 300 {
			t.Errorf("GOGC is %d", got)
		}
		c.stop()
	})
	synctest.Test(t, func(t *testing.T) {
		debug.SetGCPercent(paceBase)
		var c collector
		c.start(t.Context(), 0, 0)
		load(4)
		if got := gogc(); got != paceBase {
			t.Errorf("GOGC is %d with a limit of 0", got)
		}
		c.stop()
	})
}

func TestGarbageIsAShareOfTheMemoryThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c collector
		c.start(t.Context(), 1<<30, 8<<20)
		load(4)
		if got := gogc(); got != paceBase { // 1 MiB, less than what lives
			t.Errorf("GOGC is %d where 1 MiB of garbage may gather", got)
		}
		c.stop()
	})
}
