package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/server"
)

// hit is how one limit is met over the doors of a node.
type hit struct {
	set  func(c *config.Config)             // makes the limit small
	meet func(t *testing.T, n *limitedNode) // meets it, and checks what the client gets
	// times is how often that is; 0: at least once.
	times uint64
	// also are limits that are met on the way.
	also []string
	// small: the settings are below what they may be, so that a test can meet them.
	small bool
}

// hits are all limits of the settings. A new one needs a line here and a counter.
var hits = map[string]hit{
	"tickets":                   ticketsHit,
	"jwks_bytes":                jwksBytesHit,
	"jwks_keys":                 jwksKeysHit,
	"jwks_unknown":              jwksUnknownHit,
	"jwks_waiting":              jwksWaitingHit,
	"handshakes":                handshakesHit,
	"proxy_header_bytes":        proxyHeaderHit,
	"requests_in_flight":        requestsInFlightHit,
	"memory_percent":            memoryHit(),
	"connections_per_address":   connectionsPerAddressHit,
	"connections_per_user":      connectionsPerUserHit,
	"hook_sources":              hookSourcesHit,
	"hook_bytes_in_flight":      hookBytesHit,
	"hook_spool_bytes":          hookSpoolHit,
	"hook_refusals_per_second":  hookRefusalsHit,
	"hook_deliveries_in_memory": hookMemoryHit,
	"event_bytes": {
		set: func(c *config.Config) { c.Limits.EventBytes = 256 },
		meet: func(t *testing.T, n *limitedNode) {
			event := fmt.Sprintf(`{"type":"a.b","data":%q}`, strings.Repeat("x", 300))
			n.publish(t, event, 413, "too_large")
			n.frame(t, `{"type":"publish","event":`+event+`}`, "too_large")
			n.socket(t).asks(`{"type":"publish","event":`+event+`}`, "too_large")
		},
		times: 3,
	},
	"request_bytes": {
		set: func(c *config.Config) { c.Limits.RequestBytes, c.Limits.EventBytes = 1024, 1024 },
		meet: func(t *testing.T, n *limitedNode) {
			long := strings.Repeat(" ", 1025)
			n.publish(t, `{"type":"a.b","data":1}`+long, 413, "too_large")
			n.ask(t, http.MethodPost, "/v1/frames", `{"type":"ping"}`+long, 413, "too_large")
			n.ask(t, http.MethodPost, "/v1/sse", `{"patterns":["a"]}`+long, 413, "too_large")
			n.ask(t, http.MethodPost, "/v1/poll", `{"patterns":["a"]}`+long, 413, "too_large")
			event := fmt.Sprintf(`{"type":"a.b","data":%q}`, strings.Repeat("x", 600))
			n.socket(t).asks(`{"type":"publish","events":[`+event+`,`+event+`]}`, "too_large")
		},
		times: 5,
	},
	"batch_events": {
		set: func(c *config.Config) { c.Limits.BatchEvents = 2 },
		meet: func(t *testing.T, n *limitedNode) {
			events := `[{"type":"a","data":1},{"type":"a","data":2},{"type":"a","data":3}]`
			n.publish(t, events, 413, "too_large")
			n.frame(t, `{"type":"publish","events":`+events+`}`, "too_large")
			n.socket(t).asks(`{"type":"publish","events":`+events+`}`, "too_large")
		},
		times: 3,
	},
	"frame_bytes": {
		set: func(c *config.Config) { c.Limits.FrameBytes, c.Connection.Compression = 1024, true },
		meet: func(t *testing.T, n *limitedNode) {
			long := `{"type":"ping","ref":"` + strings.Repeat("x", 1024) + `"}`
			n.frame(t, long, "too_large")
			ws := n.socket(t)
			ws.send(long)
			ws.closes(websocket.StatusMessageTooBig)
			// A client that closes with the same code has met nothing.
			_ = n.socket(t).Close(websocket.StatusMessageTooBig, "")
			bomb := &limitedSocket{n.compressing(t), t}
			bomb.send(long)
			bomb.closes(websocket.StatusMessageTooBig)
		},
		times: 3,
	},
	"header_bytes": {
		set: func(c *config.Config) { c.Limits.HeaderBytes = 1024 },
		meet: func(t *testing.T, n *limitedNode) {
			n.ask(t, http.MethodGet, "/v1/events", "", 431, "too_large", "X-Long", strings.Repeat("x", 1024))
			n.ask(t, http.MethodGet, "/v1/events?subject="+strings.Repeat("x", 1024), "", 431, "too_large")
			n.ask(t, http.MethodGet, "/v1/events", "", 431, "too_large", "X-Long", strings.Repeat("x", 60_000))
		},
		times: 3,
	},
	"token_bytes": {
		set: func(c *config.Config) { c.Limits.TokenBytes = 512 },
		meet: func(t *testing.T, n *limitedNode) {
			long := strings.Repeat("x", 513)
			for _, token := range []string{long, "ck_" + long} {
				n.ask(t, http.MethodGet, "/v1/events", "", 401, "unauthenticated", "Authorization", "Bearer "+token)
			}
			status, body := do(t, n.client, http.MethodGet, n.PublicURL()+"/v1/events?token="+long, "")
			if status != 401 || !strings.Contains(body, "longer than 512 bytes") {
				t.Errorf("%d, %s", status, body)
			}
		},
		times: 3,
	},
	"subscriptions_per_connection": {
		set: func(c *config.Config) { c.Limits.SubscriptionsPerConnection = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			n.socket(t).asks(`{"type":"subscribe","pattern":"a"}`, "quota_exceeded") // it has one
			n.ask(t, http.MethodGet, "/v1/sse?pattern=a&pattern=b", "", 429, "quota_exceeded")
			n.ask(t, http.MethodGet, "/v1/poll?pattern=a&pattern=b", "", 429, "quota_exceeded")
		},
		times: 3,
	},
	"wildcard_shapes_per_org": {
		set: func(c *config.Config) { c.Limits.WildcardShapesPerOrg = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			ws := n.socket(t)
			ws.asks(`{"type":"subscribe","pattern":"*.b"}`, "quota_exceeded") // there is one to ">"
			n.ask(t, http.MethodGet, "/v1/poll?pattern=*.b", "", 429, "quota_exceeded")
		},
		times: 2,
	},
	"publishes_in_flight_per_connection": {
		set: func(c *config.Config) { c.Limits.PublishesInFlightPerConnection = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			ws := n.socket(t)
			ws.send(`{"type":"publish","event":{"type":"a","data":1}}`)
			await(t, ws.Conn, "published")
		},
		times: 1,
	},
	"outbox_bytes": {
		set: func(c *config.Config) { c.Limits.OutboxBytes = 4096 },
		meet: func(t *testing.T, n *limitedNode) {
			patterns := make([]string, 100)
			for i := range patterns {
				patterns[i] = fmt.Sprintf("a%d.%s", i, strings.Repeat("x", 60))
			}
			list, _ := json.Marshal(patterns) // strings always can be
			ws := n.socket(t)
			ws.send(`{"type":"subscribe","patterns":` + string(list) + `}`) // the answer repeats them
			await(t, ws.Conn, "subscribed")
		},
		times: 1,
	},
	"bad_frames_per_minute": {
		set: func(c *config.Config) { c.Limits.BadFramesPerMinute = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			ws := n.socket(t)
			ws.asks(`{"type":"dance"}`, "bad_request")
			ws.send(`dance`)
			ws.closes(4000)
			_ = n.socket(t).Close(4000, "") // a client's own code
		},
		times: 1,
	},
	"control_frames_per_minute": {
		set: func(c *config.Config) { c.Limits.ControlFramesPerMinute = 10 },
		meet: func(t *testing.T, n *limitedNode) {
			const pong, piece, lastPiece = "\x8a\x80....", "\x01\x80....", "\x80\x80...."
			url := "ws" + strings.TrimPrefix(n.PublicURL(), "http") + "/v1/ws"
			for _, frames := range []string{strings.Repeat(pong, 40), strings.Repeat(piece+lastPiece, 40)} {
				d := ws.Dialer{Header: ws.HandshakeHeaderHTTP{"Authorization": {"Bearer " + token(t, "alice")}}}
				conn, _, _, err := d.Dial(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := io.WriteString(conn, frames); err != nil { // more than a minute's, should one begin meanwhile
					t.Fatal(err)
				}
				for {
					f, err := ws.ReadFrame(conn) //nolint:staticcheck // the server in this process is no stranger
					if err != nil {
						t.Fatal(err)
					}
					if code, _ := ws.ParseCloseFrameData(f.Payload); f.Header.OpCode == ws.OpClose {
						if code != 4101 {
							t.Errorf("closed with %d", code)
						}
						break
					}
				}
			}
		},
		times: 2,
	},
	"inflating": {
		set: func(c *config.Config) { c.Connection.Compression, c.Limits.Inflating = true, 1 },
		meet: func(t *testing.T, n *limitedNode) {
			long := []byte(`{"type":"ping"` + strings.Repeat(" ", 1_000_000) + `}`)
			var all []*websocket.Conn
			for range 4 {
				all = append(all, n.compressing(t))
			}
			n.until(t, func() bool {
				var wg sync.WaitGroup
				for _, c := range all {
					wg.Go(func() {
						err := c.Write(t.Context(), websocket.MessageText, long)
						for f := (frame{}); err == nil && f.Type != "pong"; {
							f, err = next(t.Context(), c)
						}
						if err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				return n.limits(t)["inflating"] > 0
			})
		},
	},
	"users_per_event": {
		set: func(c *config.Config) { c.Limits.UsersPerEvent = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			n.publish(t, `{"type":"a","data":1,"to":{"users":["alice","bob"]}}`, 400, "bad_request")
		},
		times: 1,
	},
	"ce_bytes": {
		set: func(c *config.Config) { c.Limits.CEBytes = 256 },
		meet: func(t *testing.T, n *limitedNode) {
			event := fmt.Sprintf(`{"specversion":"1.0","id":"1","source":"/s","type":"a.b","data":1,"ext":%q}`, strings.Repeat("x", 300))
			n.ask(t, http.MethodPost, "/v1/events", event, 413, "too_large", "Content-Type", "application/cloudevents+json")
		},
		times: 1,
	},
	"connections_per_node": {
		set: func(c *config.Config) { c.Limits.ConnectionsPerNode = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			n.socket(t)
			for _, path := range []string{"/v1/ws", "/v1/poll?wait=0"} {
				n.ask(t, http.MethodGet, path, "", 503, "unavailable",
					"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
			}
			if status, body := n.get(t, http.MethodGet, "/v1/sse?pattern=a", ""); status != 200 || !strings.Contains(body, "event: carillon.goaway\n") {
				t.Errorf("a stream: %d, %s", status, body)
			}
		},
		times: 3,
	},
	"connections": {
		set: func(c *config.Config) { c.Limits.Connections = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			n.socket(t)
			n.ask(t, http.MethodGet, "/v1/sse?pattern=a", "", 429, "quota_exceeded")
		},
		times: 1,
	},
	"publish_per_second": {
		set: func(c *config.Config) { c.Limits.PublishPerSecond = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			n.until(t, func() bool {
				status, _ := n.get(t, http.MethodPost, "/v1/events", `{"type":"a","data":1}`)
				return status == 429
			})
		},
		times: 1,
	},
	"publish_burst": {
		set: func(c *config.Config) { c.Limits.PublishPerSecond, c.Limits.PublishBurst = 1, 2 },
		meet: func(t *testing.T, n *limitedNode) {
			n.publish(t, `[{"type":"a","data":1},{"type":"a","data":2},{"type":"a","data":3}]`, 413, "too_large")
		},
		times: 1,
	},
	"publish_bytes_per_second": {
		set: func(c *config.Config) { c.Limits.PublishBytesPerSecond, c.Limits.EventBytes = 1, 512 },
		meet: func(t *testing.T, n *limitedNode) {
			event := fmt.Sprintf(`{"type":"a","data":%q}`, strings.Repeat("x", 500))
			n.publish(t, `[`+event+strings.Repeat(`,`+event, 3)+`]`, 413, "too_large") // more than ever at once
			n.until(t, func() bool {
				status, _ := n.get(t, http.MethodPost, "/v1/events", event)
				return status == 429
			})
		},
		times: 2,
	},
	"publish_in_flight": {
		set:  func(c *config.Config) { c.Engine.Kind, c.Limits.PublishInFlight = config.KindJetStream, 1 },
		meet: meetInFlight,
	},
	"publish_in_flight_bytes": {
		set:  func(c *config.Config) { c.Engine.Kind, c.Limits.PublishInFlightBytes = config.KindJetStream, 1024 },
		meet: meetInFlight,
	},
	"ring_bytes": {
		set: func(c *config.Config) { c.Engine.Partitions, c.Limits.RingBytes = 1, 1<<20 },
		meet: func(t *testing.T, n *limitedNode) {
			n.publish(t, array(1000, 2000), 202, "")
			n.until(t, func() bool { return n.limits(t)["ring_bytes"] > 0 })
		},
	},
	"feed_queue": {
		set: func(c *config.Config) { c.Limits.FeedQueue = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			n.socket(t)
			n.until(t, func() bool {
				n.publish(t, array(1000, 1), 202, "")
				return n.limits(t)["feed_queue"] > 0
			})
		},
		also: []string{"mailbox"}, // so many at once may do both
	},
	"conflated_subjects": {
		set: func(c *config.Config) { c.Limits.FeedQueue, c.Limits.ConflatedSubjects = 1, 1 },
		meet: func(t *testing.T, n *limitedNode) {
			s := n.socket(t)
			s.send(`{"type":"subscribe","pattern":">","overflow":"conflate"}`)
			await(t, s.Conn, "subscribed")
			two := strings.Replace(array(1000, 1), `"a"`, `"a","subject":"s"`, 1)
			n.until(t, func() bool {
				n.publish(t, two, 202, "")
				return n.limits(t)["conflated_subjects"] > 0
			})
		},
		also: []string{"feed_queue", "mailbox"},
	},
	"mailbox": {
		set: func(c *config.Config) { c.Limits.Mailbox = 16 },
		meet: func(t *testing.T, n *limitedNode) {
			n.socket(t)
			n.until(t, func() bool {
				n.publish(t, array(1000, 1), 202, "")
				return n.limits(t)["mailbox"] > 0
			})
		},
		also: []string{"feed_queue"},
	},
	"ephemeral_buffer": {
		set: func(c *config.Config) { c.Limits.EphemeralBuffer = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			n.socket(t)
			n.until(t, func() bool {
				n.publish(t, ephemerals(1000), 202, "")
				return n.limits(t)["ephemeral_buffer"] > 0
			})
		},
		also: []string{"mailbox", "ephemeral_bytes"}, // so many at once may do it all
	},
	"ephemeral_bytes": {
		set: func(c *config.Config) { c.Limits.EphemeralBytes = 256 },
		meet: func(t *testing.T, n *limitedNode) {
			n.socket(t)
			n.until(t, func() bool {
				n.publish(t, ephemerals(1000), 202, "")
				return n.limits(t)["ephemeral_bytes"] > 0
			})
		},
		also: []string{"mailbox"},
	},
	"scan_workers": {
		set: func(c *config.Config) { c.Limits.ScanWorkers = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			n.publish(t, array(1000, 1), 202, "")
			n.crowd(t, "scan_workers", "/v1/poll?pattern=a&wait=0&after=-1h") // where that is only the log knows
		},
		also: []string{"feed_queue", "mailbox"}, // the polls may be there before the events are
	},
	"history_page": {
		set: func(c *config.Config) { c.Limits.HistoryPage = 10 },
		meet: func(t *testing.T, n *limitedNode) {
			n.ask(t, http.MethodGet, "/v1/events?limit=11", "", 400, "bad_request")
			n.ask(t, http.MethodGet, "/v1/poll?wait=0&limit=11", "", 400, "bad_request")
			n.ask(t, http.MethodPost, "/v1/poll", `{"wait":0,"limit":11}`, 400, "bad_request")
			n.ask(t, http.MethodGet, "/v1/poll?wait=0&limit=0", "", 400, "bad_request") // of another reason
			n.publish(t, array(11, 1), 202, "")
			for _, path := range []string{"/v1/events?", "/v1/events?limit=10", "/v1/poll?wait=0&pattern=a&after=earliest", "/v1/poll?wait=0&pattern=a&after=earliest&limit=10"} {
				if got, more := n.page(t, http.MethodGet, path, ""); got != 10 || !more {
					t.Errorf("%s: %d events, more: %t", path, got, more)
				}
			}
			if got, more := n.page(t, http.MethodPost, "/v1/poll", `{"patterns":["a"],"after":"earliest","wait":0}`); got != 10 || !more {
				t.Errorf("POST: %d events, more: %t", got, more)
			}
		},
		times: 3,
	},
	"history_bytes": {
		set: func(c *config.Config) { c.Limits.HistoryBytes = 1024 },
		meet: func(t *testing.T, n *limitedNode) {
			n.publish(t, array(3, 600), 202, "")
			for _, path := range []string{"/v1/events?", "/v1/events?order=desc", "/v1/poll?wait=0&pattern=a&after=earliest"} {
				if got, more := n.page(t, http.MethodGet, path, ""); got == 0 || got == 3 || !more {
					t.Errorf("%s: %d events, more: %t", path, got, more)
				}
			}
			if got, more := n.page(t, http.MethodGet, "/v1/events?limit=1", ""); got != 1 || !more { // that one is met first
				t.Errorf("%d events, more: %t", got, more)
			}
		},
		times: 3,
	},
	"poll_sessions": {
		set: func(c *config.Config) { c.Limits.PollSessions, c.Poll.Linger = 1, config.Duration(time.Minute) },
		meet: func(t *testing.T, n *limitedNode) {
			for _, user := range []string{"alice", "bob"} {
				n.ask(t, http.MethodGet, "/v1/poll?wait=0", "", 200, "", "Authorization", "Bearer "+token(t, user))
			}
		},
		times: 1,
	},
	"verified_tokens": {
		set: func(c *config.Config) { c.Limits.VerifiedTokens = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			for _, user := range []string{"alice", "bob"} {
				n.ask(t, http.MethodGet, "/v1/poll?wait=0", "", 200, "", "Authorization", "Bearer "+token(t, user))
			}
		},
		times: 1,
	},
	"history_concurrent": {
		set: func(c *config.Config) { c.Limits.HistoryConcurrent = 1 },
		meet: func(t *testing.T, n *limitedNode) {
			n.publish(t, array(1000, 1), 202, "")
			n.crowd(t, "history_concurrent", "/v1/events?limit=1000")
		},
	},
}

// uncounted are limits that have no counter, with the reason.
var uncounted = map[string]string{}

func TestEachLimitIsMetAndCounted(t *testing.T) {
	for name, h := range hits {
		t.Run(name, func(t *testing.T) {
			cfg := settings("")
			h.set(cfg)
			if cfg.Engine.Kind == config.KindJetStream {
				cfg.Data = t.TempDir()
			}
			if err := cfg.Validate(); err != nil && !h.small {
				t.Fatal(err)
			}
			n := &limitedNode{Server: start(t, cfg), client: client(t)}
			h.meet(t, n)
			for limit, got := range n.limits(t) {
				switch {
				case limit == name && (h.times == 0 && got > 0 || h.times > 0 && got == h.times):
				case limit != name && (got == 0 || slices.Contains(h.also, limit)):
				default:
					t.Errorf("%s was met %d times; %d are right for %s (0: at least once)", limit, got, h.times, name)
				}
			}
		})
	}
}

func TestEveryLimitHasACounterAndATest(t *testing.T) {
	n := &limitedNode{Server: start(t, settings("")), client: client(t)}
	counters := n.limits(t)
	for field := range reflect.TypeFor[config.Limits]().Fields() {
		name := field.Tag.Get("yaml")
		n, counted := counters[name]
		_, tested := hits[name]
		if why := uncounted[name]; why != "" {
			if counted || tested {
				t.Errorf("limits.%s is counted after all; it is an exception no more", name)
			}
			continue
		}
		if !counted || n != 0 {
			t.Errorf("limits.%s has no counter on a node that has met nothing, or one that is not 0", name)
		}
		if !tested {
			t.Errorf("limits.%s is not met by a test; add it to hits", name)
		}
		delete(counters, name)
	}
	delete(counters, "bytes_per_org") // of engine.retention; the engines' tests meet it
	for field := range reflect.TypeFor[config.Connection]().Fields() {
		delete(counters, field.Tag.Get("yaml")) // of connection; arrival_test.go meets them
	}
	for name := range counters {
		t.Errorf("carillon_limit_hits_total has the limit %q, which is no key of limits:", name)
	}
}

// limitedNode is a node with a small limit, and a client of it.
type limitedNode struct {
	*server.Server

	client *http.Client
}

// get asks as alice, unless the header says otherwise.
func (n *limitedNode) get(t *testing.T, method, path, body string, header ...string) (int, string) {
	t.Helper()
	if !slices.Contains(header, "Authorization") {
		header = append(header, "Authorization", "Bearer "+token(t, "alice"))
	}
	return do(t, n.client, method, n.PublicURL()+path, body, header...)
}

// ask expects a status and, if it is an error, a code.
func (n *limitedNode) ask(t *testing.T, method, path, body string, status int, code string, header ...string) {
	t.Helper()
	if got, answer := n.get(t, method, path, body, header...); got != status || code != "" && !strings.Contains(answer, `"code":"`+code+`"`) {
		t.Errorf("%s %.60s: %d, %.300s, want %d %s", method, path, got, answer, status, code)
	}
}

func (n *limitedNode) publish(t *testing.T, body string, status int, code string) {
	t.Helper()
	n.ask(t, http.MethodPost, "/v1/events", body, status, code)
}

// frame sends one frame without a connection, which is answered with an error.
func (n *limitedNode) frame(t *testing.T, frame, code string) {
	t.Helper()
	n.ask(t, http.MethodPost, "/v1/frames", frame, 200, code)
}

// page is how many events an answer has, and whether there are more.
func (n *limitedNode) page(t *testing.T, method, path, body string) (events int, more bool) {
	t.Helper()
	status, answer := n.get(t, method, path, body)
	var page struct {
		Events []json.RawMessage
		More   bool
	}
	if err := json.Unmarshal([]byte(answer), &page); err != nil || status != 200 {
		t.Fatalf("%s: %d, %.300s", path, status, answer)
	}
	return len(page.Events), page.More
}

// crowd asks many times at once, until a limit is met.
func (n *limitedNode) crowd(t *testing.T, limit, path string) {
	t.Helper()
	n.until(t, func() bool {
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() { n.page(t, http.MethodGet, path, "") })
		}
		wg.Wait()
		return n.limits(t)[limit] > 0
	})
}

// until repeats what does not succeed each time.
func (n *limitedNode) until(t *testing.T, done func() bool) {
	t.Helper()
	for !done() {
		if t.Failed() || t.Context().Err() != nil {
			t.FailNow()
		}
	}
}

var limitHits = regexp.MustCompile(`(?m)^carillon_limit_hits_total\{limit="([^"]+)"\} (\S+)$`)

// limits reads the counters from the operations port.
func (n *limitedNode) limits(t *testing.T) map[string]uint64 {
	t.Helper()
	_, page := do(t, n.client, http.MethodGet, n.OpsURL()+"/metrics", "")
	all := map[string]uint64{}
	for _, m := range limitHits.FindAllStringSubmatch(page, -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		all[m[1]] = uint64(v)
	}
	return all
}

// limitedSocket is a WebSocket of alice with one subscription, to everything.
type limitedSocket struct {
	*websocket.Conn

	t *testing.T
}

func (n *limitedNode) socket(t *testing.T) *limitedSocket {
	t.Helper()
	c, err := dial(t.Context(), n.PublicURL(), token(t, "alice"), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	await(t, c, "caught_up")
	return &limitedSocket{c, t}
}

// compressing is one that compresses what it sends.
func (n *limitedNode) compressing(t *testing.T) *websocket.Conn {
	t.Helper()
	c, resp, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(n.PublicURL(), "http")+"/v1/ws", &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + token(t, "alice")}}, CompressionMode: websocket.CompressionNoContextTakeover,
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Sec-WebSocket-Extensions") == "" {
		t.Fatal("compression was not agreed on")
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func (s *limitedSocket) send(frames ...string) {
	s.t.Helper()
	for _, frame := range frames {
		if err := s.Write(s.t.Context(), websocket.MessageText, []byte(frame)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// asks sends a frame that is answered with an error.
func (s *limitedSocket) asks(frame, code string) {
	s.t.Helper()
	s.send(frame)
	if f := await(s.t, s.Conn, "error"); f.Code != code {
		s.t.Errorf("%.60s: %+v, want %s", frame, f, code)
	}
}

func (s *limitedSocket) closes(code websocket.StatusCode) {
	s.t.Helper()
	for {
		if _, err := next(s.t.Context(), s.Conn); err != nil {
			if got := websocket.CloseStatus(err); got != code {
				s.t.Errorf("closed with %v, want %d", err, code)
			}
			return
		}
	}
}

// array is a body of n events with so many bytes of data each.
func array(n, size int) string {
	event := fmt.Sprintf(`{"type":"a","data":%q}`, strings.Repeat("x", size))
	return `[` + event + strings.Repeat(`,`+event, n-1) + `]`
}

// ephemerals is a body of n ephemeral events of as many subjects.
func ephemerals(n int) string {
	events := make([]string, n)
	for i := range events {
		events[i] = fmt.Sprintf(`{"type":"a","data":1,"subject":"%d","ephemeral":true}`, i)
	}
	return `[` + strings.Join(events, ",") + `]`
}

// meetInFlight publishes twice before the log can have answered, until that was
// too much for the node.
func meetInFlight(t *testing.T, n *limitedNode) {
	t.Helper()
	ws := n.socket(t)
	publish := `{"type":"publish","event":{"type":"a","data":"` + strings.Repeat("x", 800) + `"}}`
	n.until(t, func() bool {
		ws.send(publish, publish)
		for answers := 0; answers < 2; {
			f, err := next(t.Context(), ws.Conn)
			switch {
			case err != nil:
				t.Fatal(err)
			case f.Type == "error":
				if f.Code != "unavailable" || f.RetryAfterMS == 0 {
					t.Errorf("%+v", f)
				}
				return true
			case f.Type == "published":
				answers++
			}
		}
		return false
	})
}

func TestAPlaceOfAnOrganizationBecomesFree(t *testing.T) {
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
	if status, body := do(t, c, http.MethodGet, s.PublicURL()+"/v1/poll?wait=0", "", auth...); status != http.StatusOK {
		t.Errorf("a poll, which is not counted: %d, %s", status, body)
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
	if took := time.Since(begin); took < time.Second { // the client's own limit is what it is not above
		t.Errorf("a poll that does not say waited %v, want 1s", took)
	}
	if status, body := do(t, c, http.MethodGet, s.PublicURL()+"/v1/poll?wait=3", "", auth...); status != http.StatusBadRequest || !strings.Contains(body, "0 to 2") {
		t.Errorf("a wait above the longest: %d, %s", status, body)
	}
}
