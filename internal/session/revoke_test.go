package session_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
)

func TestWhoMayNotBeHereAnyMoreIsToldWhyAndSentAway(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		var disabled atomic.Bool
		n.core.Allowed = func(p *carillon.Principal) error {
			if disabled.Load() && p.Org == "acme" {
				return carillon.Errorf(carillon.CodeForbidden, "this organization is disabled")
			}
			return nil
		}
		alice := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(alice)
		other := n.connect(session.Options{Principal: &carillon.Principal{Org: "other", User: "bob"}})
		defer n.gone(other)
		nobody := n.connect(session.Options{})
		defer n.gone(nobody)
		want(t, alice.take(t), "welcome")
		want(t, other.take(t), "welcome")
		var polled session.PollAnswer
		n.core.Poll(session.PollOptions{Principal: user("alice"), Limit: 1, Wait: time.Hour}, func(a session.PollAnswer) { polled = a })
		synctest.Wait()

		n.core.Revoke("acme") // nothing has changed yet
		want(t, alice.take(t), "")

		disabled.Store(true)
		n.core.Revoke("acme")
		got := alice.take(t)
		want(t, got, "error (close)")
		if got[0].str("code") != "forbidden" || got[1]["code"] != 4003 {
			t.Errorf("%v", got)
		}
		if polled.Err == nil || carillon.AsError(polled.Err).Code != carillon.CodeForbidden {
			t.Errorf("the poll: %+v", polled)
		}
		want(t, other.take(t), "")
		want(t, nobody.take(t), "")

		// Who was verified before and comes in after is not overlooked.
		late := n.connect(session.Options{Principal: user("alice")})
		defer n.gone(late)
		want(t, late.take(t), "error (close)")
		n.tokens["t"] = user("alice")
		want(t, nobody.say(t, `{"type":"connect","token":"t"}`), "error (close)")
		n.core.Poll(session.PollOptions{Principal: user("alice"), Limit: 1, Wait: time.Hour}, func(a session.PollAnswer) { polled = a })
		synctest.Wait()
		if carillon.AsError(polled.Err).Code != carillon.CodeForbidden {
			t.Errorf("the poll that came later: %+v", polled)
		}
	})
}
