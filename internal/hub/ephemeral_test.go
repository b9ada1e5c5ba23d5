package hub_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
)

// ears counts who listens.
type ears struct {
	engine.Engine

	mu             sync.Mutex // guards what follows
	begun, stopped map[carillon.OrgID]int
}

func (e *ears) Signals(org carillon.OrgID) engine.Signals {
	return earsOf{e.Engine.Signals(org), e, org}
}

func (e *ears) of(org carillon.OrgID) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return fmt.Sprintf("begun %d, stopped %d", e.begun[org], e.stopped[org])
}

type earsOf struct {
	engine.Signals
	all *ears
	org carillon.OrgID
}

func (s earsOf) Listen(f func(*carillon.Entry)) (stop func()) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.all.begun[s.org]++
	end := s.Signals.Listen(f)
	return func() {
		end()
		s.all.mu.Lock()
		defer s.all.mu.Unlock()
		s.all.stopped[s.org]++
	}
}

func TestANodeListensToAnOrganizationWhileItHasSessionsOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory.New(memory.Config{})
		e := &ears{Engine: m, begun: map[carillon.OrgID]int{}, stopped: map[carillon.OrgID]int{}}
		h := hub.New(hub.Config{Engine: e, Shards: 2})
		if err := h.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		n := &node{hub: h, engine: m}
		session := func(org carillon.OrgID) (gone func()) {
			r := n.read(t, org, now, -1, pattern(">"))
			r.do(r.feed.Listen)
			return func() { r.do(r.feed.Close) }
		}
		expect := func(when, org, what string) {
			t.Helper()
			if got := e.of(carillon.OrgID(org)); got != what {
				t.Errorf("%s, %s: %s, want %s", when, org, got, what)
			}
		}
		t.Cleanup(func() { // when all have left
			h.Stop()
			expect("the end", "acme", "begun 2, stopped 2")
			expect("the end", "beta", "begun 1, stopped 1")
			if err := m.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		n.read(t, "acme", now, -1, pattern(">"))
		expect("a feed that does not listen, such as a poll's", "acme", "begun 0, stopped 0")
		first, second, other := session("acme"), session("acme"), session("beta")
		expect("two sessions", "acme", "begun 1, stopped 0")
		expect("one session", "beta", "begun 1, stopped 0")
		first()
		first() // closing twice is closing once
		time.Sleep(time.Minute)
		expect("one is left", "acme", "begun 1, stopped 0")
		second()
		time.Sleep(29 * time.Second)
		expect("29 s after the last", "acme", "begun 1, stopped 0")
		third := session("acme")
		time.Sleep(29 * time.Second)
		expect("one came back", "acme", "begun 1, stopped 0")
		third()
		time.Sleep(10 * time.Second)
		session("acme")()
		time.Sleep(29 * time.Second)
		expect("29 s after it", "acme", "begun 1, stopped 0")
		time.Sleep(2 * time.Second)
		expect("31 s after it", "acme", "begun 1, stopped 1")
		session("acme")()
		expect("another", "acme", "begun 2, stopped 1")
		other()
		expect("just left", "beta", "begun 1, stopped 0")
	})
}

func TestAShardThatDoesNotTakeThemGoesWithout(t *testing.T) {
	n := newNode(t, memory.Config{}, hub.Config{Mailbox: 16, Shards: 1, Ephemeral: 1 << 20})
	r := n.read(t, org, now, -1, pattern(">"))
	r.await(t, "the end", func() bool { return len(r.marks) > 0 })
	r.do(r.feed.Listen)
	busy, goOn := make(chan struct{}), make(chan struct{})
	r.shard.Post(hub.TaskFunc(func() { close(busy); <-goOn }))
	<-busy
	handOn := func(first, last int) {
		for i := first; i <= last; i++ {
			e := &carillon.Event{Type: "a", Subject: fmt.Sprint(i), Data: []byte("1")}
			n.engine.Signals(org).Publish([]*carillon.Event{e}, func(err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	handOn(1, 100)
	// What is stored is not in their way.
	stored := n.publish(t, org, "a", 10)
	n.settled(t, 100)
	close(goOn)
	r.await(t, "16 of them and what is stored", func() bool { return len(r.seqs) == 26 })
	ephemeral := 0
	for _, seq := range r.seen() {
		if seq == 0 {
			ephemeral++
		}
	}
	if st := n.hub.Stats(t.Context()); ephemeral != 16 || st.EphemeralUnposted != 84 || st.MailboxOverflows != 0 {
		t.Errorf("%d were heard, %d found no room; %+v", ephemeral, st.EphemeralUnposted, st)
	}
	if last := r.seen()[len(r.seen())-1]; last != 0 && last != stored[9].Pos.Seq {
		t.Errorf("the last is %d", last)
	}
	handOn(101, 101)
	r.await(t, "one more", func() bool { return len(r.seqs) == 27 })
}

// settled waits until the engine has passed on so many ephemeral events.
func (n *node) settled(t *testing.T, count uint64) {
	t.Helper()
	done := make(chan struct{})
	stop := n.engine.Signals("settled").Listen(func(*carillon.Entry) { close(done) })
	defer stop()
	n.engine.Signals("settled").Publish([]*carillon.Event{{Type: "a"}}, func(error) {})
	<-done
	if heard := n.engine.Stats().SignalsHeard; heard != count+1 {
		t.Errorf("the engine has passed on %d, want %d", heard-1, count)
	}
}
