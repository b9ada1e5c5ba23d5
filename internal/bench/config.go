package bench

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Transport is how subscribers receive.
type Transport string

// The transports.
const (
	WebSocket Transport = "ws"
	SSE       Transport = "sse"
	LongPoll  Transport = "poll"
)

// Config says which server is loaded and from where. The zero value starts a
// server of its own with this program, unpinned, strict, and receives over
// WebSocket.
type Config struct {
	Transport Transport // default WebSocket
	Numbered  bool      // WebSocket: let the server number what it sends, and check that too

	// A running server. All empty: start one.
	URL    string // of the public port
	OpsURL string // of the operations port; without it memory is not shown by part
	Secret string // its HS256 secret, for an issuer without iss that may name every org
	PID    int    // for CPU and RSS; 0: not measured

	// A server of our own.
	Durability string   // strict (default) or relaxed
	Data       string   // directory under which its store is made; default the system's for temporary files
	Procs      int      // GOMAXPROCS of the server and of the floor server; 0: theirs to choose
	ServerArgs []string // further arguments of `dev`
	Program    []string // default: this executable

	ServerCPUs []int // empty: not pinned
	ClientCPUs []int // one loop each; empty: one loop, not pinned
	NoFloor    bool  // leave out the bare write(2) loop, or what else is measured beside
	NoEngine   bool  // leave out the bare engine, where a scenario compares with it
	Log        io.Writer

	quiet time.Duration // without a new event: what is missing is lost; 0: drainQuiet
}

// drainQuiet is how long nothing may come before what is missing is lost.
const drainQuiet = 5 * time.Second

func (c *Config) check() error {
	c.quiet = cmp.Or(c.quiet, drainQuiet)
	switch c.Transport {
	case "":
		c.Transport = WebSocket
	case WebSocket, SSE, LongPoll:
	default:
		return fmt.Errorf("bench: transport %q; it is ws, sse or poll", c.Transport)
	}
	if c.Numbered && c.Transport != WebSocket {
		return fmt.Errorf("bench: only a WebSocket's events can be numbered, not those of %s", c.Transport)
	}
	return nil
}

// Scenario is one of [Publish], [Hooks], [Fanout], [Many], [Slow], [Storm], [Resume]
// and [Idle]. Where a field does not say what 0 means, it must be more.
type Scenario interface {
	name() string
	check() error
	files() int // open at the same time
}

// Publish measures how fast events become durable: a closed loop of publishers
// over HTTP.
type Publish struct {
	Publishers int
	Batch      int // events per request; 1: single objects
	Orgs       int
	Size       int           // bytes of data
	Warmup     time.Duration // may be 0
	Duration   time.Duration
	NoReadBack bool // do not read everything back afterwards and check it
}

// Hooks measures taking webhooks in: signed deliveries as GitHub sends them, stored
// before they are answered, published afterwards and received by subscribers, each
// once. Beside it the same as durable publishes.
type Hooks struct {
	Senders     int           // connections, with one delivery in flight each
	Size        int           // bytes of a body
	Rate        float64       // deliveries per second; 0: a closed loop
	Deliveries  int           // in all; 0: as many as Duration gives
	Subscribers int           // of all that the source publishes
	Warmup      time.Duration // may be 0
	Duration    time.Duration // where Deliveries is 0
	NoWait      bool          // do not wait until the ledger has caught up and memory has settled

	Org        string // that they go to, of a running server; one of our own says which
	Source     string // of kind github
	HookSecret string // of a running server's source
}

// Fanout measures one event to many: an open loop of publishes to subscribers of
// one org and type.
type Fanout struct {
	Subscribers int
	Rate        float64 // requests per second
	Batch       int     // events per request, which arrive together; 1: single objects
	Publishers  int
	Size        int
	Warmup      time.Duration // may be 0
	Duration    time.Duration
	Runs        int     // of floor and server in turn
	OtherRate   float64 // publishes per second of another org meanwhile; 0: none
}

// Many measures one event to one, among many: every connection has a literal
// type of its own.
type Many struct {
	Connections int
	Rate        float64
	Publishers  int
	Size        int
	Warmup      time.Duration // may be 0
	Duration    time.Duration
}

// Slow measures what slow readers do to the others: a fan-out while all read,
// then while some do not, and then those read on and must miss nothing. A slow
// one whose connection the server ended comes back to where it was.
type Slow struct {
	Subscribers int
	Share       float64 // of them that become slow, in percent
	SlowRate    float64 // bytes per second that each of them still reads; 0: none
	Rate        float64
	Publishers  int
	Size        int
	Warmup      time.Duration // may be 0
	Duration    time.Duration // of each of the two
}

// Storm measures a reconnect of everybody: all clients are cut at once, events
// are published, and all come back to where they were.
type Storm struct {
	Clients   int
	Orgs      int
	Missed    int // events of each org while its clients are away
	Size      int
	AtOnce    int           // handshakes under way at the same time, at most
	Settle    time.Duration // before the cut, for the reading of RSS
	OtherRate float64       // publishes per second of another org meanwhile; 0: none
}

// Resume measures a reconnect with a past: all clients of one org come at once
// and each has missed the same events.
type Resume struct {
	Clients int
	Missed  int
	Size    int
	FillMB  int // of other orgs' events published in between, so that the missed ones lie below the ring; may be 0

	OtherRate float64 // publishes per second of another org meanwhile; 0: none
}

// Idle measures what a connection costs that does nothing.
type Idle struct {
	Connections int
	Orgs        int
	Settle      time.Duration // between the last handshake and the reading of RSS
	Hold        time.Duration // how long idle CPU is measured
	FillMB      int           // of events published first, so that the ring is full; may be 0
}

func (*Publish) name() string { return "publish" }
func (*Hooks) name() string   { return "hooks" }
func (*Fanout) name() string  { return "fanout" }
func (*Many) name() string    { return "many" }
func (*Slow) name() string    { return "slow" }
func (*Storm) name() string   { return "storm" }
func (*Resume) name() string  { return "resume" }
func (*Idle) name() string    { return "idle" }

func (s *Publish) files() int { return s.Publishers }
func (s *Hooks) files() int   { return s.Senders + s.Subscribers }
func (s *Fanout) files() int  { return s.Subscribers + s.Publishers }
func (s *Many) files() int    { return s.Connections + s.Publishers }
func (s *Slow) files() int    { return s.Subscribers + s.Publishers }
func (s *Storm) files() int   { return s.Clients + s.Orgs }
func (s *Resume) files() int  { return s.Clients + fillOrgs }
func (s *Idle) files() int    { return s.Connections + fillOrgs }

// fillOrgs is how many orgs share the filling of the ring: enough to reach every
// partition.
const fillOrgs = 32

func (s *Publish) check() error {
	return cmp.Or(atLeastOne("publishers", s.Publishers), atLeastOne("orgs", s.Orgs),
		atMost("orgs", s.Orgs, "publishers", s.Publishers), checkBatch(s.Batch), checkSize(s.Size),
		checkSpan("warmup", s.Warmup, 0), checkSpan("duration", s.Duration, 1))
}

func (s *Hooks) check() error {
	return cmp.Or(atLeastOne("senders", s.Senders), s.checkSize(), s.checkAmount(), atLeastOne("subscribers", s.Subscribers),
		checkSpan("warmup", s.Warmup, 0), s.checkDoor())
}

func (s *Hooks) checkSize() error {
	if s.Size < minHook || s.Size > 190_000 {
		return fmt.Errorf("bench: size is %d; the body of a webhook is %d to 190000 bytes", s.Size, minHook)
	}
	return nil
}

func (s *Hooks) checkAmount() error {
	if s.Deliveries < 0 || s.Deliveries > maxMark {
		return fmt.Errorf("bench: deliveries is %d; it is at most %d, or 0 for as many as the duration gives", s.Deliveries, maxMark)
	}
	if s.Rate != 0 {
		if err := checkRate("rate", s.Rate); err != nil {
			return err
		}
	}
	if s.Deliveries > 0 {
		return nil
	}
	return checkSpan("duration", s.Duration, 1)
}

func (s *Hooks) checkDoor() error {
	if s.Org == "" || s.Source == "" {
		return fmt.Errorf("bench: webhooks go to /hooks/%s/%s; an organization and a source are needed", cmp.Or(s.Org, "<org>"), cmp.Or(s.Source, "<source>"))
	}
	return nil
}

func (s *Fanout) check() error {
	return cmp.Or(atLeastOne("subscribers", s.Subscribers), checkRate("rate", s.Rate), checkBatch(s.Batch),
		atLeastOne("publishers", s.Publishers), checkSize(s.Size), atLeastOne("runs", s.Runs), checkOther(s.OtherRate),
		checkSpan("warmup", s.Warmup, 0), checkSpan("duration", s.Duration, 1))
}

func (s *Many) check() error {
	// One type is published by one at a time.
	return cmp.Or(atLeastOne("connections", s.Connections), checkRate("rate", s.Rate), atLeastOne("publishers", s.Publishers),
		atMost("publishers", s.Publishers, "connections", s.Connections), checkSize(s.Size),
		checkSpan("warmup", s.Warmup, 0), checkSpan("duration", s.Duration, 1))
}

func (s *Slow) check() error {
	return cmp.Or(atLeastOne("subscribers", s.Subscribers), s.checkSlow(), checkRate("rate", s.Rate),
		atLeastOne("publishers", s.Publishers), checkSize(s.Size),
		checkSpan("warmup", s.Warmup, 0), checkSpan("duration", s.Duration, 1))
}

func (s *Slow) checkSlow() error {
	if !(s.Share > 0 && s.Share < 100) || s.slow() < 1 {
		return fmt.Errorf("bench: slow is %v %% of %d subscribers; at least one is slow, and one is not", s.Share, s.Subscribers)
	}
	if s.SlowRate == 0 {
		return nil
	}
	return checkRate("slow rate", s.SlowRate)
}

// slow is how many are.
func (s *Slow) slow() int { return int(float64(s.Subscribers) * s.Share / 100) }

func (s *Storm) check() error {
	return cmp.Or(atLeastOne("clients", s.Clients), atLeastOne("orgs", s.Orgs), atMost("orgs", s.Orgs, "clients", s.Clients),
		atLeastOne("missed", s.Missed), checkSize(s.Size), atLeastOne("handshakes at once", s.AtOnce),
		checkSpan("settle", s.Settle, 0), checkOther(s.OtherRate))
}

func (s *Resume) check() error {
	return cmp.Or(atLeastOne("clients", s.Clients), atLeastOne("missed", s.Missed), checkSize(s.Size),
		checkFill(s.FillMB), checkOther(s.OtherRate))
}

func (s *Idle) check() error {
	return cmp.Or(atLeastOne("connections", s.Connections), atLeastOne("orgs", s.Orgs), checkFill(s.FillMB),
		checkSpan("settle", s.Settle, 0), checkSpan("hold", s.Hold, 1))
}

// maxRate of anything per second is more than any machine does.
const maxRate = 100_000_000

func atLeastOne(what string, n int) error {
	if n < 1 {
		return fmt.Errorf("bench: %s is %d; it is at least 1", what, n)
	}
	return nil
}

func atMost(what string, n int, of string, limit int) error {
	if n > limit {
		return fmt.Errorf("bench: %s is %d; it is at most the number of %s, %d", what, n, of, limit)
	}
	return nil
}

func checkRate(what string, rate float64) error {
	if !(rate > 0 && rate <= maxRate) { // not a number is neither
		return fmt.Errorf("bench: %s is %v per second; it is more than 0 and at most %d", what, rate, maxRate)
	}
	return nil
}

func checkOther(rate float64) error {
	if rate == 0 {
		return nil
	}
	return checkRate("other rate", rate)
}

func checkSpan(what string, d, least time.Duration) error {
	if d >= least && d <= tokenLife/2 {
		return nil
	}
	if least > 0 {
		return fmt.Errorf("bench: %s is %s; it is more than 0s and at most %s", what, d, tokenLife/2)
	}
	return fmt.Errorf("bench: %s is %s; it is from 0s to %s", what, d, tokenLife/2)
}

func checkBatch(n int) error {
	if n < 1 || n > 1000 {
		return fmt.Errorf("bench: batch is %d; an array holds 1 to 1000 events", n)
	}
	return nil
}

func checkFill(mb int) error {
	if mb < 0 {
		return fmt.Errorf("bench: %d MB to fill the ring with; it is 0 or more", mb)
	}
	return nil
}

func checkSize(size int) error {
	if size < minData || size > 190_000 {
		return fmt.Errorf("bench: size is %d; data is %d to 190000 bytes", size, minData)
	}
	return nil
}

// ParseCPUs reads a list such as 0,2-3. Empty is no list.
func ParseCPUs(s string) ([]int, error) {
	if s == "" {
		return nil, nil
	}
	var cpus []int
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || a < 0 || b < a || b > 1023 {
			return nil, fmt.Errorf("bench: CPUs %q: a list such as 0,2-3", s)
		}
		for cpu := a; cpu <= b; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}
