package transporttest_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

// whisper is an ephemeral event.
func whisper(typ string, data int, users ...string) carillon.Draft {
	return carillon.Draft{Type: typ, Data: fmt.Append(nil, data), Users: users, Ephemeral: true}
}

func TestEphemeralEventsComeLiveAndMoveNoCursor(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.>"}}
		c := open(t, n, door, a)
		if door.Stream {
			next(t, c, "caught_up")
		}
		ids := n.Publish(t, "acme", "orders.paid", 1, 1)
		want(t, c, ids[0])
		cursor := c.Cursor()
		n.PublishDrafts(t, "beta", whisper("orders.seen", 1))
		n.PublishDrafts(t, "acme", whisper("invoices.seen", 2), whisper("orders.seen", 3, "bob"))
		n.PublishDrafts(t, "acme", whisper("orders.seen", 4))
		n.PublishDrafts(t, "acme", whisper("invoices.seen", 5, "bob", "alice"))
		if door.Stream {
			for _, data := range []string{"4", "5"} {
				m := next(t, c)
				if m.ID != "" || string(m.Payload) != data || m.Direct != (data == "5") {
					t.Fatalf("got %+v, want an ephemeral event with %s", m, data)
				}
			}
			if got := c.Cursor(); got != cursor {
				t.Errorf("the cursor has moved from %s to %s", cursor, got)
			}
		}
		ids = append(ids, n.Publish(t, "acme", "orders.paid", 2, 2)...)
		want(t, c, ids[1])
		c.Close()
		a.After = cursor
		want(t, open(t, n, door, a), ids[1])
	})
}

func TestEphemeralEventsAreNumbered(t *testing.T) {
	for _, door := range transporttest.Doors[:2] {
		n := transporttest.New(t, transporttest.Config{})
		c := open(t, n, door, ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"a"}, Extra: url.Values{"numbered": {"true"}}})
		next(t, c, "caught_up")
		for i := 1; i < 10; i++ {
			if i%3 == 0 {
				n.Publish(t, "acme", "a", i, i)
			} else {
				n.PublishDrafts(t, "acme", whisper("a", i))
			}
			if m := next(t, c); m.N != i || string(m.Payload) != fmt.Sprint(i) {
				t.Fatalf("event %d is %+v", i, m)
			}
		}
	}
}

// whispers are what is published of ephemeral events while everybody receives.
type whispers struct {
	mu  sync.Mutex // guards all
	all []published
}

// publish hands one on; its data say which it is.
func (w *whispers) publish(t *testing.T, n *transporttest.Node, p published) {
	t.Helper()
	w.mu.Lock()
	w.all = append(w.all, p)
	data := fmt.Appendf(nil, `{"org":%q,"whisper":%d}`, p.org, len(w.all)-1)
	w.mu.Unlock()
	n.PublishDrafts(t, p.org, carillon.Draft{Type: p.typ, Subject: p.subject, Users: p.users, Data: data, Ephemeral: true})
}

// heard finds the events that somebody heard. There is no more than one of each.
func (w *whispers) heard(org string, messages []transporttest.Message) (all []published, err error) {
	known := map[int]bool{}
	for _, m := range messages {
		var body struct{ Whisper *int }
		if err := json.Unmarshal(m.Payload, &body); err != nil || body.Whisper == nil {
			return nil, fmt.Errorf("%s without an id is no ephemeral event", m.Payload)
		}
		i := *body.Whisper
		p := w.all[i]
		switch {
		case known[i]:
			return nil, fmt.Errorf("%s came twice", m.Payload)
		case p.org != org, p.typ != m.EventType, m.Direct != (len(p.users) > 0):
			return nil, fmt.Errorf("%s %s came, which is %+v", m.EventType, m.Payload, p)
		}
		known[i] = true
		all = append(all, p)
	}
	return all, nil
}

// checkWhispers looks for what is not the receiver's among the ephemeral events.
func (x *receiver) checkWhispers(t *testing.T, w *whispers) int {
	t.Helper()
	all, err := w.heard(x.org, x.whispers)
	for _, p := range all {
		whole := len(p.users) == 0 && slices.ContainsFunc(x.patterns, func(q string) bool { return match.Match(carillon.Pattern(q), carillon.Type(p.typ)) })
		if !whole && !slices.Contains(p.users, x.user) {
			err = fmt.Errorf("%+v is not for %s with %s", p, x.user, strings.Join(x.patterns, ", "))
		}
	}
	if err == nil && !x.door.Stream && len(all) > 0 {
		err = fmt.Errorf("%d in a poll", len(all))
	}
	if err != nil {
		t.Errorf("%s: %s of %s: an ephemeral event: %v", x.door.Name, x.user, x.org, err)
	}
	return len(all)
}

// whispered checks an ephemeral event that a talker hears.
func (o *oracle) whispered(h *heard, w *whispers) error {
	all, err := w.heard(o.org, []transporttest.Message{h.Message})
	if err != nil {
		return err
	}
	p := all[0]
	whole := slices.ContainsFunc(o.subs, func(s *standing) bool { return s.wants(&p) })
	if !whole && !(o.began && slices.Contains(p.users, o.user)) {
		return fmt.Errorf("the ephemeral event %+v is not wanted", p)
	}
	return nil
}
