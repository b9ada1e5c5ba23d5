package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/telemetry"
)

func TestMetricsPageHasTheNamesOfTheField(t *testing.T) {
	h := telemetry.NewMetrics(func(context.Context) telemetry.Sample {
		return telemetry.Sample{
			Version: "v1", Durability: "strict", Ready: true,
			Connections: 3, ConnectionsTotal: 5, MessagesSent: 7,
			Errors:  map[string]uint64{"bad_token": 2},
			Limits:  map[string]uint64{"mailbox": 4},
			LeftOut: map[string]uint64{"conflate": 11},
			Flights: 9, BatchFlights: 2,
			Polls: 14, PollsAttached: 13, PollsLingering: 12, TokensKnown: 15,
			Refused: 8, TokenKeys: []telemetry.TokenKey{{Issuer: "a", Key: "secret 1", Used: 3}},
			KeySets:  []telemetry.KeySet{{Issuer: "a", Keys: 2, Age: 3 * time.Second, Fetches: 5, Failures: 1}},
			AckCount: 4, AckTotal: 2 * time.Second,
			Requests: []telemetry.Requests{{Route: "/v1/events", Status: 202, Count: 6}},
			Latency: telemetry.Histogram{
				Bounds: []time.Duration{time.Millisecond, 10 * time.Millisecond}, Buckets: []uint64{1, 2, 3}, Sum: 90 * time.Millisecond,
			},
		}
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	page, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d, %v: %s", w.Code, err, page)
	}
	for _, want := range []string{
		`carillon_build_info{durability="strict",version="v1"} 1`,
		"ws_connections_active 3",
		"ws_connections_total 5",
		"ws_messages_sent_total 7",
		`ws_errors_total{reason="bad_token"} 2`,
		`ws_message_latency_ms_bucket{le="1"} 1`,
		`ws_message_latency_ms_bucket{le="10"} 3`,
		`ws_message_latency_ms_bucket{le="+Inf"} 6`,
		"ws_message_latency_ms_sum 90",
		`carillon_events_left_out_total{policy="conflate"} 11`,
		`carillon_engine_flights_total{kind="single"} 7`,
		"carillon_engine_ack_seconds_sum 2",
		`carillon_http_requests_total{code="202",route="/v1/events"} 6`,
		`carillon_limit_hits_total{limit="mailbox"} 4`,
		"carillon_credentials_refused_total 8",
		"carillon_polls_total 14",
		"carillon_polls_attached_total 13",
		"carillon_polls_lingering 12",
		"carillon_tokens_known_total 15",
		`carillon_token_key_used_total{issuer="a",key="secret 1"} 3`,
		`carillon_jwks_keys{issuer="a"} 2`,
		`carillon_jwks_age_seconds{issuer="a"} 3`,
		`carillon_jwks_fetches_total{issuer="a",result="ok"} 4`,
		`carillon_jwks_fetches_total{issuer="a",result="failed"} 1`,
		"go_goroutines ",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page does not have %q", want)
		}
	}
}

func TestLoggerHasLevelAndFormat(t *testing.T) {
	var b bytes.Buffer
	l, err := telemetry.NewLogger(&b, "warn", "json")
	if err != nil {
		t.Fatal(err)
	}
	l.Info("no")
	l.Warn("yes", "n", 1)
	var line struct {
		Msg   string
		Level string
		N     int
	}
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line.Msg != "yes" || line.N != 1 || line.Level != "WARN" {
		t.Errorf("%q: %+v, %v", b.String(), line, err)
	}
	if _, err := telemetry.NewLogger(&b, "loud", "json"); err == nil {
		t.Error("an unknown level is taken")
	}
	if _, err := telemetry.NewLogger(&b, "info", "xml"); err == nil {
		t.Error("an unknown format is taken")
	}
}
