package session_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
)

func TestWithoutAfterAConnectionIsLiveFromNow(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		n.publish("a.b", 1, 3)
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		want(t, c.take(t), "welcome")
		want(t, c.say(t, `{"type":"subscribe","pattern":"a.*","ref":7}`), "subscribed caught_up")
		n.publish("a.b", 4, 2)
		n.publish("x.y", 9, 1)
		want(t, c.take(t), "4 5")
		want(t, c.say(t, `{"type":"unsubscribe","pattern":"a.*"}`), "unsubscribed")
		n.publish("a.b", 6, 1)
		want(t, c.take(t), "")
	})
}

func TestWithAfterNothingComesBeforeTheFirstSubscribe(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		ids := n.publish("a.b", 1, 5)
		c := n.connect(session.Options{Principal: user("alice"), After: ids[1]})
		defer n.gone(c)
		w := c.take(t)
		want(t, w, "welcome")
		if w[0].str("cursor") != ids[1] {
			t.Errorf("welcome's cursor is %s, want the one asked for", w[0].str("cursor"))
		}
		n.publish("a.b", 6, 1)
		want(t, c.take(t), "")
		want(t, c.say(t, `{"type":"subscribe","patterns":["a.b","*.b"]}`), "subscribed 3 4 5 6 caught_up")
		n.publish("a.b", 7, 1)
		want(t, c.take(t), "7")
	})
}

func TestBackfillComesInOrderAndAllElseWaits(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		first := n.publish("a.x", 1, 1)
		c := n.connect(session.Options{Principal: user("alice"), After: first[0]})
		defer n.gone(c)
		n.publish("b.x", 2, 1)
		n.publish("a.x", 3, 1)
		want(t, c.say(t, `{"type":"subscribe","pattern":"a.*"}`), "welcome subscribed 3 caught_up")
		// What a.* brought does not come again; what only b.* wanted does.
		got := c.say(t, fmt.Sprintf(`{"type":"subscribe","patterns":["b.*","a.x"],"after":"%s"}`, first[0]))
		want(t, got, "subscribed 2 caught_up")
		if got[0]["backfill"] != true {
			t.Errorf("subscribed %v, want backfill", got[0])
		}
		n.publish("b.x", 4, 1)
		n.publish("a.x", 5, 1)
		want(t, c.take(t), "4 5")
	})
}

func TestABackfillLosesNothingWhileEventsWaitForTheClient(t *testing.T) {
	for name, before := range map[string][]string{"of a new subscription": nil, "of a standing one": {`{"type":"subscribe","pattern":"b.x"}`}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
				first := n.publish("b.x", 1, 1)
				c := n.connect(session.Options{Principal: user("alice")})
				defer n.gone(c)
				want(t, c.say(t, `{"type":"subscribe","pattern":"a.x"}`), "welcome subscribed caught_up")
				c.hold(true)
				n.publish("a.x", 2, 1) // it waits, and so the connection's position does
				n.publish("b.x", 3, 1) // nobody wants it yet
				n.publish("a.x", 4, 1)
				want(t, c.say(t, append(before, fmt.Sprintf(`{"type":"subscribe","pattern":"b.x","after":"%s"}`, first[0]))...), "")
				c.hold(false)
				want(t, c.take(t), strings.Repeat("subscribed ", len(before)+1)+"2 3 4"+strings.Repeat(" caught_up", len(before)+1))
			})
		})
	}
}

func TestRepeatedSubscribeReplaysOnlyWithAfter(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		ids := n.publish("a.x", 1, 3)
		c := n.connect(session.Options{Principal: user("alice"), After: ids[0]})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","pattern":"a.*"}`), "welcome subscribed 2 3 caught_up")
		want(t, c.say(t, `{"type":"subscribe","pattern":"a.*"}`), "subscribed")
		want(t, c.say(t, fmt.Sprintf(`{"type":"subscribe","pattern":"a.*","after":"%s"}`, ids[0])), "subscribed 2 3 caught_up")
		n.publish("a.x", 4, 1)
		want(t, c.take(t), "4")
	})
}

func TestGapFoundByASubscribeStandsInItsAnswerOnly(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{RingBytes: 1}, func(t *testing.T, n *node) {
		ids := n.publish("a.x", 1, 2000)
		p := n.engine.Open("acme").Partition()
		n.engine.ExpireBefore(p, 1990)
		for name, after := range map[string]string{"expired": ids[0], "reset": strings.Repeat("0", 26)} {
			for _, in := range []string{"handshake", "subscribe"} {
				opt, sub := session.Options{Principal: user("alice")}, `{"type":"subscribe","pattern":"a.*"}`
				if in == "handshake" {
					opt.After = after
				} else {
					sub = fmt.Sprintf(`{"type":"subscribe","pattern":"a.*","after":"%s"}`, after)
				}
				c := n.connect(opt)
				want(t, c.take(t), "welcome")
				got := c.say(t, sub)
				expect := "subscribed caught_up"
				if name == "expired" {
					expect = "subscribed 1990 1991 1992 1993 1994 1995 1996 1997 1998 1999 2000 caught_up"
				}
				want(t, got, expect)
				if gap, _ := got[0]["gap"].(map[string]any); gap["reason"] != name {
					t.Errorf("%s in the %s: gap %v", name, in, got[0]["gap"])
				}
				n.gone(c)
			}
		}
	})
}

func TestUnreadableCursorIsBadRequestInAFrameAndResetInAHandshake(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice"), After: "yesterday"})
		defer n.gone(c)
		want(t, c.take(t), "welcome")
		got := c.say(t, `{"type":"subscribe","pattern":"a","after":"yesterday","ref":"x"}`)
		want(t, got, "error")
		if got[0].str("code") != "bad_request" || got[0].str("ref") != "x" {
			t.Errorf("%v", got[0])
		}
		got = c.say(t, `{"type":"subscribe","pattern":"a"}`)
		want(t, got, "subscribed caught_up")
		if gap, _ := got[0]["gap"].(map[string]any); gap["reason"] != "reset" {
			t.Errorf("%v", got[0])
		}
	})
}

func TestPublishesRunBesideTheRestAndInOrder(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		n.engine.Hold()
		got := c.say(t,
			`{"type":"subscribe","pattern":"a.*"}`,
			`{"type":"publish","event":{"type":"a.b","data":1},"ref":1}`,
			`{"type":"publish","events":[{"type":"a.b","data":2},{"type":"a.b","data":3}],"ref":2}`,
			`{"type":"ping"}`)
		want(t, got, "welcome subscribed caught_up pong")
		n.engine.Release()
		got = c.take(t)
		k := kinds(got)
		if strings.Count(k, "published") != 2 || strings.ReplaceAll(strings.ReplaceAll(k, "published", ""), " ", "") != "123" {
			t.Fatalf("got %s", k)
		}
	})
}

func TestReadingPausesWhileTooManyPublishesFly(t *testing.T) {
	inBubble(t, session.Limits{PublishesFlying: 2}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		want(t, c.take(t), "welcome")
		n.engine.Hold()
		resumed := 0
		for range 2 {
			c.s.Post(func() {
				c.s.Receive(c.s.Read([]byte(`{"type":"publish","event":{"type":"a.b","data":1}}`)), func() { resumed++ })
			})
		}
		synctest.Wait()
		if resumed != 1 {
			t.Fatalf("%d reads were allowed, want 1 with two publishes of at most two in flight", resumed)
		}
		n.engine.Release()
		want(t, c.take(t), "published published")
		if resumed != 2 {
			t.Fatalf("%d reads were allowed after the publishes were stored, want 2", resumed)
		}
	})
}

func TestConnectFrameComesInTimeOrTheConnectionCloses(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		n.tokens["good"] = user("alice")
		c := n.connect(session.Options{})
		want(t, c.say(t, `{"type":"connect","token":"good"}`, `{"type":"connect","token":"good"}`), "welcome error")
		n.gone(c)
		late := n.connect(session.Options{})
		time.Sleep(6 * time.Second)
		got := late.take(t)
		want(t, got, "error (close)")
		if got[1]["code"] != 4104 {
			t.Errorf("closed with %v", got[1])
		}
		n.gone(late)
		bad := n.connect(session.Options{})
		got = bad.say(t, `{"type":"connect","token":"bad"}`)
		want(t, got, "error (close)")
		if got[1]["code"] != 4001 {
			t.Errorf("closed with %v", got[1])
		}
		n.gone(bad)
	})
}

func TestHeartbeatCarriesACursorPastWhatDidNotMatch(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","pattern":"never"}`), "welcome subscribed caught_up")
		ids := n.publish("a.b", 1, 3)
		time.Sleep(26 * time.Second)
		got := c.take(t)
		want(t, got, "heartbeat (ping)")
		if got[0].str("cursor") != ids[2] {
			t.Errorf("cursor %s, want that of the newest entry", got[0].str("cursor"))
		}
		for range 10 { // pongs keep it open
			c.s.Post(c.s.Heard)
			time.Sleep(25 * time.Second)
		}
		for _, f := range c.take(t) {
			if f.kind() == "(close)" {
				t.Fatalf("closed: %v", f)
			}
		}
		time.Sleep(61 * time.Second)
		got = c.take(t)
		if k := got[len(got)-1].kind(); k != "(close)" {
			t.Errorf("a silent client was not closed: %s", kinds(got))
		}
	})
}

func TestExpiredTokenEndsTheConnectionUnlessRefreshed(t *testing.T) {
	inBubble(t, session.Limits{TokenSpread: 1}, hub.Config{}, func(t *testing.T, n *node) {
		in := func(d time.Duration) *carillon.Principal {
			p := user("alice")
			p.Expires = time.Now().Add(d)
			return p
		}
		narrow := in(2 * time.Hour)
		narrow.Permissions = &carillon.Permissions{Subscribe: []carillon.Pattern{"a.*"}}
		n.tokens["narrow"], n.tokens["bob"] = narrow, user("bob")
		c := n.connect(session.Options{Principal: in(10 * time.Minute)})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","patterns":["a.*","b.*"]}`), "welcome subscribed caught_up")
		for range 10 {
			time.Sleep(55 * time.Second)
			c.s.Post(c.s.Heard)
		}
		got := c.take(t)
		if !strings.Contains(kinds(got), "token_expiring") {
			t.Fatalf("no warning: %s", kinds(got))
		}
		want(t, c.say(t, `{"type":"refresh","token":"bob"}`), "error")
		got = c.say(t, `{"type":"refresh","token":"narrow"}`)
		want(t, got, "refreshed unsubscribed")
		if got[1].str("pattern") != "b.*" {
			t.Errorf("%v", got[1])
		}
		for range 130 {
			c.s.Post(c.s.Heard)
			time.Sleep(time.Minute)
		}
		got = c.take(t)
		if last := got[len(got)-1]; last["code"] != 4201 {
			t.Errorf("ended with %v, want close 4201", last)
		}
	})
}

func TestTooManyBadFramesClose(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		want(t, c.take(t), "welcome")
		for range 20 {
			want(t, c.say(t, `{"type":"nonsense"}`), "error")
		}
		got := c.say(t, `not json`)
		want(t, got, "error (close)")
		if got[1]["code"] != 4000 {
			t.Errorf("%v", got[1])
		}
	})
}

func TestSubscriptionsAreLimited(t *testing.T) {
	inBubble(t, session.Limits{Subscriptions: 2}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","patterns":["a","b"]}`), "welcome subscribed caught_up")
		got := c.say(t, `{"type":"subscribe","pattern":"c"}`)
		want(t, got, "error")
		if got[0].str("code") != "quota_exceeded" {
			t.Errorf("%v", got[0])
		}
	})
}

func TestSlowClientReturnsToTheLog(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{RingBytes: 1, FeedQueue: 4}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice"), Numbered: true})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","pattern":"a.*"}`), "welcome subscribed caught_up")
		c.mu.Lock()
		c.held = true
		c.mu.Unlock()
		for i := range 20 {
			n.publish("a.b", i*100, 100)
		}
		c.mu.Lock()
		c.held = false
		c.mu.Unlock()
		c.s.Post(c.Ready)
		got := c.take(t)
		if len(got) != 2000 {
			t.Fatalf("%d events, want 2000", len(got))
		}
		for i, f := range got {
			if f["payload"] != float64(i) || f["n"] != float64(i+1) {
				t.Fatalf("event %d: payload %v, n %v", i, f["payload"], f["n"])
			}
		}
	})
}

func TestDrainSaysGoawayAndClosesSpreadOverTheWindow(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		var clients []*client
		for range 20 {
			clients = append(clients, n.connect(session.Options{Principal: user("alice")}))
		}
		for _, c := range clients {
			want(t, c.take(t), "welcome")
		}
		done := make(chan error)
		go func() { done <- n.core.Drain(t.Context(), 10*time.Second, 0) }()
		for range 110 {
			time.Sleep(100 * time.Millisecond)
			for _, c := range clients {
				c.mu.Lock()
				last := c.last
				c.mu.Unlock()
				if last {
					c.s.Post(c.s.Gone)
				}
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for _, c := range clients {
			got := c.take(t)
			want(t, got, "goaway (close)")
			if got[1]["code"] != 4200 {
				t.Errorf("%v", got[1])
			}
		}
	})
}

func TestPlacesOfTheNodeAreNeverExceeded(t *testing.T) {
	const places = 5
	core := session.NewCore(session.Config{MaxConnections: places})
	for range 50 {
		var wg sync.WaitGroup
		var taken, refused atomic.Int64
		begin := make(chan struct{})
		for range 16 {
			wg.Go(func() {
				<-begin
				for range 50 {
					if core.Reserve(netip.Addr{}) != nil {
						refused.Add(1)
						continue
					}
					if n := taken.Add(1); n > places {
						t.Errorf("%d places of %d are taken", n, places)
					}
					runtime.Gosched()
					taken.Add(-1)
					core.Release(netip.Addr{})
				}
			})
		}
		before := core.Stats().Limits["connections_per_node"]
		close(begin)
		wg.Wait()
		if n := core.Stats().Limits["connections_per_node"] - before; n != uint64(refused.Load()) {
			t.Errorf("%d refusals were counted, of %d", n, refused.Load())
		}
	}
	for range places {
		if core.Reserve(netip.Addr{}) != nil {
			t.Fatal("a place was lost")
		}
	}
}

func TestPlacesOfAnAddressAreThoseOfItsHousehold(t *testing.T) {
	core := session.NewCore(session.Config{MaxPerAddress: 2})
	reserve := func(addr string) error { return core.Reserve(netip.MustParseAddr(addr)) }
	for _, addr := range []string{"192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "2001:db8::ffff:1", "192.0.2.8", "2001:db8:0:1::1"} {
		if err := reserve(addr); err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{"192.0.2.7", "::ffff:192.0.2.7", "2001:db8::2"} {
		e := carillon.AsError(reserve(addr))
		if e == nil || e.Code != carillon.CodeQuotaExceeded || e.RetryAfter == 0 || e.Limit != "connections_per_address" {
			t.Errorf("%s: %+v", addr, e)
		}
	}
	core.Release(netip.MustParseAddr("2001:db8::ffff:1"))
	if err := reserve("2001:db8::3"); err != nil {
		t.Errorf("where a place is free: %v", err)
	}
	if err := reserve("2001:db8::4"); err == nil {
		t.Error("two have the one place that was free")
	}
	for range 3 { // nobody knows who it is
		if err := core.Reserve(netip.Addr{}); err != nil {
			t.Error(err)
		}
	}
	if n := core.Stats().Limits["connections_per_address"]; n != 4 {
		t.Errorf("%d refusals were counted, want 4", n)
	}
}

func TestPollAnswersAtOnceOrWithTheFirstThatComes(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		ids := n.publish("a.b", 1, 5)
		poll := func(cursor string, limit int, wait time.Duration) chan session.PollAnswer {
			ch := make(chan session.PollAnswer, 1)
			cur, err := n.core.IDs.Org("acme").ParseCursor(cursor)
			if err != nil {
				t.Fatal(err)
			}
			n.core.Poll(session.PollOptions{Principal: user("alice"), Patterns: []carillon.Pattern{"a.*"}, Cursor: cur, Limit: limit, Wait: wait},
				func(a session.PollAnswer) { ch <- a })
			return ch
		}
		a := <-poll(ids[1], 2, 0)
		if len(a.Events) != 2 || !a.More || a.Cursor != ids[3] {
			t.Errorf("%d events, more %v, cursor %s want %s", len(a.Events), a.More, a.Cursor, ids[3])
		}
		a = <-poll(a.Cursor, 100, 25*time.Second)
		if len(a.Events) != 1 || a.More || a.Cursor != ids[4] {
			t.Errorf("%d events, more %v", len(a.Events), a.More)
		}
		began := time.Now()
		a = <-poll("", 100, 0)
		if len(a.Events) != 0 || a.Cursor != ids[4] {
			t.Errorf("first poll: %d events, cursor %s", len(a.Events), a.Cursor)
		}
		held := poll(a.Cursor, 100, 25*time.Second)
		time.Sleep(3 * time.Second)
		n.publish("a.c", 6, 1)
		a = <-held
		if len(a.Events) != 1 || time.Since(began) > 4*time.Second {
			t.Errorf("%d events after %v", len(a.Events), time.Since(began))
		}
		held = poll(a.Cursor, 100, 25*time.Second)
		b := <-held
		if len(b.Events) != 0 || b.Cursor != a.Cursor || time.Since(began) < 27*time.Second {
			t.Errorf("%d events after %v", len(b.Events), time.Since(began))
		}
	})
}

func TestAStreamWhoseSubscriptionIsRefusedEnds(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{MaxShapes: 1}, func(t *testing.T, n *node) {
		ws := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(ws)
		want(t, ws.say(t, `{"type":"subscribe","pattern":"a.*"}`), "welcome subscribed caught_up")
		stream := n.connect(session.Options{Principal: user("alice"), Format: session.SSE, Subscribe: true, Patterns: []carillon.Pattern{"*.a"}})
		defer n.gone(stream)
		if !stream.last || !strings.Contains(string(stream.raw), "event: carillon.error\ndata: {\"type\":\"error\",\"code\":\"quota_exceeded\"") {
			t.Errorf("it goes on: %t\n%s", !stream.last, stream.raw)
		}
		// One frame is taken whole or not at all, what it repeats too.
		ids := n.publish("a.b", 1, 1)
		want(t, ws.take(t), "1")
		got := ws.say(t, fmt.Sprintf(`{"type":"subscribe","patterns":["a.*","*.a"],"after":"%s"}`, ids[0]))
		want(t, got, "error")
	})
}

// TestAClientSlowToTakeItsCloseIsToldOnce holds a client while its session ends by
// the clock: every end that comes with a word says it once.
func TestAClientSlowToTakeItsCloseIsToldOnce(t *testing.T) {
	expiring := user("alice")
	for name, opt := range map[string]func() session.Options{
		"no connect in time": func() session.Options { return session.Options{} },
		"token expired": func() session.Options {
			expiring.Expires = time.Now().Add(10 * time.Second)
			return session.Options{Principal: expiring}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
				c := n.connect(opt())
				defer n.gone(c)
				c.take(t)
				c.hold(true)
				time.Sleep(3 * time.Minute)
				c.hold(false)
				got := c.take(t)
				for len(got) > 2 && got[0].kind() != "error" { // what it was sent before
					got = got[1:]
				}
				want(t, got, "error (close)")
				if got[1]["reason"] != name {
					t.Errorf("%v", got[1])
				}
			})
		})
	}
}

func TestASessionMadeOnItsShardHasBegun(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		c := &client{}
		made := make(chan struct{})
		shard := n.hub.Shards()[1]
		shard.Post(hub.TaskFunc(func() {
			defer close(made)
			c.s = n.core.NewOn(shard, session.Options{Principal: user("alice"), Conn: c})
			c.s.Receive(c.s.Read([]byte(`{"type":"subscribe","pattern":"a"}`)), func() {})
			if c.s.Shard() != shard {
				t.Error("it lives on another shard")
			}
		}))
		<-made
		defer n.gone(c)
		want(t, c.take(t), "welcome subscribed caught_up")
		n.publish("a", 1, 1)
		want(t, c.take(t), "1")
	})
}
