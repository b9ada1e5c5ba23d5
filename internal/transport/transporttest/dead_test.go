package transporttest_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

// One client in twenty, or more of them, never reads, whatever its overflow: all the others
// get everything, in order, meanwhile. When it wakes up it gets what is left for it.
func TestDeadReadersChangeNothingForTheOthers(t *testing.T) {
	const events = 128
	all(t, func(t *testing.T, door transporttest.Door) {
		if !door.Stream {
			t.Skip("who polls is not waited for")
		}
		others := 19
		size := 16 << 10 // so much that the kernel cannot hold all for who does not read,
		switch {
		case strings.Contains(door.Name, "HTTP/2"):
			size, others = 48<<10, 9 // nor the window of a stream
		case strings.Contains(door.Name, "compressed"):
			size, others = 24<<10, 3 // inflating is much work for the race detector
		}
		large := []byte(`"` + noise(size) + `"`)
		n := transporttest.New(t, transporttest.Config{WriteTimeout: time.Minute})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.*"}}
		policies := []string{"replay"}
		if strings.HasPrefix(door.Name, "WebSocket") {
			policies = []string{"replay", "conflate", "drop_oldest", "disconnect"}
		}
		var dead, living []client
		for range others {
			living = append(living, open(t, n, door, a))
		}
		for _, policy := range policies {
			narrow := a
			narrow.Narrow = true
			c := open(t, n, door, narrow)
			if s, ok := c.(*transporttest.Socket); ok {
				s.Send(map[string]any{"type": "subscribe", "pattern": "orders.*", "overflow": policy})
				next(t, c, "subscribed")
			}
			dead = append(dead, c)
		}
		got := make([][]string, len(living))
		var wg sync.WaitGroup
		for i, c := range living {
			wg.Go(func() {
				for len(got[i]) < events {
					m, err := c.Next()
					if err != nil {
						t.Errorf("reader %d, after %d events: %v", i, len(got[i]), err)
						return
					}
					if m.Type == "event" {
						got[i] = append(got[i], m.ID)
					}
				}
			})
		}
		var ids []string
		for range events {
			ids = append(ids, n.PublishDrafts(t, "acme", carillon.Draft{Type: "orders.paid", Subject: "s", Data: large})...)
		}
		wg.Wait()
		for i := range got {
			if !slices.Equal(got[i], ids) {
				t.Errorf("reader %d did not get the events in order, each once", i)
			}
		}
		if sent := n.Core.Stats().Sent; sent >= uint64(events*(len(living)+len(dead))) {
			t.Error("the dead were given everything: they do not hold up anything")
		}
		for i, c := range dead {
			wakesUp(t, c, policies[i], ids)
		}
	})
}

// wakesUp reads what is left for a client that was dead.
func wakesUp(t *testing.T, c client, policy string, ids []string) {
	t.Helper()
	var got []string
	for len(got) == 0 || got[len(got)-1] != ids[len(ids)-1] {
		m, err := c.Next()
		if err != nil {
			var ended *transporttest.Ended
			if policy != "disconnect" || !errors.As(err, &ended) || ended.Code != 4102 {
				t.Errorf("%s, after %d events: %v", policy, len(got), err)
			}
			break
		}
		if m.Type == "event" {
			got = append(got, m.ID)
		}
	}
	rest := ids
	for _, id := range got {
		i := slices.Index(rest, id)
		if i < 0 {
			t.Fatalf("%s: %s comes twice, or not in order", policy, id)
		}
		rest = rest[i+1:]
	}
	if policy == "replay" && len(got) != len(ids) {
		t.Errorf("replay: %d events of %d", len(got), len(ids))
	}
}
