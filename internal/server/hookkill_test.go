package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// sender sends webhooks one after the other, each until it is answered with 200: as
// providers do that come again.
func sender(ctx context.Context, t *testing.T, at *address, p int, sent *sync.Map, n *atomic.Int64) {
	t.Helper()
	tr := new(http.Transport)
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	for i := 0; ctx.Err() == nil; {
		id := fmt.Sprintf("%d-%d", p, i)
		body := fmt.Sprintf(`{"id":%q}`, id)
		r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, at.get()+"/hooks/demo/gh", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		header := hookHeader(id, "push", body)
		for j := 0; j+1 < len(header); j += 2 {
			r.Header.Set(header[j], header[j+1])
		}
		resp, err := c.Do(r)
		if err != nil {
			retry(ctx)
			continue
		}
		_ = resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusOK:
			sent.Store(id, true)
			n.Add(1)
			i++
		case http.StatusServiceUnavailable:
			retry(ctx)
		default:
			t.Errorf("%s: %d", id, resp.StatusCode)
			return
		}
	}
}

// A node that takes webhooks is killed again and again: what was answered with 200 is
// an event, once, whatever the node was doing.
func TestKillWhileWebhooksComeIn(t *testing.T) {
	dir := t.TempDir()
	var at address
	var cmd *exec.Cmd
	up := func() {
		t.Helper()
		var url string
		cmd, url, _ = spawnNode(t, dir, childHooks+"=1")
		at.v.Store(url)
	}
	up()
	var sent sync.Map
	var n atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var senders sync.WaitGroup
	for p := range 8 {
		senders.Go(func() { sender(ctx, t, &at, p, &sent, &n) })
	}
	kills := 3
	if s := os.Getenv("CARILLON_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	for range kills {
		before := n.Load()
		for n.Load() < before+200 && !t.Failed() {
			<-time.After(time.Millisecond)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		up()
	}
	cancel()
	senders.Wait()
	c := client(t)
	admin := []string{"Authorization", "Bearer " + token(t, "alice")}
	settled := func() bool {
		_, body := do(t, c, http.MethodGet, at.get()+"/v1/hooks/deliveries?state=pending&limit=1", "", admin...)
		var page struct{ Deliveries []struct{ ID string } }
		return json.Unmarshal([]byte(body), &page) == nil && page.Deliveries != nil && len(page.Deliveries) == 0
	}
	for !settled() {
		if t.Context().Err() != nil {
			t.FailNow()
		}
		<-time.After(20 * time.Millisecond)
	}
	got := map[string]int{}
	for after := "earliest"; ; {
		status, body := do(t, c, http.MethodGet, at.get()+"/v1/events?limit=1000&after="+after, "", admin...)
		var page struct {
			Events []struct{ Delivery string }
			Cursor string
			More   bool
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || status != http.StatusOK {
			t.Fatalf("%d %.200s: %v", status, body, err)
		}
		for _, e := range page.Events {
			got[e.Delivery]++
		}
		if after = page.Cursor; !page.More {
			break
		}
	}
	answered := 0
	sent.Range(func(id, _ any) bool {
		answered++
		if times := got[id.(string)]; times != 1 {
			t.Errorf("%s was answered with 200, and is there %d times", id, times)
		}
		return true
	})
	for id, times := range got {
		if times != 1 {
			t.Errorf("%s is there %d times", id, times)
		}
	}
	t.Logf("%d kills, %d deliveries answered, %d events", kills, answered, len(got))
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}
