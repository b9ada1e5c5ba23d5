package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const (
	// soakTime is the variable that says how long the soak takes; make soak sets it.
	soakTime = "CARILLON_SOAK"
	// soakDir is where its plot and its figures go.
	soakDir = "CARILLON_SOAK_DIR"

	soakLanes   = 4  // publishers, each with an event type of its own
	soakClients = 60 // who come and go
	soakPace    = 20 * time.Millisecond
)

// TestSoak has clients of every transport come and go, cut off anywhere, and
// resume with what they have, while strangers send nonsense. Each checks that it
// gets every event of its publisher once and in order over all its lives. What
// the node uses is sampled; over a long run it must be flat.
func TestSoak(t *testing.T) {
	long := 5 * time.Second
	if s := os.Getenv(soakTime); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	cmd, url, ops := spawnNode(t, t.TempDir(), childSmall+"=1")
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	s := &soak{t: t, url: url, ops: ops, pid: cmd.Process.Pid, client: client(t)}

	var all, load sync.WaitGroup
	loading, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	for lane := range soakLanes {
		load.Go(func() { s.publish(loading, lane) })
	}
	for i := range soakClients {
		all.Go(func() { s.visit(ctx, i) })
	}
	all.Go(func() { s.stranger(ctx) })
	all.Go(func() { s.sample(ctx, long) })
	all.Wait()
	stop()
	load.Wait()
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	t.Logf("%d events published, %d received, %d lives, %d gaps after long absence, %d strange requests",
		s.published.Load(), s.received.Load(), s.lives.Load(), s.gaps.Load(), s.strange.Load())
	if s.received.Load() == 0 || s.lives.Load() < soakClients {
		t.Error("nobody received anything")
	}
	s.judge(long)
}

type soak struct {
	t        *testing.T
	url, ops string
	pid      int
	client   *http.Client
	samples  []soakSample

	published, received, lives, gaps, strange atomic.Int64
}

// soakSample is what the node used at one time.
type soakSample struct {
	At                       time.Duration
	RSS, Heap                float64 // bytes
	Goroutines, Files, Conns float64
}

func (s *soak) publish(ctx context.Context, lane int) {
	tok := token(s.t, "publisher")
	for n := 0; ctx.Err() == nil; n++ {
		body := fmt.Sprintf(`{"type":"soak.lane%d.event","id":"%d-%d","data":{"n":%d,"p":%q}}`, lane, lane, n, n, strings.Repeat("x", rand.N(2000)))
		status, text, err := s.ask(ctx, http.MethodPost, "/v1/events", body, "Bearer "+tok)
		if ctx.Err() != nil {
			return
		}
		if err != nil || status != http.StatusAccepted {
			s.t.Errorf("publish: %d %s %v", status, text, err)
			return
		}
		s.published.Add(1)
		pause(ctx, soakPace)
	}
}

func (s *soak) ask(ctx context.Context, method, path, body, authorization string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Authorization", authorization)
	resp, err := s.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// visitor is one who reads a lane over many lives.
type visitor struct {
	*soak

	token  string
	lane   int
	cursor string
	next   int // the number due; -1: whichever comes first
}

// visit lives many short lives, on a transport of the moment's choice.
func (s *soak) visit(ctx context.Context, i int) {
	v := &visitor{soak: s, token: token(s.t, fmt.Sprint("user", i)), lane: i % soakLanes, next: -1}
	for ctx.Err() == nil {
		life, end := context.WithTimeout(ctx, rand.N(5*time.Second))
		var err error
		switch rand.N(4) {
		case 0:
			err = v.sse(life)
		case 1:
			err = v.poll(life)
		default:
			err = v.ws(life)
		}
		if err != nil && life.Err() == nil {
			s.t.Errorf("visitor %d: %v", i, err)
			end()
			return
		}
		end()
		s.lives.Add(1)
		pause(ctx, rand.N(500*time.Millisecond))
	}
}

// pause lets time pass, as people do between two visits.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (v *visitor) pattern() string { return fmt.Sprintf("soak.lane%d.*", v.lane) }

// event takes one event; an error says what is wrong with it.
func (v *visitor) event(id string, payload []byte) error {
	var e struct{ N *int }
	if err := json.Unmarshal(payload, &e); err != nil || e.N == nil {
		return fmt.Errorf("payload %.40q: %w", payload, err)
	}
	if v.next >= 0 && *e.N != v.next {
		return fmt.Errorf("event %d of lane %d came where %d was due", *e.N, v.lane, v.next)
	}
	v.next, v.cursor = *e.N+1, id
	v.received.Add(1)
	return nil
}

func (v *visitor) gap(reason string) error {
	if reason != "expired" {
		return fmt.Errorf("a gap: %s", reason)
	}
	v.gaps.Add(1)
	v.next = -1
	return nil
}

func (v *visitor) ws(ctx context.Context) error {
	c, resp, err := websocket.Dial(ctx, strings.Replace(v.url, "http", "ws", 1)+"/v1/ws?after="+v.cursor,
		&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + v.token}}})
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseNow() }() // cut, as trains do
	c.SetReadLimit(1 << 20)
	if err := c.Write(ctx, websocket.MessageText, []byte(`{"type":"subscribe","pattern":"`+v.pattern()+`"}`)); err != nil {
		return err
	}
	for {
		f, err := next(ctx, c)
		if err != nil {
			return err
		}
		switch f.Type {
		case "event":
			err = v.event(f.ID, f.Payload)
		case "gap":
			err = v.gap(f.Reason)
		case "subscribed":
			if f.Gap != nil {
				err = v.gap(f.Gap.Reason)
			}
		case "error":
			err = errors.New(f.Message)
		}
		if err != nil {
			return err
		}
		if rand.N(200) == 0 {
			if err := c.Write(ctx, websocket.MessageText, []byte(`{"type":"refresh","token":"`+v.token+`"}`)); err != nil {
				return err
			}
		}
	}
}

func (v *visitor) sse(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url+"/v1/sse?pattern="+v.pattern(), nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+v.token)
	if v.cursor != "" {
		r.Header.Set("Last-Event-ID", v.cursor)
	}
	resp, err := v.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	name := ""
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			name = ""
			continue
		}
		field, value, _ := strings.Cut(line, ": ")
		if field == "event" {
			name = value
			continue
		}
		if field != "data" {
			continue
		}
		var f frame
		if err := json.Unmarshal([]byte(value), &f); err != nil {
			return err
		}
		switch {
		case name == "":
			err = v.event(f.ID, f.Payload)
		case name == "carillon.gap":
			err = v.gap(f.Reason)
		case name == "carillon.subscribed" && f.Gap != nil:
			err = v.gap(f.Gap.Reason)
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

func (v *visitor) poll(ctx context.Context) error {
	for ctx.Err() == nil {
		status, text, err := v.ask(ctx, http.MethodGet, "/v1/poll?wait=2&pattern="+v.pattern()+"&cursor="+v.cursor, "", "Bearer "+v.token)
		if err != nil {
			return err
		}
		var page struct {
			Events []frame
			Cursor string
			Gap    *struct{ Reason string }
		}
		if err := json.Unmarshal([]byte(text), &page); status != http.StatusOK || err != nil {
			return fmt.Errorf("poll: %d %.200s", status, text)
		}
		if page.Gap != nil {
			if err := v.gap(page.Gap.Reason); err != nil {
				return err
			}
		}
		for _, e := range page.Events {
			if err := v.event(e.ID, e.Payload); err != nil {
				return err
			}
		}
		v.cursor = page.Cursor
	}
	return nil
}

// stranger sends what no client should.
func (s *soak) stranger(ctx context.Context) {
	for ctx.Err() == nil {
		_, _, _ = s.ask(ctx, http.MethodGet, "/v1/events", "", "Bearer "+strconv.FormatUint(rand.Uint64(), 36)) // what is answered is not the question here
		_, _, _ = s.ask(ctx, http.MethodPost, "/v1/events", strings.Repeat("[", rand.N(2000)), "Bearer "+token(s.t, "stranger"))
		s.strange.Add(2)
		pause(ctx, 5*time.Millisecond)
	}
}

// sample notes what the node uses, about 300 times in all.
func (s *soak) sample(ctx context.Context, long time.Duration) {
	begin := time.Now()
	tick := time.NewTicker(max(long/300, 200*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.ops+"/metrics", nil)
		if err != nil {
			s.t.Error(err)
			return
		}
		resp, err := s.client.Do(r)
		if err != nil {
			continue // the end
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			continue
		}
		files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid)) // only Linux has it
		s.samples = append(s.samples, soakSample{
			At: time.Since(begin), RSS: series(text, "process_resident_memory_bytes"), Heap: series(text, "go_memstats_heap_alloc_bytes"),
			Goroutines: series(text, "go_goroutines"), Files: float64(len(files)), Conns: series(text, "ws_connections_active"),
		})
	}
}

// series is the value of a metric without labels.
func series(text []byte, name string) float64 {
	for line := range bytes.Lines(text) {
		if v, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			n, _ := strconv.ParseFloat(string(bytes.TrimSpace(v)), 64) // the metrics page is ours
			return n
		}
	}
	return 0
}

// judge compares the second quarter of a long run with the last, and draws it.
func (s *soak) judge(long time.Duration) {
	n := len(s.samples)
	if n < 8 {
		s.t.Fatalf("only %d samples", n)
	}
	rows := []struct {
		name  string
		of    func(soakSample) float64
		slack float64 // beside 10 %
	}{
		{"RSS, MB", func(x soakSample) float64 { return x.RSS / 1e6 }, 8},
		{"heap, MB", func(x soakSample) float64 { return x.Heap / 1e6 }, 8},
		{"goroutines", func(x soakSample) float64 { return x.Goroutines }, 20},
		{"files", func(x soakSample) float64 { return x.Files }, 20},
		{"connections", func(x soakSample) float64 { return x.Conns }, 20},
	}
	var charts []chart
	for _, row := range rows {
		var all []float64
		for _, x := range s.samples {
			all = append(all, row.of(x))
		}
		before, after := median(all[n/4:n/2]), median(all[3*n/4:])
		s.t.Logf("%-12s median of the second quarter %8.1f, of the last %8.1f", row.name, before, after)
		if long >= 5*time.Minute && after > before*1.1+row.slack {
			s.t.Errorf("%s grew from %.1f to %.1f", row.name, before, after)
		}
		charts = append(charts, chart{row.name, all})
	}
	dir := os.Getenv(soakDir)
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "soak.svg"), draw(charts, long), 0o644); err != nil {
		s.t.Error(err)
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// chart is one curve over the time of a run.
type chart struct {
	name   string
	values []float64
}

// draw makes an SVG with the charts one above the other, each from 0.
func draw(charts []chart, long time.Duration) []byte {
	const width, height, left, gap = 900, 110, 130, 30
	var b bytes.Buffer
	total := len(charts)*(height+gap) + gap
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", left+width+20, total)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/>`+"\n")
	for i, c := range charts {
		top := gap + i*(height+gap)
		most := max(slices.Max(c.values), 1)
		fmt.Fprintf(&b, `<text x="10" y="%d">%s</text><text x="%d" y="%d" text-anchor="end" fill="#666">%.0f</text><text x="%d" y="%d" text-anchor="end" fill="#666">0</text>`+"\n",
			top+height/2, c.name, left-6, top+10, most, left-6, top+height)
		fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="#bbb"/>`+"\n", left, top, top+height, left+width)
		fmt.Fprint(&b, `<polyline fill="none" stroke="#2563eb" stroke-width="1.3" points="`)
		for k, v := range c.values {
			fmt.Fprintf(&b, "%.1f,%.1f ", left+float64(k)*width/float64(max(len(c.values)-1, 1)), float64(top+height)-v/most*height)
		}
		fmt.Fprint(&b, `"/>`+"\n")
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="#666">%s</text></svg>`+"\n", left+width, total-8, long)
	return b.Bytes()
}
