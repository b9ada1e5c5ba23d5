package admission_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/admission"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// crowd are clients that come to a gate, each on a goroutine.
type crowd struct {
	g     *admission.Gate
	begin time.Time

	mu      sync.Mutex // guards what follows
	order   []int      // who was let through
	times   []time.Duration
	refused []time.Duration // how long they are told to wait
	leaves  []func()
	wg      sync.WaitGroup
}

func newCrowd(cfg admission.Config) *crowd {
	return &crowd{g: admission.New(cfg), begin: time.Now()}
}

// come has n clients come, in order, and each stay in hand for so long; less than
// 0: until leaves is called.
func (c *crowd) come(ctx context.Context, t *testing.T, n int, stay time.Duration) {
	t.Helper()
	for range n {
		who := len(c.order) + len(c.refused) + c.g.Stats().Waiting
		c.wg.Go(func() {
			leave, err := c.g.Enter(ctx)
			c.mu.Lock()
			defer c.mu.Unlock()
			if err != nil {
				c.refused = append(c.refused, retryAfter(t, err))
				return
			}
			c.order, c.times = append(c.order, who), append(c.times, time.Since(c.begin))
			if stay < 0 {
				c.leaves = append(c.leaves, leave)
				return
			}
			c.wg.Go(func() {
				<-time.After(stay)
				leave()
			})
		})
		synctest.Wait()
	}
}

func retryAfter(t *testing.T, err error) time.Duration {
	t.Helper()
	var e *carillon.Error
	if !errors.As(err, &e) || e.Code != carillon.CodeUnavailable || e.RetryAfter < time.Second {
		t.Errorf("it is refused with %#v", err)
		return 0
	}
	return e.RetryAfter
}

func TestSomeAreLetThroughAtOnceAndTheOthersOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(admission.Config{PerSecond: 10, Burst: 3, Queue: 10, Wait: time.Second})
		c.come(t.Context(), t, 7, 0)
		c.wg.Wait()
		want := []time.Duration{0, 0, 0, 100, 200, 300, 400}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if !slices.Equal(c.times, want) || !slices.IsSorted(c.order) {
			t.Errorf("%v were let through after %v, want in order after %v", c.order, c.times, want)
		}
		if s := c.g.Stats(); s != (admission.Stats{Admitted: 3, Queued: 4, Fullest: 3}) {
			t.Errorf("%+v", s)
		}
		<-time.After(time.Second) // as many at once again, and no more
		c.begin, c.times = time.Now(), nil
		c.come(t.Context(), t, 4, 0)
		c.wg.Wait()
		if !slices.Equal(c.times, want[:4]) {
			t.Errorf("after a rest they were let through after %v", c.times)
		}
	})
}

func TestWhoCannotBeLetThroughInTimeIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name  string
		queue int
		wait  time.Duration
		want  int // those that wait
	}{
		{"the queue is full", 5, time.Hour, 5},
		{"it would take too long", 1000, 700 * time.Millisecond, 7},
		{"nobody may wait", 0, time.Hour, 0},
		{"no time to wait", 1000, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(admission.Config{PerSecond: 10, Burst: 1, Queue: tt.queue, Wait: tt.wait})
				c.come(t.Context(), t, 20, 0)
				if s := c.g.Stats(); s.Waiting != tt.want || len(c.refused) != 19-tt.want || s.Refused != uint64(len(c.refused)) {
					t.Errorf("%+v, %d were refused at once", s, len(c.refused))
				}
				c.wg.Wait()
				if s := c.g.Stats(); s.Waiting != 0 || s.Queued != uint64(tt.want) || s.Admitted != 1 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// Those who are refused take nothing away from those who are let through.
func TestAStormIsLetThroughAtTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(admission.Config{PerSecond: 100, Burst: 10, Queue: 20, Wait: time.Second})
		const span = 5 * time.Second
		for time.Since(c.begin) < span {
			c.come(t.Context(), t, 3, 0)
			<-time.After(time.Millisecond)
			synctest.Wait()
		}
		c.wg.Wait()
		if n := len(c.times); n < 500 || n > 540 {
			t.Errorf("%d were let through in %v, at 100/s", n, span)
		}
	})
}

// They come back one after the other, at the rate, and not at the same moment as
// those of another node.
func TestTheRefusedAreToldToComeBackAtTheRate(t *testing.T) {
	const many = 5000
	g := admission.New(admission.Config{PerSecond: 1000, Burst: 1})
	now := time.Now()
	if wait, err := g.Ask(now); wait != 0 || err != nil {
		t.Fatal(wait, err)
	}
	var waits []time.Duration
	for range many {
		_, err := g.Ask(now)
		waits = append(waits, retryAfter(t, err))
	}
	bySecond := map[time.Duration]int{}
	for i, w := range waits {
		at := max(time.Duration(i)*time.Millisecond, time.Second)
		if w < at || w > at*5/4+2*time.Millisecond {
			t.Errorf("the %dth is told to wait %v", i, w)
		}
		bySecond[w/time.Second]++
	}
	delete(bySecond, 1) // nobody comes back before
	for second, n := range bySecond {
		if n > 1100 {
			t.Errorf("%d come back in second %d", n, second)
		}
	}
	if slices.IsSorted(waits) {
		t.Error("there is no chance in it")
	}
	for range 100_000 {
		if _, err := g.Ask(now); retryAfter(t, err) > 40*time.Second {
			t.Fatal(err)
		}
	}
}

func TestWhoGoesDoesNotWaitAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(admission.Config{PerSecond: 1, Burst: 1, Queue: 2, Wait: time.Hour, Concurrent: 1})
		c.come(t.Context(), t, 1, time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		c.come(ctx, t, 2, 0)
		cancel() // one waits for its turn, the other for a place
		synctest.Wait()
		if s := c.g.Stats(); s.Waiting != 0 || len(c.refused) != 2 || s.Refused != 0 {
			t.Errorf("%+v, %d were told", s, len(c.refused))
		}
		c.wg.Wait()
	})
}

// One whose turn has come waits a little longer when others were late for theirs. It
// may go meanwhile.
func TestWhoGoesWhileTheLateAreLetThroughLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(admission.Config{PerSecond: 1, Burst: 1, Queue: 5, Wait: time.Minute, Concurrent: 1})
		for _, want := range []time.Duration{0, time.Second} {
			if wait, err := c.g.Ask(time.Now()); err != nil || wait != want {
				t.Fatal(wait, err)
			}
		}
		<-time.After(2 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		c.come(ctx, t, 1, 0) // for its turn it waits until 3s
		<-time.After(time.Second / 2)
		if wait := c.g.Pass(time.Now()); wait != 0 {
			t.Fatal(wait)
		}
		<-time.After(3 * time.Second / 4) // and then until 3.5s
		cancel()
		c.wg.Wait()
		if s := c.g.Stats(); len(c.refused) != 1 || s.Waiting != 0 || s.Queued != 1 {
			t.Errorf("%d were told, %+v", len(c.refused), s)
		}
		c.come(t.Context(), t, 1, 0)
		c.wg.Wait()
		if len(c.order) != 1 {
			t.Error("its place was not given back")
		}
	})
}

func TestSoManyAreInHandAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(admission.Config{PerSecond: 1000, Queue: 100, Wait: 2 * time.Second, Concurrent: 3})
		c.come(t.Context(), t, 10, -1)
		<-time.After(time.Second)
		synctest.Wait()
		if s := c.g.Stats(); len(c.order) != 3 || s.Waiting != 7 {
			t.Fatalf("%d are in hand, %+v", len(c.order), s)
		}
		for _, leave := range slices.Clone(c.leaves) {
			leave()
			synctest.Wait()
		}
		if len(c.order) != 6 || !slices.IsSorted(c.order) {
			t.Errorf("then %v", c.order)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if s := c.g.Stats(); len(c.refused) != 4 || s.Waiting != 0 || s.Refused != 4 {
			t.Errorf("for a place %d waited too long, %+v", len(c.refused), s)
		}
		for _, leave := range c.leaves[3:] {
			leave()
		}
		c.come(t.Context(), t, 3, 0)
		if len(c.order) != 9 {
			t.Errorf("a place was not given back: %d", len(c.order))
		}
		c.wg.Wait()
	})
}

func TestNobodyGoesPastOneWhoIsLate(t *testing.T) {
	g := admission.New(admission.Config{PerSecond: 10, Burst: 1, Queue: 10, Wait: time.Second})
	now := time.Now()
	for i, want := range []time.Duration{0, 100 * time.Millisecond} {
		if wait, err := g.Ask(now); err != nil || wait != want {
			t.Fatalf("%d: %v, %v", i, wait, err)
		}
	}
	now = now.Add(250 * time.Millisecond) // it could be the turn of another one
	if wait, err := g.Ask(now); err != nil || wait != 100*time.Millisecond {
		t.Errorf("another one is to wait %v, %v", wait, err)
	}
	if wait := g.Pass(now); wait != 0 {
		t.Errorf("the late one waits %v", wait)
	}
}

func TestTheTurnsOfThoseWhoHaveGoneAreLost(t *testing.T) {
	g := admission.New(admission.Config{PerSecond: 10, Burst: 1, Queue: 5, Wait: 500 * time.Millisecond})
	now := time.Now()
	for range 6 {
		if _, err := g.Ask(now); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		g.Gone()
	}
	if wait, err := g.Ask(now); err == nil {
		t.Errorf("it is to wait %v", wait)
	}
	if wait, err := g.Ask(now.Add(100 * time.Millisecond)); err != nil || wait != 500*time.Millisecond {
		t.Errorf("%v, %v", wait, err)
	}
}

// A loop asks, keeps what it has, and comes again: to the clients it is the same
// line, whoever asks.
func TestOneLineForThoseWhoMayWaitAndThoseWhoMayNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(admission.Config{PerSecond: 10, Burst: 1, Queue: 3, Wait: time.Second})
		c.come(t.Context(), t, 2, 0)
		wait, err := c.g.Ask(time.Now())
		if err != nil || wait != 200*time.Millisecond || c.g.Stats().Waiting != 2 {
			t.Fatal(wait, err)
		}
		c.come(t.Context(), t, 1, 0)
		if _, err := c.g.Ask(time.Now()); err == nil {
			t.Error("there was room in the queue")
		}
		<-time.After(wait)
		synctest.Wait()
		if len(c.order) != 2 {
			t.Errorf("%v are through", c.times)
		}
		if wait := c.g.Pass(time.Now()); wait != 0 {
			t.Errorf("its turn had come, but it waits %v", wait)
		}
		c.wg.Wait()
		if last := c.times[2]; last != 300*time.Millisecond {
			t.Errorf("the one behind was let through after %v", last)
		}
		if wait, err := c.g.Ask(time.Now()); err != nil || wait != 100*time.Millisecond {
			t.Fatal(wait, err)
		}
		c.g.Gone()
		if s := c.g.Stats(); s != (admission.Stats{Admitted: 1, Queued: 3, Refused: 1, Fullest: 1}) {
			t.Errorf("%+v", s)
		}
		<-time.After(time.Second)
		for _, want := range []time.Duration{0, 100 * time.Millisecond} {
			if wait, err := c.g.Ask(time.Now()); err != nil || wait != want {
				t.Errorf("one at once, not two: %v, %v", wait, err)
			}
		}
	})
}

// However late those come who have waited, in no span of time are more let through
// than the rate allows, and the burst.
func TestLateComersDoNotMakeACrowd(t *testing.T) {
	const rate, burst, wait, stall = 1000, 20, 200 * time.Millisecond, 300 * time.Millisecond
	g := admission.New(admission.Config{PerSecond: rate, Burst: burst, Queue: 10_000, Wait: wait})
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	type one struct {
		came, turn time.Time
		stood      time.Duration // before it came
	}
	stood := time.Duration(0)
	var waiting []one
	var times []time.Time
	for range 3000 {
		now = now.Add(time.Duration(random.IntN(1000)) * time.Microsecond)
		if random.IntN(200) == 0 {
			now, stood = now.Add(stall), stood+stall // the process stood still
		}
		for range random.IntN(4) {
			switch wait, err := g.Ask(now); {
			case err != nil:
			case wait == 0:
				times = append(times, now)
			default:
				waiting = append(waiting, one{now, now.Add(wait), stood})
			}
		}
		waiting = slices.DeleteFunc(waiting, func(w one) bool {
			if w.turn.After(now) || g.Pass(now) > 0 {
				return false
			}
			if took := now.Sub(w.came) - (stood - w.stood); took > 3*wait {
				t.Fatalf("one has waited %v", took)
			}
			times = append(times, now)
			return true
		})
	}
	for _, window := range []time.Duration{0, time.Millisecond, admission.Window, time.Second} {
		for i, at := range times {
			j := i
			for j < len(times) && times[j].Sub(at) <= window {
				j++
			}
			if most := burst + int(window*rate/time.Second); j-i > most {
				t.Fatalf("%d were let through within %v, want at most %d", j-i, window, most)
			}
		}
	}
	s := g.Stats()
	if s.Admitted+s.Queued != uint64(len(times)) || s.Waiting != len(waiting) || len(times) < 1500 {
		t.Errorf("%d were let through, %d wait: %+v", len(times), len(waiting), s)
	}
	if most := uint64(burst + rate/10); s.Fullest > most || s.Fullest < most*3/4 {
		t.Errorf("the fullest window has %d of %d", s.Fullest, most)
	}
}

func TestAskingTakesNoMemory(t *testing.T) {
	g := admission.New(admission.Config{PerSecond: 1000, Burst: 1, Queue: 1000, Wait: time.Second})
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(1100 * time.Microsecond)
		if wait, err := g.Ask(now); err != nil {
			t.Fatal(err)
		} else if wait > 0 {
			now = now.Add(wait)
			g.Pass(now)
		}
		g.Explain(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRefusalsAreExplainedToHalfAsManyAsAreLetThrough(t *testing.T) {
	g := admission.New(admission.Config{PerSecond: 100, Burst: 10})
	now, n := time.Now(), 0
	for range 10_000 {
		now = now.Add(time.Millisecond)
		if g.Explain(now) {
			n++
		}
	}
	if n < 500 || n > 505 {
		t.Errorf("%d in 10 s", n)
	}
}

// One that is let through on a loop, and then answered elsewhere, meets the gate
// twice.
func TestWhoseTurnIsTakenBackIsCountedWhereItComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admission.New(admission.Config{PerSecond: 10, Burst: 1, Queue: 10, Wait: time.Minute})
		enter := func(want time.Duration) {
			t.Helper()
			began := time.Now()
			leave, err := g.Enter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			leave()
			if waited := time.Since(began); waited != want {
				t.Errorf("it waited %v, want %v", waited, want)
			}
		}
		if wait, err := g.Ask(time.Now()); wait != 0 || err != nil {
			t.Fatal(wait, err)
		}
		g.Return(time.Now(), false)
		enter(0)
		wait, err := g.Ask(time.Now())
		if wait == 0 || err != nil {
			t.Fatal(wait, err)
		}
		<-time.After(wait)
		if wait := g.Pass(time.Now()); wait != 0 {
			t.Fatal(wait)
		}
		g.Return(time.Now(), true)
		enter(0)
		enter(100 * time.Millisecond)
		if s := g.Stats(); s.Admitted != 2 || s.Queued != 1 || s.Waiting != 0 || s.Fullest != 1 {
			t.Errorf("%+v", s)
		}
		(*admission.Gate)(nil).Return(time.Now(), false)
	})
}

func TestTurnsThatAreTakenBackAreNoMoreThanWereTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admission.New(admission.Config{PerSecond: 10, Burst: 3, Queue: 1, Wait: time.Minute})
		<-time.After(time.Hour)
		for range 100 {
			if wait, err := g.Ask(time.Now()); wait != 0 || err != nil {
				t.Fatal(wait, err)
			}
			g.Return(time.Now(), false)
		}
		n := 0
		for wait := time.Duration(0); wait == 0; n++ {
			wait, _ = g.Ask(time.Now())
		}
		if n != 4 {
			t.Errorf("%d are let through at once, want the burst of 3", n-1)
		}
		if s := g.Stats(); s.Admitted != 3 || s.Fullest != 3 {
			t.Errorf("%+v", s)
		}
		g.Gone() // the one that asked in vain
		g.Return(time.Now(), false)
		<-time.After(100 * time.Millisecond) // in which the one in vain had its turn
		if wait, err := g.Ask(time.Now()); wait != 0 || err != nil {
			t.Errorf("the turn that was taken back: %v, %v", wait, err)
		}
		if wait, _ := g.Ask(time.Now()); wait == 0 {
			t.Error("it was taken back twice")
		}
	})
}

func TestWithoutAGateAllAreLetThrough(t *testing.T) {
	var g *admission.Gate
	leave, err := g.Enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leave()
	if wait, err := g.Ask(time.Now()); wait != 0 || err != nil || !g.Explain(time.Now()) || g.Pass(time.Now()) != 0 {
		t.Error("one is not")
	}
	g.Gone()
	if s := g.Stats(); s != (admission.Stats{}) {
		t.Errorf("%+v", s)
	}
}

// With everybody at once on real clocks nobody is lost and the limits hold.
func TestManyAtOnce(t *testing.T) {
	const many, places = 2000, 4
	g := admission.New(admission.Config{PerSecond: 20_000, Burst: 100, Queue: many, Wait: time.Minute, Concurrent: places})
	var mu sync.Mutex
	var times []time.Time
	inHand, wg := 0, sync.WaitGroup{}
	for range many {
		wg.Go(func() {
			leave, err := g.Enter(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if inHand++; inHand > places {
				t.Errorf("%d are in hand", inHand)
			}
			times = append(times, time.Now())
			mu.Unlock()
			mu.Lock()
			inHand--
			mu.Unlock()
			leave()
		})
	}
	wg.Wait()
	if s := g.Stats(); s.Admitted+s.Queued != many || s.Waiting != 0 || s.Fullest > 100+2000 {
		t.Errorf("%+v", s)
	}
	slices.SortFunc(times, time.Time.Compare)
	if took := times[many-1].Sub(times[0]); took < (many-100-1)*50*time.Microsecond {
		t.Errorf("all %d were through after %v", many, took)
	}
}

func BenchmarkAsk(b *testing.B) {
	g := admission.New(admission.Config{PerSecond: 1_000_000_000, Burst: 1, Queue: 1000, Wait: time.Second})
	now := time.Now()
	for b.Loop() {
		now = now.Add(time.Microsecond)
		if _, err := g.Ask(now); err != nil {
			b.Fatal(err)
		}
	}
}
