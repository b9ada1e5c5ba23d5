package transporttest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
	"github.com/carillon-rt/carillon/internal/wire"
)

func TestWhatACloudEventKeepsRidesAlong(t *testing.T) {
	const kept = `{"source":"/s","ext":"é","n":5}`
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		c := open(t, n, door, ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.*"}, After: "earliest"})
		defer c.Close()
		d, err := wire.ParseCloudEvent([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"orders.paid","ext":"é","n":5,"data":1}`), wire.DefaultCEBytes)
		if err != nil {
			t.Fatal(err)
		}
		ids := n.PublishDrafts(t, "acme", d, carillon.Draft{Type: "orders.paid", Data: []byte("2")})
		if m := want(t, c, ids[0]); string(m.CE) != kept {
			t.Errorf("ce is %s, want %s", m.CE, kept)
		}
		if m := want(t, c, ids[1]); m.CE != nil {
			t.Errorf("ce is %s of an event that is none", m.CE)
		}
	})
}

func TestAPollGivesCloudEventsToWhoAsksForThem(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	token := n.Token(t, "acme", "alice")
	id := n.Publish(t, "acme", "orders.paid", 1, 1)[0]
	for _, wait := range []string{"0", "25"} {
		resp, body := get(t, n, "GET", "/v1/poll?pattern=orders.*&after=earliest&wait="+wait, token, "", "Accept", "application/cloudevents+json, */*;q=0.1")
		var page struct {
			Events []map[string]any
			Cursor string
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || resp.StatusCode != 200 || len(page.Events) != 1 {
			t.Fatalf("%d %s: %v", resp.StatusCode, body, err)
		}
		e := page.Events[0]
		if e["specversion"] != "1.0" || e["id"] != id || e["source"] != "/orgs/acme" || e["type"] != "orders.paid" || e["data"] != 1.0 || page.Cursor != id {
			t.Errorf("%s", body)
		}
		if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
			t.Errorf("Content-Type %q", ct)
		}
	}
	if resp, body := get(t, n, "GET", "/v1/poll?wait=25", token, "", "Accept", "text/html"); resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("what there is not: %d %s", resp.StatusCode, body)
	}
}

func TestALongAnswerOfAPollIsCompressedAndAStreamIsNot(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	token := n.Token(t, "acme", "alice")
	last := n.Publish(t, "acme", "orders.paid", 1, 100)[99]
	resp, body := get(t, n, "GET", "/v1/poll?pattern=orders.*&after=earliest&wait=0", token, "", "Accept-Encoding", "gzip")
	if resp.Header.Get("Content-Encoding") != "gzip" || resp.Header.Get("Vary") != "Authorization, Cookie, Origin, Accept, Accept-Encoding" {
		t.Fatalf("%v", resp.Header)
	}
	z, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil || !strings.Contains(string(plain), last) {
		t.Errorf("%s: %v", plain, err)
	}
	if resp, body = get(t, n, "GET", "/v1/poll?pattern=orders.*&wait=0&after="+last, token, "", "Accept-Encoding", "gzip"); resp.Header.Get("Content-Encoding") != "" || !strings.Contains(body, last) {
		t.Errorf("a short one: %v %q", resp.Header, body)
	}
	stream := do(t, n, "GET", "/v1/sse?pattern=orders.*&after=earliest", token, "", "Accept-Encoding", "gzip, zstd")
	defer stream.Body.Close()
	if stream.Header.Get("Content-Encoding") != "" {
		t.Errorf("a stream: %v", stream.Header)
	}
}

func TestHEADOfAPollSaysWhatGETWould(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	token := n.Token(t, "acme", "alice")
	id := n.Publish(t, "acme", "orders.paid", 1, 1)[0]
	const path = "/v1/poll?pattern=orders.*&after=earliest&wait=0"
	_, whole := get(t, n, "GET", path, token, "", "Accept-Encoding", "identity")
	resp, body := get(t, n, "HEAD", path, token, "", "Accept-Encoding", "identity")
	if resp.StatusCode != 200 || body != "" || resp.ContentLength != int64(len(whole)) || resp.Header.Get("ETag") != `"`+id+`"` {
		t.Errorf("%d, %d bytes instead of %d, %v", resp.StatusCode, resp.ContentLength, len(whole), resp.Header)
	}
	resp, _ = get(t, n, "HEAD", "/v1/poll?pattern=orders.*&wait=0&after="+id, token, "", "If-None-Match", `"`+id+`"`)
	if resp.StatusCode != http.StatusNotModified {
		t.Errorf("with nothing new: %d", resp.StatusCode)
	}
}
