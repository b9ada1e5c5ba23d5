package session

import (
	"cmp"
	"context"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/hub"
)

// CARILLON_SESSIONS=1000000 go test -run TestAMillionSessions -v ./internal/session
//
// It makes so many sessions without sockets and says what they cost: memory by part,
// what an event and the clock cost, and how long the garbage collector stops all.
func TestAMillionSessions(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("CARILLON_SESSIONS"))
	if err != nil {
		t.Skip("CARILLON_SESSIONS does not say how many")
	}
	const mostPause = time.Millisecond
	for _, tt := range []struct {
		name    string
		pattern func(int) string
	}{{"one pattern", shared}, {"a type each", ownType}} {
		t.Run(tt.name, func(t *testing.T) {
			logParts(t, n/10, tt.pattern)
			c := newCrowd(t, n, Limits{}, WebSocket, tt.pattern)
			bytes0, objects0 := heap()
			pauses := pausesSoFar()
			began := time.Now()
			c.grow(n)
			t.Logf("%d sessions made in %v: %.1f µs each", n, time.Since(began).Round(time.Millisecond), float64(time.Since(began).Microseconds())/float64(n))
			pauses.logSince(t, "while they were made")
			bytes, objects := heap()
			t.Logf("a session holds %.0f bytes in %.2f pieces", (bytes-bytes0)/float64(n), (objects-objects0)/float64(n))
			c.unicast(t, 20_000)
			// Half a minute by the clock: every session is sent a heartbeat.
			pauses = pausesSoFar()
			took, cpu, began := c.took.Load(), cpuTime(), time.Now()
			worst := c.probe(30 * time.Second)
			heartbeats := c.took.Load() - took
			t.Logf("in %v: %d frames by the clock, %.2f µs of CPU each; a shard did not take its mail for %v at worst",
				time.Since(began).Round(time.Second), heartbeats, float64((cpuTime()-cpu).Microseconds())/float64(max(heartbeats, 1)), worst.Round(time.Microsecond))
			stops := make([]time.Duration, 60)
			for i := range stops {
				before := stopped()
				runtime.GC()
				stops[i] = stopped() - before
			}
			waiting := pauses.logSince(t, "meanwhile, and of sixty more collections")
			slices.Sort(stops)
			p50, p99 := stops[len(stops)/2], stops[len(stops)*99/100]
			t.Logf("in each of the sixty nothing ran for: p50 %v, p99 %v", p50, p99)
			if p99+waiting > mostPause {
				t.Errorf("the p99 of its pauses is %v, and %v of waiting for goroutines, want at most %v", p99, waiting, mostPause)
			}
			runtime.KeepAlive(c)
		})
	}
}

// logParts says where the memory of sessions is. The profile that knows it makes the
// collector's pauses longer than they are without: it is for sessions of its own.
func logParts(t *testing.T, n int, pattern func(int) string) {
	defer func(rate int) { runtime.MemProfileRate = rate }(runtime.MemProfileRate)
	runtime.MemProfileRate = 16 << 10
	c := newCrowd(t, n, Limits{}, WebSocket, pattern)
	before := parts()
	c.grow(n)
	all := parts()
	for _, name := range slices.SortedFunc(maps.Keys(all), func(a, b string) int { return cmp.Compare(all[b], all[a]) }) {
		if each := (all[name] - before[name]) / float64(n); each >= 0.5 {
			t.Logf("  %5.0f bytes  %s", each, name)
		}
	}
	runtime.KeepAlive(c)
}

// unicast sends events to one session each.
func (c *crowd) unicast(t *testing.T, events int) {
	for _, to := range []string{"a user", "a type"} {
		if to == "a type" && c.pattern(0) == c.pattern(1) {
			continue
		}
		batch := make([]engine.Append, events)
		for i := range batch {
			k := rand.IntN(len(c.takers))
			e := &carillon.Event{Type: carillon.Type(c.pattern(k)), Data: []byte("1")}
			if to == "a user" {
				e.Type, e.To.Users = "note", []string{userName(k)}
			}
			batch[i] = engine.Append{Event: e}
		}
		log := c.engine.Open("acme")
		before, cpu := c.took.Load(), cpuTime()
		for chunk := range slices.Chunk(batch, 100) {
			if _, err := engine.AppendWait(context.Background(), log, chunk); err != nil {
				t.Fatal(err)
			}
		}
		for c.took.Load() < before+int64(events) {
			time.Sleep(time.Millisecond)
		}
		t.Logf("an event to %s: %.2f µs of CPU from the log to the frame", to, float64((cpuTime()-cpu).Microseconds())/float64(events))
	}
}

// probe asks the shards again and again for so long, and returns the longest time
// that one did not answer.
func (c *crowd) probe(long time.Duration) (worst time.Duration) {
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		for _, shard := range c.hub.Shards() {
			asked, done := time.Now(), make(chan struct{})
			shard.Post(hub.TaskFunc(func() { close(done) }))
			<-done
			worst = max(worst, time.Since(asked))
		}
	}
	return worst
}

// parts is the live heap by who made it.
func parts() map[string]float64 {
	runtime.GC()
	n, _ := runtime.MemProfile(nil, false)
	records := make([]runtime.MemProfileRecord, n+100)
	n, _ = runtime.MemProfile(records, false)
	sums := map[string]float64{}
	for _, r := range records[:n] {
		if r.InUseObjects() <= 0 {
			continue
		}
		// The profile is of a sample: see the documentation of pprof.
		size := float64(r.InUseBytes()) / float64(r.InUseObjects())
		scale := 1 / (1 - math.Exp(-size/float64(runtime.MemProfileRate)))
		sums[site(r.Stack())] += float64(r.InUseBytes()) * scale
	}
	return sums
}

// site is the innermost function of the program on a stack.
func site(stack []uintptr) string {
	for frames := runtime.CallersFrames(stack); ; {
		f, more := frames.Next()
		if _, name, ok := strings.Cut(f.Function, "carillon/internal/"); ok || !more {
			return cmp.Or(name, f.Function)
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails so
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pauses are those of the garbage collector: all of each, and its part in which
// running goroutines were waited for, which grows with what else the machine does.
type pauses struct{ whole, waiting *metrics.Float64Histogram }

func pausesSoFar() pauses {
	s := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}, {Name: "/sched/pauses/stopping/gc:seconds"}}
	metrics.Read(s)
	return pauses{s[0].Value.Float64Histogram(), s[1].Value.Float64Histogram()}
}

// stopped is for how long the garbage collector has had everybody stopped so far: until
// it let the first one go on. Its pauses last until the thread that stopped everybody
// has woken the others, who may take its processor for a time slice of the kernel's.
// That is no pause, but it is nearly all of the long ones where there are as many
// threads that want to run as processors, or more.
func stopped() time.Duration {
	s := []metrics.Sample{{Name: "/cpu/classes/gc/pause:cpu-seconds"}} // of all processors, which do nothing
	metrics.Read(s)
	return time.Duration(s[0].Value.Float64() / float64(runtime.GOMAXPROCS(0)) * 1e9)
}

// quantile is that of what has come to h since before.
func quantile(h, before *metrics.Float64Histogram, q float64) time.Duration {
	var total, sum uint64
	for i := range h.Counts {
		total += h.Counts[i] - before.Counts[i]
	}
	for i := range h.Counts {
		n := h.Counts[i] - before.Counts[i]
		if sum += n; n > 0 && float64(sum) >= q*float64(total) {
			return time.Duration(min(h.Buckets[i+1], 1e3) * 1e9)
		}
	}
	return 0
}

// logSince says what the pauses since then were, and returns the p99 of the waiting.
func (p pauses) logSince(t *testing.T, when string) time.Duration {
	t.Helper()
	now := pausesSoFar()
	whole := func(q float64) time.Duration { return quantile(now.whole, p.whole, q) }
	waiting := func(q float64) time.Duration { return quantile(now.waiting, p.waiting, q) }
	t.Logf("pauses of the garbage collector %s: p50 %v, p99 %v, most %v; of that waiting for goroutines p50 %v, p99 %v, most %v",
		when, whole(0.5), whole(0.99), whole(1), waiting(0.5), waiting(0.99), waiting(1))
	return waiting(0.99)
}
