package session_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
)

func TestATokenThatTakesLongHoldsUpNobody(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		n.asked = map[string]func(*carillon.Principal, error){"slow": nil, "never": nil}
		c := n.connect(session.Options{})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"connect","token":"slow"}`, `{"type":"ping"}`, `{"type":"subscribe","pattern":"a"}`), "")
		for range 4 { // on every shard
			other := n.connect(session.Options{Principal: user("bob")})
			want(t, other.say(t, `{"type":"ping"}`), "welcome pong")
			defer n.gone(other)
		}
		n.asked["slow"](user("alice"), nil)
		want(t, c.take(t), "welcome pong subscribed caught_up")

		want(t, c.say(t, `{"type":"refresh","token":"never"}`, `{"type":"ping"}`), "")
		n.publish("a", 1, 1)
		want(t, c.take(t), "1") // events go on
		n.asked["never"](nil, carillon.Unavailable(time.Second, nil, "the keys have not come"))
		got := c.take(t)
		want(t, got, "error pong")
		if got[0].str("code") != "unavailable" {
			t.Errorf("%v", got[0])
		}
	})
}

func TestATokenThatCannotBeJudgedIsNotABadOne(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		n.asked = map[string]func(*carillon.Principal, error){"slow": nil}
		c := n.connect(session.Options{})
		defer n.gone(c)
		c.say(t, `{"type":"connect","token":"slow"}`)
		n.asked["slow"](nil, carillon.Unavailable(time.Second, nil, "the keys have not come"))
		got := c.take(t)
		want(t, got, "error (close)")
		if got[0].str("code") != "unavailable" || got[0]["retry_after_ms"] != 1000.0 || got[1]["code"] != 4103 {
			t.Errorf("%v: the client must come back", got)
		}
	})
}

func TestTokensMadeTogetherDoNotEndTogether(t *testing.T) {
	patient := session.Limits{MaxIdle: 3 * time.Hour, DeadAfter: 4 * time.Hour}
	inBubble(t, patient, hub.Config{}, func(t *testing.T, n *node) {
		expires := time.Now().Add(time.Hour)
		const clients = 40
		var all []*client
		for range clients {
			p := user("alice")
			p.Expires = expires
			c := n.connect(session.Options{Principal: p})
			defer n.gone(c)
			all = append(all, c)
		}
		closed := 0
		look := func() {
			for i, c := range all {
				if c == nil {
					continue
				}
				for _, f := range c.take(t) {
					if f.kind() == "(close)" {
						if f["code"] != 4201 {
							t.Errorf("closed with %v", f)
						}
						closed++
						all[i] = nil
					}
				}
			}
		}
		time.Sleep(59*time.Minute - time.Second)
		look()
		if closed != 0 {
			t.Errorf("%d were closed more than a minute before their token ended", closed)
		}
		var at []int
		for range 4 {
			time.Sleep(15 * time.Second)
			look()
			at = append(at, closed)
		}
		if at[0] == 0 || at[0] == clients || at[1] == clients {
			t.Errorf("closed after each quarter of the last minute: %v", at)
		}
		time.Sleep(2 * time.Second) // a timer is late by a tick
		look()
		if closed != clients {
			t.Errorf("%d of %d were closed when their tokens ended", closed, clients)
		}
	})
}

func TestAShortTokenIsNotCutMuchShorter(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		for i := range 20 {
			p := user("alice")
			p.Expires = time.Now().Add(10 * time.Second)
			c := n.connect(session.Options{Principal: p})
			time.Sleep(9*time.Second - time.Millisecond)
			for _, f := range c.take(t) {
				if f.kind() == "(close)" {
					t.Errorf("%d: ended more than a tenth before its token", i)
				}
			}
			n.gone(c)
		}
	})
}

func TestARefreshSaysHowLongTheConnectionLasts(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		p := user("alice")
		p.Expires = time.Now().Add(time.Hour)
		n.tokens["next"] = p
		c := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(c)
		c.take(t)
		got := c.say(t, `{"type":"refresh","token":"next"}`)
		want(t, got, "refreshed")
		if in, _ := got[0]["expires_in"].(float64); in < 3539 || in > 3600 {
			t.Errorf("expires_in is %v", got[0]["expires_in"])
		}
	})
}

func TestARefreshEndsAReplayThatTheNewTokenDoesNotCover(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		narrow := user("alice")
		narrow.Permissions = &carillon.Permissions{Subscribe: []carillon.Pattern{"a.*"}}
		n.tokens["narrow"] = narrow
		for i := range 50 {
			n.publish("a.x", i, 1)
			n.publish("b.x", 1000+i, 1)
		}
		c := n.connect(session.Options{Principal: user("alice"), After: "earliest"})
		defer n.gone(c)
		c.take(t)
		hold := func(held bool) {
			c.mu.Lock()
			c.held = held
			c.mu.Unlock()
		}
		hold(true)
		c.say(t, `{"type":"subscribe","patterns":["a.*","b.*"]}`, `{"type":"refresh","token":"narrow"}`)
		n.publish("b.x", 2000, 1)
		hold(false)
		c.s.Post(c.Ready)
		replayed := make([]string, 50)
		for i := range replayed {
			replayed[i] = fmt.Sprint(i)
		}
		want(t, c.take(t), "subscribed refreshed unsubscribed "+strings.Join(replayed, " ")+" caught_up")
		got := c.say(t, `{"type":"subscribe","pattern":"b.x","after":"earliest"}`)
		if kinds(got) != "error" || got[0].str("code") != "forbidden" {
			t.Errorf("a replay that the current token does not cover: %v", got)
		}
	})
}
