package transporttest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/match"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

// Random organizations, users, tokens, patterns, cursors, transports and events:
// nobody gets what is not theirs, and nobody misses what is. Some clients only
// receive, others (talkers) change their subscriptions as they go. It runs a few
// rounds, or for as long as CARILLON_PROPERTY_TIME says.
func TestEverybodyGetsTheirsAndNothingElse(t *testing.T) {
	until := time.Now().Add(3 * time.Second)
	if s := os.Getenv("CARILLON_PROPERTY_TIME"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		until = time.Now().Add(d)
	}
	rounds, events, checked, left, whispered := 0, 0, 0, 0, 0
	for rounds == 0 || time.Now().Before(until) {
		seed := rand.Uint64()
		ok := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			e, c, l, w := isolationRound(t, rand.New(rand.NewPCG(seed, 1)))
			events, checked, left, whispered = events+e, checked+c, left+l, whispered+w
		})
		if !ok {
			break
		}
		rounds++
	}
	t.Logf("%d rounds, %d events published, %d deliveries checked, %d left out, %d ephemeral ones heard", rounds, events, checked, left, whispered)
}

// published is what a publisher knows of an event.
type published struct {
	id, org string
	seq     uint64 // its place in the log
	typ     string
	subject string
	users   []string
}

// receiver is one client and what it must get.
type receiver struct {
	door     transporttest.Door
	org      string
	user     string
	patterns []string
	grants   []string // nil: a token without permissions
	after    int      // index in the org's events; -1: a cursor of another org
	cursor   string
	got      []string
	whispers []message // ephemeral events
	err      error

	caughtUp func() // says that it is at the end
}

// maxMore bounds the batches that are published while talkers talk.
const maxMore = 300

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func isolationRound(t *testing.T, r *rand.Rand) (nEvents, nChecked, nLeft, nWhispers int) {
	cfg := hub.Config{FeedQueue: 64}
	if r.IntN(2) == 0 {
		cfg = hub.Config{RingBytes: 1, FeedQueue: 1 + r.IntN(8), Mailbox: 1 + r.IntN(8), Offers: 1 + r.IntN(8), Shards: 1 + r.IntN(4)}
	}
	n := transporttest.New(t, transporttest.Config{Hub: cfg})
	large := ""
	if r.IntN(3) == 0 { // the kernel cannot hold all for who pauses
		large = strings.Repeat("x", 8<<10)
	}
	orgs := []string{"acme", "beta", "gamma"}[:2+r.IntN(2)]
	users := []string{"alice", "bob", "carol"}
	segments := []string{"a", "b", "c", "order", "presence"}
	randomType := func() string {
		var s []string
		for range 1 + r.IntN(4) {
			s = append(s, pick(r, segments[:4]))
		}
		return strings.Join(s, ".")
	}
	randomPattern := func() string {
		s := strings.Split(randomType(), ".")
		for i := range s {
			if r.IntN(3) == 0 {
				s[i] = "*"
			}
		}
		if r.IntN(3) == 0 {
			s[len(s)-1] = ">"
		}
		return strings.Join(s, ".")
	}
	log := map[string][]published{} // in the order of acceptance
	at := map[string]*progress{}
	for _, org := range orgs {
		at[org] = new(progress)
	}
	accept := func(org string, batch []published, drafts []carillon.Draft) {
		at[org].begun.Add(int64(len(batch)))
		for i, id := range n.PublishDrafts(t, org, drafts...) {
			pos, _ := n.IDs.Org(carillon.OrgID(org)).Decode(id) // the node's own
			batch[i].id, batch[i].seq = id, pos.Seq
		}
		log[org] = append(log[org], batch...)
		at[org].acked.Add(int64(len(batch)))
	}
	random := func(org string) published {
		p := published{org: org, typ: randomType(), subject: pick(r, []string{"", "s", "t"})}
		if r.IntN(4) == 0 {
			for range 1 + r.IntN(2) {
				if u := pick(r, users); !slices.Contains(p.users, u) {
					p.users = append(p.users, u)
				}
			}
		}
		return p
	}
	publish := func(org string) {
		var drafts []carillon.Draft
		var batch []published
		for range 1 + r.IntN(8) {
			p := random(org)
			drafts = append(drafts, carillon.Draft{Type: p.typ, Subject: p.subject, Users: p.users, Data: fmt.Appendf(nil, `{"org":%q,"x":%q}`, org, large)})
			batch = append(batch, p)
		}
		accept(org, batch, drafts)
	}
	for _, org := range orgs {
		for range 1 + r.IntN(60) {
			publish(org)
		}
	}
	var receivers []*receiver
	for range 4 + r.IntN(12) {
		org := pick(r, orgs)
		x := &receiver{door: pick(r, transporttest.Doors), org: org, user: pick(r, users), after: r.IntN(len(log[org]))}
		x.cursor = log[org][x.after].id
		if other := pick(r, orgs); other != org && r.IntN(5) == 0 {
			x.after, x.cursor = -1, pick(r, log[other]).id
		}
		for range 1 + r.IntN(4) {
			x.patterns = append(x.patterns, randomPattern())
		}
		if r.IntN(3) == 0 {
			x.grants = []string{"fin"}
			for range r.IntN(4) {
				x.grants = append(x.grants, pick(r, append(x.patterns, randomPattern(), ">")))
			}
		}
		receivers = append(receivers, x)
	}
	var talkers []*talker
	for range 1 + r.IntN(6) {
		org := pick(r, orgs)
		talkers = append(talkers, newTalker(r, org, pick(r, users), log[org], randomPattern, cfg.FeedQueue))
	}
	var whispered whispers
	var wg, behind sync.WaitGroup
	for _, x := range receivers {
		behind.Add(1)
		x.caughtUp = sync.OnceFunc(behind.Done)
		wg.Go(func() { x.run(t, n) })
	}
	var talking atomic.Int64
	for _, x := range talkers {
		talking.Add(1)
		wg.Go(func() { x.run(t, n, at[x.org], sync.OnceFunc(func() { talking.Add(-1) })) })
	}
	for i := r.IntN(60); i > 0 || i > -maxMore && talking.Load() > 0; i-- {
		publish(pick(r, orgs))
		whispered.publish(t, n, random(pick(r, orgs)))
	}
	for _, org := range orgs { // receivers that have this have caught up
		accept(org, []published{{org: org, typ: "mid", users: users}}, []carillon.Draft{{Type: "mid", Users: users, Data: fmt.Appendf(nil, `{"org":%q}`, org)}})
	}
	behind.Wait()
	for range 300 {
		whispered.publish(t, n, random(pick(r, orgs)))
	}
	for _, org := range orgs { // again and again, for those who begin late at "now"
		accept(org, []published{{org: org, typ: "fin"}}, []carillon.Draft{{Type: "fin", Data: []byte("1")}})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-time.After(20 * time.Millisecond):
			for _, org := range orgs {
				n.Publish(t, org, "fin", 2, 2)
			}
		}
	}
	for _, x := range receivers {
		nChecked += x.check(t, log)
		nWhispers += x.checkWhispers(t, &whispered)
	}
	for _, x := range talkers {
		c, l := x.check(t, n, log[x.org], &whispered)
		nChecked, nLeft = nChecked+c, nLeft+l
	}
	for _, l := range log {
		nEvents += len(l)
	}
	return nEvents, nChecked, nLeft, nWhispers
}

func (x *receiver) refused() bool {
	if x.grants == nil {
		return false
	}
	for _, p := range x.patterns {
		if !slices.ContainsFunc(x.grants, func(g string) bool { return match.Contains(carillon.Pattern(g), carillon.Pattern(p)) }) {
			return true
		}
	}
	return false
}

// run receives until the end of the organization's events.
func (x *receiver) run(t *testing.T, n *transporttest.Node) {
	defer x.caughtUp()
	if x.after < 0 { // it may begin anywhere
		x.caughtUp()
	}
	token := n.Token(t, x.org, x.user, func(c *auth.Claims) {
		if x.grants != nil {
			c.Permissions = &carillon.Permissions{}
			for _, g := range x.grants {
				c.Permissions.Subscribe = append(c.Permissions.Subscribe, carillon.Pattern(g))
			}
		}
	})
	c, err := x.door.Open(t, n, ask{Token: token, Patterns: append([]string{"fin"}, x.patterns...), After: x.cursor})
	if err != nil {
		x.err = err
		return
	}
	defer c.Close()
	for {
		m, err := c.Next()
		if err != nil {
			x.err = err
			return
		}
		switch {
		case m.Type == "error":
			x.err = &transporttest.Refused{Message: m}
			return
		case m.Type != "event":
			continue
		case m.EventType == "fin":
			return
		}
		var body struct{ Org string }
		if err := json.Unmarshal(m.Payload, &body); err != nil || body.Org != x.org {
			x.err = fmt.Errorf("%s of %s got an event of %q", x.user, x.org, body.Org)
			return
		}
		if m.ID == "" {
			x.whispers = append(x.whispers, m)
			continue
		}
		x.got = append(x.got, m.ID)
		if m.EventType == "mid" {
			x.caughtUp()
		}
	}
}

// check compares with what the publishers know.
func (x *receiver) check(t *testing.T, log map[string][]published) int {
	t.Helper()
	if x.refused() {
		var refusal *transporttest.Refused
		if !errors.As(x.err, &refusal) || refusal.Code != "forbidden" {
			t.Errorf("%s: patterns %v with grants %v: got %d events and %v, want forbidden", x.door.Name, x.patterns, x.grants, len(x.got), x.err)
		}
		return 0
	}
	if x.err != nil {
		var ended *transporttest.Ended
		if errors.As(x.err, &ended) && ended.Code == websocket.StatusNormalClosure {
			x.err = fmt.Errorf("ended early: %w", x.err)
		}
		t.Errorf("%s: %s of %s, patterns %v, grants %v: %v", x.door.Name, x.user, x.org, x.patterns, x.grants, x.err)
		return 0
	}
	var want []string
	for _, p := range log[x.org][max(x.after, -1)+1:] {
		whole := len(p.users) == 0 && p.typ != "fin" &&
			slices.ContainsFunc(x.patterns, func(q string) bool { return match.Match(carillon.Pattern(q), carillon.Type(p.typ)) })
		if whole || slices.Contains(p.users, x.user) {
			want = append(want, p.id)
		}
	}
	got := x.got
	if x.after < 0 { // from some moment on, without a hole
		if len(got) > len(want) || !slices.Equal(got, want[len(want)-len(got):]) {
			t.Errorf("%s: a cursor of another org: got %d events that are not the last of its %d", x.door.Name, len(got), len(want))
		}
		return len(got)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: %s of %s, patterns %v, after %d of %d: got %d events, want %d", x.door.Name, x.user, x.org, x.patterns, x.after, len(log[x.org]), len(got), len(want))
	}
	return len(got)
}
