package hub

import (
	"fmt"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"
)

// alarm notes when it fired.
type alarm struct {
	Timer
	fired []time.Time
}

func (a *alarm) Timeout(now time.Time) { a.fired = append(a.fired, now) }

func (w *wheel) set(a *alarm, deadline time.Time) {
	w.remove(&a.Timer)
	a.owner, a.deadline = a, deadline
	w.add(&a.Timer)
}

func TestATimerFiresOnceWithinATickAfterItsDeadline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Now()
		w := wheel{begin: begin}
		now := begin
		alarms := make([]alarm, 20)
		type setting struct{ deadline, at time.Time }
		settings := map[*alarm]setting{}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			a := &alarms[rapid.IntRange(0, len(alarms)-1).Draw(t, "alarm")]
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				w.remove(&a.Timer)
				delete(settings, a)
				continue
			case 1:
				deadline := now.Add(time.Duration(rapid.Int64Range(-int64(time.Second), int64(3*time.Minute)).Draw(t, "after")))
				w.set(a, deadline)
				settings[a] = setting{deadline, now}
				continue
			}
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "pass")))
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

func TestTheWheelGoesOnWhenTheClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			begin := time.Now()
			now := func(after time.Duration) time.Time { return stepped(begin.Add(after), by) }
			if got := now(0).Round(0).Sub(begin.Round(0)); got != by || now(time.Minute).Sub(begin) != time.Minute {
				t.Fatalf("the test sets the clock by %s, not %s", got, by)
			}
			w := wheel{begin: begin}
			var before, after alarm
			w.set(&before, begin.Add(10*time.Second)) // set before the step, due after it
			w.advance(now(time.Second))
			w.set(&after, now(time.Second).Add(20*time.Second))
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
