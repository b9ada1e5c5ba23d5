package transporttest_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

func TestAFullNodeSendsClientsAwayUntilAPlaceIsFree(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{MaxConnections: 1})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{">"}}
		first := open(t, n, transporttest.Doors[0], a)
		for _, other := range []ask{a, {Token: n.Token(t, "other", "bob"), Patterns: a.Patterns}, {Token: "nonsense", Patterns: a.Patterns}} {
			if err := enter(t, n, door, other); !errors.Is(err, errFull) {
				t.Fatalf("got %v, want to be sent away", err)
			}
		}
		first.Close()
		for { // its place becomes free when the node has seen the end
			switch err := enter(t, n, door, a); {
			case err == nil:
				return
			case !errors.Is(err, errFull):
				t.Fatal(err)
			}
		}
	})
}

var errFull = errors.New("the node is full")

// enter opens a door. It returns errFull if the node says that it is, as the door
// says so.
func enter(t *testing.T, n *transporttest.Node, door transporttest.Door, a ask) error {
	t.Helper()
	c, err := door.Open(t, n, a)
	var r *transporttest.Refused
	switch {
	case errors.As(err, &r) && r.Status == http.StatusServiceUnavailable:
		if r.Code != "unavailable" || r.Header.Get("Retry-After") == "" || strings.HasPrefix(door.Name, "SSE") {
			t.Errorf("%s: %v, %v", door.Name, r, r.Header)
		}
		return errFull
	case err != nil || !strings.HasPrefix(door.Name, "SSE"):
		return err
	}
	m, err := c.Next() // a stream is answered with 200 in any case
	if err != nil || m.Type != "goaway" {
		return err
	}
	if m.Reason != "overload" || m.RetryAfterMS == nil || *m.RetryAfterMS == 0 {
		t.Errorf("%s: %+v", door.Name, m)
	}
	ends(t, c, door, 0)
	return errFull
}

func TestWhatIsRefusedKeepsNoPlace(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{MaxConnections: 1})
		a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{">"}}
		for range 3 {
			bad := a
			bad.Token = "nonsense"
			var r *transporttest.Refused
			if _, err := door.Open(t, n, bad); !errors.As(err, &r) || r.Status != http.StatusUnauthorized {
				t.Fatalf("got %v, want 401", err)
			}
		}
		open(t, n, door, a)
	})
}

func TestManyAtOnceNeverExceedThePlacesOfTheNode(t *testing.T) {
	t.Parallel()
	const places, clients = 7, 60
	n := transporttest.New(t, transporttest.Config{MaxConnections: places})
	token := n.Token(t, "acme", "alice")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	refused := make(chan int, clients) // statuses
	begin := make(chan struct{})
	for i := range clients {
		wg.Go(func() {
			path := []string{"/v1/sse?pattern=a", "/v1/poll?pattern=a&wait=30", "/v1/ws"}[i%3]
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL(path), nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Authorization", "Bearer "+token)
			if path == "/v1/ws" {
				for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
					r.Header.Set(name, value)
				}
			}
			<-begin
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
			if err != nil {
				return // it waited for the end of the test
			}
			defer resp.Body.Close()
			if resp.StatusCode == http.StatusServiceUnavailable || resp.ContentLength > 0 && path == "/v1/sse?pattern=a" {
				refused <- resp.StatusCode
				return
			}
			<-ctx.Done() // a stream stays
		})
	}
	close(begin)
	for range clients - places { // no more get in, and no fewer
		<-refused
	}
	if got := n.Core.Stats().Limits["connections_per_node"]; got != clients-places {
		t.Errorf("%d were refused, want %d", got, clients-places)
	}
	if n.Core.Reserve(netip.Addr{}) == nil {
		t.Error("there is another place")
	}
	cancel()
	wg.Wait()
	for range places { // all are given back when the node has seen the ends
		for n.Core.Reserve(netip.Addr{}) != nil {
			continue
		}
	}
	for range places {
		n.Core.Release(netip.Addr{})
	}
}
