package bench

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	connectQuiet = 30 * time.Second // without a new connection: give up
	linger       = 50 * time.Millisecond
)

// Run measures one scenario. A Report with failed checks comes without an error;
// see [Checks.Err].
func Run(ctx context.Context, cfg Config, s Scenario) (rep *Report, err error) {
	if err := cmp.Or(s.check(), cfg.check()); err != nil {
		return nil, err
	}
	r, err := newRig(ctx, cfg, s)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := r.close(); e != nil && err == nil {
			rep, err = nil, e
		}
	}()
	switch s := s.(type) {
	case *Publish:
		err = r.publish(ctx, s)
	case *Hooks:
		err = r.hooks(ctx, s)
	case *Fanout:
		err = r.fanout(ctx, s)
	case *Many:
		err = r.many(ctx, s)
	case *Slow:
		err = r.slow(ctx, s)
	case *Storm:
		err = r.storm(ctx, s)
	case *Resume:
		err = r.resume(s)
	case *Idle:
		err = r.idle(ctx, s)
	default:
		err = fmt.Errorf("bench: unknown scenario %T", s)
	}
	if errors.Is(err, errStopped) && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return r.report, nil
}

// rig is everything one run needs.
type rig struct {
	cfg    Config
	clock  *clock
	stop   atomic.Bool // raised when ctx ends or a loop fails
	unhook func() bool
	dir    string
	run    string // in every type and payload of this run

	server *server
	addr   netip.AddrPort
	host   string
	mint   *minter
	report *Report
}

func newRig(ctx context.Context, cfg Config, s Scenario) (_ *rig, err error) {
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	if cfg.Durability == "" {
		cfg.Durability = "strict"
	}
	if len(cfg.Program) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("bench: own executable: %w", err)
		}
		cfg.Program = []string{self}
	}
	r := &rig{cfg: cfg, run: strings.ToLower(rand.Text()[:6])}
	if err := needFiles(s.files() + 256); err != nil {
		return nil, err
	}
	if r.clock, err = newClock(); err != nil {
		return nil, err
	}
	r.report = &Report{Scenario: s.name(), Machine: machine()}
	if r.dir, err = os.MkdirTemp(cfg.Data, "carillon-bench-"); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	r.unhook = context.AfterFunc(ctx, func() { r.stop.Store(true) })
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := pinSelf(cfg.ClientCPUs); err != nil {
		return nil, err
	}
	if cfg.URL == "" {
		r.log("starting a server (durability %s) …", cfg.Durability)
		if r.server, err = startServer(ctx, &r.cfg, r.dir); err != nil {
			return nil, err
		}
		r.report.Params.addText("durability", cfg.Durability)
		if onTmpfs(r.dir) {
			r.report.note("the store was in memory (tmpfs): an fsync cost nothing; see --data")
		}
	} else {
		r.server = &server{url: strings.TrimSuffix(cfg.URL, "/"), opsURL: strings.TrimSuffix(cfg.OpsURL, "/"), secret: cfg.Secret, pid: cfg.PID}
	}
	u, err := url.Parse(r.server.url)
	if err != nil || u.Scheme != "http" {
		return nil, fmt.Errorf("bench: server URL %q: http://host:port is needed", r.server.url)
	}
	r.host = u.Host
	host := u.Host
	if u.Port() == "" {
		host += ":80"
	}
	if r.addr, err = resolve(ctx, host); err != nil {
		return nil, err
	}
	r.mint = newMinter(r.server.secret, time.Now())
	if err := r.reach(ctx); err != nil {
		return nil, err
	}
	if s.name() != "publish" {
		r.report.Params.addText("transport", string(cfg.Transport))
	}
	return r, nil
}

// reachLimit is how long a server that should run may take for its first answer.
const reachLimit = 5 * time.Second

// reach asks the server for an empty history, so that a wrong address or secret
// is said at once, and as such.
func (r *rig) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	_, err := r.history(ctx, "bench", url.Values{"pattern": {"bench." + r.run + ".none"}, "limit": {"1"}})
	if err != nil {
		return fmt.Errorf("bench: the server does not answer as it should: %w", err)
	}
	return nil
}

// history asks for a page of an org's history.
func (r *rig) history(ctx context.Context, org string, q url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.server.url+"/v1/events?"+q.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+r.mint.token(org, "auditor", "admin"))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("history: %s: %.200s", res.Status, body)
	}
	return body, nil
}

func (r *rig) close() error {
	r.unhook()
	var errs []error
	if r.server != nil && r.server.child != nil {
		errs = append(errs, r.server.child.stop())
	}
	errs = append(errs, os.RemoveAll(r.dir))
	return errors.Join(errs...)
}

func (r *rig) log(format string, args ...any) { fmt.Fprintf(r.cfg.Log, format+"\n", args...) }

func resolve(ctx context.Context, hostPort string) (a netip.AddrPort, err error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return a, fmt.Errorf("bench: address %q: %w", hostPort, err)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return a, fmt.Errorf("bench: address %q: %w", hostPort, err)
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return a, fmt.Errorf("bench: address %q: %w", hostPort, err)
	}
	ip := ips[0].Unmap()
	for _, other := range ips { // a name with both: the first that is IPv4, as dev listens there
		if other.Unmap().Is4() {
			ip = other.Unmap()
			break
		}
	}
	return netip.AddrPortFrom(ip, uint16(n)), nil
}

// fleet is the loops of one phase of a scenario.
type fleet struct {
	rig   *rig
	loops []*loop
}

func (r *rig) newFleet() (*fleet, error) {
	f := &fleet{rig: r}
	n := max(1, len(r.cfg.ClientCPUs))
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), n))
	for range n {
		l, err := newLoop(r.clock, &r.stop)
		if err != nil {
			f.close()
			return nil, err
		}
		f.loops = append(f.loops, l)
	}
	return f, nil
}

func (f *fleet) close() {
	for _, l := range f.loops {
		l.close()
	}
}

// run runs every loop until its done says so.
func (f *fleet) run(done func(l *loop, k int) func(now int64) bool) error {
	errs := make([]error, len(f.loops))
	var wg sync.WaitGroup
	for k, l := range f.loops {
		until := done(l, k)
		wg.Go(func() {
			if errs[k] = l.run(until); errs[k] != nil {
				f.rig.stop.Store(true)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, errStopped) {
			return err
		}
	}
	return errors.Join(errs...)
}

// connect dials everything and waits until all of it is open.
func (f *fleet) connect() error {
	err := f.run(func(l *loop, _ int) func(int64) bool {
		last, at := l.opened, l.clock.now()
		return func(now int64) bool {
			if l.opened != last {
				last, at = l.opened, now
			}
			return l.settled() || now-at > int64(connectQuiet)
		}
	})
	if err != nil {
		return err
	}
	for _, l := range f.loops {
		if l.opened < len(l.conns) {
			return fmt.Errorf("bench: %d of %d connections opened; first problem: %s", l.opened, len(l.conns), l.checker.First)
		}
	}
	return nil
}

// play publishes as the schedules say and waits until everything has arrived.
// expect is how many events a loop's receivers will have by then, since its
// beginning; slow ones are not waited for.
func (f *fleet) play(expect func(l *loop) uint64) error {
	var publishing atomic.Int32
	for _, l := range f.loops {
		if l.pub != nil {
			publishing.Add(1)
		}
	}
	return f.run(func(l *loop, _ int) func(int64) bool {
		mine := l.pub != nil
		want, got, at := uint64(0), uint64(0), int64(0)
		return func(now int64) bool {
			if mine {
				if !l.pub.over(now) && len(l.pub.idle)+l.pub.busy > 0 {
					return false
				}
				mine = false
				publishing.Add(-1)
			}
			if publishing.Load() > 0 {
				return false
			}
			if at == 0 {
				want, at = expect(l), now
			}
			if l.prompt != got {
				got, at = l.prompt, now
			}
			if got >= want {
				return now-at >= int64(linger) // for what comes twice
			}
			return now-at > int64(f.rig.cfg.quiet)
		}
	})
}

// pause lets time pass for connections that do nothing.
func (f *fleet) pause(d time.Duration) error {
	return f.run(func(l *loop, _ int) func(int64) bool {
		end := l.clock.now() + int64(d)
		return func(now int64) bool { return now >= end }
	})
}

// receivers calls do for every receiver of the fleet.
func (f *fleet) receivers(do func(l *loop, c *conn)) {
	for _, l := range f.loops {
		for i := range l.conns {
			if c := &l.conns[i]; c.kind == subscriber || c.kind == bareReader {
				do(l, c)
			}
		}
	}
}

// collect ends the checks: every receiver against what was sent to it. Where they
// all read one stream they are compared with each other.
func (f *fleet) collect(sent func(c *conn) []uint64, oneStream bool) {
	var first *receiver
	f.receivers(func(l *loop, c *conn) {
		l.checker.finish(&c.receiver, sent(c))
		if oneStream {
			if first == nil {
				first = &c.receiver
			}
			l.checker.sameOrder(first, &c.receiver)
		}
		if c.kind == subscriber && c.via != LongPoll && c.state == open && c.caughtUp != 1 {
			l.checker.Protocol++
			l.checker.note("receiver %d: %d caught_up for one subscribe", c.receiver.id, c.caughtUp)
		}
	})
	for _, l := range f.loops {
		if l.pub != nil && l.pub.errors > 0 {
			l.checker.PublishErrors += l.pub.errors
			l.checker.note("%s", l.pub.first)
		}
		f.rig.report.Checks.Add(&l.checker.Checks)
	}
}

// subscriber is a client of s that stands at after, or at now.
func (r *rig) subscriber(id int, s *stream, lanes int, after string) conn {
	head := " HTTP/1.1\r\nHost: " + r.host + "\r\nAuthorization: Bearer " + r.mint.token(s.org, fmt.Sprintf("reader-%d", id), "member") + "\r\n"
	path := ""
	switch r.cfg.Transport {
	case WebSocket:
		if path = "/v1/ws"; r.cfg.Numbered {
			path += "?numbered=true"
		}
		head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + wsKey +
			"\r\nSec-WebSocket-Protocol: carillon.v1\r\n"
	case SSE:
		path = "/v1/sse?pattern=" + string(appendEscaped(nil, []byte(s.wanted())))
		head += "Accept: text/event-stream\r\n"
	case LongPoll:
		path = "/v1/poll?pattern=" + string(appendEscaped(nil, []byte(s.wanted())))
	}
	return conn{
		fd: -1, addr: r.addr, kind: subscriber, via: r.cfg.Transport,
		path: path, head: []byte(head + "\r\n"), cursor: []byte(after),
		receiver: r.receiver(id, s, lanes),
	}
}

func (r *rig) receiver(id int, s *stream, lanes int) receiver {
	rcv := newReceiver(id, s, lanes)
	rcv.numbered = r.cfg.Numbered
	return rcv
}

// publisher is an HTTP client that publishes in one org.
func (r *rig) publisher(org string, lane int, s *stream) conn {
	token := r.mint.token(org, fmt.Sprintf("publisher-%d", lane), "admin")
	return conn{
		fd:     -1,
		addr:   r.addr,
		kind:   publisher,
		lane:   lane,
		stream: s,
		head: []byte("POST /v1/events HTTP/1.1\r\nHost: " + r.host + "\r\nAuthorization: Bearer " + token +
			"\r\nContent-Type: application/json\r\nContent-Length: "),
	}
}

func (r *rig) stream(org, name string) *stream {
	return &stream{run: r.run, org: org, eventType: "bench." + r.run + "." + name, subject: "on-" + name}
}

// ownLane is the pick of publishers that each have a stream and a lane.
func ownLane(c *conn, n int) (*stream, int, uint64) {
	seq := c.seq
	c.seq += uint64(n)
	return c.stream, c.lane, seq
}

// sample is one measured span.
type sample struct {
	elapsed   time.Duration
	user, sys time.Duration
	rss       [2]uint64 // before, after
	client    time.Duration
	sent      uint64 // requests
	events    uint64 // published
	delivered uint64
	latency   Histogram
	ack       Histogram
	late      Histogram
}

// measure runs do and says what it took of the server and of us.
func (r *rig) measure(pid int, do func() error) (*sample, error) {
	before, err := readUsage(pid)
	if err != nil {
		return nil, err
	}
	self, err := readUsage(os.Getpid())
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := do(); err != nil {
		return nil, err
	}
	s := &sample{elapsed: time.Since(start)}
	after, err := readUsage(pid)
	if err != nil {
		return nil, err
	}
	selfAfter, err := readUsage(os.Getpid())
	if err != nil {
		return nil, err
	}
	s.user, s.sys = after.user-before.user, after.sys-before.sys
	s.rss = [2]uint64{before.rss, after.rss}
	s.client = selfAfter.cpu() - self.cpu()
	return s, nil
}

// measurePlay plays the schedules of a fleet, which must have begun, as one
// sample. Everything delivered counts, latency only of receivers that are not slow.
func (f *fleet) measurePlay(pid int, expect func(l *loop) uint64) (*sample, error) {
	before := uint64(0)
	for _, l := range f.loops {
		before += l.checker.Received
		l.latency.Reset()
	}
	s, err := f.rig.measure(pid, func() error { return f.play(expect) })
	if err != nil {
		return nil, err
	}
	s.elapsed -= linger
	for _, l := range f.loops {
		s.delivered += l.checker.Received
		s.latency.Merge(&l.latency)
		if l.pub != nil {
			s.sent += l.pub.sent
			s.events += l.pub.events
			s.ack.Merge(&l.pub.ack)
			s.late.Merge(&l.pub.late)
		}
	}
	s.delivered -= before
	return s, nil
}

// add sums up samples of repeated runs.
func (s *sample) add(o *sample) {
	s.elapsed += o.elapsed
	s.user += o.user
	s.sys += o.sys
	s.client += o.client
	s.sent += o.sent
	s.events += o.events
	s.delivered += o.delivered
	s.latency.Merge(&o.latency)
	s.ack.Merge(&o.ack)
	s.late.Merge(&o.late)
}

func perSecond(n uint64, d time.Duration) float64 { return float64(n) / d.Seconds() }

func micros(d time.Duration, n uint64) float64 { return float64(d) / 1e3 / float64(max(n, 1)) }

// deliveries writes the usual row of a delivering scenario.
func (s *sample) deliveries(pid int) Values {
	var v Values
	v.add("deliveries", "/s", perSecond(s.delivered, s.elapsed))
	v.add("publishes", "/s", perSecond(s.events, s.elapsed))
	v.addLatency("", &s.latency)
	if pid != 0 {
		v.add("server CPU per delivery", "µs", micros(s.user+s.sys, s.delivered))
		v.add("of it user", "µs", micros(s.user, s.delivered))
		v.add("server CPU", "%", 100*(s.user+s.sys).Seconds()/s.elapsed.Seconds())
	}
	v.addLatency("ack", &s.ack)
	if s.late.Count() > 0 {
		v.add("sent late p99", "ms", ms(s.late.Quantile(0.99)))
	}
	v.add("client CPU", "%", 100*s.client.Seconds()/s.elapsed.Seconds())
	return v
}

// warn notes what makes figures doubtful.
func (r *rig) warn(name string, s *sample, loops int) {
	if share := s.client.Seconds() / s.elapsed.Seconds() / float64(loops); share > 0.95 {
		r.report.note("%s: the client used %.0f %% of its CPU: it may be the limit, not the server", name, 100*share)
	}
	if p99 := s.late.Quantile(0.99); p99 > 5*time.Millisecond {
		r.report.note("%s: publishes left up to %s late (p99): every publisher waited for an answer, or the client did not get its CPU; latency counts from when they were due", name, p99.Round(10*time.Microsecond))
	}
}
