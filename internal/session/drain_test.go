package session_test

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
)

// tick is how exact the timers of a shard are.
const tick = 100 * time.Millisecond

// leaver is a client that takes everything, and goes when it is told to.
type leaver struct {
	client

	told, left time.Time // goaway, and the end
}

func (l *leaver) Ready() {
	l.client.Ready()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told.IsZero() && bytes.Contains(l.raw, []byte("goaway")) {
		l.told = time.Now()
	}
	if l.last && l.left.IsZero() {
		l.left = time.Now()
		l.s.Post(l.s.Gone)
	}
}

func (n *node) leaver(opt session.Options) *leaver {
	l := &leaver{}
	opt.Conn, opt.Principal = l, user("alice")
	s := n.core.New(opt)
	s.Post(func() {
		l.mu.Lock()
		l.s = s
		l.mu.Unlock()
		l.Ready()
	})
	return l
}

// went is when they left, after begin, in order; those who have not are missing.
func went(all []*leaver, begin time.Time) (times []time.Duration) {
	for _, l := range all {
		l.mu.Lock()
		if !l.left.IsZero() {
			times = append(times, l.left.Sub(begin))
		}
		l.mu.Unlock()
	}
	slices.Sort(times)
	return times
}

// most is how many of the times lie in the fullest second.
func most(times []time.Duration) (n int) {
	for i := range times {
		j, _ := slices.BinarySearch(times, times[i]+time.Second)
		n = max(n, j-i)
	}
	return n
}

// partings is what a client was told: by goaway, and by its close.
func partings(t *testing.T, l *leaver, reason string, code int) (wait time.Duration) {
	t.Helper()
	got := l.take(t)
	want(t, got, "welcome goaway (close)")
	if got[1].str("reason") != reason || got[2]["code"] != code {
		t.Fatalf("%v, want %s and %d", got, reason, code)
	}
	return time.Duration(got[1]["retry_after_ms"].(float64)) * time.Millisecond
}

func TestADrainClosesNoMoreInASecondThanItsRate(t *testing.T) {
	for _, tt := range []struct {
		name        string
		window      time.Duration
		rate        int
		least, most time.Duration // when the last of those leaves who were there
	}{
		{"longer than the window", time.Second, 20, 4900 * time.Millisecond, 5 * time.Second},
		{"within the window", 20 * time.Second, 20, 19 * time.Second, 20 * time.Second},
		{"no window", 0, 50, 1900 * time.Millisecond, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
				var all []*leaver
				for range 100 {
					all = append(all, n.leaver(session.Options{}))
				}
				synctest.Wait()
				begin := time.Now()
				var wg sync.WaitGroup
				wg.Go(func() {
					if err := n.core.Drain(t.Context(), tt.window, tt.rate); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				there := all
				for range 30 { // who comes now closes behind them
					all = append(all, n.leaver(session.Options{}))
				}
				wg.Wait()
				if took := time.Since(begin); took < tt.least {
					t.Errorf("it returned after %v", took)
				}
				time.Sleep(5 * time.Second)
				times := went(all, begin)
				if len(times) != len(all) {
					t.Fatalf("%d of %d have left", len(times), len(all))
				}
				slack := tt.rate * int(tick) / int(time.Second) // a tick's worth, of those that a tick brings together
				if m := most(times); m > tt.rate+slack {
					t.Errorf("%d left within a second; the rate is %d", m, tt.rate)
				}
				if last := went(there, begin)[len(there)-1]; last < tt.least || last > tt.most+tick {
					t.Errorf("the last left after %v, want %v to %v", last, tt.least, tt.most)
				}
				for i, l := range all {
					wait := partings(t, l, "drain", 4200)
					if late := l.left.Sub(l.told) - wait; late < -time.Millisecond || late > tick {
						t.Errorf("%d left %v after the time it was told", i, late)
					}
				}
				if slices.IsSortedFunc(there, func(a, b *leaver) int { return a.left.Compare(b.left) }) {
					t.Error("they left in the order in which they came")
				}
			})
		})
	}
}

func TestASecondDrainOnlyMakesItSooner(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		l := n.leaver(session.Options{})
		synctest.Wait()
		begin := time.Now()
		var wg sync.WaitGroup
		for _, window := range []time.Duration{time.Hour, time.Second} {
			wg.Go(func() {
				if err := n.core.Drain(t.Context(), window, 0); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wg.Wait() // for both
		if took := time.Since(begin); took > time.Second+tick {
			t.Errorf("it took %v", took)
		}
		if got := l.take(t); kinds(got) != "welcome goaway goaway (close)" && kinds(got) != "welcome goaway (close)" {
			t.Errorf("%v", got)
		}
	})
}

func TestConnectionsEndWithTheirLifetimeAndNotTogether(t *testing.T) {
	const lifetime = 100 * time.Second
	inBubble(t, session.Limits{MaxLifetime: lifetime, DeadAfter: time.Hour}, hub.Config{}, func(t *testing.T, n *node) {
		var all []*leaver
		for range 200 {
			all = append(all, n.leaver(session.Options{}))
		}
		synctest.Wait()
		begin := time.Now()
		time.Sleep(lifetime*9/10 - tick) // at nine tenths the first may leave
		if early := went(all, begin); len(early) > 0 {
			t.Errorf("one left after %v", early[0])
		}
		time.Sleep(lifetime/10 + 2*tick)
		times := went(all, begin)
		if len(times) != len(all) {
			t.Fatalf("%d of %d have left after their lifetime", len(times), len(all))
		}
		if m := most(times); m > len(all)/4 { // 20 would be even
			t.Errorf("%d of %d left within a second", m, len(all))
		}
		for _, l := range all {
			var of []frame
			for _, f := range l.take(t) {
				if k := f.kind(); k != "heartbeat" && k != "(ping)" {
					of = append(of, f)
				}
			}
			want(t, of, "welcome goaway (close)")
			if of[1].str("reason") != "lifetime" || of[2]["code"] != 4202 {
				t.Fatalf("%v", of)
			}
			wait := time.Duration(of[1]["retry_after_ms"].(float64)) * time.Millisecond
			if late := l.left.Sub(l.told) - wait; wait < 4*time.Second || late < -time.Millisecond || late > tick {
				t.Errorf("it was told %v before its end, and left %v after that", wait, late)
			}
		}
	})
}

func TestAStreamEndsWithItsLifetime(t *testing.T) {
	inBubble(t, session.Limits{MaxLifetime: 10 * time.Second}, hub.Config{}, func(t *testing.T, n *node) {
		l := n.leaver(session.Options{Format: session.SSE, Subscribe: true, Patterns: []carillon.Pattern{"a"}})
		time.Sleep(10*time.Second + tick)
		l.mu.Lock()
		defer l.mu.Unlock()
		i := bytes.Index(l.raw, []byte("event: carillon.goaway\ndata: {\"type\":\"goaway\",\"reason\":\"lifetime\",\"retry_after_ms\":"))
		if !l.last || i < 0 || bytes.Count(l.raw[i:], []byte("\n\n")) != 1 {
			t.Errorf("ended: %t\n%s", l.last, l.raw)
		}
	})
}

func TestADrainCutsALifetimeShort(t *testing.T) {
	inBubble(t, session.Limits{MaxLifetime: time.Hour}, hub.Config{}, func(t *testing.T, n *node) {
		l := n.leaver(session.Options{})
		synctest.Wait()
		if err := n.core.Drain(t.Context(), time.Second, 0); err != nil {
			t.Fatal(err)
		}
		partings(t, l, "drain", 4200)
	})
}
