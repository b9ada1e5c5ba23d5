package session_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
)

// typing is an ephemeral event whose data is a number.
func typing(typ string, n int) carillon.Event {
	return carillon.Event{Type: carillon.Type(typ), Data: fmt.Append(nil, n)}
}

func about(e carillon.Event, subject string) carillon.Event { e.Subject = subject; return e }

func from(e carillon.Event, user string) carillon.Event { e.From = user; return e }

func to(e carillon.Event, users ...string) carillon.Event { e.To.Users = users; return e }

// ofEphemeral are the hub's counters of what was not given.
func (n *node) ofEphemeral() string {
	st := n.hub.Stats(n.Context())
	return fmt.Sprintf("behind %d, superseded %d, full %d", st.EphemeralBehind, st.EphemeralSuperseded, st.EphemeralFull)
}

func TestEphemeralEventsComeBetweenTheOthersWithoutAnID(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice"), Numbered: true})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","pattern":"a.*"}`), "welcome subscribed caught_up")
		n.handOn(typing("a.b", 1))
		ids := n.publish("a.b", 2, 1)
		n.handOn(typing("a.b", 3), typing("x.y", 9), typing("a.c", 4))
		got := c.take(t)
		want(t, got, "1 2 3 4")
		for i, f := range got {
			if f["n"] != float64(i+1) {
				t.Errorf("event %d has the number %v", i+1, f["n"])
			}
			if id, has := f["id"]; has != (i == 1) {
				t.Errorf("event %d has the id %v", i+1, id)
			}
		}
		time.Sleep(26 * time.Second)
		hb := c.take(t)
		want(t, hb[:1], "heartbeat")
		if hb[0].str("cursor") != ids[0] {
			t.Errorf("the cursor is %s, want that of the stored event", hb[0].str("cursor"))
		}
		if st := n.core.Stats(); st.Sent != 4 || st.Ephemeral != 3 {
			t.Errorf("%d sent, %d of them ephemeral", st.Sent, st.Ephemeral)
		}
	})
}

func TestAnEphemeralEventOfAFrameIsAnsweredWithoutAnID(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","pattern":"a.*"}`), "welcome subscribed caught_up")
		for _, f := range c.say(t, `{"type":"publish","event":{"type":"a.b","data":1,"ephemeral":true}}`) {
			switch f.kind() {
			case "published":
				if got := fmt.Sprint(f["events"]); got != "[map[duplicate:false]]" {
					t.Errorf("published %s", got)
				}
			case "event":
				if f.str("from") != "alice" || f["id"] != nil {
					t.Errorf("%v", f)
				}
			default:
				t.Errorf("%v", f)
			}
		}
	})
}

func TestEphemeralEventsGoToTheirAudience(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		frame := `{"type":"subscribe","pattern":"a.*","subject":"s"}`
		clients := map[string]*client{}
		for name, p := range map[string]*carillon.Principal{
			"alice": user("alice"), "bob": user("bob"),
			"a server": {Org: "acme", KeyID: "k"}, "another organization's": {Org: "beta", User: "bob", Role: carillon.RoleAdmin},
		} {
			clients[name] = n.connect(session.Options{Principal: p})
			defer n.gone(clients[name])
			want(t, clients[name].say(t, frame), "welcome subscribed caught_up")
		}
		for _, tc := range []struct {
			event carillon.Event
			who   string
		}{
			{about(typing("a.b", 1), "s"), "alice bob a server"},
			{typing("a.b", 2), ""},
			{about(typing("b.b", 3), "s"), ""},
			{to(about(typing("a.b", 4), "s"), "bob"), "bob"},
			{to(typing("x.y", 5), "bob", "alice", "nobody"), "alice bob"},
			{to(typing("x.y", 6), "a server", ""), ""},
			{carillon.Event{Type: "a.b", Subject: "s", Data: []byte("7"), To: carillon.Audience{Room: "ops"}}, ""},
		} {
			n.handOn(tc.event)
			for name, c := range clients {
				got := c.take(t)
				wanted := ""
				if strings.Contains(tc.who, name) {
					wanted = string(tc.event.Data)
				}
				want(t, got, wanted)
				if len(got) > 0 && (got[0]["direct"] == true) != tc.event.To.Direct() {
					t.Errorf("%v", got[0])
				}
			}
		}
	})
}

func TestAnEventThatSeveralSubscriptionsMatchIsHeardOnce(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","patterns":["a.*","a.>","*.b"]}`, `{"type":"subscribe","pattern":"a.b","subject":"s"}`),
			"welcome subscribed caught_up subscribed caught_up")
		n.handOn(about(typing("a.b", 1), "s"))
		want(t, c.take(t), "1")
		if got := n.ofEphemeral(); got != "behind 0, superseded 0, full 0" {
			t.Error(got)
		}
	})
}

func TestASlowClientGetsTheNewestOfEachTypeSubjectAndSender(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","pattern":">"}`), "welcome subscribed caught_up")
		c.hold(true)
		n.handOn(typing("a", 1), typing("b", 2), about(typing("a", 3), "s"), from(typing("a", 4), "bob"), typing("a", 5), from(typing("a", 6), "bob"))
		n.publish("a", 7, 1)
		c.hold(false)
		want(t, c.take(t), "7 2 3 5 6")
		if got := n.ofEphemeral(); got != "behind 0, superseded 2, full 0" {
			t.Error(got)
		}
	})
}

func TestASlowClientHasABoundedNumberOfEphemeralEvents(t *testing.T) {
	for name, tc := range map[string]struct {
		limit int
		want  string
	}{
		"few":                    {10 * len(bytes.Repeat([]byte("x"), 330)), "91 92 93 94 95 96 97 98 99 100"},
		"one, however large":     {1, "100"},
		"as many as are at once": {1 << 20, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, session.Limits{}, hub.Config{Ephemeral: tc.limit}, func(t *testing.T, n *node) {
				c := n.connect(session.Options{Principal: user("alice")})
				defer n.gone(c)
				want(t, c.say(t, `{"type":"subscribe","pattern":">"}`), "welcome subscribed caught_up")
				c.hold(true)
				for i := 1; i <= 100; i++ {
					n.handOn(about(typing("a", i), fmt.Sprint(i)))
				}
				c.hold(false)
				got := kinds(c.take(t))
				if tc.want == "" && len(strings.Fields(got)) == 100 {
					return
				}
				if got != tc.want {
					t.Errorf("got %s, want %s", got, tc.want)
				}
				if got, want := n.ofEphemeral(), fmt.Sprintf("behind 0, superseded 0, full %d", 100-len(strings.Fields(tc.want))); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			})
		})
	}
}

func TestAClientThatIsBehindHearsNothing(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{FeedQueue: 2}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","pattern":">"}`), "welcome subscribed caught_up")
		c.hold(true)
		n.handOn(typing("a", 101))
		n.publish("a", 1, 4)
		n.handOn(typing("a", 102))
		if got := n.ofEphemeral(); got != "behind 2, superseded 0, full 0" {
			t.Error(got)
		}
		c.hold(false)
		want(t, c.take(t), "1 2 3 4")
		n.handOn(typing("a", 103))
		want(t, c.take(t), "103")
	})
}

func TestNothingIsHeardDuringABackfill(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		ids := n.publish("a", 1, 3)
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","pattern":"b"}`), "welcome subscribed caught_up")
		c.hold(true)
		n.handOn(typing("b", 101))
		want(t, c.say(t, fmt.Sprintf(`{"type":"subscribe","pattern":"a","after":%q}`, ids[0])), "")
		n.handOn(typing("b", 102), typing("a", 103))
		c.hold(false)
		want(t, c.take(t), "subscribed 2 3 caught_up")
		n.handOn(typing("b", 104), typing("a", 105))
		want(t, c.take(t), "104 105")
	})
}

func TestNothingIsHeardBeforeTheFirstSubscribeAfterACursor(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		ids := n.publish("a", 1, 2)
		c := n.connect(session.Options{Principal: user("alice"), After: ids[0]})
		defer n.gone(c)
		n.handOn(to(typing("a", 101), "alice"))
		want(t, c.say(t, `{"type":"subscribe","patterns":[]}`), "welcome subscribed caught_up")
		n.handOn(to(typing("a", 102), "alice"))
		want(t, c.take(t), "102")
	})
}

func TestWhatIsNoLongerWantedIsNotHeard(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","patterns":["a.*","*.b"]}`), "welcome subscribed caught_up")
		c.hold(true)
		n.handOn(typing("a.a", 1), typing("a.b", 2), typing("c.b", 3))
		c.say(t, `{"type":"unsubscribe","pattern":"a.*"}`)
		c.hold(false)
		want(t, c.take(t), "unsubscribed 2 3")
		want(t, c.say(t, `{"type":"unsubscribe","pattern":"*.b"}`), "unsubscribed")
		n.handOn(typing("a.b", 4))
		want(t, c.take(t), "")
	})
}

func TestAPollIsNotAnsweredWithEphemeralEvents(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		c := n.connect(session.Options{Principal: user("alice")}) // so that the node hears them
		defer n.gone(c)
		var got *session.PollAnswer
		n.core.Poll(session.PollOptions{Principal: user("alice"), Patterns: []carillon.Pattern{">"}, Limit: 10, Wait: 25 * time.Second},
			func(a session.PollAnswer) { got = &a })
		synctest.Wait()
		n.handOn(typing("a", 1), to(typing("a", 2), "alice"))
		want(t, c.take(t), "welcome 2")
		if got != nil {
			t.Fatalf("answered with %s", got.Events)
		}
		n.publish("a", 3, 1)
		time.Sleep(10 * time.Millisecond) // it gathers
		synctest.Wait()
		if got == nil || len(got.Events) != 1 || !bytes.Contains(got.Events[0], []byte(`"payload":3`)) {
			t.Errorf("answered with %v", got)
		}
	})
}

func TestAStreamHasNoIDForEphemeralEvents(t *testing.T) {
	for _, named := range []bool{false, true} {
		inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
			opt := session.Options{Principal: user("alice"), Format: session.SSE, Subscribe: true, Patterns: []carillon.Pattern{"a"}, Named: named}
			streams := []*client{n.connect(opt), n.connect(opt)}
			for _, c := range streams {
				defer n.gone(c)
			}
			synctest.Wait()
			e := typing("a", 1)
			e.Time = time.UnixMilli(1_700_000_000_000)
			for _, c := range streams {
				c.raw = nil
			}
			n.handOn(e)
			wanted := `data: {"type":"event","event_type":"a","timestamp":"2023-11-14T22:13:20.000Z","payload":1}` + "\n\n"
			if named {
				wanted = "event: a\n" + wanted
			}
			for _, c := range streams {
				if string(c.raw) != wanted {
					t.Errorf("got %s", c.raw)
				}
			}
		})
	}
}
