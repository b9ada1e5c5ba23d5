package hub

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon/internal/engine/memory"
)

// bell notes when it rang, and may do something then.
type bell struct {
	Moment
	rang []time.Duration
	then func()
}

func (b *bell) Timeout(now time.Time) {
	b.rang = append(b.rang, now.Sub(time.Unix(0, 0)))
	if b.then != nil {
		b.then()
	}
}

func TestMomentsFireOnceInOrderAndNeverEarly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Unix(0, 0)
		s := &Shard{moments: moments{begin: begin}}
		bells := make([]bell, 8)
		set := map[int]time.Duration{}
		now := time.Duration(0)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			i := rapid.IntRange(0, len(bells)-1).Draw(t, "bell")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				s.StopMoment(&bells[i].Moment)
				delete(set, i)
			case 1, 2:
				set[i] = now + time.Duration(rapid.IntRange(0, 20).Draw(t, "after"))*time.Millisecond
				s.SetMoment(&bells[i].Moment, &bells[i], begin.Add(set[i]))
			case 3:
				now += time.Duration(rapid.IntRange(0, 15).Draw(t, "pass")) * time.Millisecond
				s.moments.advance(begin.Add(now))
				for i := range bells {
					at, ok := set[i]
					switch rang := len(bells[i].rang); {
					case ok && at <= now && rang != 1, (!ok || at > now) && rang != 0:
						t.Fatalf("at %s one set for %s, %t, rang %d times", now, at, ok, rang)
					case rang == 1:
						delete(set, i)
						bells[i].rang = nil
					}
				}
			}
			last := time.Duration(-1)
			n := 0
			for m := s.moments.first; m != nil; m = m.next {
				if m.at < last {
					t.Fatal("not in order")
				}
				last = m.at
				n++
			}
			if n != len(set) {
				t.Fatalf("%d are set, want %d", n, len(set))
			}
		}
	})
}

func TestAMomentMaySetAndStopOthers(t *testing.T) {
	begin := time.Unix(0, 0)
	s := &Shard{moments: moments{begin: begin}}
	var a, b, c bell
	s.SetMoment(&a.Moment, &a, begin.Add(1))
	s.SetMoment(&b.Moment, &b, begin.Add(2))
	a.then = func() {
		s.StopMoment(&b.Moment)
		s.SetMoment(&c.Moment, &c, begin.Add(3))
		s.SetMoment(&a.Moment, &a, begin.Add(9))
	}
	s.moments.advance(begin.Add(5))
	if len(a.rang) != 1 || len(b.rang) != 0 || len(c.rang) != 1 {
		t.Errorf("rang %d, %d and %d times", len(a.rang), len(b.rang), len(c.rang))
	}
}

func TestAShardKeepsTheMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New(memory.Config{})
		h := New(Config{Engine: e, Shards: 1})
		if err := h.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		var b bell
		var timer Timer
		began, rang := time.Now(), make(chan time.Duration, 1)
		b.then = func() { rang <- time.Since(began) }
		s := h.Shards()[0]
		s.Post(TaskFunc(func() { s.SetMoment(&b.Moment, &b, began.Add(7*time.Millisecond)) }))
		if d := <-rang; d != 7*time.Millisecond {
			t.Errorf("it rang after %s", d)
		}
		s.Post(TaskFunc(func() { // beside timers, whose ticks are coarse
			s.SetTimer(&timer, &b, began.Add(time.Hour))
			s.SetMoment(&b.Moment, &b, began.Add(12*time.Millisecond))
		}))
		if d := <-rang; d != 12*time.Millisecond {
			t.Errorf("beside timers it rang after %s", d)
		}
		h.Stop()
		if err := e.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
}
