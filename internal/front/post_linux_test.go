package front

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/admission"
	"github.com/carillon-rt/carillon/internal/hub"
)

func post(path, body string, lines ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s", path, len(body), strings.Join(lines, ""), body)
}

// repeats is a door that answers with the body.
func repeats(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(body) // the client checks it
}

// posts is a port with these doors for POST.
func posts(t *testing.T, cfg Config, doors map[string]http.HandlerFunc) *port {
	t.Helper()
	cfg.Posts = map[string]http.Handler{}
	for path, f := range doors {
		cfg.Posts[path] = f
	}
	return serve(t, cfg, map[string]http.HandlerFunc{"/v1/poll": says})
}

func TestADoorGetsTheBodyOfAPost(t *testing.T) {
	p := posts(t, Config{}, map[string]http.HandlerFunc{"/v1/events": repeats})
	c := p.dial()
	c.say(post("/v1/events", "one"))
	c.hears(200, "one")
	c.say(post("/v1/events", "two") + get("/v1/poll?between") + post("/v1/events", "three") + post("/v1/events", "four", "Connection: close\r\n"))
	c.hears(200, "two")
	c.hears(200, "between")
	c.hears(200, "three")
	if r := c.hears(200, "four"); !r.Close {
		t.Error("the last answer does not say that it is the last")
	}
	c.ends()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.answered); n != 5 {
		t.Errorf("%d were counted", n)
	}
}

func TestAPostInPiecesIsAnsweredWhenItIsWhole(t *testing.T) {
	p := posts(t, Config{}, map[string]http.HandlerFunc{"/v1/events": repeats})
	c := p.dial()
	all := post("/v1/events", "first") + post("/v1/events", "second")
	for i := range len(all) {
		c.say(all[i : i+1])
	}
	c.hears(200, "first")
	c.hears(200, "second")
}

func TestALargeBodyIsForNetHTTP(t *testing.T) {
	p := posts(t, Config{BodyBytes: 1000}, map[string]http.HandlerFunc{"/v1/events": repeats})
	largest, larger := strings.Repeat("x", 1000), strings.Repeat("y", 1001)
	c := p.dial()
	c.say(post("/v1/events", largest))
	c.hears(200, largest)
	c.say(post("/v1/events", larger))
	c.hears(200, "net/http /v1/events"+larger)
}

// net/http has a deadline for bodies, and counts what comes too late.
func TestABodyThatDoesNotComeAtOnceIsForNetHTTP(t *testing.T) {
	p := posts(t, Config{HeaderTimeout: patience}, map[string]http.HandlerFunc{"/v1/events": repeats})
	fresh, used := p.dial(), p.dial()
	used.say(post("/v1/events", "before"))
	used.hears(200, "before")
	for _, c := range []*client{fresh, used} {
		c.say(post("/v1/events", "0123456789")[:len(post("/v1/events", "0123456789"))-7])
	}
	<-time.After(bodyPatience + bodyPatience/2)
	for _, c := range []*client{fresh, used} {
		c.say("3456789")
		c.hears(200, "net/http /v1/events0123456789")
	}
	if n := p.Late(); n != 0 {
		t.Errorf("%d were counted as late", n)
	}
}

func TestAPostThatADoorPassesOnArrivesWithItsBody(t *testing.T) {
	p := posts(t, Config{}, map[string]http.HandlerFunc{"/v1/events": func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			t.Error(err)
		}
		Of(w).Pass()
	}})
	c := p.dial()
	c.say(post("/v1/events", "body") + get("/v1/poll"))
	c.hears(200, "net/http /v1/eventsbody")
	c.hears(200, "net/http /v1/poll")
}

func TestAPostDoesNotAskTheGateOfHandshakes(t *testing.T) {
	g := admission.New(admission.Config{PerSecond: 1, Burst: 1})
	p := posts(t, Config{Admission: g}, map[string]http.HandlerFunc{
		"/v1/events": repeats, "/v1/other": func(w http.ResponseWriter, _ *http.Request) { Of(w).Pass() },
	})
	c := p.dial()
	for range 5 {
		c.say(post("/v1/events", "x"))
		c.hears(200, "x")
	}
	c.say(post("/v1/other", "x"))
	c.hears(200, "net/http /v1/otherx")
	if s := g.Stats(); s.Admitted+s.Queued+s.Refused != 0 {
		t.Errorf("%+v", s)
	}
}

func TestEachExchangeEndsOnce(t *testing.T) {
	var ended atomic.Int64
	later := make(chan func(), 1)
	door := func(do http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			Of(w).Ended(func() { ended.Add(1) })
			do(w, r)
		}
	}
	p := posts(t, Config{}, map[string]http.HandlerFunc{
		"/v1/answers": door(repeats),
		"/v1/passes":  door(func(w http.ResponseWriter, _ *http.Request) { Of(w).Pass() }),
		"/v1/panics":  door(func(http.ResponseWriter, *http.Request) { panic("a door") }),
		"/v1/later": door(func(w http.ResponseWriter, _ *http.Request) {
			shard, answer := Of(w).Shard(), Of(w).Later(nil)
			later <- func() { shard.Post(hub.TaskFunc(answer.Send)) }
		}),
	})
	want := func(n int64) {
		t.Helper()
		for ended.Load() < n {
			<-time.After(time.Millisecond)
		}
		if got := ended.Load(); got != n {
			t.Fatalf("%d have ended, wanted %d", got, n)
		}
	}
	c := p.dial()
	c.say(post("/v1/answers", "x"))
	c.hears(200, "x")
	want(1)
	c.say(post("/v1/later", "x"))
	send := <-later
	want(1)
	send()
	c.hears(200, "")
	want(2)
	c.say(post("/v1/passes", "x"))
	c.hears(200, "net/http /v1/passesx")
	want(3)
	c = p.dial()
	c.say(post("/v1/panics", "x"))
	c.ends()
	want(4)
	c = p.dial()
	c.say(post("/v1/later", "x"))
	send = <-later
	_ = c.Close()
	want(5)
	send() // nobody is there
	c = p.dial()
	c.say(post("/v1/answers", "y"))
	c.hears(200, "y")
	want(6)
}

func TestWhoClosesAPortMayWaitForTheRequestsInHand(t *testing.T) {
	later := make(chan func(), 1)
	p := posts(t, Config{}, map[string]http.HandlerFunc{"/v1/later": func(w http.ResponseWriter, _ *http.Request) {
		shard, answer := Of(w).Shard(), Of(w).Later(nil)
		later <- func() { shard.Post(hub.TaskFunc(answer.Send)) }
	}})
	c := p.dial()
	c.say(post("/v1/later", "x"))
	send := <-later
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if p.Wait(ctx) == nil {
		t.Error("nobody waited for the request")
	}
	waited := make(chan error, 1)
	go func() { waited <- p.Wait(t.Context()) }()
	send()
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if r := c.hears(200, ""); !r.Close {
		t.Error("the answer does not say that it is the last")
	}
	c.ends()
}
