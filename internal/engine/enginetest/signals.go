package enginetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// publish hands events on and waits for the answer.
func (w *bench) publish(s engine.Signals, events ...*carillon.Event) {
	w.t.Helper()
	if err := w.published(s, events...); err != nil {
		w.t.Fatalf("publish: %v", err)
	}
}

func (w *bench) published(s engine.Signals, events ...*carillon.Event) error {
	done := make(chan error, 1)
	s.Publish(events, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return errors.New("the publisher is not answered")
	}
}

// listen sends what is heard to a channel.
func (w *bench) listen(s engine.Signals) (heard <-chan *carillon.Entry, stop func()) {
	ch := make(chan *carillon.Entry, 20000)
	stop = s.Listen(func(e *carillon.Entry) { ch <- e })
	w.t.Cleanup(stop)
	return ch, stop
}

func testSignals(t *testing.T, w *bench) {
	s := w.Signals(orgA)
	heard, _ := w.listen(s)
	odd := &carillon.Event{
		Type: "a.b-c_d", Time: time.UnixMilli(1_700_000_000_001).UTC(), Subject: " \"%25\r,ü😀 ", Data: []byte(`{"a":[1,2,{"b":"ü"}]}`),
		To: carillon.Audience{Users: []string{"a,b", "ü", " x", "%2C"}}, From: "bob@example.com", Source: "gh", Delivery: "d-1", CE: []byte(`{"source":"/s"}`),
	}
	sent := []*carillon.Event{odd, {Type: "t", Time: odd.Time, Data: []byte("null")}, {Type: "t", Time: odd.Time, Data: []byte("1"), To: carillon.Audience{Room: "ops"}}}
	w.publish(s, sent...)
	for i, e := range w.next(heard, len(sent)) {
		if got, want := fmt.Sprintf("%+v", e.Event), fmt.Sprintf("%+v", *sent[i]); got != want {
			t.Errorf("heard\n%s, want\n%s", got, want)
		}
		if e.Org != orgA || e.Pos != (carillon.Position{}) || !e.Ephemeral() {
			t.Errorf("it is of %s at %v", e.Org, e.Pos)
		}
	}
	if got := w.all(w.a); len(got) != 0 {
		t.Errorf("%d are in the log", len(got))
	}
	if heard := w.Stats().SignalsHeard; heard != 3 {
		t.Errorf("%d were counted, want 3", heard)
	}
}

func testSignalOrder(t *testing.T, w *bench) {
	s := w.Signals(orgA)
	first, _ := w.listen(s)
	second, _ := w.listen(s)
	var want []string
	for n := range 200 {
		batch := events(10*n, 1+n%5)
		var sent []*carillon.Event
		for _, a := range batch {
			sent, want = append(sent, a.Event), append(want, string(a.Event.Data))
		}
		w.publish(s, sent...)
	}
	for _, heard := range []<-chan *carillon.Entry{first, second} {
		if got := datas(w.next(heard, len(want))); !slices.Equal(got, want) {
			t.Errorf("heard %v", got)
		}
	}
}

// Somebody listens only from Listen until stop.
func testSignalsListen(_ *testing.T, w *bench) {
	s := w.Signals(orgA)
	w.publish(s, event(1))
	first, stopFirst := w.listen(s)
	w.publish(s, event(2))
	w.heard(first, 2)
	second, _ := w.listen(s)
	w.publish(s, event(3))
	w.heard(first, 3)
	stopFirst()
	w.publish(s, event(4))
	w.heard(second, 3, 4)
	w.heard(first)
	_, stopThird := w.listen(s)
	stopThird()
	third, _ := w.listen(s)
	w.publish(s, event(5))
	w.heard(second, 5)
	w.heard(third, 5)
	w.heard(first)
}

// heard expects these events next, and nothing besides.
func (w *bench) heard(ch <-chan *carillon.Entry, numbers ...int) {
	w.t.Helper()
	for i, e := range w.next(ch, len(numbers)) {
		if want := string(event(numbers[i]).Data); string(e.Data) != want {
			w.t.Fatalf("heard %s, want %s", e.Data, want)
		}
	}
	select {
	case e := <-ch:
		w.t.Fatalf("heard %s too", e.Data)
	default:
	}
}

func testSignalIsolation(t *testing.T, w *bench) {
	rapid.Check(t, func(r *rapid.T) {
		// Names that might meet, were they put together carelessly.
		ids := rapid.SliceOfNDistinct(rapid.SampledFrom([]carillon.OrgID{"a", "aa", "a_a", "a-a", "b", "sig", "ev", "0"}), 2, 4, rapid.ID).Draw(r, "orgs")
		n := 0
		heard := map[carillon.OrgID]<-chan *carillon.Entry{}
		want := map[carillon.OrgID][]string{}
		for _, id := range ids {
			ch, stop := w.listen(w.Signals(id))
			defer stop()
			heard[id] = ch
		}
		for range rapid.IntRange(1, 30).Draw(r, "publishes") {
			id := rapid.SampledFrom(ids).Draw(r, "org")
			n++
			ev := event(n)
			ev.Type, ev.Data = carillon.Type(rapid.SampledFrom([]string{"a", "sig.b", "a.b"}).Draw(r, "type")), fmt.Appendf(nil, `[%d,"%s"]`, n, id)
			if err := w.published(w.Signals(id), ev); err != nil {
				r.Fatal(err)
			}
			want[id] = append(want[id], string(ev.Data))
		}
		for _, id := range ids {
			if got := datas(w.next(heard[id], len(want[id]))); !slices.Equal(got, want[id]) {
				r.Fatalf("%s heard %v, want %v", id, got, want[id])
			}
		}
		for _, id := range ids {
			select {
			case e := <-heard[id]:
				r.Fatalf("%s heard %s of %s too", id, e.Data, e.Org)
			default:
			}
		}
	})
}

func testSlowListener(t *testing.T, w *bench) {
	s := w.Signals(orgA)
	goOn, begun, last := make(chan struct{}), make(chan struct{}), make(chan struct{})
	begin, end := sync.OnceFunc(func() { close(begun) }), sync.OnceFunc(func() { close(last) })
	var heard atomic.Int64
	stop := s.Listen(func(e *carillon.Entry) {
		begin()
		<-goOn
		if heard.Add(1); e.Subject == "last" {
			end()
		}
	})
	defer stop()
	const each = 1000
	batch := make([]*carillon.Event, each)
	for i := range batch {
		batch[i] = event(i)
	}
	w.publish(s, batch[0])
	<-begun
	sent := int64(1)
	for w.Stats().SignalsDropped == 0 {
		w.publish(s, batch...)
		if sent += each; sent > 100*engine.DefaultSignalBuffer {
			t.Fatal("nothing is dropped although nobody takes it")
		}
	}
	close(goOn)
	one := event(0)
	one.Subject = "last"
	for waiting := true; waiting; sent++ { // it finds room when some have been taken
		w.publish(s, one)
		select {
		case <-last:
			waiting = false
		case <-time.After(10 * time.Millisecond):
		}
	}
	if n := heard.Load(); n > sent || n < engine.DefaultSignalBuffer {
		t.Errorf("%d of %d were heard", n, sent)
	}
}

func testTooLargeSignal(t *testing.T, w *bench) {
	s := w.Signals(orgA)
	heard, _ := w.listen(s)
	large := event(2)
	large.Data = make([]byte, 2<<20)
	err := w.published(s, event(1), large)
	w.publish(s, event(3))
	if err == nil { // an engine may have no such limit
		if got := w.next(heard, 3); len(got[1].Data) != len(large.Data) {
			t.Errorf("%d bytes were heard", len(got[1].Data))
		}
		return
	}
	if carillon.AsError(err).Code != carillon.CodeTooLarge {
		t.Errorf("2 MiB: %v", err)
	}
	w.next(heard, 1)
	w.heard(heard)
}

func testClosedSignals(t *testing.T, w *bench) {
	s := w.Signals(orgA)
	var answered atomic.Int64
	const n = 50
	for i := range n {
		s.Publish([]*carillon.Event{event(i)}, func(error) { answered.Add(1) })
	}
	if err := w.Close(w.ctx); err != nil {
		t.Fatal(err)
	}
	if got := answered.Load(); got != n {
		t.Errorf("%d of %d were answered", got, n)
	}
	if err := w.published(s, event(0)); !errors.Is(err, engine.ErrClosed) || carillon.AsError(err).Code != carillon.CodeUnavailable {
		t.Errorf("afterwards: %v", err)
	}
}
