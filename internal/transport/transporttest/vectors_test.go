package transporttest_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/testkit/vectors"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

func TestCursorsOfTheVectors(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		if !door.Stream {
			return // a poll has no handshake
		}
		n := transporttest.New(t, transporttest.Config{})
		n.Publish(t, "acme", "orders.paid", 1, 1)
		vectors.Run(t, "cursors.json", "handshake", func(t *testing.T, after vectors.Text) (any, error) {
			c := open(t, n, door, ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"other"}, After: string(after)})
			defer c.Close()
			if m := next(t, c, "gap", "caught_up"); m.Type == "gap" {
				return m.Reason, nil
			}
			return "no gap", nil
		})
	})
}

// What a node says has the fields of a vector, in their order.
func TestFramesLookAsInTheVectors(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, frame := range vectors.Inputs[json.RawMessage](t, "frames.json", "server") {
		known[shape(t, frame)] = true
	}
	n := transporttest.New(t, transporttest.Config{Limits: session.Limits{MaxIdle: 50 * time.Millisecond}})
	n.Publish(t, "acme", "orders.paid", 1, 3)
	dial := func(header http.Header) (send func(string), until func(typ, fields string)) {
		conn, _, err := websocket.Dial(t.Context(), n.URL("/v1/ws"), &websocket.DialOptions{HTTPHeader: header})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.CloseNow() })
		send = func(text string) {
			if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		until = func(typ, fields string) {
			t.Helper()
			for {
				_, b, err := conn.Read(t.Context())
				if err != nil {
					t.Fatalf("while waiting for %s: %v", typ, err)
				}
				got := shape(t, b)
				is, rest, _ := strings.Cut(got, " ")
				if is != "event" && !known[got] {
					t.Errorf("%s has the fields of no vector", b)
				}
				if is == typ {
					if rest != fields {
						t.Errorf("%s has not the fields %s", b, fields)
					}
					return
				}
			}
		}
		return send, until
	}

	send, until := dial(nil)
	send(`{"type":"connect","ref":1,"token":"` + n.Token(t, "acme", "alice") + `","after":"latest"}`)
	until("welcome", "connection_id org user cursor max_idle_ms server_time ref")
	send(`{"type":"subscribe","ref":1,"pattern":"orders.*"}`)
	until("subscribed", "pattern cursor gap ref")
	until("caught_up", "cursor")
	send(`{"type":"subscribe","ref":"a","patterns":["orders.>","users.>"],"subject":"wf-1"}`)
	until("subscribed", "patterns subject cursor ref")
	send(`{"type":"subscribe","patterns":[]}`)
	until("subscribed", "patterns cursor")
	send(`{"type":"subscribe","ref":1,"pattern":"orders.paid","after":"earliest"}`)
	until("subscribed", "pattern cursor backfill ref")
	until("caught_up", "cursor")
	send(`{"type":"subscribe","ref":1,"pattern":"users.*"}`)
	until("subscribed", "pattern cursor ref")
	send(`{"type":"unsubscribe","ref":1,"pattern":"orders.>","subject":"wf-1"}`)
	until("unsubscribed", "pattern subject ref")
	send(`{"type":"publish","ref":1,"event":{"type":"orders.paid","data":1}}`)
	until("published", "events ref")
	send(`{"type":"nonsense","ref":1}`)
	until("error", "code message ref")
	send(`{"type":"ping","ref":1}`)
	until("pong", "ref")
	send(`{"type":"refresh","ref":1,"token":"` + n.Token(t, "acme", "alice", func(c *auth.Claims) {
		c.Permissions = &carillon.Permissions{Subscribe: []carillon.Pattern{"orders.>"}}
	}) + `"}`)
	until("refreshed", "ref expires_in")
	until("unsubscribed", "pattern subject reason")
	until("unsubscribed", "pattern reason")
	until("heartbeat", "cursor")

	soon := n.Token(t, "acme", "alice", func(c *auth.Claims) { c.Expires = time.Now().Add(50 * time.Second) })
	_, until = dial(http.Header{"Authorization": {"Bearer " + soon}})
	until("welcome", "connection_id org user cursor max_idle_ms server_time")
	until("token_expiring", "in")
	drained := make(chan error, 1)
	go func() { drained <- n.Core.Drain(t.Context(), 0, 0) }()
	until("goaway", "reason retry_after_ms")
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
}

// shape is a frame's type, and the names of its other fields in their order.
func shape(t *testing.T, frame []byte) string {
	t.Helper()
	var head struct{ Type string }
	if err := json.Unmarshal(frame, &head); err != nil {
		t.Fatalf("%s: %v", frame, err)
	}
	var names strings.Builder
	names.WriteString(head.Type)
	dec := json.NewDecoder(bytes.NewReader(frame))
	_, _ = dec.Token() // the brace; it is JSON
	for dec.More() {
		name, _ := dec.Token()
		var value json.RawMessage
		_ = dec.Decode(&value)
		if name != "type" {
			names.WriteString(" " + name.(string))
		}
	}
	return names.String()
}
