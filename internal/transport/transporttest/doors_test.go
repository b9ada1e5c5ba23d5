package transporttest_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	client  = transporttest.Client
	message = transporttest.Message
	ask     = transporttest.Ask
)

// all runs a test once per transport.
func all(t *testing.T, f func(t *testing.T, door transporttest.Door)) {
	t.Helper()
	for _, door := range transporttest.Doors {
		t.Run(door.Name, func(t *testing.T) {
			t.Parallel()
			f(t, door)
		})
	}
}

func open(t *testing.T, n *transporttest.Node, door transporttest.Door, a ask) client {
	t.Helper()
	c, err := door.Open(t, n, a)
	if err != nil {
		t.Fatalf("%s: %v", door.Name, err)
	}
	return c
}

// next is the next message that is an event or one of the types wanted.
func next(t *testing.T, c client, types ...string) message {
	t.Helper()
	for {
		m, err := c.Next()
		if err != nil {
			t.Fatalf("while waiting for %v: %v", types, err)
		}
		if m.Type == "event" || m.Type == "error" && len(types) == 0 {
			return m
		}
		if slices.Contains(types, m.Type) {
			return m
		}
	}
}

// want checks that the next event has this id.
func want(t *testing.T, c client, id string) message {
	t.Helper()
	m := next(t, c)
	if m.ID != id {
		t.Fatalf("got the event %s %s with %s, want %s", m.ID, m.EventType, m.Payload, id)
	}
	return m
}

func TestEventsComeInOrderEachOnce(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		c := open(t, n, door, ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.*", "orders.>", "orders.paid", "*.paid"}})
		other := n.Publish(t, "acme", "invoices.sent", 1, 1)[0]
		for i := 0; i < 300; i += 100 {
			for _, id := range n.Publish(t, "acme", "orders.paid", i, i+99) {
				if id == other {
					t.Fatal("two events have one id")
				}
				want(t, c, id)
			}
		}
	})
}

func TestResumeIsWithoutGapOrDuplicate(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.>"}}
		c := open(t, n, door, a)
		ids := n.Publish(t, "acme", "orders.paid", 1, 120)
		for _, id := range ids[:70] {
			want(t, c, id)
		}
		a.After = c.Cursor()
		c.Close()
		ids = append(ids, n.Publish(t, "acme", "orders.paid", 121, 200)...)
		c = open(t, n, door, a)
		for _, id := range ids[70:] {
			want(t, c, id)
		}
		last := n.Publish(t, "acme", "orders.paid", 201, 201)[0]
		want(t, c, last)
	})
}

// One cursor goes from transport to transport while events are published.
func TestOneCursorServesAllTransports(t *testing.T) {
	t.Parallel()
	const total = 2000
	n := transporttest.New(t, transporttest.Config{})
	a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.>"}, After: "earliest"}
	published := make(chan []string, 1)
	go func() {
		var ids []string
		for i := 0; i < total; i += 10 {
			ids = append(ids, n.Publish(t, "acme", "orders.paid", i, i+9)...)
			n.Publish(t, "acme", "other.thing", i, i)
			n.Publish(t, "umbrella", "orders.paid", i, i)
		}
		published <- ids
	}()
	var got []string
	for turn := 0; len(got) < total; turn++ {
		door := transporttest.Doors[turn%len(transporttest.Doors)]
		c := open(t, n, door, a)
		for range min(97, total-len(got)) {
			m := next(t, c, "gap")
			if m.Type == "gap" {
				t.Fatalf("%s: a gap after %d events", door.Name, len(got))
			}
			got = append(got, m.ID)
		}
		a.After = c.Cursor()
		c.Close()
	}
	for i, id := range <-published {
		if got[i] != id {
			t.Fatalf("event %d: got %s, want %s", i, got[i], id)
		}
	}
}

func TestWhatExpiredIsAGap(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		e := memory.New(memory.Config{})
		t.Cleanup(func() { _ = e.Close(t.Context()) })
		n := transporttest.New(t, transporttest.Config{Engine: e})
		ids := n.Publish(t, "acme", "orders.paid", 1, 30)
		n.Stop(t)
		pos, _ := n.IDs.Org("acme").Decode(ids[20])
		e.ExpireBefore(int(pos.Partition), pos.Seq)
		n = transporttest.New(t, transporttest.Config{Engine: e})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.>"}, After: ids[4]}
		c := open(t, n, door, a)
		if m := next(t, c, "gap"); m.Type != "gap" || m.Reason != "expired" || m.Cursor == "" {
			t.Fatalf("got %+v, want a gap, expired", m)
		}
		for _, id := range ids[20:] {
			want(t, c, id)
		}
		a.After = "earliest"
		c = open(t, n, door, a)
		if m := next(t, c, "gap"); m.ID != ids[20] {
			t.Fatalf("earliest: got %+v, want the oldest event kept", m)
		}
	})
}

func TestAPositionOfAnotherLogIsAReset(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		n.Publish(t, "acme", "orders.paid", 1, 5)
		foreign := n.Publish(t, "umbrella", "orders.paid", 1, 1)[0]
		c := open(t, n, door, ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{">"}, After: foreign})
		if m := next(t, c, "gap"); m.Type != "gap" || m.Reason != "reset" {
			t.Fatalf("got %+v, want a gap, reset", m)
		}
		want(t, c, n.Publish(t, "acme", "orders.paid", 6, 6)[0])
	})
}

func TestNobodySeesWhatIsNotTheirs(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{">"}}
		alice := open(t, n, door, a)
		a.Token = n.Token(t, "acme", "bob")
		bob := open(t, n, door, a)
		a.Token, a.Patterns = n.Token(t, "acme", "carol"), nil
		carol := open(t, n, door, a) // direct events only
		n.Publish(t, "umbrella", "orders.paid", 1, 10)
		ids := n.PublishDrafts(t, "acme",
			carillon.Draft{Type: "note", Data: []byte("1"), Users: []string{"alice"}},
			carillon.Draft{Type: "note", Data: []byte("2"), Users: []string{"bob", "carol"}},
			carillon.Draft{Type: "note", Data: []byte("3")},
			carillon.Draft{Type: "note", Data: []byte("4"), Users: []string{"carol"}},
		)
		if m := want(t, alice, ids[0]); !m.Direct {
			t.Error("it does not say that it is direct")
		}
		want(t, alice, ids[2])
		want(t, bob, ids[1])
		if m := want(t, bob, ids[2]); m.Direct {
			t.Error("an event to the organization says that it is direct")
		}
		want(t, carol, ids[1])
		want(t, carol, ids[3])
	})
}

func TestAPatternNotGrantedIsRefusedByName(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		token := n.Token(t, "acme", "alice", func(c *auth.Claims) {
			c.Permissions = &carillon.Permissions{Subscribe: []carillon.Pattern{"orders.*"}}
		})
		_, err := door.Open(t, n, ask{Token: token, Patterns: []string{"orders.paid", "orders.>"}})
		var r *transporttest.Refused
		if !errors.As(err, &r) || r.Code != "forbidden" || !strings.Contains(r.Detail, "orders.>") {
			t.Fatalf("got %v, want forbidden, naming the pattern", err)
		}
		if !strings.HasPrefix(door.Name, "WebSocket") && r.Status != http.StatusForbidden {
			t.Errorf("status %d", r.Status)
		}
		c := open(t, n, door, ask{Token: token, Patterns: []string{"orders.paid"}})
		n.Publish(t, "acme", "invoices.sent", 1, 1)
		want(t, c, n.Publish(t, "acme", "orders.paid", 1, 1)[0])
	})
}

func TestABadPatternIsRefused(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		_, err := door.Open(t, n, ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"ord*"}})
		var r *transporttest.Refused
		if !errors.As(err, &r) || r.Code != "bad_request" || !strings.Contains(r.Detail, "ord*") {
			t.Fatalf("got %v, want bad_request, naming the pattern", err)
		}
	})
}

func TestTooManySubscriptionsAreRefused(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{Limits: session.Limits{Subscriptions: 3}})
		_, err := door.Open(t, n, ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"a", "b", "c", "d"}})
		var r *transporttest.Refused
		if !errors.As(err, &r) || r.Code != "quota_exceeded" {
			t.Fatalf("got %v, want quota_exceeded", err)
		}
		open(t, n, door, ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"a", "b", "c"}})
	})
}

func TestACredentialIsNeeded(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{Limits: session.Limits{ConnectTimeout: time.Millisecond}})
		for _, token := range []string{"nonsense", n.Token(t, "acme", "alice") + "x"} {
			_, err := door.Open(t, n, ask{Token: token, Patterns: []string{">"}})
			var r *transporttest.Refused
			if !errors.As(err, &r) || r.Status != http.StatusUnauthorized || r.Code != "unauthenticated" || r.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("got %v, want 401 with WWW-Authenticate", err)
			}
		}
		if strings.HasPrefix(door.Name, "WebSocket") {
			return // it waits for connect
		}
		_, err := door.Open(t, n, ask{Patterns: []string{">"}})
		var r *transporttest.Refused
		if !errors.As(err, &r) || r.Status != http.StatusUnauthorized {
			t.Errorf("without: got %v, want 401", err)
		}
	})
}

func TestAStreamEndsWithItsToken(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		token := n.Token(t, "acme", "alice", func(c *auth.Claims) { c.Expires = time.Now().Add(2 * time.Second) })
		c := open(t, n, door, ask{Token: token, Patterns: []string{">"}})
		want(t, c, n.Publish(t, "acme", "orders.paid", 1, 1)[0])
		if !door.Stream {
			n.Ahead(time.Hour)
			for {
				_, err := c.Next()
				if err == nil {
					continue
				}
				var r *transporttest.Refused
				if !errors.As(err, &r) || r.Status != http.StatusUnauthorized {
					t.Fatalf("got %v, want 401", err)
				}
				return
			}
		}
		if m := next(t, c, "error"); m.Type != "error" || m.Code != "unauthenticated" {
			t.Fatalf("got %+v, want the error", m)
		}
		ends(t, c, door, 4201)
	})
}

// ends waits for the end; code is a WebSocket's.
func ends(t *testing.T, c client, door transporttest.Door, code int) {
	t.Helper()
	for {
		_, err := c.Next()
		if err == nil {
			continue
		}
		var end *transporttest.Ended
		if !errors.As(err, &end) || strings.HasPrefix(door.Name, "WebSocket") && int(end.Code) != code {
			t.Fatalf("got %v, want the end with %d", err, code)
		}
		return
	}
}

func TestSilenceMovesTheCursor(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{Limits: session.Limits{MaxIdle: 50 * time.Millisecond, KeepAlive: 50 * time.Millisecond}})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.>"}}
		c := open(t, n, door, a)
		want(t, c, n.Publish(t, "acme", "orders.paid", 1, 1)[0])
		passed := n.Publish(t, "acme", "other.thing", 1, 1)[0]
		if door.Stream {
			for c.Cursor() != passed { // a heartbeat brings it
				if m, err := c.Next(); err != nil || m.Type != "heartbeat" && m.Type != "keepalive" && m.Type != "caught_up" {
					t.Fatalf("got %+v, %v", m, err)
				}
			}
		}
		a.After = c.Cursor()
		c.Close()
		id := n.Publish(t, "acme", "orders.paid", 2, 2)[0]
		c = open(t, n, door, a)
		want(t, c, id)
	})
}

func TestADrainSaysGoaway(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.>"}}
		c := open(t, n, door, a)
		want(t, c, n.Publish(t, "acme", "orders.paid", 1, 1)[0])
		drained := make(chan error, 1)
		go func() { drained <- n.Core.Drain(t.Context(), 0, 0) }()
		if door.Stream {
			if m := next(t, c, "goaway"); m.Type != "goaway" || m.Reason != "drain" || m.RetryAfterMS == nil {
				t.Fatalf("got %+v, want goaway", m)
			}
			ends(t, c, door, 4200)
			c.Close()
		}
		if err := <-drained; err != nil {
			t.Fatal(err)
		}
		c, err := door.Open(t, n, a)
		if strings.HasPrefix(door.Name, "SSE") { // it must not be an error
			if err != nil {
				t.Fatal(err)
			}
			if m := next(t, c, "goaway"); m.Type != "goaway" {
				t.Fatalf("got %+v, want goaway", m)
			}
			ends(t, c, door, 0)
			return
		}
		var r *transporttest.Refused
		if !errors.As(err, &r) || r.Status != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
			t.Fatalf("got %v, want 503 with Retry-After", err)
		}
	})
}

func TestADrainAnswersPolls(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	answers := make(chan string, 1)
	go func() {
		_, body := get(t, n, "GET", "/v1/poll?wait=30&pattern=a", n.Token(t, "acme", "alice"), "")
		answers <- body
	}()
	for n.Core.Stats().Polls == 0 {
		if _, err := n.Engine.State(t.Context(), 0); err != nil { // anything but sleep
			t.Fatal(err)
		}
	}
	if err := n.Core.Drain(t.Context(), 0, 0); err != nil {
		t.Fatal(err)
	}
	if body := <-answers; !strings.Contains(body, `"cursor":`) && !strings.Contains(body, `"unavailable"`) {
		t.Errorf("got %s", body)
	}
}

// A client that does not read costs the others nothing, and misses nothing.
func TestASlowReaderMissesNothing(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		const events, size = 1500, 4000
		// It reads nothing for as long as the others take.
		n := transporttest.New(t, transporttest.Config{WriteTimeout: time.Minute, Hub: hub.Config{RingBytes: 1 << 20}})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.>"}, Narrow: true}
		slow := open(t, n, door, a)
		a.Narrow = false
		fast := open(t, n, door, a)
		data := []byte(`"` + noise(size) + `"`)
		var ids []string
		for range events / 50 {
			drafts := make([]carillon.Draft, 50)
			for i := range drafts {
				drafts[i] = carillon.Draft{Type: "orders.paid", Data: data}
			}
			more := n.PublishDrafts(t, "acme", drafts...)
			for _, id := range more {
				want(t, fast, id)
			}
			ids = append(ids, more...)
		}
		for i, id := range ids {
			if m := next(t, slow, "gap"); m.ID != id {
				t.Fatalf("event %d: got %s %s, want %s", i, m.Type, m.ID, id)
			}
		}
	})
}

// A client that takes nothing for too long is cut, and misses nothing either.
func TestAStalledReaderIsCutAndResumes(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		if !door.Stream {
			return // it asks when it can
		}
		n := transporttest.New(t, transporttest.Config{WriteTimeout: time.Second, Hub: hub.Config{RingBytes: 1 << 20}})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.>"}, Narrow: true}
		c := open(t, n, door, a)
		draft := carillon.Draft{Type: "orders.paid", Data: []byte(`"` + noise(100_000) + `"`)}
		var ids []string
		for range 100 {
			ids = append(ids, n.PublishDrafts(t, "acme", draft)...)
		}
		for n.Core.Count() > 0 { // nothing but the other organization's events goes on
			n.Publish(t, "umbrella", "orders.paid", 1, 1)
		}
		got := 0
		take := func(m message) {
			if m.ID != ids[got] {
				t.Fatalf("event %d: got %s %s, want %s", got, m.Type, m.ID, ids[got])
			}
			got++
		}
		for { // what had been sent
			m, err := c.Next()
			if err != nil {
				break
			}
			if m.Type == "event" {
				take(m)
			}
		}
		a.After, a.Narrow = c.Cursor(), false
		c.Close()
		if got == len(ids) {
			t.Fatal("it was not cut")
		}
		for c = open(t, n, door, a); got < len(ids); {
			take(next(t, c, "gap"))
		}
	})
}

// A publisher on a door gets ids that every door can resume from at once.
func TestAPublishedIDIsACursorAtOnce(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.>"}}
		for i := range 20 {
			ids := n.Publish(t, "acme", "orders.paid", i*2, i*2+1)
			a.After = ids[0]
			c := open(t, n, door, a)
			if m := next(t, c, "gap"); m.ID != ids[1] {
				t.Fatalf("got %+v, want %s", m, ids[1])
			}
			c.Close()
		}
	})
}

func TestMethodsAndParametersAreChecked(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	token := n.Token(t, "acme", "alice")
	for _, row := range []struct {
		method, path, body string
		status             int
		code, says         string
	}{
		{"HEAD", "/v1/sse", "", 405, "", ""},
		{"PUT", "/v1/sse", "", 405, "method_not_allowed", "GET, POST"},
		{"PUT", "/v1/poll", "", 405, "method_not_allowed", "GET, HEAD, POST"},
		{"GET", "/v1/frames", "", 405, "method_not_allowed", "POST"},
		{"POST", "/v1/ws", "", 405, "method_not_allowed", "GET"},
		{"GET", "/v1/ws", "", 426, "bad_request", "WebSocket"},
		{"GET", "/v1/sse?paterns=a", "", 400, "bad_request", `"paterns"`},
		{"GET", "/v1/sse?after=a&after=b", "", 400, "bad_request", "2 times"},
		{"GET", "/v1/sse?after=a&last_event_id=b", "", 400, "bad_request", "last_event_id"},
		{"GET", "/v1/sse?named=yes", "", 400, "bad_request", "named"},
		{"GET", "/v1/sse?room=ops", "", 404, "not_found", `"ops"`},
		{"GET", "/v1/sse?room=o+s", "", 400, "bad_request", "room"},
		{"GET", "/v1/sse?token=" + n.Token(t, "acme", "bob"), "", 400, "bad_request", "two different"},
		{"POST", "/v1/sse", `{"pattern":["a"]}`, 400, "bad_request", `"pattern"`},
		{"POST", "/v1/sse", `{"patterns":"a"}`, 400, "bad_request", "list"},
		{"POST", "/v1/sse", `{"patterns":["a"],"patterns":["b"]}`, 400, "bad_request", "twice"},
		{"POST", "/v1/sse", `{"patterns":["a"]`, 400, "bad_request", "middle"},
		{"POST", "/v1/sse", `[]`, 400, "bad_request", "object"},
		{"POST", "/v1/sse?pattern=a", `{}`, 400, "bad_request", "body"},
		{"GET", "/v1/poll?wait=31", "", 400, "bad_request", "0 to 30"},
		{"GET", "/v1/poll?wait=-1", "", 400, "bad_request", "0 to 30"},
		{"GET", "/v1/poll?wait=1s", "", 400, "bad_request", "0 to 30"},
		{"GET", "/v1/poll?limit=0", "", 400, "bad_request", "1 to 1000"},
		{"GET", "/v1/poll?limit=1001", "", 400, "bad_request", "1 to 1000"},
		{"GET", "/v1/poll?cursor=nonsense", "", 400, "bad_request", "nonsense"},
		{"GET", "/v1/poll?cursor=now&after=now", "", 400, "bad_request", "cursor"},
		{"GET", "/v1/poll?named=true", "", 400, "bad_request", `"named"`},
		{"GET", "/v1/poll?room=ops", "", 404, "not_found", `"ops"`},
		{"POST", "/v1/poll", `{"wait":31}`, 400, "bad_request", "0 to 30"},
		{"POST", "/v1/poll", `{"wait":1.5}`, 400, "bad_request", "whole number"},
		{"POST", "/v1/poll", `{"limit":null}`, 400, "bad_request", "whole number"},
		{"POST", "/v1/poll", `{"cursor":"now"}`, 400, "bad_request", `"cursor"`},
		{"POST", "/v1/poll", `{"patterns":["` + strings.Repeat("x", 1<<20) + `"]}`, 413, "too_large", "bytes"},
		{"POST", "/v1/frames", ``, 400, "bad_request", "empty"},
		{"POST", "/v1/frames", `[{"type":"ping"}`, 400, "bad_request", "array"},
		{"POST", "/v1/frames", `nonsense`, 400, "bad_request", "JSON"},
		{"POST", "/v1/frames", strings.Repeat(`{"type":"ping"}`+"\n", 101), 413, "too_large", "100"},
	} {
		resp, body := get(t, n, row.method, row.path, token, row.body)
		if resp.StatusCode != row.status || row.code != "" && !strings.Contains(body, fmt.Sprintf(`"code":%q`, row.code)) || !strings.Contains(strings.ReplaceAll(body, `\"`, `"`), row.says) {
			t.Errorf("%s %.60s %.60s: %d %s, want %d %s with %s", row.method, row.path, row.body, resp.StatusCode, body, row.status, row.code, row.says)
		}
		if row.code != "" && resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %.60s: Content-Type %q", row.method, row.path, resp.Header.Get("Content-Type"))
		}
		if got := resp.Header.Get("Allow"); row.status == 405 && got == "" {
			t.Errorf("%s %s: no Allow", row.method, row.path)
		}
		if resp.Header.Get("Cache-Control") != "no-store" || !strings.Contains(resp.Header.Get("Vary"), "Authorization") {
			t.Errorf("%s %.60s: headers %v", row.method, row.path, resp.Header)
		}
		if strings.Contains(body, token) {
			t.Errorf("%s %.60s: the answer holds the token", row.method, row.path)
		}
	}
}
