package bench

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Config says which server is loaded and from where. The zero value starts a
// server of its own with this program, unpinned, strict.
type Config struct {
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
	NoFloor    bool  // leave out the bare write(2) loop
	Log        io.Writer
}

// Scenario is one of [Publish], [Fanout], [Many], [Resume] and [Idle].
type Scenario interface {
	name() string
	check() error // and fill in defaults
	files() int   // open at the same time
}

// Publish measures how fast events become durable: a closed loop of publishers
// over HTTP.
type Publish struct {
	Publishers int
	Batch      int // events per request; 1: single objects
	Orgs       int
	Size       int // bytes of data
	Warmup     time.Duration
	Duration   time.Duration
	NoReadBack bool // do not read everything back afterwards and check it
}

// Fanout measures one event to many: an open loop of publishes to subscribers of
// one org and type.
type Fanout struct {
	Subscribers int
	Rate        float64
	Publishers  int
	Size        int
	Warmup      time.Duration
	Duration    time.Duration
	Runs        int // of floor and server in turn
}

// Many measures one event to one, among many: every connection has a literal
// type of its own.
type Many struct {
	Connections int
	Rate        float64
	Publishers  int
	Size        int
	Warmup      time.Duration
	Duration    time.Duration
}

// Resume measures a reconnect with a past: all clients of one org come at once
// and each has missed the same events.
type Resume struct {
	Clients int
	Missed  int
	Size    int
	FillMB  int // of other orgs' events published in between, so that the missed ones lie below the ring

	OtherRate float64 // publishes per second of another org meanwhile; 0: none
}

// Idle measures what a connection costs that does nothing.
type Idle struct {
	Connections int
	Orgs        int
	Settle      time.Duration // between the last handshake and the reading of RSS
	Hold        time.Duration // how long idle CPU is measured
	FillMB      int           // of events published first, so that the ring is full
}

func (*Publish) name() string { return "publish" }
func (*Fanout) name() string  { return "fanout" }
func (*Many) name() string    { return "many" }
func (*Resume) name() string  { return "resume" }
func (*Idle) name() string    { return "idle" }

func (s *Publish) files() int { return s.Publishers }
func (s *Fanout) files() int  { return s.Subscribers + s.Publishers }
func (s *Many) files() int    { return s.Connections + s.Publishers }
func (s *Resume) files() int  { return s.Clients + fillOrgs }
func (s *Idle) files() int    { return s.Connections + fillOrgs }

// fillOrgs is how many orgs share the filling of the ring: enough to reach every
// partition.
const fillOrgs = 32

func (s *Publish) check() error {
	fill(&s.Publishers, 64)
	fill(&s.Batch, 1)
	fill(&s.Orgs, 1)
	fill(&s.Size, 256)
	fill(&s.Duration, 10*time.Second)
	if s.Orgs > s.Publishers {
		return fmt.Errorf("bench: %d orgs need as many publishers; there are %d", s.Orgs, s.Publishers)
	}
	if s.Batch > 1000 {
		return fmt.Errorf("bench: an array holds at most 1000 events, not %d", s.Batch)
	}
	return checkSize(s.Size)
}

func (s *Fanout) check() error {
	fill(&s.Subscribers, 1000)
	fill(&s.Rate, 50)
	fill(&s.Publishers, 16)
	fill(&s.Size, 256)
	fill(&s.Duration, 10*time.Second)
	fill(&s.Runs, 1)
	return checkSize(s.Size)
}

func (s *Many) check() error {
	fill(&s.Connections, 10_000)
	fill(&s.Rate, 5000)
	fill(&s.Publishers, 64)
	fill(&s.Size, 256)
	fill(&s.Duration, 10*time.Second)
	if s.Publishers > s.Connections {
		return fmt.Errorf("bench: %d publishers for %d types: one type is published by one at a time", s.Publishers, s.Connections)
	}
	return checkSize(s.Size)
}

func (s *Resume) check() error {
	fill(&s.Clients, 1000)
	fill(&s.Missed, 100)
	fill(&s.Size, 256)
	return checkSize(s.Size)
}

func (s *Idle) check() error {
	fill(&s.Connections, 15_000)
	fill(&s.Orgs, 1)
	fill(&s.Settle, 2*time.Second)
	fill(&s.Hold, 5*time.Second)
	return nil
}

func fill[T int | float64 | time.Duration](v *T, fallback T) {
	if *v <= 0 {
		*v = fallback
	}
}

func checkSize(size int) error {
	if size < minData || size > 190_000 {
		return fmt.Errorf("bench: data is %d to 190000 bytes, not %d", minData, size)
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
