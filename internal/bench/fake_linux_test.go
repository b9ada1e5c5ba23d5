package bench

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// TestMain makes the test binary the program that Run starts: `dev` is the fake
// server, `bench floor-server` the floor, `bench engine-server` the bare engine.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "dev" {
		exit(runFake(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == "bench" && os.Args[2] == "floor-server" {
		fs := flag.NewFlagSet("floor-server", flag.ExitOnError)
		conns, env := fs.Int("conns", 0, ""), fs.String("env-file", "", "")
		_ = fs.Parse(os.Args[3:])
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer cancel()
		exit(FloorServer(ctx, *conns, *env))
	}
	if len(os.Args) > 2 && os.Args[1] == "bench" && os.Args[2] == "engine-server" {
		fs := flag.NewFlagSet("engine-server", flag.ExitOnError)
		durability, data := fs.String("durability", "", ""), fs.String("data", "", "")
		env, report := fs.String("env-file", "", ""), fs.String("report", "", "")
		_ = fs.Parse(os.Args[3:])
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer cancel()
		exit(EngineServer(ctx, *durability, *data, *env, *report))
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

const (
	fakeSecret     = "a secret of the fake server"
	fakeHookSecret = "a secret of its webhooks"
	fakeHookOrg    = "demo"
)

// fake speaks as much of the protocol as the load client uses. fault breaks it
// on purpose, at the tenth event of a subscriber.
type fake struct {
	fault      string
	refused    atomic.Int32 // connections
	cut        map[int]bool // readers, once each
	entries    atomic.Int64 // of the ledger
	looks      atomic.Int64 // at it, until it has caught up
	mu         sync.Mutex
	orgs       map[string]*fakeOrg
	hooks      int
	deliveries map[string]bool // by their ids
}

type fakeOrg struct {
	log  []fakeEvent
	subs map[*fakeSub]struct{}
	past map[string]*fakeSub // of those who poll, by user
	more chan struct{}       // closed at the next event
}

type fakeEvent struct {
	id, json, eventType string
}

// fakeSub is a subscriber. What it is sent waits in a queue without limit.
type fakeSub struct {
	id       int
	pattern  string
	numbered bool
	n        int
	count    int
	held     *fakeEvent
	write    func(e *fakeEvent, n string) // of its transport; called by its own goroutine
	cut      func()
	queue    chan func()
}

func runFake(args []string) error {
	fs := flag.NewFlagSet("dev", flag.ExitOnError)
	listen := fs.String("listen", "", "")
	_ = fs.String("ops", "", "")
	_ = fs.String("data", "", "")
	env := fs.String("env-file", "", "")
	_ = fs.String("durability", "", "")
	fault := fs.String("fault", "", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *fault == "dies" {
		return fmt.Errorf("no such luck")
	}
	f := &fake{fault: *fault, cut: map[int]bool{}, orgs: map[string]*fakeOrg{}}
	f.looks.Store(5)
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	http.HandleFunc("POST /v1/events", f.publish)
	http.HandleFunc("GET /v1/events", f.history)
	http.HandleFunc("POST /hooks/{org}/{source}", f.hook)
	http.HandleFunc("GET /metrics", f.metrics)
	http.HandleFunc("GET /v1/ws", f.ws)
	http.HandleFunc("GET /v1/sse", f.sse)
	http.HandleFunc("GET /v1/poll", f.poll)
	text := fmt.Sprintf("CARILLON_URL=http://%s\nCARILLON_OPS_URL=http://%s\nCARILLON_JWT_SECRET=%s\n", l.Addr(), l.Addr(), fakeSecret)
	if f.fault != "no-hooks" {
		text += "CARILLON_ORG=" + fakeHookOrg + "\nCARILLON_HOOK_SECRET=" + fakeHookSecret + "\n"
	}
	if err := os.WriteFile(*env, []byte(text), 0o600); err != nil {
		return err
	}
	return http.Serve(l, nil) // until SIGTERM
}

// org verifies a token and returns its org and user.
func (f *fake) org(r *http.Request) (*fakeOrg, string, error) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	body, sig, ok := cutLast(token, ".")
	if !ok {
		return nil, "", fmt.Errorf("no token")
	}
	mac := hmac.New(sha256.New, []byte(fakeSecret))
	mac.Write([]byte(body))
	if base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) != sig {
		return nil, "", fmt.Errorf("bad signature")
	}
	_, payload, _ := strings.Cut(body, ".")
	b, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil, "", err
	}
	var claims struct {
		Sub, Org, Role string
		Exp            int64
	}
	if err := json.Unmarshal(b, &claims); err != nil {
		return nil, "", err
	}
	if claims.Sub == "" || claims.Org == "" || claims.Exp == 0 {
		return nil, "", fmt.Errorf("claims are missing")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.orgOf(claims.Org), claims.Sub, nil
}

// orgOf is an org; mu is held.
func (f *fake) orgOf(name string) *fakeOrg {
	o := f.orgs[name]
	if o == nil {
		o = &fakeOrg{subs: map[*fakeSub]struct{}{}, past: map[string]*fakeSub{}, more: make(chan struct{})}
		f.orgs[name] = o
	}
	return o
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func (f *fake) publish(w http.ResponseWriter, r *http.Request) {
	o, _, err := f.org(r)
	if err != nil {
		http.Error(w, err.Error(), 401)
		return
	}
	type in struct {
		Type, Subject string
		Data          json.RawMessage
	}
	body, _ := io.ReadAll(r.Body)
	var events []in
	if body[0] == '[' {
		err = json.Unmarshal(body, &events)
	} else {
		events = make([]in, 1)
		err = json.Unmarshal(body, &events[0])
	}
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	if f.fault == "refuse" {
		http.Error(w, `{"code":"rate_limited"}`, 429)
		return
	}
	var ids []string
	f.mu.Lock()
	for _, e := range events {
		ids = append(ids, `{"id":"`+f.append(o, e.Type, e.Subject, e.Data)+`","duplicate":false}`)
	}
	f.mu.Unlock()
	w.WriteHeader(202)
	fmt.Fprintf(w, `{"events":[%s]}`, strings.Join(ids, ","))
}

// append gives an event to whoever wants it, and returns its id. mu is held.
func (f *fake) append(o *fakeOrg, eventType, subject string, data []byte) string {
	ev := fakeEvent{id: fmt.Sprintf("%026d", len(o.log)+1), eventType: eventType, json: fmt.Sprintf(
		`"event_type":"%s","timestamp":"2025-07-09T10:30:00.000Z","payload":%s,"subject":"%s"}`, eventType, data, subject)}
	o.log = append(o.log, ev)
	for s := range o.subs {
		if s.wants(eventType) {
			f.deliver(s, &ev)
		}
	}
	close(o.more)
	o.more = make(chan struct{})
	return ev.id
}

// hook takes a webhook as GitHub sends it, at its tenth not always as it should.
func (f *fake) hook(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	mac := hmac.New(sha256.New, []byte(fakeHookSecret))
	mac.Write(body)
	delivery, event := r.Header.Get("X-GitHub-Delivery"), r.Header.Get("X-GitHub-Event")
	switch {
	case r.Header.Get("X-Hub-Signature-256") != fmt.Sprintf("sha256=%x", mac.Sum(nil)):
		http.Error(w, `{"code":"unauthenticated"}`, 401)
		return
	case !json.Valid(body) || delivery == "" || event == "" || f.fault == "refuse":
		http.Error(w, `{"code":"bad_request"}`, 400)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks++
	if f.deliveries == nil {
		f.deliveries = map[string]bool{}
	}
	known := f.deliveries[delivery]
	f.deliveries[delivery] = true
	if tenth := f.hooks == 10; known || tenth && f.fault == "hook-known" {
		fmt.Fprintln(w, `{"id":"1","duplicate":true}`)
		return
	} else if tenth && f.fault == "hook-forgotten" {
		fmt.Fprintln(w, `{"id":"1"}`)
		return
	}
	o, eventType, id := f.orgOf(r.PathValue("org")), r.PathValue("source")+"."+event, "1"
	f.entries.Add(2)
	if f.fault == "hook-later" && f.hooks%2 == 0 {
		time.AfterFunc(5*linger, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.append(o, eventType, "", body)
		})
	} else {
		id = f.append(o, eventType, "", body)
	}
	switch {
	case f.fault == "hook-aside":
		fmt.Fprintln(w, `{}`)
	case f.hooks == 10 && f.fault == "hook-busy": // and it is there all the same
		http.Error(w, `{"code":"unavailable"}`, 503)
	default:
		fmt.Fprintf(w, "{\"id\":%q}\n", id)
	}
}

func (f *fake) metrics(w http.ResponseWriter, _ *http.Request) {
	if f.fault == "no-ledger" {
		return
	}
	lag := f.looks.Add(-1) // it catches up as it is looked at
	fmt.Fprintf(w, "# HELP webhook_ledger_lag of it\nwebhook_ledger_lag %d\nwebhook_ledger_entries_total %d\n", max(lag, 0), f.entries.Load())
}

// deliver sends a subscriber an event, or what the fault makes of it.
func (f *fake) deliver(s *fakeSub, e *fakeEvent) {
	list, cut := f.faulty(s, e)
	for _, e := range list {
		n := ""
		if s.n++; s.numbered {
			n = `"n":` + strconv.Itoa(s.n) + `,`
		}
		s.queue <- func() { s.write(e, n) }
	}
	if f.fault == "cut-slow" && s.id < 2 && len(s.queue) > 20 && !f.cut[s.id] {
		f.cut[s.id], cut = true, true
	}
	if cut {
		s.cut()
	}
}

// faulty is what a subscriber gets instead of an event.
func (f *fake) faulty(s *fakeSub, e *fakeEvent) (list []*fakeEvent, cut bool) {
	s.count++
	if s.held != nil {
		held := s.held
		s.held = nil
		return []*fakeEvent{e, held}, false
	}
	other := *e
	if s.count == 10 {
		switch f.fault {
		case "lose":
			return nil, false
		case "lose-numbered": // and the numbers show it
			s.n++
			return nil, false
		case "repeat":
			return []*fakeEvent{e, e}, false
		case "swap":
			s.held = e
			return nil, false
		case "misroute":
			other.json = strings.Replace(e.json, `"o":"bench"`, `"o":"foreign"`, 1)
			return []*fakeEvent{e, &other}, false
		case "id":
			other.id = "another" + e.id[7:]
			if s.id == 3 {
				return []*fakeEvent{&other}, false
			}
		case "no-id":
			other.id = ""
			return []*fakeEvent{&other}, false
		case "cut":
			return nil, true
		}
	}
	return []*fakeEvent{e}, false
}

// begin says hello to a subscriber, hands it what it missed, and from now on what
// comes.
func (f *fake) begin(o *fakeOrg, s *fakeSub, after string, hello func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.queue <- hello
	if after != "" {
		from, _ := strconv.Atoi(after)
		for i := range o.log[from:] {
			if e := &o.log[from+i]; s.wants(e.eventType) {
				f.deliver(s, e)
			}
		}
	}
	o.subs[s] = struct{}{}
}

func (f *fake) end(o *fakeOrg, s *fakeSub) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(o.subs, s)
}

// now is an org's newest position.
func (f *fake) now(o *fakeOrg) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprintf("%026d", len(o.log))
}

// refuse says no to connections at first, where that is the fault.
func (f *fake) refuse(w http.ResponseWriter) bool {
	if f.fault != "busy" || f.refused.Add(1) > 7 {
		return false
	}
	w.Header().Set("Retry-After", "1")
	http.Error(w, `{"code":"overloaded"}`, 503)
	return true
}

const fakeQueue = 10_000

// wants is what patterns of this test mean: a type, or all under a name.
func (s *fakeSub) wants(eventType string) bool {
	name, all := strings.CutSuffix(s.pattern, ">")
	return s.pattern == eventType || all && strings.HasPrefix(eventType, name)
}

func newFakeSub(user, pattern string) *fakeSub {
	id, _ := strconv.Atoi(strings.TrimPrefix(user, "reader-"))
	return &fakeSub{id: id, pattern: pattern, queue: make(chan func(), fakeQueue)}
}

func (f *fake) history(w http.ResponseWriter, r *http.Request) {
	o, _, err := f.org(r)
	if err != nil {
		http.Error(w, err.Error(), 401)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	from := 0
	if after := r.FormValue("after"); after != "earliest" {
		from, _ = strconv.Atoi(after)
	}
	to := min(from+1000, len(o.log))
	var list []string
	for _, e := range o.log[from:to] {
		if e.eventType == r.FormValue("pattern") {
			list = append(list, `{"type":"event","id":"`+e.id+`",`+e.json)
		}
	}
	fmt.Fprintf(w, `{"events":[%s],"cursor":"%026d","more":%t}`, strings.Join(list, ","), to, to < len(o.log))
}

func (f *fake) ws(w http.ResponseWriter, r *http.Request) {
	o, user, err := f.org(r)
	if err != nil {
		http.Error(w, err.Error(), 401)
		return
	}
	if f.refuse(w) {
		return
	}
	up := ws.HTTPUpgrader{Protocol: func(p string) bool { return p == "carillon.v1" }}
	conn, _, _, err := up.Upgrade(r, w)
	if err != nil {
		return
	}
	defer conn.Close()
	say := func(text string) { _ = wsutil.WriteServerText(conn, []byte(text)) }
	s := newFakeSub(user, "")
	s.numbered = r.FormValue("numbered") == "true"
	s.write = func(e *fakeEvent, n string) { say(`{"type":"event",` + n + `"id":"` + e.id + `",` + e.json) }
	s.cut = func() { conn.Close() }
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case f := <-s.queue:
				f()
			case <-over:
				return
			}
		}
	}()
	s.queue <- func() { say(`{"type":"welcome","cursor":"` + f.now(o) + `"}`) }
	defer f.end(o, s)
	for {
		b, err := wsutil.ReadClientText(conn)
		if err != nil {
			return
		}
		var frame struct {
			Type, Pattern string
			Ref           int
		}
		if json.Unmarshal(b, &frame) != nil || frame.Type != "subscribe" {
			s.queue <- func() { say(`{"type":"error","code":"bad_request"}`) }
			continue
		}
		s.pattern = frame.Pattern
		f.begin(o, s, r.FormValue("after"), func() { say(fmt.Sprintf(`{"type":"subscribed","pattern":%q,"ref":%d}`, frame.Pattern, frame.Ref)) })
		s.queue <- func() { say(`{"type":"caught_up","cursor":"` + f.now(o) + `"}`) }
	}
}

// sse streams in chunks, as net/http does.
func (f *fake) sse(w http.ResponseWriter, r *http.Request) {
	o, user, err := f.org(r)
	if err != nil {
		http.Error(w, err.Error(), 401)
		return
	}
	if f.refuse(w) {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	say := func(text string) { fmt.Fprint(w, text); _ = rc.Flush() }
	ctx, cut := context.WithCancel(r.Context())
	defer cut()
	s := newFakeSub(user, r.FormValue("pattern"))
	s.write = func(e *fakeEvent, _ string) {
		id := "id: " + e.id + "\n"
		if f.fault == "no-id-line" && e.id == fmt.Sprintf("%026d", 10) {
			id = ""
		}
		say(id + `data: {"type":"event","id":"` + e.id + `",` + e.json + "\n\n")
	}
	s.cut = cut
	say("retry: 3000\nid: " + f.now(o) + "\n\nevent: carillon.welcome\ndata: {\"type\":\"welcome\",\"cursor\":\"" + f.now(o) + "\"}\n\n")
	f.begin(o, s, r.FormValue("after"), func() { say("event: carillon.subscribed\ndata: {\"type\":\"subscribed\"}\n\n") })
	defer f.end(o, s)
	s.queue <- func() { say("event: carillon.caught_up\ndata: {\"type\":\"caught_up\"}\n\n") }
	for {
		select {
		case f := <-s.queue:
			f()
		case <-ctx.Done():
			return
		}
	}
}

func (f *fake) poll(w http.ResponseWriter, r *http.Request) {
	o, user, err := f.org(r)
	if err != nil {
		http.Error(w, err.Error(), 401)
		return
	}
	if f.refuse(w) {
		return
	}
	if r.FormValue("cursor") == "" {
		fmt.Fprintf(w, `{"events":[],"cursor":"%s","more":false}`, f.now(o))
		return
	}
	from, _ := strconv.Atoi(r.FormValue("cursor"))
	for {
		f.mu.Lock()
		s := o.past[user+r.FormValue("pattern")]
		if s == nil {
			s = newFakeSub(user, r.FormValue("pattern"))
			o.past[user+r.FormValue("pattern")] = s
		}
		var list []string
		cut := false
		for size := 0; from < len(o.log) && size < 1<<20; from++ {
			e := &o.log[from]
			if !s.wants(e.eventType) {
				continue
			}
			size += len(e.json)
			events, ends := f.faulty(s, e)
			cut = cut || ends
			for _, e := range events {
				list = append(list, `{"type":"event","id":"`+e.id+`",`+e.json)
			}
		}
		more := o.more
		f.mu.Unlock()
		if cut {
			panic(http.ErrAbortHandler)
		}
		if len(list) > 0 && f.fault == "no-cursor" {
			fmt.Fprintf(w, `{"events":[%s],"more":false}`, strings.Join(list, ","))
			return
		}
		if len(list) > 0 {
			fmt.Fprintf(w, `{"events":[%s],"cursor":"%026d","more":false}`, strings.Join(list, ","), from)
			return
		}
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}
