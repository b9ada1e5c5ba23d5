package server_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon/internal/testkit"
)

func TestFullDiskRefusesPublishesAndKeepsSubscribers(t *testing.T) {
	t.Parallel() // it mostly waits
	disk := testkit.SmallDisk(t, "400m")
	if disk == "" {
		return
	}
	s, c := start(t, settings(filepath.Join(disk, "data"))), client(t)
	ws, err := dial(t.Context(), s.PublicURL(), token(t, "bob"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	await(t, ws, "caught_up")

	var stored []string
	publish := func(until int) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for n := 0; ; n++ {
			data := strconv.Itoa(len(stored))
			status, wait := publishOnce(t, c, s.PublicURL(), data)
			switch status {
			case http.StatusAccepted:
				stored = append(stored, data)
			case http.StatusServiceUnavailable:
				if seconds, err := strconv.Atoi(wait); err != nil || seconds < 1 {
					t.Errorf("Retry-After: %q", wait)
				}
			default:
				t.Fatalf("publish: %d", status)
			}
			if status == until {
				return
			}
			if !retry(ctx) {
				t.Fatalf("a publish is answered %d; %d does not come", status, until)
			}
		}
	}
	publish(http.StatusAccepted)
	for range 2 {
		ballast := filepath.Join(disk, "ballast")
		testkit.FillDisk(t, ballast)
		if status, _ := publishOnce(t, c, s.PublicURL(), fmt.Sprintf("%q", strings.Repeat("x", 100_000))); status != http.StatusServiceUnavailable {
			t.Errorf("an event on a full disk is answered %d", status)
		}
		publish(http.StatusServiceUnavailable)
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"ping"}`)); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		publish(http.StatusAccepted)
	}
	// What was refused may have been stored all the same; what was accepted is there.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for pongs := 0; pongs < 2 || len(stored) > 0; {
		f, err := next(ctx, ws)
		if err != nil {
			t.Fatalf("the subscriber was sent away: %v, with %d events to come", err, len(stored))
		}
		switch f.Type {
		case "pong":
			pongs++
		case "event":
			if len(stored) > 0 && string(f.Payload) == stored[0] {
				stored = stored[1:]
			}
		case "gap":
			t.Errorf("a gap: %s", f.Reason)
		}
	}
}
