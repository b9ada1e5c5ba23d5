package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	carillon "github.com/carillon-rt/carillon/clients/go"
)

// live is a client of the server at CARILLON_URL; `carillon dev --env-file`
// writes the variables.
func live(t *testing.T) (context.Context, *carillon.Client) {
	t.Helper()
	url := os.Getenv("CARILLON_URL")
	if url == "" {
		t.Skip("SKIPPED: CARILLON_URL is not set, so nothing was tested against a real server")
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	o := carillon.Options{URL: url, APIKey: os.Getenv("CARILLON_API_KEY"), HTTPClient: &http.Client{Transport: transport}}
	if o.APIKey == "" {
		o.Token = os.Getenv("CARILLON_TOKEN")
	}
	client, err := carillon.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx, client
}

func publishLive(ctx context.Context, t *testing.T, client *carillon.Client, typ string, n int) []string {
	t.Helper()
	drafts := make([]carillon.Draft, n)
	for i := range drafts {
		drafts[i] = carillon.Draft{Type: typ, Data: map[string]int{"n": i}}
	}
	receipts, err := client.Publish(ctx, drafts...)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, n)
	for i, r := range receipts {
		ids[i] = r.ID
	}
	return ids
}

// readLive checks that exactly these events come.
func readLive(ctx context.Context, t *testing.T, sub *carillon.Subscription, ids []string) {
	t.Helper()
	for i, id := range ids {
		event, err := sub.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if event.ID != id || string(event.Data) != fmt.Sprintf(`{"n":%d}`, i) {
			t.Fatalf("event %d is %s %s, want %s", i, event.ID, event.Data, id)
		}
	}
}

// One cursor goes from the WebSocket to polling to history and back.
func TestLiveOneCursorOnEveryDoor(t *testing.T) {
	ctx, client := live(t)
	typ := "livetest." + carillon.NewID()
	sub, err := client.Subscribe(ctx, []string{typ}, carillon.SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	readLive(ctx, t, sub, publishLive(ctx, t, client, typ, 100))
	cursor := sub.Cursor()
	_ = sub.Close()

	missed := publishLive(ctx, t, client, typ, 50)
	poll, err := client.Poll(ctx, carillon.PollQuery{Patterns: []string{typ}, After: cursor, Wait: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	history, err := client.History(ctx, carillon.Query{Patterns: []string{typ}, After: cursor})
	if err != nil {
		t.Fatal(err)
	}
	for way, page := range map[string]carillon.Page{"poll": poll, "history": history} {
		if len(page.Events) != 50 || page.Events[0].ID != missed[0] || page.Gap != nil {
			t.Errorf("%s: %d events, gap %v", way, len(page.Events), page.Gap)
		}
	}
	sub, err = client.Subscribe(ctx, []string{typ}, carillon.SubscribeOptions{After: cursor})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	readLive(ctx, t, sub, missed)
}

func TestLiveTheSameIDIsOneEvent(t *testing.T) {
	ctx, client := live(t)
	draft := carillon.Draft{Type: "livetest.once", ID: carillon.NewID()}
	first, err := client.Publish(ctx, draft)
	if err != nil {
		t.Fatal(err)
	}
	second, err := client.Publish(ctx, draft)
	if err != nil {
		t.Fatal(err)
	}
	if first[0].Duplicate || !second[0].Duplicate || first[0].ID != second[0].ID {
		t.Errorf("receipts %v and %v", first, second)
	}
}

func TestLiveErrorsHaveTheirCodes(t *testing.T) {
	ctx, client := live(t)
	var e *carillon.Error
	if _, err := client.Publish(ctx, carillon.Draft{Type: "not a type"}); !errors.As(err, &e) || e.Code != carillon.CodeBadRequest || e.Message == "" {
		t.Errorf("a bad type: %v", err)
	}
	if _, err := client.Subscribe(ctx, []string{"ord*"}, carillon.SubscribeOptions{}); !errors.As(err, &e) || e.Code != carillon.CodeBadRequest {
		t.Errorf("a bad pattern: %v", err)
	}
	stranger, err := carillon.New(carillon.Options{URL: os.Getenv("CARILLON_URL"), APIKey: "ck_wrong"})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.CloseIdleConnections()
	if _, err := stranger.Subscribe(ctx, nil, carillon.SubscribeOptions{}); !errors.As(err, &e) || e.Code != carillon.CodeUnauthenticated {
		t.Errorf("a bad key: %v", err)
	}
}
