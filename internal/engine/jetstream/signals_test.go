package jetstream_test

import (
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
)

func TestSignalsGoOnWhenTheServerIsBack(t *testing.T) {
	e := open(t, jetstream.Config{Dir: t.TempDir(), Partitions: 1})
	defer closeEngine(t, e)
	s := e.Signals("acme")
	heard := make(chan string, 100)
	defer s.Listen(func(x *carillon.Entry) { heard <- string(x.Data) })()
	publish := func(n int) error {
		done := make(chan error, 1)
		s.Publish([]*carillon.Event{numbered(n)}, func(err error) { done <- err })
		return <-done
	}
	if err := publish(1); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; got != "1" {
		t.Fatalf("heard %s", got)
	}
	e.Faults().StopServer()
	eventually(t, "refusal", func() bool {
		err := publish(2)
		return err != nil && carillon.AsError(err).Code == carillon.CodeUnavailable && carillon.AsError(err).RetryAfter > 0
	})
	if err := e.Faults().RestartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != "3"; {
		if err := publish(3); err != nil {
			t.Fatal(err)
		}
		select {
		case got = <-heard:
		case <-time.After(20 * time.Millisecond): // the subscription is on its way
		}
	}
}
