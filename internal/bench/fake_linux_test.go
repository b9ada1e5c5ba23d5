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
	"syscall"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// TestMain makes the test binary the program that Run starts: `dev` is the fake
// server, `bench floor-server` the floor.
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
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

const fakeSecret = "a secret of the fake server"

// fake speaks as much of the protocol as the load client uses. fault breaks it
// on purpose, at the tenth event of a subscriber.
type fake struct {
	fault string
	mu    sync.Mutex
	orgs  map[string]*fakeOrg
}

type fakeOrg struct {
	log  []fakeEvent
	subs map[*fakeSub]struct{}
}

type fakeEvent struct {
	id, json, eventType string
}

type fakeSub struct {
	conn    net.Conn
	pattern string
	n       int
	count   int
	held    *fakeEvent
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
	f := &fake{fault: *fault, orgs: map[string]*fakeOrg{}}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	http.HandleFunc("POST /v1/events", f.publish)
	http.HandleFunc("GET /v1/events", f.history)
	http.HandleFunc("GET /v1/ws", f.ws)
	text := fmt.Sprintf("CARILLON_URL=http://%s\nCARILLON_OPS_URL=http://%s\nCARILLON_JWT_SECRET=%s\n", l.Addr(), l.Addr(), fakeSecret)
	if err := os.WriteFile(*env, []byte(text), 0o600); err != nil {
		return err
	}
	return http.Serve(l, nil) // until SIGTERM
}

// org verifies a token and returns its org.
func (f *fake) org(r *http.Request) (*fakeOrg, error) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	body, sig, ok := cutLast(token, ".")
	if !ok {
		return nil, fmt.Errorf("no token")
	}
	mac := hmac.New(sha256.New, []byte(fakeSecret))
	mac.Write([]byte(body))
	if base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) != sig {
		return nil, fmt.Errorf("bad signature")
	}
	_, payload, _ := strings.Cut(body, ".")
	b, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil, err
	}
	var claims struct {
		Sub, Org, Role string
		Exp            int64
	}
	if err := json.Unmarshal(b, &claims); err != nil {
		return nil, err
	}
	if claims.Sub == "" || claims.Org == "" || claims.Exp == 0 {
		return nil, fmt.Errorf("claims are missing")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.orgs[claims.Org]
	if o == nil {
		o = &fakeOrg{subs: map[*fakeSub]struct{}{}}
		f.orgs[claims.Org] = o
	}
	return o, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func (f *fake) publish(w http.ResponseWriter, r *http.Request) {
	o, err := f.org(r)
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
		id := fmt.Sprintf("%026d", len(o.log)+1)
		ev := fakeEvent{id: id, eventType: e.Type, json: fmt.Sprintf(
			`"id":"%s","event_type":"%s","timestamp":"2025-07-09T10:30:00.000Z","payload":%s,"subject":"%s"}`, id, e.Type, e.Data, e.Subject)}
		o.log = append(o.log, ev)
		for s := range o.subs {
			if s.pattern == ev.eventType {
				f.deliver(s, &ev)
			}
		}
		ids = append(ids, `{"id":"`+id+`","duplicate":false}`)
	}
	f.mu.Unlock()
	w.WriteHeader(202)
	fmt.Fprintf(w, `{"events":[%s]}`, strings.Join(ids, ","))
}

func (f *fake) deliver(s *fakeSub, e *fakeEvent) {
	s.count++
	if s.held != nil {
		held := s.held
		s.held = nil
		f.write(s, e)
		f.write(s, held)
		return
	}
	if s.count == 10 {
		switch f.fault {
		case "lose":
			return
		case "lose-silently": // its number is right
			s.n++
			return
		case "repeat":
			f.write(s, e)
		case "swap":
			s.held = e
			return
		case "misroute":
			other := *e
			other.json = strings.Replace(e.json, `"o":"bench"`, `"o":"foreign"`, 1)
			f.write(s, &other)
			return
		case "cut":
			_ = s.conn.Close()
			return
		}
	}
	f.write(s, e)
}

func (f *fake) write(s *fakeSub, e *fakeEvent) {
	s.n++
	_ = wsutil.WriteServerText(s.conn, []byte(`{"type":"event","n":`+strconv.Itoa(s.n)+`,`+e.json))
}

func (f *fake) history(w http.ResponseWriter, r *http.Request) {
	o, err := f.org(r)
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
			list = append(list, `{"type":"event",`+e.json)
		}
	}
	fmt.Fprintf(w, `{"events":[%s],"cursor":"%026d","more":%t}`, strings.Join(list, ","), to, to < len(o.log))
}

func (f *fake) ws(w http.ResponseWriter, r *http.Request) {
	o, err := f.org(r)
	if err != nil {
		http.Error(w, err.Error(), 401)
		return
	}
	after := r.FormValue("after")
	up := ws.HTTPUpgrader{Protocol: func(p string) bool { return p == "carillon.v1" }}
	conn, _, _, err := up.Upgrade(r, w)
	if err != nil {
		return
	}
	defer conn.Close()
	say := func(text string) { _ = wsutil.WriteServerText(conn, []byte(text)) }
	say(`{"type":"welcome","cursor":"now"}`)
	s := &fakeSub{conn: conn}
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(o.subs, s)
	}()
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
			say(`{"type":"error","code":"bad_request"}`)
			continue
		}
		f.mu.Lock()
		s.pattern = frame.Pattern
		say(fmt.Sprintf(`{"type":"subscribed","pattern":%q,"ref":%d}`, s.pattern, frame.Ref))
		if after != "" {
			from, _ := strconv.Atoi(after)
			for i := range o.log[from:] {
				if e := &o.log[from+i]; e.eventType == s.pattern {
					f.deliver(s, e)
				}
			}
		}
		say(`{"type":"caught_up","cursor":"now"}`)
		o.subs[s] = struct{}{}
		f.mu.Unlock()
	}
}
