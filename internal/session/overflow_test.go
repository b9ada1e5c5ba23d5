package session_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
)

// long is more than a client may leave something untaken before it is slow, brief
// is less.
const (
	long  = 300 * time.Millisecond
	brief = 200 * time.Millisecond
)

// put stores one event after the other, each written "type/subject" or
// "type/subject@user", and numbers them on from first.
func (n *node) put(first int, events ...string) {
	n.Helper()
	var batch []engine.Append
	for i, text := range events {
		text, user, direct := strings.Cut(text, "@")
		typ, subject, _ := strings.Cut(text, "/")
		e := &carillon.Event{Type: carillon.Type(typ), Subject: subject, Data: fmt.Append(nil, first+i)}
		if direct {
			e.To.Users = []string{user}
		}
		batch = append(batch, engine.Append{Event: e})
	}
	if _, err := engine.AppendWait(context.Background(), n.engine.Open("acme"), batch); err != nil {
		n.Fatal(err)
	}
	synctest.Wait()
}

// subscribed is a client with these subscriptions, each written as fields of its
// frame.
func (n *node) subscribed(fields ...string) *client {
	n.Helper()
	c := n.connect(session.Options{Principal: user("alice"), Numbered: true})
	want(n.T, c.take(n.T), "welcome")
	for _, f := range fields {
		want(n.T, c.say(n.T, `{"type":"subscribe",`+f+`}`), "subscribed caught_up")
	}
	return c
}

// late takes nothing for a while in which f happens, and then everything.
func (c *client) late(t *testing.T, d time.Duration, f func()) []frame {
	t.Helper()
	c.hold(true)
	f()
	time.Sleep(d)
	c.hold(false)
	return c.take(t)
}

func times(n int, event string) (all []string) {
	for range n {
		all = append(all, event)
	}
	return all
}

// numbers are those from first to last, as kinds writes them.
func numbers(first, last int) string {
	var all []string
	for i := first; i <= last; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return strings.Join(all, " ")
}

func TestASlowClientGetsWhatItsOverflowLeaves(t *testing.T) {
	const queue = 4
	for _, test := range []struct {
		name string
		subs []string
		put  []string
		want string
	}{
		{
			"replay: everything",
			[]string{`"pattern":"a"`},
			times(9, "a/s"), numbers(1, 9),
		},
		{
			"conflate: the newest of each subject, in the order of the log",
			[]string{`"pattern":"a","overflow":"conflate"`},
			[]string{"a/s", "a/t", "a/s", "a/u", "a/t", "a/s", "a/s", "a/u"},
			"5 7 8",
		},
		{
			"conflate: a subject is one, whatever the types",
			[]string{`"pattern":">","overflow":"conflate"`},
			[]string{"a/s", "b/s", "a/s", "a/t", "b/s", "b/t"},
			"5 6",
		},
		{
			"conflate: without a subject the newest of each type",
			[]string{`"pattern":">","overflow":"conflate"`},
			[]string{"a", "b", "a", "b/a", "a", "b", "b/a", "b"},
			"5 7 8",
		},
		{
			"conflate: of two subscriptions each keeps its own",
			[]string{`"pattern":"a","overflow":"conflate"`, `"pattern":"b","overflow":"conflate"`},
			[]string{"a/s", "b/s", "b/s", "a/s", "a/s", "b/s", "b/s"},
			"5 7",
		},
		{
			"conflate: what is the newest for one of two comes",
			[]string{`"pattern":"a","overflow":"conflate"`, `"pattern":">","overflow":"conflate"`},
			[]string{"a/s", "a/s", "b/s", "b/s", "b/s", "b/s"},
			"2 6",
		},
		{
			"drop_oldest: as many as the queue holds",
			[]string{`"pattern":"a","overflow":"drop_oldest"`},
			times(50, "a"), numbers(47, 50),
		},
		{
			"drop_oldest: of all its subscriptions together",
			[]string{`"pattern":"a","overflow":"drop_oldest"`, `"pattern":"b","overflow":"drop_oldest"`},
			append(times(9, "a"), "b", "b", "b"), numbers(9, 12),
		},
		{
			"disconnect: as many as the queue holds may wait",
			[]string{`"pattern":"a","overflow":"disconnect"`},
			times(4, "a"), numbers(1, 4),
		},
		{
			"disconnect: not one more",
			[]string{`"pattern":"a","overflow":"disconnect"`},
			times(5, "a"), "error (close)",
		},
		{
			"disconnect: others do not count",
			[]string{`"pattern":"a","overflow":"disconnect"`, `"pattern":"b"`},
			append(times(9, "b"), "a", "a", "a", "a"), numbers(1, 13),
		},
		{
			"disconnect: nor what is left out",
			[]string{`"pattern":"a","overflow":"disconnect"`, `"pattern":"b","overflow":"conflate"`},
			append(times(9, "b"), "a", "a", "a", "a"), numbers(9, 13),
		},
		{
			"replay is more careful than conflate",
			[]string{`"pattern":"a.*","overflow":"conflate"`, `"pattern":"a.b"`},
			[]string{"a.b/s", "a.c/s", "a.b/s", "a.c/s", "a.c/s", "a.b/s", "a.c/s"},
			"1 3 6 7",
		},
		{
			"what comes anyhow is the newest too",
			[]string{`"pattern":"a.*","overflow":"conflate"`, `"pattern":"a.b"`},
			[]string{"a.c/s", "a.c/s", "a.c/s", "a.c/s", "a.b/s"},
			"5",
		},
		{
			"replay is more careful than drop_oldest and disconnect",
			[]string{`"pattern":">","overflow":"disconnect"`, `"pattern":"a","overflow":"drop_oldest"`, `"pattern":"*"`},
			times(20, "a"), numbers(1, 20),
		},
		{
			"replay is more careful than disconnect, whichever is wider",
			[]string{`"pattern":">","overflow":"disconnect"`, `"pattern":"a"`, `"pattern":"b","overflow":"disconnect"`, `"pattern":"*"`},
			append(times(20, "a"), times(20, "b")...), numbers(1, 40),
		},
		{
			"conflate is more careful than drop_oldest",
			[]string{`"pattern":">","overflow":"drop_oldest"`, `"pattern":"a","overflow":"conflate"`},
			append([]string{"a/s", "a/t"}, times(8, "b")...), "1 2 " + numbers(7, 10),
		},
		{
			"conflate is more careful than disconnect",
			[]string{`"pattern":">","overflow":"disconnect"`, `"pattern":"a","overflow":"conflate"`},
			times(20, "a/s"), "20",
		},
		{
			"drop_oldest is more careful than disconnect",
			[]string{`"pattern":">","overflow":"disconnect"`, `"pattern":"a","overflow":"drop_oldest"`},
			times(20, "a"), numbers(17, 20),
		},
		{
			"what is for a user by name always comes",
			[]string{`"pattern":">","overflow":"conflate"`},
			append(times(6, "a/s"), "a/s@alice", "a/s@alice", "a/s@bob", "a/s", "a/s"), "7 8 11",
		},
		{
			"a subscription to one subject has its own",
			[]string{`"pattern":"a","subject":"s"`, `"pattern":"a","overflow":"conflate"`},
			[]string{"a/s", "a/t", "a/s", "a/t", "a/s", "a/t"},
			"1 3 5 6",
		},
	} {
		for _, where := range []struct {
			name string
			more int // entries of others behind them, so that they are read from the log
		}{{"from the ring", 0}, {"from the log", 1200}} {
			t.Run(test.name+", "+where.name, func(t *testing.T) {
				inBubble(t, session.Limits{}, hub.Config{RingBytes: 1, FeedQueue: queue}, func(t *testing.T, n *node) {
					c := n.subscribed(test.subs...)
					defer n.gone(c)
					got := c.late(t, long, func() {
						n.put(1, test.put...)
						n.put(1, times(where.more, "a/s@bob")...)
					})
					want(t, got, test.want)
					for i, f := range got {
						if f.kind() == "event" && f["n"] != float64(i+1) {
							t.Errorf("event %d has the number %v", i+1, f["n"])
						}
					}
				})
			})
		}
	}
}

func TestTooSlowForDisconnectIsSaidAndCloses4102(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
		c := n.subscribed(`"pattern":"a","overflow":"disconnect"`)
		defer n.gone(c)
		got := c.late(t, long, func() { n.put(1, times(5, "a")...) })
		want(t, got, "error (close)")
		if got[0].str("code") != "quota_exceeded" || got[1]["code"] != 4102 {
			t.Errorf("%v", got)
		}
		if n := n.core.Stats().Closes[4102]; n != 1 {
			t.Errorf("counted %d times", n)
		}
	})
}

// However much is published at once, and also if a client pauses for a moment.
func TestAClientThatKeepsUpGetsEveryEventUnderEveryOverflow(t *testing.T) {
	for _, policy := range []string{"replay", "conflate", "drop_oldest", "disconnect"} {
		t.Run(policy, func(t *testing.T) {
			inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
				c := n.subscribed(`"pattern":"a","overflow":"` + policy + `"`)
				defer n.gone(c)
				n.put(1, times(1000, "a/s")...)
				want(t, c.take(t), numbers(1, 1000))
				for i := range 5 {
					want(t, c.late(t, brief, func() { n.put(1, times(100, "a/s")...) }), numbers(1, 100))
					want(t, c.late(t, brief, func() { n.put(1, "a/s") }), "1")
					want(t, c.late(t, brief, func() { n.put(1, times(100, "a/s")...) }), numbers(1, 100))
					n.put(1, "a/s")
					want(t, c.take(t), "1")
					time.Sleep(long)
					n.put(1, times(1000+i, "a/s")...)
					want(t, c.take(t), numbers(1, 1000+i))
				}
			})
		})
	}
}

func TestAClientThatHasCaughtUpIsSlowNoMore(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
		c := n.subscribed(`"pattern":"a","overflow":"conflate"`)
		defer n.gone(c)
		for range 3 {
			want(t, c.late(t, long, func() { n.put(1, times(9, "a/s")...) }), "9")
			n.put(1, times(1000, "a/s")...)
			want(t, c.take(t), numbers(1, 1000))
			c.hold(true)
			n.put(1, times(9, "a/s")...)
			time.Sleep(long)
			c.pull(t, 64<<10)
			n.put(1, times(100, "a/s")...)
			c.hold(false)
			want(t, c.take(t), "9 "+numbers(1, 100))
		}
	})
}

func TestEachTurnOfASlowClientCountsFromTheFirst(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
		c := n.subscribed(`"pattern":"a","overflow":"conflate"`)
		defer n.gone(c)
		got := c.late(t, brief, func() {
			n.put(1, times(9, "a/s")...)
			time.Sleep(brief)
			c.say(t, `{"type":"ping"}`)
		})
		want(t, got, "pong 9")
	})
}

func TestWhatWasNotedOfALogSaysNothingOfAnother(t *testing.T) {
	for _, policy := range []string{"conflate", "drop_oldest", "disconnect"} {
		t.Run(policy, func(t *testing.T) {
			inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
				c := n.subscribed(`"pattern":"a","overflow":"` + policy + `"`)
				defer n.gone(c)
				got := c.late(t, long, func() {
					n.put(1, times(20, "a/s")...)
					time.Sleep(long)
					n.engine.Recreate(n.engine.Open("acme").Partition())
					time.Sleep(5 * time.Second)
					n.put(1, "a/s", "a/t", "a/u")
				})
				want(t, got, "gap 1 2 3")
			})
		})
	}
}

func TestASlowClientThatComesIntoTheRingIsStillSlow(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{RingBytes: 1, FeedQueue: 4}, func(t *testing.T, n *node) {
		c := n.subscribed(`"pattern":"a","overflow":"conflate"`)
		defer n.gone(c)
		got := c.late(t, long, func() {
			n.put(1, times(9, "a/s")...)
			n.put(1, times(1200, "b")...)
			n.put(10, times(3, "a/s")...)
		})
		want(t, got, "12")
	})
}

func TestWhatIsAskedForWithACursorComesWhole(t *testing.T) {
	for _, policy := range []string{"conflate", "drop_oldest", "disconnect"} {
		t.Run(policy, func(t *testing.T) {
			inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
				n.put(1, times(20, "a/s")...)
				sub := `{"type":"subscribe","pattern":"a","overflow":"` + policy + `"`
				handshake := n.connect(session.Options{Principal: user("alice"), After: "earliest"})
				frame := n.connect(session.Options{Principal: user("alice")})
				again := n.subscribed(`"pattern":"a","overflow":"` + policy + `"`)
				behind := n.subscribed(`"pattern":"b","overflow":"` + policy + `"`)
				want(t, append(handshake.take(t), frame.take(t)...), "welcome welcome")
				for _, c := range []*client{handshake, frame, again, behind} {
					defer n.gone(c)
					c.hold(true)
				}
				n.put(21, times(20, "a/s")...)
				n.put(1, times(20, "b/s")...)
				time.Sleep(long)
				handshake.say(t, sub+`}`)
				for _, c := range []*client{frame, again, behind} {
					c.say(t, sub+`,"after":"earliest"}`)
				}
				n.put(41, times(20, "a/s")...)
				time.Sleep(long)
				for i, c := range []*client{handshake, frame, again, behind} {
					c.hold(false)
					got := kinds(c.take(t))
					if i == 3 { // what b brings comes with it
						got = strings.Replace(got, " "+numbers(1, 20)+" caught_up", " caught_up", 1)
					}
					if want := "subscribed " + numbers(1, 40) + " caught_up " + numbers(41, 60); got != want {
						t.Errorf("client %d: got  %s\nwant %s", i, got, want)
					}
				}
			})
		})
	}
}

// A client that never comes to the end of what it asked for is slow from
// caught_up on.
func TestAClientThatStaysBehindIsSlowOnceItHasCaughtUp(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
		n.put(1, times(3, "a/s")...)
		c := n.connect(session.Options{Principal: user("alice"), After: "earliest"})
		defer n.gone(c)
		want(t, c.say(t, `{"type":"subscribe","patterns":[]}`), "welcome subscribed caught_up")
		c.hold(true)
		c.say(t, `{"type":"subscribe","pattern":"a","after":"earliest","overflow":"conflate"}`)
		n.put(4, times(40, "a/s")...)
		time.Sleep(long)
		c.pull(t, 600) // to caught_up and somewhat further
		n.put(44, times(40, "a/s")...)
		time.Sleep(long)
		c.hold(false)
		got := kinds(c.take(t))
		if !strings.HasPrefix(got, "subscribed 1 2 3 caught_up 4 ") || !strings.HasSuffix(got, " 83") || strings.Contains(got, " 82 ") {
			t.Fatalf("got %s", got)
		}
	})
}

func TestAResumeAfterEventsWereLeftOutIsWithoutGapOrRepeat(t *testing.T) {
	for policy, left := range map[string][]string{"conflate": {"38", "39", "40"}, "drop_oldest": {"37", "38", "39", "40"}} {
		t.Run(policy, func(t *testing.T) {
			inBubble(t, session.Limits{MaxIdle: time.Second, DeadAfter: time.Hour}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
				sub := `"pattern":"a","overflow":"` + policy + `"`
				c := n.subscribed(sub)
				c.hold(true)
				for i := range 40 {
					n.put(i+1, "a/"+string("stu"[i%3]))
				}
				time.Sleep(long)
				for i := range left {
					c.pull(t, 1)
					got := c.take(t)
					want(t, got, left[i])
					time.Sleep(2 * time.Second)
					c.pull(t, 1)
					cursor := ""
					for _, f := range c.take(t) {
						if f.kind() == "heartbeat" {
							cursor = f.str("cursor")
						}
					}
					if cursor != got[0].str("id") {
						t.Fatalf("after %v: a heartbeat with %q", got[0], cursor)
					}
					again := n.connect(session.Options{Principal: user("alice"), After: cursor})
					want(t, again.say(t, `{"type":"subscribe",`+sub+`}`), strings.Join(append(append([]string{"welcome subscribed"}, left[i+1:]...), "caught_up"), " "))
					n.gone(again)
				}
				n.gone(c)
			})
		})
	}
}

func TestSubscribingAgainReplacesTheOverflowWithoutReplay(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
		c := n.subscribed(`"pattern":"a","overflow":"conflate"`)
		defer n.gone(c)
		for _, step := range []struct{ fields, want string }{
			{`"pattern":"a"`, numbers(1, 9)},
			{`"pattern":"a","overflow":"conflate"`, "9"},
			{`"pattern":"a","overflow":"drop_oldest"`, numbers(6, 9)},
			{`"pattern":"a","overflow":"conflate"`, "9"},
			{`"pattern":"a","overflow":"conflate"`, "9"},
			{`"pattern":"a","overflow":"disconnect"`, "error (close)"},
		} {
			want(t, c.say(t, `{"type":"subscribe",`+step.fields+`}`), "subscribed")
			want(t, c.late(t, long, func() { n.put(1, times(9, "a/s")...) }), step.want)
		}
	})
}

func TestWithAnotherOverflowTheServerBeginsAnew(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
		c := n.subscribed(`"pattern":"a","overflow":"drop_oldest"`)
		defer n.gone(c)
		got := c.late(t, long, func() {
			n.put(1, times(9, "a")...)
			time.Sleep(long)
			c.say(t, `{"type":"subscribe","pattern":"a","overflow":"disconnect"}`, `{"type":"subscribe","pattern":"a","overflow":"drop_oldest"}`)
			n.put(10, "a", "a")
		})
		want(t, got, "subscribed subscribed "+numbers(1, 11))
	})
}

func TestABackfillBringsWhatWasLeftOut(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
		c := n.subscribed(`"pattern":"a","overflow":"conflate"`)
		defer n.gone(c)
		want(t, c.late(t, long, func() { n.put(1, times(9, "a/s")...) }), "9")
		n.put(10, "a/s")
		want(t, c.take(t), "10")
		// What came since then is not repeated.
		want(t, c.say(t, `{"type":"subscribe","pattern":"*","after":"earliest"}`), "subscribed "+numbers(1, 8)+" caught_up")
	})
}

func TestOfMoreSubjectsThanAreKnownEveryEventComes(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4, Conflated: 2}, func(t *testing.T, n *node) {
		c := n.subscribed(`"pattern":"a","overflow":"conflate"`)
		defer n.gone(c)
		got := c.late(t, long, func() { n.put(1, "a/s", "a/t", "a/u", "a/s", "a/t", "a/u", "a/s", "a/t", "a/u") })
		want(t, got, "3 6 7 8 9")
		if st := n.hub.Stats(t.Context()); st.TooManySubjects != 3 || st.Conflated != 4 {
			t.Errorf("counted %d beyond the limit and %d left out, want 3 and 4", st.TooManySubjects, st.Conflated)
		}
	})
}

func TestASubjectThatHasComeMakesRoomForAnother(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4, Conflated: 2}, func(t *testing.T, n *node) {
		c := n.subscribed(`"pattern":"a","overflow":"conflate"`)
		defer n.gone(c)
		c.hold(true)
		n.put(1, "a/s", "a/t", "a/s", "a/t", "a/s", "a/t")
		time.Sleep(long)
		c.pull(t, 1)
		c.pull(t, 1)
		want(t, c.take(t), "5 6")
		n.put(7, "a/u", "a/u", "a/v", "a/v", "a/u", "a/v")
		c.hold(false)
		want(t, c.take(t), "11 12")
	})
}

func TestWhatIsLeftOutIsCounted(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{FeedQueue: 4}, func(t *testing.T, n *node) {
		c := n.subscribed(`"pattern":"a","overflow":"conflate"`, `"pattern":"b","overflow":"drop_oldest"`)
		defer n.gone(c)
		c.late(t, long, func() { n.put(1, append(times(10, "a/s"), times(7, "b/s")...)...) })
		if st := n.hub.Stats(t.Context()); st.Conflated != 9 || st.DroppedOldest != 3 {
			t.Errorf("counted %d and %d, want 9 and 3", st.Conflated, st.DroppedOldest)
		}
	})
}
