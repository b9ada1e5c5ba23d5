package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/enginetest"
	"github.com/carillon-rt/carillon/internal/engine/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	enginetest.Run(t, func(*testing.T) engine.Engine { return memory.New(memory.Config{}) })
}

func TestContractOfTheIntake(t *testing.T) {
	enginetest.RunIntake(t, enginetest.WholeDelivery, func(*testing.T) engine.Engine { return memory.New(memory.Config{}) })
}

func TestContractUnderFaults(t *testing.T) {
	enginetest.RunFaults(t, func(*testing.T) (engine.Engine, enginetest.Faults) {
		e := memory.New(memory.Config{})
		return e, e
	})
}

func appendOne(t *testing.T, log engine.Log, key string) carillon.Receipt {
	t.Helper()
	r, err := engine.AppendWait(t.Context(), log, []engine.Append{{Event: &carillon.Event{Type: "t", Data: []byte("1")}, Key: key}})
	if err != nil {
		t.Fatal(err)
	}
	return r[0]
}

func count(t *testing.T, log engine.Log) (n int) {
	t.Helper()
	if _, err := log.Read(t.Context(), engine.Range{}, func(*carillon.Entry) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTimeInABubbleExpiresEntriesAndKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New(memory.Config{Retention: time.Hour, DedupeWindow: time.Minute})
		defer e.Close(context.Background())
		log := e.Open("acme")
		first := appendOne(t, log, "k")
		time.Sleep(59 * time.Second)
		if again := appendOne(t, log, "k"); !again.Duplicate || again.Pos != first.Pos {
			t.Errorf("within the window: %+v", again)
		}
		time.Sleep(time.Second)
		second := appendOne(t, log, "k")
		if second.Duplicate {
			t.Errorf("after the window: %+v", second)
		}
		time.Sleep(time.Hour - time.Minute)
		if n := count(t, log); n != 1 {
			t.Errorf("%d entries after an hour, want the second", n)
		}
		zero := carillon.Position{Partition: second.Pos.Partition}
		if out, _ := log.Resume(t.Context(), zero); out.Status != engine.Expired || out.From.Seq != first.Pos.Seq {
			t.Errorf("resume from the start: %+v", out)
		}
		if out, _ := log.Resume(t.Context(), first.Pos); out.Status != engine.OK {
			t.Errorf("resume at the one that is gone: %+v", out)
		}
	})
}

func TestTailInABubbleIsIdleWhenNothingHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New(memory.Config{})
		log := e.Open("acme")
		entries := make(chan *carillon.Entry, 10)
		ended := make(chan error, 1)
		go func() {
			ended <- e.Tail(t.Context(), log.Partition(), 0, func(entry *carillon.Entry) { entries <- entry })
		}()
		synctest.Wait()
		r := appendOne(t, log, "")
		synctest.Wait()
		if got := <-entries; got.Pos != r.Pos {
			t.Errorf("tail passed %v, want %v", got.Pos, r.Pos)
		}
		e.BreakTails(log.Partition())
		synctest.Wait()
		if err := <-ended; err == nil {
			t.Error("a broken tail ends without an error")
		}
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func TestOrganizationsOwnLimit(t *testing.T) {
	e := memory.New(memory.Config{Partitions: 1, MaxPerOrg: 3})
	defer e.Close(context.Background())
	a, b := e.Open("a"), e.Open("b")
	appendOne(t, b, "")
	for range 5 {
		appendOne(t, a, "")
	}
	if na, nb := count(t, a), count(t, b); na != 3 || nb != 1 {
		t.Errorf("%d and %d entries kept, want 3 and 1", na, nb)
	}
}

func TestBudgetTakesTheOldest(t *testing.T) {
	e := memory.New(memory.Config{Partitions: 1, MaxBytes: 4000})
	defer e.Close(context.Background())
	log := e.Open("a")
	for range 100 {
		appendOne(t, log, "")
	}
	s, err := e.State(t.Context(), 0)
	if err != nil || s.Bytes > 4000 || s.Entries == 0 || s.Last.Seq != 100 || s.First != 101-s.Entries {
		t.Errorf("%+v %v", s, err)
	}
}

func TestFailAndHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New(memory.Config{})
		defer e.Close(context.Background())
		log := e.Open("a")
		cause := errors.New("no disk")
		e.Fail(cause)
		_, err := engine.AppendWait(t.Context(), log, []engine.Append{{Event: &carillon.Event{}}})
		if !errors.Is(err, cause) || carillon.AsError(err).Code != carillon.CodeUnavailable {
			t.Errorf("append: %v", err)
		}
		if e.Healthy(t.Context()) == nil {
			t.Error("healthy")
		}
		e.Heal()
		appendOne(t, log, "")

		e.Hold()
		answered := 0
		for range 3 {
			log.Append([]engine.Append{{Event: &carillon.Event{}}}, func([]carillon.Receipt, error) { answered++ })
		}
		synctest.Wait()
		if answered != 0 {
			t.Errorf("%d of 3 answered while held", answered)
		}
		e.Release()
		synctest.Wait()
		if answered != 3 {
			t.Errorf("%d of 3 answered", answered)
		}
	})
}

func TestContractOfBudgets(t *testing.T) {
	enginetest.RunBudget(t, func(_ *testing.T, budget func(carillon.OrgID) engine.Budget) engine.Engine {
		return memory.New(memory.Config{OrgBudget: budget})
	})
	enginetest.RunIntakeBudget(t, func(_ *testing.T, budget func(carillon.OrgID) engine.Budget) engine.Engine {
		return memory.New(memory.Config{IntakeBudget: budget})
	})
}

func TestIntakeHasLimitsOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New(memory.Config{
			Partitions: 1, Retention: time.Hour, MaxPerOrg: 4, IntakeRetention: 2 * time.Hour, IntakeMaxPerOrg: 6,
		})
		defer e.Close(context.Background())
		events, intake := e.Open("acme"), e.Intake("acme")
		for range 10 {
			appendOne(t, events, "")
			appendOne(t, intake, "")
		}
		for _, tt := range []struct {
			after          time.Duration
			events, intake int
		}{{0, 4, 6}, {time.Hour, 0, 6}, {time.Hour, 0, 0}} {
			time.Sleep(tt.after)
			if n, m := count(t, events), count(t, intake); n != tt.events || m != tt.intake {
				t.Errorf("%v later: %d events and %d entries of the intake, want %d and %d", tt.after, n, m, tt.events, tt.intake)
			}
		}
	})
}

func TestIntakesBytesAreItsOwn(t *testing.T) {
	e := memory.New(memory.Config{Partitions: 1, MaxBytes: 4000, IntakeMaxBytes: 8000})
	defer e.Close(context.Background())
	for range 200 {
		appendOne(t, e.Open("a"), "")
		appendOne(t, e.Intake("a"), "")
	}
	for partition, most := range []uint64{4000, 8000} {
		s, err := e.State(t.Context(), partition)
		if err != nil || s.Bytes > most || s.Bytes < most*9/10 {
			t.Errorf("partition %d: %+v %v, want just below %d bytes", partition, s, err, most)
		}
	}
}
