package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/wire"
)

// polled is what became of a poll, as far as look has seen.
type polled struct {
	session.PollAnswer

	times int
	after time.Duration // it was asked
	poll  *session.Poll
	ended chan func(*polled)
}

func (p *polled) look() *polled {
	for {
		select {
		case end := <-p.ended:
			end(p)
		default:
			return p
		}
	}
}

// data is that of the events.
func (p *polled) data() string {
	var all []string
	for _, e := range p.Events {
		_, rest, _ := bytes.Cut(e, []byte(`"payload":`))
		d, _, _ := bytes.Cut(rest, []byte("}"))
		d, _, _ = bytes.Cut(d, []byte(","))
		all = append(all, string(d))
	}
	return strings.Join(all, " ")
}

// poll asks for a.* as alice, with changes.
func (n *node) poll(cursor string, wait time.Duration, change ...func(*session.PollOptions)) *polled {
	n.Helper()
	at, err := n.core.IDs.Org("acme").ParseCursor(cursor)
	if err != nil {
		n.Fatal(err)
	}
	opt := session.PollOptions{Principal: user("alice"), Patterns: []carillon.Pattern{"a.*"}, Cursor: at, Limit: 100, Wait: wait}
	for _, f := range change {
		f(&opt)
	}
	p, asked := &polled{ended: make(chan func(*polled), 10)}, time.Now()
	p.poll = n.core.Poll(opt, func(a session.PollAnswer) {
		after := time.Since(asked)
		p.ended <- func(p *polled) { p.PollAnswer, p.times, p.after = a, p.times+1, after }
	})
	synctest.Wait()
	return p.look()
}

// pass lets time go on.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// answered fails unless the poll was answered with these data, so long after it was
// asked.
func (n *node) answered(what string, p *polled, data string, after time.Duration) {
	n.Helper()
	if p.look(); p.times != 1 || p.Err != nil || p.Gap != nil || p.data() != data || p.after != after {
		n.Fatalf("%s: answered %d times, after %s with %q, %s, %v; want %q after %s", what, p.times, p.after, p.data(), p.Gap, p.Err, data, after)
	}
}

const (
	gather = 10 * time.Millisecond
	linger = 2 * time.Second
	hour   = time.Hour
)

func TestAPollThatWaitsGathersForAMoment(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		held := n.poll("", hour)
		pass(time.Second)
		n.publish("a.b", 1, 1)
		pass(9 * time.Millisecond)
		n.publish("a.b", 2, 2)
		if held.look().times != 0 {
			t.Fatal("it is answered too early")
		}
		pass(time.Millisecond)
		n.answered("from the first on", held, "1 2 3", time.Second+gather)
		n.publish("a.b", 4, 1)
		pass(3 * time.Millisecond)
		held = n.poll(held.Cursor, hour)
		pass(time.Second)
		n.answered("from when one was due before it was asked", held, "4", gather-3*time.Millisecond)
		n.publish("a.b", 5, 1)
		pass(gather)
		held = n.poll(held.Cursor, hour)
		n.answered("when one was due for so long", held, "5", 0)

		// What was due before the poll had waited says nothing of what comes later.
		held = n.poll(held.Cursor, hour)
		pass(time.Second)
		n.publish("a.b", 6, 1)
		pass(gather)
		n.answered("again", held, "6", time.Second+gather)
	})
}

func TestWhatIsNotGathered(t *testing.T) {
	inBubble(t, session.Limits{PollBytes: 250}, hub.Config{}, func(t *testing.T, n *node) {
		two := func(o *session.PollOptions) { o.Limit = 2 }
		ids := n.publish("a.b", 1, 1)
		n.answered("for a poll that does not wait", n.poll("earliest", 0), "1", 0)
		n.answered("what was there when it came", n.poll("earliest", hour, two), "1", 0)
		held := n.poll(ids[0], hour, two)
		n.publish("a.b", 2, 2)
		n.answered("when no more has room", held, "2 3", 0)
		held = n.poll(held.Cursor, hour)
		n.publish("a.b", 4, 5)
		if held.look(); held.times != 1 || held.after != 0 || len(held.Events) == 0 || len(held.Events) == 5 || !held.More {
			t.Errorf("when the bytes have none: %d times, %d events after %s, more: %t", held.times, len(held.Events), held.after, held.More)
		}
		for _, wait := range []time.Duration{0, hour} {
			if gap := n.poll(strings.Repeat("0", 26), wait); gap.times != 1 || gap.after != 0 || gap.Gap == nil {
				t.Errorf("a gap: %d times after %s, %s", gap.times, gap.after, gap.Gap)
			}
		}
		held = n.poll(n.poll("now", 0).Cursor, 5*time.Millisecond)
		n.publish("a.b", 9, 1)
		pass(time.Second)
		if held.look(); held.data() != "9" || held.after > gather {
			t.Errorf("beyond the wait: %q after %s", held.data(), held.after)
		}
	})
}

func TestWithoutGatheringAPollAnswersAtOnce(t *testing.T) {
	inBubble(t, session.Limits{PollGather: -1}, hub.Config{}, func(t *testing.T, n *node) {
		held := n.poll("", hour)
		n.publish("a.b", 1, 1)
		n.answered("the first", held, "1", 0)
		held = n.poll(held.Cursor, hour)
		n.publish("a.b", 2, 1)
		n.answered("the next", held, "2", 0)
	})
}

// attached fails unless so many polls went on with a feed, and so many feeds wait.
func (n *node) attached(what string, attached uint64, lingering int) {
	n.Helper()
	if st := n.core.Stats(); st.Attached != attached || st.Lingering != lingering {
		n.Fatalf("%s: %d went on with a feed and %d wait, want %d and %d", what, st.Attached, st.Lingering, attached, lingering)
	}
}

func TestTheNextPollGoesOnWithTheFeed(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		p := n.poll("", 0)
		n.attached("after the first", 0, 1)
		n.publish("a.b", 1, 3)
		n.publish("b.c", 4, 1)
		pass(linger / 2)
		p = n.poll(p.Cursor, 0)
		n.answered("the second", p, "1 2 3", 0)
		n.attached("after the second", 1, 1)
		before := p.Cursor
		p = n.poll(p.Cursor, hour)
		n.attached("while it waits", 2, 0)
		pass(3 * linger)
		n.publish("a.b", 5, 1)
		pass(gather)
		n.answered("which waited", p, "5", 3*linger+gather)
		n.attached("after it", 2, 1)
		n.answered("the one before, once more", n.poll(before, 0), "5", 0)
		n.attached("after that", 2, 2)
		n.answered("of two with the same cursor the one", n.poll(p.Cursor, 0), "", 0)
		n.answered("and the other", n.poll(p.Cursor, 0), "", 0)
		n.attached("both", 4, 2)
		pass(linger + time.Second)
		n.attached("at last", 4, 0)
		n.publish("a.b", 6, 1)
		n.answered("one that comes too late", n.poll(p.Cursor, 0), "6", 0)
		n.attached("too late", 4, 1)
	})
}

func TestAFeedThatHasMoreThanAnAnswerTakesKeepsIt(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		two := func(o *session.PollOptions) { o.Limit = 2 }
		p := n.poll("", hour, two)
		n.publish("a.b", 1, 5)
		n.answered("the first page", p, "1 2", 0)
		pass(gather)
		for _, page := range []string{"3 4", "5"} {
			p = n.poll(p.Cursor, hour, two)
			n.answered("a page", p, page, 0)
		}
		n.attached("all", 2, 1)
		if p.More {
			t.Error("there is more after the last")
		}
		p = n.poll("earliest", 0, two)
		n.answered("the first page of history", p, "1 2", 0)
		n.attached("what has not looked at all there was", 2, 1)
	})
}

func TestWhoDoesNotGoOnWithAFeed(t *testing.T) {
	for name, change := range map[string]func(*session.PollOptions){
		"another user":                    func(o *session.PollOptions) { o.Principal = user("bob") },
		"a server":                        func(o *session.PollOptions) { o.Principal = &carillon.Principal{Org: "acme", Role: carillon.RoleAdmin} },
		"another organization's":          func(o *session.PollOptions) { o.Principal = &carillon.Principal{Org: "other", User: "alice"} },
		"for another pattern":             func(o *session.PollOptions) { o.Patterns = []carillon.Pattern{"a.b"} },
		"for more patterns":               func(o *session.PollOptions) { o.Patterns = append(o.Patterns, "b") },
		"for fewer":                       func(o *session.PollOptions) { o.Patterns = nil },
		"from now":                        func(o *session.PollOptions) { o.Cursor = carillon.Cursor{} },
		"from elsewhere":                  func(o *session.PollOptions) { o.Cursor.Pos.Seq-- },
		"from what another log has there": func(o *session.PollOptions) { o.Cursor.Pos.Check++ },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
				n.publish("a.b", 1, 3)
				p := n.poll("earliest", 0)
				n.poll(p.Cursor, 0, change)
				n.attached("who comes", 0, 2)
				n.poll(p.Cursor, 0)
				n.attached("who is meant", 1, 2)
			})
		})
	}
}

func TestWhoComesBackIsAskedAnew(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		gone := atomic.Bool{}
		n.core.Allowed = func(*carillon.Principal) error {
			if gone.Load() {
				return errors.New("gone")
			}
			return nil
		}
		first := n.poll("", 0)
		n.publish("a.b", 1, 1)
		p := n.poll(first.Cursor, 0, func(o *session.PollOptions) {
			o.Principal = &carillon.Principal{Org: "acme", User: "alice", Permissions: &carillon.Permissions{Subscribe: []carillon.Pattern{"b"}}}
		})
		if p.times != 1 || carillon.AsError(p.Err).Code != carillon.CodeForbidden || p.Events != nil {
			t.Errorf("with a token that covers less: %d times, %v, %s", p.times, p.Err, p.data())
		}
		n.attached("who has a token that covers less", 0, 0)
		first = n.poll("", 0)
		n.publish("a.b", 2, 1)
		gone.Store(true)
		if p = n.poll(first.Cursor, 0); p.Err == nil || p.Events != nil {
			t.Errorf("who is not allowed any more: %v, %s", p.Err, p.data())
		}
		gone.Store(false)
		n.poll("", 0)
		n.attached("a feed", 0, 1)
		n.core.Revoke("other")
		synctest.Wait()
		n.attached("a feed when another organization goes", 0, 1)
		gone.Store(true)
		n.core.Revoke("acme")
		synctest.Wait()
		n.attached("a feed of who is not allowed any more", 0, 0)
	})
}

func TestAPollOnAFeedEndsWithItsOwnToken(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		until := func(d time.Duration) func(*session.PollOptions) {
			p := user("alice")
			p.Expires = time.Now().Add(d)
			return func(o *session.PollOptions) { o.Principal = p }
		}
		p := n.poll("", 0, until(hour))
		p = n.poll(p.Cursor, hour, until(time.Minute))
		n.attached("the second", 1, 0)
		pass(2 * time.Minute)
		if p.look(); p.times != 1 || p.after < time.Minute || p.after > time.Minute+time.Second {
			t.Errorf("it ended %d times, after %s", p.times, p.after)
		}
	})
}

func TestFeedsThatWaitForAPollAreBounded(t *testing.T) {
	inBubble(t, session.Limits{PollSessions: 2}, hub.Config{}, func(t *testing.T, n *node) {
		var last *polled
		for i := range 5 {
			last = n.poll("", 0, func(o *session.PollOptions) { o.Principal = user(fmt.Sprint(i)) })
		}
		n.attached("five feeds", 0, 2)
		if met := n.core.Stats().Limits["poll_sessions"]; met != 3 {
			t.Errorf("the limit was met %d times", met)
		}
		n.publish("a.b", 1, 1)
		n.answered("who has none", n.poll(last.Cursor, 0), "1", 0)
		pass(linger + time.Second)
		n.poll("", 0)
		n.attached("when they are gone", 0, 1)
	})
	inBubble(t, session.Limits{PollLinger: -1}, hub.Config{}, func(t *testing.T, n *node) {
		p := n.poll("", 0)
		n.attached("where none waits", 0, 0)
		n.poll(p.Cursor, 0)
		n.attached("where none waited", 0, 0)
	})
}

func TestADrainEndsPollsAndFeedsAtOnce(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		p := n.poll("", 0)
		held := n.poll("", hour)
		gathers := n.poll("", hour)
		n.publish("a.b", 1, 1)
		n.attached("before", 0, 1)
		began := time.Now()
		if err := n.core.Drain(t.Context(), 0, 0); err != nil || time.Since(began) > 0 {
			t.Fatalf("%v after %s", err, time.Since(began))
		}
		synctest.Wait()
		n.attached("after", 0, 0)
		n.answered("one that waits", held, "1", 0)
		n.answered("one that gathers", gathers, "1", 0)
		p = n.poll(p.Cursor, hour)
		n.answered("one that comes late", p, "1", 0)
		p = n.poll(p.Cursor, hour)
		n.answered("another", p, "", 0)
		n.attached("late", 0, 0)
	})
}

func TestACanceledPollDoesNotAnswer(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		held := n.poll("", hour)
		gathers := n.poll("", hour)
		again := n.poll(n.poll("", 0).Cursor, hour)
		n.attached("one", 1, 0)
		held.poll.Cancel()
		n.publish("a.b", 1, 1)
		gathers.poll.Cancel()
		again.poll.Cancel()
		pass(2 * hour)
		for i, p := range []*polled{held, gathers, again} {
			if p.look().times != 0 {
				t.Errorf("poll %d answers %q", i, p.data())
			}
		}
		done := n.poll("", 0)
		n.attached("another", 1, 1)
		done.poll.Cancel() // which has been answered
		synctest.Wait()
		n.attached("a feed, when a poll is canceled that it has answered", 1, 1)
		if err := n.core.Drain(t.Context(), 0, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestAPollReturnsItsPlace(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		n.core.MaxConnections = 1
		reserved := func(o *session.PollOptions) { o.Reserved = true }
		cursor := ""
		for name, end := range map[string]func(p *polled){
			"answered":  func(p *polled) { n.publish("a.b", 1, 1); pass(gather) },
			"canceled":  func(p *polled) { p.poll.Cancel(); synctest.Wait() },
			"timed out": func(p *polled) { pass(hour + time.Second) },
		} {
			for range 3 {
				if err := n.core.Reserve(netip.Addr{}); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				p := n.poll(cursor, hour, reserved)
				if n.core.Reserve(netip.Addr{}) == nil {
					t.Fatalf("%s: a place too many", name)
				}
				end(p)
				cursor = p.look().Cursor
			}
		}
	})
}

func TestPollsOfAShardAreAnsweredThere(t *testing.T) {
	inBubble(t, session.Limits{}, hub.Config{}, func(t *testing.T, n *node) {
		shards := n.hub.Shards()
		own := make([]int, len(shards)) // only the shard touches its own: the race detector sees
		opt := session.PollOptions{Principal: user("alice"), Patterns: []carillon.Pattern{"a.*"}, Limit: 10, Wait: hour}
		on := func(i int, do func()) {
			done := make(chan struct{})
			shards[i].Post(hub.TaskFunc(func() { do(); close(done) }))
			<-done
			synctest.Wait()
		}
		var got session.PollAnswer
		var poll *session.Poll
		ask := func(i int) {
			on(i, func() {
				returned := false
				poll = n.core.PollOn(shards[i], opt, func(a session.PollAnswer) {
					if !returned {
						t.Error("it answers before it has returned")
					}
					own[i]++
					got = a
				})
				returned = true
			})
		}
		ask(0)
		for round := range 4 { // the feed lives on shard 0
			n.publish("a.b", round, 1)
			pass(gather)
			if len(got.Events) != 1 || got.Err != nil {
				t.Fatalf("round %d: %+v", round, got)
			}
			opt.Cursor, _ = n.core.IDs.Org("acme").ParseCursor(got.Cursor)
			got = session.PollAnswer{}
			ask((round + 1) % 2)
		}
		n.attached("all", 4, 0)
		on(0, func() {
			poll.Cancel()
			own[0] *= 100
		})
		n.publish("a.b", 9, 1)
		pass(hour)
		on(1, func() { own[1] += 1000 })
		if own[0] != 200 || own[1] != 1002 {
			t.Errorf("answers: %v", own)
		}
		opt.Cursor = carillon.Cursor{}
		refused := 0
		n.core.Allowed = func(*carillon.Principal) error { return errors.New("no") }
		on(1, func() {
			n.core.PollOn(shards[1], opt, func(a session.PollAnswer) { refused++ })
			if refused != 0 {
				t.Error("it refuses before it has returned")
			}
		})
		if refused != 1 {
			t.Errorf("refused %d times", refused)
		}

		// A poll canceled on one shard while the answer is on its way from the other.
		n.core.Allowed = nil
		on(0, func() { n.core.PollOn(shards[0], opt, func(a session.PollAnswer) { got = a }) })
		n.publish("a.b", 10, 1)
		pass(gather)
		opt.Cursor, _ = n.core.IDs.Org("acme").ParseCursor(got.Cursor)
		opt.Wait = 0
		answers := 0
		on(1, func() {
			p := n.core.PollOn(shards[1], opt, func(a session.PollAnswer) { answers++ })
			for n.core.Stats().Lingering == 0 { // shard 0 has answered
			}
			p.Cancel()
		})
		if answers != 0 {
			t.Error("a canceled poll has answered")
		}
	})
}

// bothWays are the answers to one cursor: of a poll that goes on with a feed, and of
// one that begins anew.
func (n *node) bothWays(cursor string, limit int) (on, anew *polled) {
	n.Helper()
	before := n.core.Stats().Attached
	on = n.poll(cursor, 0, func(o *session.PollOptions) { o.Limit = limit })
	for on.look().times == 0 { // a question to the log takes as long as it takes
		pass(time.Millisecond)
	}
	if n.core.Stats().Attached != before+1 {
		n.Fatalf("the poll did not go on with a feed")
	}
	anew = n.poll(cursor, 0, func(o *session.PollOptions) { o.Limit, o.Principal = limit, user("bob") })
	for anew.look().times == 0 {
		pass(time.Millisecond)
	}
	if n.core.Stats().Attached != before+1 {
		n.Fatalf("the poll did not begin anew")
	}
	return on, anew
}

// rest is all that comes after a cursor.
func (n *node) rest(cursor string) (data string) {
	n.Helper()
	for more := true; more; {
		p := n.poll(cursor, 0, func(o *session.PollOptions) { o.Principal, o.Limit = user("carol"), 1000 })
		for p.look().times == 0 {
			pass(time.Millisecond)
		}
		data += " " + p.data() + string(p.Gap)
		cursor, more = p.Cursor, p.More
	}
	return data
}

// TestAPollOnAFeedIsToldWhatAnotherIs has anything happen to the log, the ring and
// the feed while the feed waits for its poll.
func TestAPollOnAFeedIsToldWhatAnotherIs(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		ring := rapid.SampledFrom([]int64{1, 1 << 20}).Draw(r, "ring")
		bytes := rapid.SampledFrom([]int{300, 1 << 20}).Draw(r, "bytes")
		steps := rapid.SliceOfN(rapid.IntRange(0, 4), 0, 6).Draw(r, "steps")
		counts := rapid.SliceOfN(rapid.IntRange(1, 700), 6, 6).Draw(r, "counts")
		limit := rapid.SampledFrom([]int{1, 5, 1000}).Draw(r, "limit")
		synctest.Test(t, func(t *testing.T) {
			n := &node{T: t, engine: memory.New(memory.Config{Partitions: 1}), tokens: map[string]*carillon.Principal{}}
			n.hub = hub.New(hub.Config{Engine: n.engine, Shards: 2, RingBytes: ring})
			if err := n.hub.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			n.core = session.NewCore(session.Config{Hub: n.hub, IDs: wire.NewKeyring(make([]byte, 32)), Limits: session.Limits{PollBytes: bytes, PollLinger: hour}})
			defer func() {
				n.hub.Stop()
				if err := n.engine.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			n.publish("a.b", -9, 5)
			p := n.poll("now", 0)
			next, lost, published := 0, false, ""
			for i, step := range steps {
				st, err := n.engine.State(t.Context(), 0)
				if err != nil {
					t.Fatal(err)
				}
				switch step {
				case 0, 1:
					n.publish("a.b", next, counts[i])
					for range counts[i] {
						published += fmt.Sprintf("%d ", next)
						next++
					}
				case 2:
					n.publish("b.b", next, counts[i])
					next += counts[i]
				case 3:
					n.engine.ExpireBefore(0, st.First+uint64(counts[i]))
				case 4:
					tail := min(uint64(counts[i])/100, st.Last.Seq)
					n.engine.Truncate(0, st.Last.Seq-tail)
					pass(5 * time.Second) // the tail finds out
					lost = lost || tail > 0
				}
				synctest.Wait()
			}
			on, anew := n.bothWays(p.Cursor, limit)
			// A feed knows what it has seen: of what the log does not keep any more, too.
			if whole := on.data() + " "; !lost && on.Gap == nil && strings.HasPrefix(published, strings.TrimLeft(whole, " ")) && (on.More || strings.TrimLeft(whole, " ") == published) {
				return
			}
			if on.data() != anew.data() || on.More != anew.More || string(on.Gap) != string(anew.Gap) || (on.Err == nil) != (anew.Err == nil) {
				t.Errorf("steps %v of %v: on the feed %q, more %t, gap %s, %v\nanew %q, more %t, gap %s, %v", steps, counts,
					on.data(), on.More, on.Gap, on.Err, anew.data(), anew.More, anew.Gap, anew.Err)
			}
			if rest, restAnew := n.rest(on.Cursor), n.rest(anew.Cursor); rest != restAnew {
				t.Errorf("steps %v of %v: then come %q, and anew %q", steps, counts, rest, restAnew)
			}
		})
		if t.Failed() {
			r.Fatal("see above")
		}
	})
}

// TestNothingIsLostFromPollToPoll has clients poll while somebody publishes, from
// all shards, with feeds that come and go.
func TestNothingIsLostFromPollToPoll(t *testing.T) {
	const clients, events = 30, 150
	e := memory.New(memory.Config{})
	h := hub.New(hub.Config{Engine: e, Shards: 4})
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		h.Stop()
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	core := session.NewCore(session.Config{Hub: h, IDs: wire.NewKeyring(make([]byte, 32)), Limits: session.Limits{PollGather: 1, PollSessions: clients / 2}})
	var wg sync.WaitGroup
	var taken atomic.Int64
	for i := range clients {
		wg.Add(1)
		var got []string
		var ask func(cursor string)
		ask = func(cursor string) {
			at, err := core.IDs.Org("acme").ParseCursor(cursor)
			if err != nil {
				t.Error(err)
			}
			wait := time.Duration(0)
			if len(got)%3 > 0 {
				wait = time.Minute
			}
			opt := session.PollOptions{Principal: user(fmt.Sprint(i % 20)), Patterns: []carillon.Pattern{"a.*"}, Cursor: at, Limit: 1 + i, Wait: wait}
			answer := func(a session.PollAnswer) {
				p := polled{PollAnswer: a}
				if a.Err != nil || a.Gap != nil {
					t.Errorf("%v, %s", a.Err, a.Gap)
					wg.Done()
					return
				}
				got = append(got, strings.Fields(p.data())...)
				taken.Add(int64(len(a.Events)))
				if len(got) < events {
					ask(a.Cursor)
					return
				}
				for k, v := range got {
					if v != fmt.Sprint(k) {
						t.Errorf("client %d: event %d is %s", i, k, v)
						break
					}
				}
				wg.Done()
			}
			if i%2 == 0 {
				core.Poll(opt, answer)
				return
			}
			home := h.Shards()[(i+len(got))%4]
			home.Post(hub.TaskFunc(func() { core.PollOn(home, opt, answer) }))
		}
		ask("earliest")
	}
	for k := range events {
		batch := []engine.Append{{Event: &carillon.Event{Type: "a.b", Data: fmt.Append(nil, k)}}}
		if _, err := engine.AppendWait(t.Context(), e.Open("acme"), batch); err != nil {
			t.Fatal(err)
		}
		for k%7 == 0 && taken.Load() < int64(clients*(k+1)) { // now and then all have everything
			runtime.Gosched()
		}
	}
	wg.Wait()
	if err := core.Drain(t.Context(), 0, 0); err != nil {
		t.Error(err)
	}
	st := core.Stats()
	t.Logf("%d of %d polls went on with a feed", st.Attached, st.Polls)
	if st.Attached == 0 || st.Lingering != 0 {
		t.Errorf("%d polls went on with a feed, and %d feeds are left", st.Attached, st.Lingering)
	}
}
