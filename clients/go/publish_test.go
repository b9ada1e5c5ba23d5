//go:build go1.25

package carillon_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	carillon "github.com/carillon-rt/carillon/clients/go"
)

func TestPublishSendsDraftsAsTheyAre(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		receipts, err := f.client(carillon.Options{}).Publish(t.Context(),
			carillon.Draft{
				Type: "order.created", Data: json.RawMessage(`{"b":1.50,"a":"<&>"}`), Subject: "o-1", ID: "mine",
				Time: time.Date(2025, 7, 9, 10, 30, 0, 0, time.UTC), To: carillon.Audience{Users: []string{"alice"}},
			},
			carillon.Draft{Type: "order.paid", To: carillon.Audience{Room: "ops"}, ID: "x"},
			carillon.Draft{Type: "order.sent", To: carillon.Audience{Users: []string{"a", "b"}}, ID: "y"},
		)
		if err != nil {
			t.Fatal(err)
		}
		if len(receipts) != 3 || receipts[1] != (carillon.Receipt{ID: fakeID(1)}) {
			t.Errorf("receipts %v", receipts)
		}
		want := `[{"type":"order.created","data":{"b":1.50,"a":"<&>"},"subject":"o-1","time":"2025-07-09T10:30:00Z","id":"mine","to":{"user":"alice"}},` +
			`{"type":"order.paid","data":null,"id":"x","to":{"room":"ops"}},` +
			`{"type":"order.sent","data":null,"id":"y","to":{"users":["a","b"]}}]`
		if got := f.seen()[0]; got.body != want || got.auth != "Bearer ck_fake" {
			t.Errorf("sent %s\nwant %s", got.body, want)
		}
	})
}

func TestAnEphemeralDraftGetsNoID(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		if _, err := f.client(carillon.Options{}).Publish(t.Context(), carillon.Draft{Type: "order.seen", Ephemeral: true}); err != nil {
			t.Fatal(err)
		}
		if got, want := f.seen()[0].body, `[{"type":"order.seen","data":null,"ephemeral":true}]`; got != want {
			t.Errorf("sent %s\nwant %s", got, want)
		}
	})
}

// An answer that is lost does not make an event happen twice.
func TestPublishTriesAgainWithTheSameIDs(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.publishes = func(n int, w http.ResponseWriter, drafts []json.RawMessage) bool {
			switch n {
			case 1:
				w.Header().Set("Retry-After", "7")
				writeProblem(w, 503, "unavailable", "starting")
			case 2:
				writeProblem(w, 429, "rate_limited", "slower")
			case 3: // stored, and the answer is lost
				f.store(discard{}, drafts)
				panic(http.ErrAbortHandler)
			default:
				return false
			}
			return true
		}
		receipts, err := f.client(carillon.Options{}).Publish(t.Context(), carillon.Draft{Type: "a.b"}, carillon.Draft{Type: "a.c"})
		if err != nil {
			t.Fatal(err)
		}
		if !receipts[0].Duplicate || receipts[1].ID != fakeID(1) || f.end() != 1 {
			t.Errorf("receipts %v, %d events", receipts, f.end()+1)
		}
		seen := f.seen()
		if len(seen) != 4 {
			t.Fatalf("%d requests", len(seen))
		}
		for _, r := range seen {
			if r.body != seen[0].body {
				t.Errorf("sent %s after %s", r.body, seen[0].body)
			}
		}
		if wait := seen[1].at.Sub(seen[0].at); wait < 7*time.Second || wait > 9*time.Second {
			t.Errorf("waited %v after Retry-After: 7", wait)
		}
		for i, limit := range []time.Duration{2 * time.Second, 4 * time.Second} {
			if wait := seen[i+2].at.Sub(seen[i+1].at); wait < time.Second/2 || wait > limit {
				t.Errorf("waited %v before try %d", wait, i+2)
			}
		}
	})
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

func TestPublishGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		status, code := 503, "unavailable"
		f.publishes = func(_ int, w http.ResponseWriter, _ []json.RawMessage) bool {
			writeProblem(w, status, code, "no")
			return true
		}
		draft := carillon.Draft{Type: "a.b"}
		tries := func() int { n := len(f.seen()); f.mu.Lock(); f.requests = nil; f.mu.Unlock(); return n }
		var e *carillon.Error

		_, err := f.client(carillon.Options{Retries: 3}).Publish(t.Context(), draft)
		if n := tries(); n != 4 || !errors.As(err, &e) || !e.Retryable || e.Status != 503 {
			t.Errorf("%d tries, %v", n, err)
		}
		_, err = f.client(carillon.Options{Retries: -1}).Publish(t.Context(), draft)
		if n := tries(); n != 1 || err == nil {
			t.Errorf("%d tries, %v", n, err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = f.client(carillon.Options{}).Publish(ctx, draft)
		if n := tries(); n != 1 || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "unavailable: no") {
			t.Errorf("%d tries, %v", n, err)
		}

		for _, final := range []struct {
			status int
			code   string
		}{{400, "bad_request"}, {403, "forbidden"}, {413, "too_large"}, {429, "quota_exceeded"}} {
			status, code = final.status, final.code
			_, err = f.client(carillon.Options{}).Publish(t.Context(), draft)
			if n := tries(); n != 1 || !errors.As(err, &e) || string(e.Code) != code || e.Retryable || e.Message != "no" {
				t.Errorf("%s: %d tries, %v", code, n, err)
			}
		}
	})
}

func TestARefusedTokenIsFetchedAgainOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		valid := "token-1"
		f.handshake = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") == "Bearer "+valid {
				return false
			}
			writeProblem(w, 401, "unauthenticated", "expired")
			return true
		}
		calls := 0
		client := f.client(carillon.Options{TokenFunc: func(context.Context) (string, error) {
			calls++
			return fmt.Sprint("token-", calls), nil
		}})
		for range 3 {
			if _, err := client.Publish(t.Context(), carillon.Draft{Type: "a.b"}); err != nil {
				t.Fatal(err)
			}
		}
		if calls != 1 {
			t.Errorf("%d tokens for three publishes", calls)
		}
		valid = "token-2"
		if _, err := client.Publish(t.Context(), carillon.Draft{Type: "a.b"}); err != nil || calls != 2 {
			t.Errorf("after expiry: %v, %d tokens", err, calls)
		}
		valid = "none"
		_, err := client.Publish(t.Context(), carillon.Draft{Type: "a.b"})
		var e *carillon.Error
		if !errors.As(err, &e) || e.Code != carillon.CodeUnauthenticated || calls != 3 {
			t.Errorf("refused for good: %v, %d tokens", err, calls)
		}
	})
}

func TestPublishRefusesWhatCannotBeSent(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		client := f.client(carillon.Options{})
		var e *carillon.Error
		if _, err := client.Publish(t.Context(), make([]carillon.Draft, 1001)...); !errors.As(err, &e) || e.Code != carillon.CodeTooLarge {
			t.Errorf("1,001 drafts: %v", err)
		}
		_, err := client.Publish(t.Context(), carillon.Draft{Type: "a"}, carillon.Draft{Type: "b", Data: json.RawMessage("{")})
		if !errors.As(err, &e) || !strings.Contains(err.Error(), "draft 1 (b) is not JSON") {
			t.Errorf("broken data: %v", err)
		}
		if receipts, err := client.Publish(t.Context()); receipts != nil || err != nil {
			t.Errorf("nothing: %v, %v", receipts, err)
		}
		if n := len(f.seen()); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestHistoryAndPoll(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.handshake = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprint(w, `{"events":[{"type":"event","id":"A","event_type":"a.b","timestamp":"2025-07-09T10:30:00.120Z",`+
				`"payload":{"x":1.0},"from":"alice","direct":true}],"cursor":"B","more":true,"gap":{"reason":"expired","cursor":"0"}}`)
			return true
		}
		client := f.client(carillon.Options{})
		page, err := client.History(t.Context(), carillon.Query{Patterns: []string{"a.*", "b.>"}, Rooms: []string{"ops"}, Subject: "s", After: "-10m", Limit: 5})
		if err != nil {
			t.Fatal(err)
		}
		e := page.Events[0]
		if e.ID != "A" || e.Type != "a.b" || string(e.Data) != `{"x":1.0}` || e.From != "alice" || !e.Direct ||
			page.Cursor != "B" || !page.More || *page.Gap != (carillon.Gap{Reason: carillon.GapExpired, Cursor: "0"}) {
			t.Errorf("page %+v", page)
		}
		b, err := json.Marshal(e)
		if want := `{"type":"event","id":"A","event_type":"a.b","timestamp":"2025-07-09T10:30:00.120Z","payload":{"x":1.0},"direct":true,"from":"alice"}`; err != nil || string(b) != want {
			t.Errorf("an event written again is %s (%v), want %s", b, err, want)
		}
		if _, err := client.History(t.Context(), carillon.Query{Newest: true, Before: "C"}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Poll(t.Context(), carillon.PollQuery{Patterns: []string{"a.*"}, After: "B", Wait: 1500 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range f.seen() {
			got = append(got, r.method+" "+r.url+" "+r.body)
		}
		want := []string{
			"GET /v1/events?after=-10m&limit=5&pattern=a.%2A&pattern=b.%3E&room=ops&subject=s ",
			"GET /v1/events?before=C&order=desc ",
			`POST /v1/poll {"patterns":["a.*"],"after":"B","wait":2}`,
		}
		if !slices.Equal(got, want) {
			t.Errorf("asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestAnAnswerThatIsNotCarillons(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.handshake = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprint(w, "<html>Welcome to nginx</html>")
			return true
		}
		_, err := f.client(carillon.Options{}).History(t.Context(), carillon.Query{})
		var e *carillon.Error
		if !errors.As(err, &e) || e.Code != carillon.CodeProtocol || e.Retryable || !strings.Contains(e.Message, "http://fake.example") {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
	})
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	token := func(context.Context) (string, error) { return "", nil }
	for _, test := range []struct {
		o    carillon.Options
		want string
	}{
		{carillon.Options{}, "no URL"},
		{carillon.Options{URL: "localhost:8080"}, "not the address"},
		{carillon.Options{URL: "ftp://x"}, "http or https"},
		{carillon.Options{URL: "http://u:secret@x"}, "has a user"},
		{carillon.Options{URL: "http://x?token=secret"}, "a query"},
		{carillon.Options{URL: "http://x", APIKey: "ck_a", Token: "b"}, "more than one credential"},
		{carillon.Options{URL: "http://x", Token: "b", TokenFunc: token}, "more than one credential"},
	} {
		_, err := carillon.New(test.o)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("New(%+v) says %v, want %q", test.o.URL, err, test.want)
		}
	}
	for _, ok := range []string{"http://x", "wss://x/events/", "https://[::1]:8080"} {
		if _, err := carillon.New(carillon.Options{URL: ok}); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
}
