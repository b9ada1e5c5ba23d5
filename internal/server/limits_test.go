package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon/internal/config"
)

func TestConnectionsOfAnOrganizationAreLimitedExactly(t *testing.T) {
	cfg := settings("")
	cfg.Limits.Connections = 1
	s, c := start(t, cfg), client(t)
	first, err := dial(t.Context(), s.PublicURL(), token(t, "alice"), "")
	if err != nil {
		t.Fatal(err)
	}
	await(t, first, "caught_up")
	second, err := dial(t.Context(), s.PublicURL(), token(t, "bob"), "")
	if err != nil {
		t.Fatal(err)
	}
	await(t, second, "error")
	for err == nil {
		_, err = next(t.Context(), second)
	}
	if code := websocket.CloseStatus(err); code != 4101 {
		t.Errorf("one connection too many is closed with %v, want 4101", err)
	}
	auth := []string{"Authorization", "Bearer " + token(t, "carol")}
	if status, body := do(t, c, http.MethodGet, s.PublicURL()+"/v1/sse?pattern=a", "", auth...); status != http.StatusTooManyRequests || !strings.Contains(body, "quota_exceeded") {
		t.Errorf("one stream too many: %d, %s", status, body)
	}
	if status, body := do(t, c, http.MethodGet, s.PublicURL()+"/v1/poll?wait=0", "", auth...); status != http.StatusOK {
		t.Errorf("a poll, which is not counted: %d, %s", status, body)
	}
	if _, body := do(t, c, http.MethodGet, s.OpsURL()+"/metrics", ""); !strings.Contains(body, `carillon_limit_hits_total{limit="connections"} 2`+"\n") {
		t.Error("the two refusals are not counted")
	}
	_ = first.CloseNow()
	for { // its place becomes free when the node has seen the end
		third, err := dial(t.Context(), s.PublicURL(), token(t, "bob"), "")
		if err != nil {
			t.Fatal(err)
		}
		f, err := next(t.Context(), third)
		_ = third.CloseNow()
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == "welcome" {
			return
		}
	}
}

func TestPollWaitsAsConfigured(t *testing.T) {
	cfg := settings("")
	cfg.Poll.WaitMax, cfg.Poll.WaitDefault = config.Duration(2*time.Second), config.Duration(time.Second)
	s, c := start(t, cfg), client(t)
	auth := []string{"Authorization", "Bearer " + token(t, "alice")}
	begin := time.Now()
	if status, body := do(t, c, http.MethodGet, s.PublicURL()+"/v1/poll", "", auth...); status != http.StatusOK {
		t.Errorf("%d, %s", status, body)
	}
	if took := time.Since(begin); took < 900*time.Millisecond || took > 10*time.Second {
		t.Errorf("a poll that does not say waited %v, want 1s", took)
	}
	if status, body := do(t, c, http.MethodGet, s.PublicURL()+"/v1/poll?wait=3", "", auth...); status != http.StatusBadRequest || !strings.Contains(body, "0 to 2") {
		t.Errorf("a wait above the longest: %d, %s", status, body)
	}
}
