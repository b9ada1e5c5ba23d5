package hub

import (
	"fmt"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"
)

// alarm notes when it fired, and then does something.
type alarm struct {
	Timer
	fired []time.Time
	then  func()
}

func (a *alarm) Timeout(now time.Time) {
	a.fired = append(a.fired, now)
	if a.then != nil {
		a.then()
	}
}

func newWheel(begin time.Time) *wheel { return &wheel{begin: begin, members: new(members)} }

func (w *wheel) setAlarm(a *alarm, deadline time.Time) {
	a.m.owner, a.m.state = a, alone
	w.set(&a.m, deadline)
}

func TestATimerFiresOnceWithinATickAfterItsDeadline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Now()
		w := newWheel(begin)
		now := begin
		alarms := make([]alarm, 20)
		type setting struct{ deadline, at time.Time }
		settings := map[*alarm]setting{}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			a := &alarms[rapid.IntRange(0, len(alarms)-1).Draw(t, "alarm")]
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				w.remove(&a.m)
				delete(settings, a)
				continue
			case 1:
				deadline := now.Add(time.Duration(rapid.Int64Range(-int64(time.Second), int64(20*time.Minute)).Draw(t, "after")))
				w.setAlarm(a, deadline)
				settings[a] = setting{deadline, now}
				continue
			}
			now = now.Add(time.Duration(rapid.Int64Range(0, rapid.SampledFrom([]int64{int64(time.Second), int64(time.Minute), int64(15 * time.Minute)}).Draw(t, "most")).Draw(t, "pass")))
			w.advance(now)
			for i := range alarms {
				a := &alarms[i]
				set, ok := settings[a]
				switch late := now.Add(-2 * wheelTick); {
				case len(a.fired) > 1, len(a.fired) == 1 && !ok:
					t.Fatalf("fired %d times, set: %t", len(a.fired), ok)
				case len(a.fired) == 1 && now.Before(set.deadline):
					t.Fatalf("fired %s before the deadline", set.deadline.Sub(now))
				case len(a.fired) == 0 && ok && set.deadline.Before(late) && set.at.Before(late):
					t.Fatalf("did not fire %s after the deadline", now.Sub(set.deadline))
				case len(a.fired) == 1:
					a.fired = nil
					delete(settings, a)
				}
			}
		}
		if w.count != len(settings) {
			t.Fatalf("%d timers are linked, %d are set", w.count, len(settings))
		}
	})
}

// stepped is a time as it is read after the wall clock was set: the monotonic
// clock goes on.
func stepped(t time.Time, by time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(by/time.Second) << 30 // the seconds of a time with both clocks
	return t
}

func TestATimeoutMaySetAndStopOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Now()
		w := newWheel(begin)
		alarms := make([]alarm, 30)
		set := make([]bool, len(alarms))
		now := begin
		for i := range alarms {
			stop := rapid.SliceOfN(rapid.IntRange(0, len(alarms)-1), 0, 5).Draw(t, "stop")
			again := rapid.SliceOfN(rapid.IntRange(0, len(alarms)-1), 0, 1).Draw(t, "again")
			alarms[i].then = func() {
				if !set[i] {
					t.Fatalf("%d fired, and was stopped", i)
				}
				set[i] = false
				for _, k := range stop {
					w.remove(&alarms[k].m)
					set[k] = false
				}
				for _, k := range again {
					w.setAlarm(&alarms[k], now.Add(time.Hour))
					set[k] = true
				}
			}
			w.setAlarm(&alarms[i], begin.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "tick"))*wheelTick))
			set[i] = true
		}
		now = begin.Add(time.Second)
		w.advance(now)
		left := 0
		for i := range alarms {
			if set[i] {
				left++
				if alarms[i].m.tick < 36_000 {
					t.Fatalf("%d was due, and has not fired", i)
				}
			}
		}
		if w.count != left {
			t.Fatalf("%d timers are linked, %d are set", w.count, left)
		}
	})
}

// However many are due at once, and however many wait in their slot for another
// turn of the wheel, a turn of the shard fires a bounded number of them.
func TestManyTimersThatAreDueTogetherFireInPieces(t *testing.T) {
	const due = 10 * maxFired
	begin := time.Now()
	w := newWheel(begin)
	alarms := make([]alarm, 2*due)
	for i := range alarms {
		at := begin.Add(time.Second)
		if i%2 == 1 {
			at = at.Add(wheelSlots * wheelTick)
		}
		w.setAlarm(&alarms[i], at)
	}
	now := begin.Add(time.Second + wheelTick)
	for fired, more := 0, true; more; {
		more = w.advance(now)
		n := 0
		for i := range alarms {
			n += len(alarms[i].fired)
			if i%2 == 1 && len(alarms[i].fired) > 0 {
				t.Fatal("one fired that is not due")
			}
		}
		if n-fired > maxFired {
			t.Fatalf("%d fired in one turn", n-fired)
		}
		if fired = n; !more && fired != due {
			t.Errorf("%d fired, want %d", fired, due)
		}
	}
	if w.count != due {
		t.Errorf("%d timers are left, want %d", w.count, due)
	}
}

func TestTheWheelGoesOnWhenTheClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			begin := time.Now()
			now := func(after time.Duration) time.Time { return stepped(begin.Add(after), by) }
			if got := now(0).Round(0).Sub(begin.Round(0)); got != by || now(time.Minute).Sub(begin) != time.Minute {
				t.Fatalf("the test sets the clock by %s, not %s", got, by)
			}
			w := newWheel(begin)
			var before, after alarm
			w.setAlarm(&before, begin.Add(10*time.Second)) // set before the step, due after it
			w.advance(now(time.Second))
			w.setAlarm(&after, now(time.Second).Add(20*time.Second))
			for i := time.Duration(2); i < 10; i++ {
				w.advance(now(i * time.Second))
			}
			if len(before.fired) != 0 {
				t.Errorf("fired %s early", begin.Add(10*time.Second).Sub(before.fired[0]))
			}
			w.advance(now(10*time.Second + 2*wheelTick))
			if len(before.fired) != 1 {
				t.Error("what was set before the step did not fire")
			}
			w.advance(now(20 * time.Second))
			if len(after.fired) != 0 {
				t.Error("what was set after the step fired early")
			}
			w.advance(now(21*time.Second + 2*wheelTick))
			if len(after.fired) != 1 {
				t.Error("what was set after the step did not fire")
			}
		})
	}
}
