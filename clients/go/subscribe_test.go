//go:build go1.25

package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	carillon "github.com/carillon-rt/carillon/clients/go"
)

// retries collects OnDisconnect.
type retries struct {
	mu    sync.Mutex // guards what follows
	errs  []*carillon.Error
	waits []time.Duration
}

func (r *retries) add(err *carillon.Error, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs, r.waits = append(r.errs, err), append(r.waits, wait)
}

func (r *retries) all() ([]*carillon.Error, []time.Duration) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.errs), slices.Clone(r.waits)
}

func subscribe(t *testing.T, c *carillon.Client, o carillon.SubscribeOptions) *carillon.Subscription {
	t.Helper()
	sub, err := c.Subscribe(t.Context(), []string{"workflow.>"}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Close() })
	return sub
}

func TestSubscribeReceivesWhatIsPublishedAfterItReturned(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.publish("workflow.old")
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{Subject: "wf-1"})
		defer sub.Close()
		if got := sub.Cursor(); got != fakeID(0) {
			t.Errorf("the cursor before the first event is %q, want %q", got, fakeID(0))
		}
		ids := f.publish("workflow.a", "workflow.b")
		wantNext(t, sub, ids...)
		if got := sub.Cursor(); got != ids[1] {
			t.Errorf("cursor %q, want %q", got, ids[1])
		}
		c := f.last()
		if c.after != "now" || c.auth != "Bearer ck_fake" {
			t.Errorf("handshake with after %q, authorization %q", c.after, c.auth)
		}
		frame := c.sent("subscribe")[0]
		if fmt.Sprint(frame["patterns"]) != "[workflow.>]" || frame["subject"] != "wf-1" || frame["after"] != nil {
			t.Errorf("subscribe frame %v", frame)
		}
	})
}

func TestNoPatternsIsAnEmptyList(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		sub, err := f.client(carillon.Options{}).Subscribe(t.Context(), nil, carillon.SubscribeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		if got, ok := f.last().sent("subscribe")[0]["patterns"].([]any); !ok || len(got) != 0 {
			t.Errorf("patterns %v, want []", got)
		}
	})
}

// However often the connection is cut, and whether or not events were read,
// every event comes once and in order.
func TestResumesAcrossCutsWithoutLossOrRepeat(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{})
		defer sub.Close()
		var published []string
		for round := range 40 {
			for range round % 7 {
				published = append(published, f.publish("workflow.a", "skip")[0])
			}
			c := f.last()
			before := len(f.connections())
			switch round % 4 {
			case 0:
				c.kill()
			case 1:
				c.close(4200)
			case 2:
				c.close(4102)
			case 3:
				c.closing <- fakeClose{} // the network goes away
			}
			published = append(published, f.publish("workflow.b")...)
			if round%5 == 0 {
				time.Sleep(time.Minute)
			} else {
				time.Sleep(time.Second)
			}
			if round%3 == 0 {
				for len(published) > 0 {
					wantNext(t, sub, published[0])
					published = published[1:]
				}
			}
			for len(f.connections()) == before || len(f.last().sent("subscribe")) == 0 {
				time.Sleep(time.Second)
			}
		}
		wantNext(t, sub, published...)
		quiet(t, sub, time.Minute)
	})
}

func TestResumesAtTheCursorOfAHeartbeat(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{})
		defer sub.Close()
		want := f.publish("skip", "skip", "skip")[2]
		quiet(t, sub, time.Minute)
		if got := sub.Cursor(); got != want {
			t.Errorf("cursor %q, want that of the heartbeat, %q", got, want)
		}
		f.last().kill()
		time.Sleep(time.Minute)
		if got := f.last().after; got != want {
			t.Errorf("resumed after %q, want %q", got, want)
		}
	})
}

func TestACutBeforeSubscribedResumesWhereTheWelcomeStood(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.publish("workflow.old")
		var missed []string
		f.script = func(n int, c *fakeConn) bool {
			if n > 1 {
				return false
			}
			c.welcome(fakeID(0))
			c.hear("subscribe")
			missed = f.publish("workflow.missed")
			return true
		}
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{RetryFirst: true})
		defer sub.Close()
		wantNext(t, sub, missed...)
	})
}

// By the letter of the protocol there is no backfill here, but where a server
// makes one, its ids are not the connection's cursor.
func TestIdsOfABackfillAreNotTheCursor(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		ids := f.publish("workflow.0", "workflow.1", "workflow.2", "workflow.3", "workflow.4")
		f.script = func(n int, c *fakeConn) bool {
			if n > 2 {
				return false
			}
			c.welcome(fakeID(4))
			c.subscribed(c.hear("subscribe"), fakeID(0), map[string]any{"backfill": true})
			c.event(1)
			c.event(2)
			c.send(map[string]any{"type": "heartbeat", "cursor": fakeID(4)})
			if n == 2 { // this time to its end
				c.event(3)
				c.event(4)
				c.send(map[string]any{"type": "caught_up", "cursor": fakeID(4)})
			}
			return true
		}
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{After: ids[0]})
		defer sub.Close()
		wantNext(t, sub, ids[1], ids[2])
		if got := sub.Cursor(); got != ids[0] {
			t.Errorf("cursor %q within a backfill, want %q", got, ids[0])
		}
		wantNext(t, sub, ids[3], ids[4]) // the second time, without the repeats
		quiet(t, sub, 10*time.Minute)
		if got := sub.Cursor(); got != ids[4] {
			t.Errorf("cursor %q after the backfill, want %q", got, ids[4])
		}
		conns := f.connections()
		if conns[1].after != ids[0] || conns[2].after != ids[4] {
			t.Errorf("resumed after %q and %q, want %q and %q", conns[1].after, conns[2].after, ids[0], ids[4])
		}
	})
}

func TestRepeatsAreDropped(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		ids := f.publish("workflow.0", "workflow.1")
		f.script = func(_ int, c *fakeConn) bool {
			c.welcome(fakeID(-1))
			c.subscribed(c.hear("subscribe"), fakeID(-1), nil)
			for _, i := range []int{0, 0, 1, 0, 1} {
				c.event(i)
			}
			live := map[string]any{"type": "event", "event_type": "presence.changed", "timestamp": "2025-07-09T10:30:00.000Z", "payload": nil}
			c.send(live) // no id: never a repeat
			c.send(live)
			<-c.ctx.Done()
			return true
		}
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{After: "earliest"})
		defer sub.Close()
		wantNext(t, sub, ids[0], ids[1], "", "")
		quiet(t, sub, time.Second)
	})
}

func TestGapIsNeverSilent(t *testing.T) {
	for _, way := range []string{"error", "callback"} {
		t.Run(way, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				ids := f.publish("workflow.0", "workflow.1", "workflow.2", "workflow.3")
				f.expire(2)
				var gaps []carillon.Gap
				o := carillon.SubscribeOptions{After: ids[0]}
				if way == "callback" {
					o.OnGap = func(g carillon.Gap) { gaps = append(gaps, g) }
				}
				sub := subscribe(t, f.client(carillon.Options{}), o)
				defer sub.Close()
				if sub.Cursor() != ids[0] {
					t.Errorf("the cursor is %q before the gap was told, want %q", sub.Cursor(), ids[0])
				}
				if way == "error" {
					_, err := sub.Next(t.Context())
					var g *carillon.Gap
					if !errors.As(err, &g) {
						t.Fatalf("got %v, want a gap", err)
					}
					gaps = append(gaps, *g)
				}
				wantNext(t, sub, ids[2], ids[3])
				if want := []carillon.Gap{{Reason: carillon.GapExpired, Cursor: ids[1]}}; !slices.Equal(gaps, want) {
					t.Errorf("gaps %v, want %v", gaps, want)
				}
			})
		})
	}
}

func TestGapFrameMovesTheCursor(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.publish("workflow.0")
		f.script = func(n int, c *fakeConn) bool {
			if n > 1 {
				return false
			}
			c.welcome(fakeID(0))
			c.subscribed(c.hear("subscribe"), fakeID(0), nil)
			c.send(map[string]any{"type": "gap", "reason": "reset", "cursor": fakeID(0)})
			return true
		}
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{After: strings.Repeat("Z", 26)})
		defer sub.Close()
		var seen []string
		for event, err := range sub.Events() {
			var gap *carillon.Gap
			if errors.As(err, &gap) {
				seen = append(seen, string(gap.Reason))
				time.Sleep(time.Minute)
				f.publish("workflow.1")
				continue
			}
			seen = append(seen, event.ID)
			break
		}
		if want := []string{"reset", fakeID(1)}; !slices.Equal(seen, want) {
			t.Errorf("saw %v, want %v", seen, want)
		}
		if got := f.last().after; got != fakeID(0) {
			t.Errorf("resumed after %q", got)
		}
	})
}

func TestCloseCodesSayWhatToDo(t *testing.T) {
	ms := time.Millisecond
	for _, test := range []struct {
		how      fakeClose
		stop     carillon.Code // or
		min, max time.Duration // the wait
	}{
		{how: fakeClose{code: 4000}, stop: carillon.CodeBadRequest},
		{how: fakeClose{code: 4001}, stop: carillon.CodeUnauthenticated},
		{how: fakeClose{code: 4003}, stop: carillon.CodeForbidden},
		{how: fakeClose{code: 4009}, stop: carillon.CodeConflict},
		{how: fakeClose{code: 4099}, stop: carillon.CodeBadRequest},
		{how: fakeClose{code: 1003}, stop: carillon.CodeBadRequest},
		{how: fakeClose{code: 1009}, stop: carillon.CodeTooLarge},
		{how: fakeClose{code: 4101}, min: 500 * ms, max: 1000 * ms},
		{how: fakeClose{code: 4102}, min: 500 * ms, max: 1000 * ms},
		{how: fakeClose{code: 4103}, min: 500 * ms, max: 1000 * ms},
		{how: fakeClose{code: 1011}, min: 500 * ms, max: 1000 * ms},
		{how: fakeClose{code: 1001}, min: 500 * ms, max: 1000 * ms},
		{how: fakeClose{}, min: 500 * ms, max: 1000 * ms},
		{how: fakeClose{code: 4200}},
		{how: fakeClose{code: 4201}},
		{how: fakeClose{code: 4202}},
		{how: fakeClose{goaway: "drain"}},
		{how: fakeClose{code: 4200, goaway: "drain", retryAfterMS: 7000}, min: 7000 * ms, max: 9000 * ms},
		{how: fakeClose{code: 4200, goaway: "drain", retryAfterMS: 7000, later: 5 * time.Second}, min: 7000 * ms, max: 7750 * ms},
		{how: fakeClose{code: 4200, goaway: "drain", retryAfterMS: 7000, later: 7 * time.Second}, min: 7000 * ms, max: 7000 * ms},
		{how: fakeClose{code: 4103, goaway: "overloaded", retryAfterMS: 7000}, min: 7000 * ms, max: 9000 * ms},
	} {
		t.Run(fmt.Sprintf("%d%s%d", test.how.code, test.how.goaway, test.how.retryAfterMS), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				var r retries
				sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{OnDisconnect: r.add})
				defer sub.Close()
				time.Sleep(10 * time.Second) // long enough to count as stable
				cut := time.Now()
				f.last().closing <- test.how
				_, err := nextWithin(t, sub, time.Minute)
				var e *carillon.Error
				if test.stop != "" {
					if !errors.As(err, &e) || e.Code != test.stop || e.Retryable || e.CloseCode != test.how.code {
						t.Errorf("got %v, want it to stop with %s", err, test.stop)
					}
					if len(f.connections()) != 1 {
						t.Error("it came back")
					}
					_, again := sub.Next(t.Context())
					if !errors.Is(again, err) {
						t.Errorf("the second Next says %v", again)
					}
					return
				}
				if !errors.As(err, &e) || e.Code != carillon.CodeCanceled {
					t.Fatal(err)
				}
				if errs, _ := r.all(); len(errs) != 1 || !errs[0].Retryable {
					t.Fatalf("disconnects: %v", errs)
				}
				wait := f.connections()[1].began.Sub(cut)
				if wait < test.min || wait > test.max {
					t.Errorf("it came back after %v, want %v–%v", wait, test.min, test.max)
				}
			})
		})
	}
}

func nextWithin(t *testing.T, sub *carillon.Subscription, d time.Duration) (carillon.Event, error) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return sub.Next(ctx)
}

// A server that sends everybody away at once is not stormed.
func TestComingBackAtOnceIsForStableConnections(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.script = func(_ int, c *fakeConn) bool {
			c.welcome(fakeID(-1))
			c.subscribed(c.hear("subscribe"), fakeID(-1), nil)
			_ = c.ws.Close(4200, "drain")
			return true
		}
		var r retries
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{OnDisconnect: r.add})
		defer sub.Close()
		quiet(t, sub, 10*time.Minute)
		_, waits := r.all()
		if waits[0] != 0 {
			t.Errorf("the first wait is %v, want none", waits[0])
		}
		var sum time.Duration
		for i, wait := range waits[1:] {
			sum += wait
			if wait < 500*time.Millisecond || wait > min(30*time.Second, time.Second<<min(i+1, 5)) {
				t.Errorf("wait %d is %v", i+1, wait)
			}
		}
		if n := len(waits); n < 30 || n > 80 {
			t.Errorf("%d tries in ten minutes (waited %v)", n, sum)
		}
	})
}

func TestHandshakeAnswers(t *testing.T) {
	for _, test := range []struct {
		status     int
		retryAfter string
		stop       carillon.Code
		min, max   time.Duration
	}{
		{status: 401, stop: carillon.CodeUnauthenticated},
		{status: 403, stop: carillon.CodeForbidden},
		{status: 404, stop: carillon.CodeNotFound},
		{status: 426, stop: carillon.CodeBadRequest},
		{status: 200, stop: carillon.CodeProtocol},
		{status: 503, retryAfter: "7", min: 7 * time.Second, max: 9 * time.Second},
		{status: 429, min: time.Second / 2, max: time.Second},
		{status: 502, min: time.Second / 2, max: time.Second},
	} {
		t.Run(fmt.Sprint(test.status), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				f.handshake = func(n int, w http.ResponseWriter, _ *http.Request) bool {
					if n != 2 {
						return false
					}
					if test.retryAfter != "" {
						w.Header().Set("Retry-After", test.retryAfter)
					}
					w.WriteHeader(test.status)
					return true
				}
				sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{})
				defer sub.Close()
				time.Sleep(10 * time.Second)
				f.last().close(4200)
				_, err := nextWithin(t, sub, time.Minute)
				var e *carillon.Error
				if !errors.As(err, &e) {
					t.Fatal(err)
				}
				conns := f.connections()
				if test.stop != "" {
					if e.Code != test.stop || e.Status != test.status || len(conns) != 2 {
						t.Errorf("%d connections, %v; want it to stop with %s", len(conns), err, test.stop)
					}
					return
				}
				// Try 0 came at once, so this is the second in a row.
				if wait := conns[2].began.Sub(conns[1].began); wait < test.min || wait > test.max*2 {
					t.Errorf("it came back after %v, want %v–%v", wait, test.min, test.max)
				}
			})
		})
	}
}

func TestSubscribeReturnsTheErrorOfItsFirstAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		var here atomic.Bool
		f.handshake = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			if here.Load() {
				return false
			}
			w.Header().Set("Retry-After", "3")
			writeProblem(w, 503, "unavailable", "draining")
			return true
		}
		client := f.client(carillon.Options{})
		_, err := client.Subscribe(t.Context(), nil, carillon.SubscribeOptions{})
		var e *carillon.Error
		if !errors.As(err, &e) || !e.Retryable || e.RetryAfter != 3*time.Second || e.Message != "draining" {
			t.Errorf("got %#v", err)
		}
		// RetryFirst keeps trying.
		time.AfterFunc(time.Minute, func() { here.Store(true) })
		sub, err := client.Subscribe(t.Context(), nil, carillon.SubscribeOptions{RetryFirst: true})
		if err != nil {
			t.Fatal(err)
		}
		_ = sub.Close()
	})
}

func TestARefusedSubscribeEndsIt(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.script = func(_ int, c *fakeConn) bool {
			c.welcome(fakeID(-1))
			frame := c.hear("subscribe")
			c.send(map[string]any{"type": "error", "ref": frame["ref"], "code": "forbidden", "message": "no permission covers workflow.>"})
			<-c.ctx.Done()
			return true
		}
		_, err := f.client(carillon.Options{}).Subscribe(t.Context(), []string{"workflow.>"}, carillon.SubscribeOptions{RetryFirst: true})
		if err == nil || err.Error() != "subscribe: forbidden: no permission covers workflow.>" {
			t.Errorf("got %v", err)
		}
	})
}

func TestABadTokenIsExplainedByTheErrorFrame(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.script = func(_ int, c *fakeConn) bool {
			c.send(map[string]any{"type": "error", "code": "unauthenticated", "message": "the token has expired"})
			_ = c.ws.Close(4001, "bad token")
			return true
		}
		_, err := f.client(carillon.Options{}).Subscribe(t.Context(), nil, carillon.SubscribeOptions{RetryFirst: true})
		if err == nil || err.Error() != "subscribe: unauthenticated: the token has expired" {
			t.Errorf("got %v", err)
		}
	})
}

func TestALostPatternEndsTheSubscription(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		ids := f.publish("workflow.0")
		f.script = func(_ int, c *fakeConn) bool {
			c.welcome(fakeID(-1))
			c.subscribed(c.hear("subscribe"), fakeID(-1), nil)
			c.event(0)
			c.send(map[string]any{"type": "unsubscribed", "pattern": "workflow.>", "reason": "the new token does not cover it"})
			<-c.ctx.Done()
			return true
		}
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{})
		defer sub.Close()
		wantNext(t, sub, ids[0]) // what came before still comes
		_, err := sub.Next(t.Context())
		var e *carillon.Error
		if !errors.As(err, &e) || e.Code != carillon.CodeForbidden || !strings.Contains(e.Message, "workflow.>") {
			t.Errorf("got %v", err)
		}
	})
}

func TestTokenIsRefreshedInPlace(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.script = func(_ int, c *fakeConn) bool {
			c.welcome(fakeID(-1))
			c.subscribed(c.hear("subscribe"), fakeID(-1), nil)
			c.send(map[string]any{"type": "token_expiring", "in": 60})
			c.serveFrames()
			return true
		}
		calls := 0
		client := f.client(carillon.Options{TokenFunc: func(context.Context) (string, error) {
			calls++
			switch calls {
			case 2:
				return "", errors.New("the issuer is away") // tried again
			case 3:
				return "token-1", nil // not a new one: tried again
			}
			return fmt.Sprint("token-", calls), nil
		}})
		sub := subscribe(t, client, carillon.SubscribeOptions{})
		defer sub.Close()
		quiet(t, sub, 20*time.Second)
		c := f.last()
		if got := c.sent("refresh"); len(got) != 1 || got[0]["token"] != "token-4" {
			t.Errorf("refreshes %v, want one with token-4", got)
		}
		if len(f.connections()) != 1 || c.auth != "Bearer token-1" {
			t.Errorf("%d connections, the first with %q", len(f.connections()), c.auth)
		}
	})
}

// serveFrames answers pings until the end.
func (c *fakeConn) serveFrames() {
	for frame := range c.frames {
		if frame["type"] == "ping" {
			c.send(map[string]any{"type": "pong"})
		}
	}
}

func TestEveryConnectionHasAFreshToken(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		calls := 0
		sub := subscribe(t, f.client(carillon.Options{TokenFunc: func(context.Context) (string, error) {
			calls++
			return fmt.Sprint("token-", calls), nil
		}}), carillon.SubscribeOptions{})
		defer sub.Close()
		f.last().close(4201)
		time.Sleep(time.Minute)
		if got := f.last().auth; got != "Bearer token-2" {
			t.Errorf("came back with %q", got)
		}
	})
}

func TestSilenceIsNoticed(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.script = func(n int, c *fakeConn) bool {
			if n > 1 {
				return false
			}
			c.welcome(fakeID(-1))
			c.subscribed(c.hear("subscribe"), fakeID(-1), nil)
			for range c.frames { // it hears, and never speaks again
			}
			return true
		}
		var r retries
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{OnDisconnect: r.add})
		defer sub.Close()
		quiet(t, sub, 34*time.Second)
		if errs, _ := r.all(); len(errs) != 0 {
			t.Fatalf("gave up too early: %v", errs)
		}
		quiet(t, sub, time.Minute)
		if errs, _ := r.all(); len(errs) != 1 || !strings.Contains(errs[0].Error(), "silent for 35s") {
			t.Fatalf("disconnects %v", errs)
		}
		wantNext(t, sub, f.publish("workflow.a")...)
	})
}

func TestAQuietConnectionStays(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{})
		defer sub.Close()
		quiet(t, sub, time.Hour)
		if n := len(f.connections()); n != 1 {
			t.Errorf("%d connections in a quiet hour", n)
		}
		if n := len(f.last().sent("ping")); n < 140 {
			t.Errorf("%d pings in an hour; the server closes after 60 s without a frame", n)
		}
	})
}

// A program that stands still, and is cut for it, misses nothing.
func TestASlowReaderMissesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{})
		defer sub.Close()
		var ids []string
		for i := range 1000 {
			ids = append(ids, f.publish(fmt.Sprint("workflow.", i))...)
		}
		time.Sleep(10 * time.Minute)
		wantNext(t, sub, ids...)
		quiet(t, sub, time.Minute)
	})
}

func TestCaughtUpComesAfterTheOldAndBeforeTheNew(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		ids := f.publish("workflow.0", "workflow.1")
		var seen []string
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{
			After:      "earliest",
			OnCaughtUp: func() { seen = append(seen, "caught up") },
		})
		defer sub.Close()
		time.AfterFunc(time.Minute, func() { f.publish("workflow.2") })
		ids = append(ids, fakeID(2))
		for range 3 {
			seen = append(seen, next(t, sub))
		}
		if want := []string{ids[0], ids[1], "caught up", ids[2]}; !slices.Equal(seen, want) {
			t.Errorf("saw %v, want %v", seen, want)
		}
	})
}

func TestCloseSaysGoodbye(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{})
		f.publish("workflow.unread")
		synctest.Wait()
		began := time.Now()
		ended := make(chan int)
		go func() {
			n := 0
			for range sub.Events() {
				n++
			}
			ended <- n
		}()
		synctest.Wait()
		_ = sub.Close()
		_ = sub.Close() // again does nothing
		if n := <-ended; n != 1 {
			t.Errorf("%d events before Close, want 1", n)
		}
		if _, err := sub.Next(t.Context()); !errors.Is(err, carillon.ErrClosed) {
			t.Errorf("Next after Close: %v", err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("Close took %v", d)
		}
		c := f.last()
		c.mu.Lock()
		defer c.mu.Unlock()
		if code := websocket.CloseStatus(c.closed); code != websocket.StatusNormalClosure {
			t.Errorf("the server saw %v (%v), want 1000", code, c.closed)
		}
	})
}

func TestCloseDoesNotWaitForADeadServer(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.deaf = true
		client := f.client(carillon.Options{})
		sub, err := client.Subscribe(t.Context(), nil, carillon.SubscribeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_ = sub.Close()
		if d := time.Since(began); d > 1100*time.Millisecond {
			t.Errorf("Close took %v", d)
		}
	})
}

func TestTheEndOfTheContextEndsIt(t *testing.T) {
	for _, when := range []string{"connected", "waiting", "connecting"} {
		t.Run(when, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				f.handshake = func(n int, w http.ResponseWriter, r *http.Request) bool {
					if n == 1 {
						return false
					}
					if when == "connecting" {
						<-r.Context().Done()
					}
					w.WriteHeader(503)
					return true
				}
				sub, err := f.client(carillon.Options{}).Subscribe(ctx, nil, carillon.SubscribeOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if when != "connected" {
					f.last().close(4200)
					time.Sleep(5 * time.Second)
				}
				began := time.Now()
				cancel()
				n := 0
				for _, err := range sub.Events() {
					n++
					if !errors.Is(err, context.Canceled) {
						t.Errorf("got %v", err)
					}
				}
				if d := time.Since(began); n != 1 || d != 0 {
					t.Errorf("%d errors after %v", n, d)
				}
			})
		})
	}
}

func TestAnUnreadableFrameIsNotIgnored(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.script = func(n int, c *fakeConn) bool {
			if n > 1 {
				return false
			}
			c.welcome(fakeID(-1))
			c.subscribed(c.hear("subscribe"), fakeID(-1), nil)
			c.send(map[string]any{"type": "of the future", "some": "thing"}) // ignored
			_ = c.ws.Write(c.ctx, websocket.MessageText, []byte(`{"type":`))
			<-c.ctx.Done()
			return true
		}
		var r retries
		sub := subscribe(t, f.client(carillon.Options{}), carillon.SubscribeOptions{OnDisconnect: r.add})
		defer sub.Close()
		quiet(t, sub, time.Minute)
		if errs, _ := r.all(); len(errs) != 1 || errs[0].Code != carillon.CodeProtocol {
			t.Errorf("disconnects %v", errs)
		}
		wantNext(t, sub, f.publish("workflow.a")...)
	})
}
