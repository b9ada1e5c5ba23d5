package session_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// frame is one frame of the server, decoded.
type frame map[string]any

func (f frame) kind() string { return f["type"].(string) }

func (f frame) str(name string) string { s, _ := f[name].(string); return s }

// client is a session's transport that takes everything at once, unless held.
type client struct {
	s    *session.Session
	mu   sync.Mutex
	held bool
	last bool
	raw  []byte
}

func (c *client) Ready() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.s != nil && !c.held && !c.last {
		bufs, last := c.s.Pull(nil, 64<<10)
		if len(bufs) == 0 && !last {
			return
		}
		c.last = last
		c.raw = append(c.raw, bytes.Join(bufs, nil)...)
	}
}

// take decodes what has come since the last take.
func (c *client) take(t *testing.T) []frame {
	t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []frame
	for len(c.raw) > 0 {
		op, n, head := c.raw[0]&15, int(c.raw[1]), 2
		switch n {
		case 126:
			n, head = int(c.raw[2])<<8|int(c.raw[3]), 4
		case 127:
			t.Fatal("a frame of more than 64 KiB")
		}
		payload := c.raw[head : head+n]
		c.raw = c.raw[head+n:]
		switch op {
		case 1:
			var f frame
			if err := json.Unmarshal(payload, &f); err != nil {
				t.Fatalf("%v: %s", err, payload)
			}
			all = append(all, f)
		case wire.OpClose:
			all = append(all, frame{"type": "(close)", "code": int(payload[0])<<8 | int(payload[1]), "reason": string(payload[2:])})
		case wire.OpPing:
			all = append(all, frame{"type": "(ping)"})
		case wire.OpPong:
			all = append(all, frame{"type": "(pong)", "data": string(payload)})
		}
	}
	return all
}

// hold makes the client take nothing, or again what there is.
func (c *client) hold(held bool) {
	c.mu.Lock()
	c.held = held
	c.mu.Unlock()
	c.s.Post(c.Ready)
}

// pull makes a held client take about so many bytes.
func (c *client) pull(t *testing.T, budget int) {
	t.Helper()
	done := make(chan struct{})
	c.s.Post(func() {
		defer close(done)
		bufs, _ := c.s.Pull(nil, budget)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw = append(c.raw, bytes.Join(bufs, nil)...)
	})
	<-done
}

// say sends frames and returns what came of them.
func (c *client) say(t *testing.T, frames ...string) []frame {
	t.Helper()
	for _, f := range frames {
		resumed := make(chan struct{})
		c.s.Post(func() { c.s.Receive(c.s.Read([]byte(f)), func() { close(resumed) }) })
		<-resumed
	}
	return c.take(t)
}

// kinds is the types of the frames, events by their data.
func kinds(frames []frame) string {
	var all []string
	for _, f := range frames {
		k := f.kind()
		if k == "event" {
			k = fmt.Sprint(f["payload"])
		}
		all = append(all, k)
	}
	return strings.Join(all, " ")
}

func want(t *testing.T, got []frame, kindsWanted string) {
	t.Helper()
	if k := kinds(got); k != kindsWanted {
		t.Fatalf("got  %s\nwant %s\n%v", k, kindsWanted, got)
	}
}

// node is one without sockets, inside a bubble.
type node struct {
	*testing.T
	engine *memory.Engine
	hub    *hub.Hub
	core   *session.Core
	tokens map[string]*carillon.Principal
	asked  map[string]func(*carillon.Principal, error) // tokens that take long, and who waits for them
}

func (n *node) Verify(token string, done func(*carillon.Principal, error)) {
	if _, slow := n.asked[token]; slow {
		n.asked[token] = done
		return
	}
	p := n.tokens[token]
	if p == nil {
		done(nil, carillon.Errorf(carillon.CodeUnauthenticated, "the token is not valid"))
		return
	}
	done(p, nil)
}

func (n *node) Submit(p *carillon.Principal, drafts []carillon.Draft, done func([]carillon.Receipt, error)) {
	var batch []engine.Append
	for _, d := range drafts {
		batch = append(batch, engine.Append{Event: &carillon.Event{Type: carillon.Type(d.Type), Data: d.Data, From: p.User, To: carillon.Audience{Users: d.Users}}})
	}
	if drafts[0].Ephemeral {
		var events []*carillon.Event
		for _, a := range batch {
			events = append(events, a.Event)
		}
		n.engine.Signals(p.Org).Publish(events, func(err error) { done(make([]carillon.Receipt, len(events)), err) })
		return
	}
	n.engine.Open(p.Org).Append(batch, done)
}

// inBubble runs f with a node; time in it is not real.
func inBubble(t *testing.T, limits session.Limits, cfg hub.Config, f func(t *testing.T, n *node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &node{T: t, engine: memory.New(memory.Config{}), tokens: map[string]*carillon.Principal{}}
		cfg.Engine, cfg.Shards = n.engine, 2
		n.hub = hub.New(cfg)
		if err := n.hub.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.core = session.NewCore(session.Config{Hub: n.hub, IDs: wire.NewKeyring(make([]byte, 32)), Publisher: n, Verifier: n, Limits: limits})
		defer func() {
			n.hub.Stop()
			if err := n.engine.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		f(t, n)
	})
}

func user(name string) *carillon.Principal {
	return &carillon.Principal{Org: "acme", User: name, Role: carillon.RoleAdmin}
}

func (n *node) connect(opt session.Options) *client {
	c := &client{}
	opt.Conn = c
	s := n.core.New(opt)
	s.Post(func() {
		c.mu.Lock()
		c.s = s
		c.mu.Unlock()
		c.Ready()
	})
	synctest.Wait()
	return c
}

func (n *node) gone(c *client) {
	c.s.Post(c.s.Gone)
	synctest.Wait()
}

// handOn publishes ephemeral events of alice's organization.
func (n *node) handOn(events ...carillon.Event) {
	n.Helper()
	for i := range events {
		n.engine.Signals("acme").Publish([]*carillon.Event{&events[i]}, func(err error) {
			if err != nil {
				n.Error(err)
			}
		})
	}
	synctest.Wait()
}

// publish stores events of a type whose data are count numbers from first on,
// and returns their ids.
func (n *node) publish(typ string, first, count int) (ids []string) {
	n.Helper()
	var batch []engine.Append
	for i := range count {
		batch = append(batch, engine.Append{Event: &carillon.Event{Type: carillon.Type(typ), Data: fmt.Appendf(nil, "%d", first+i)}})
	}
	r, err := engine.AppendWait(context.Background(), n.engine.Open("acme"), batch)
	if err != nil {
		n.Fatal(err)
	}
	for _, x := range r {
		ids = append(ids, n.core.IDs.Org("acme").String(x.Pos))
	}
	synctest.Wait()
	return ids
}
