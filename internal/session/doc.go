// Package session holds one client's conversation, without its socket: what it
// asked for, where it stands in its organization's log, and what it is owed.
//
// A session is a passive record that a shard owns. A transport hands it what the
// client sent (Receive) and takes bytes from it when it can write (Pull); the
// session never waits. Whatever takes time, a publish, a credential, a question
// to the log, is submitted with a completion that is posted to the shard.
//
// [Session] is for connections that stay (WebSocket, SSE), [Poll] for one answer
// to one request.
package session

import (
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Publisher is the gate, as a session sees it. done is called exactly once and
// must not block; Submit never blocks.
type Publisher interface {
	Submit(p *carillon.Principal, drafts []carillon.Draft, done func([]carillon.Receipt, error))
}

// Verifier turns a token into a principal. done is called exactly once, possibly
// at once, and must not block.
type Verifier interface {
	Verify(token string, done func(*carillon.Principal, error))
}

// Limits of one connection. Zero fields mean the defaults given.
type Limits struct {
	Subscriptions   int           // 1,000; one more is quota_exceeded
	PublishesFlying int           // 64; at the limit reading from the socket pauses
	OutboxBytes     int           // 256 KiB of answers not yet taken; over it reading pauses
	BadFrames       int           // 20 a minute; one more closes with 4000
	BatchEvents     int           // 1,000 events in one publish
	MaxIdle         time.Duration // 25 s without sending: a heartbeat
	DeadAfter       time.Duration // 60 s without a frame from the client: closed
	ConnectTimeout  time.Duration // 5 s for a connect frame
	TokenExpiring   time.Duration // 60 s before its token expires a client is told
	MaxLifetime     time.Duration // 0: none; each connection ends up to a tenth earlier
	TokenSpread     time.Duration // 60 s; up to so long before its token ends a connection does, and a tenth of what is left
	KeepAlive       time.Duration // 15 s of silence on SSE: a block with the cursor
	Retry           time.Duration // 3 s: what SSE clients are told to wait before they reconnect
	PollBytes       int           // 1 MiB of events in one answer
	PollGather      time.Duration // 10 ms that a poll waits for more when it has waited for an event; less than 0: it does not
	PollLinger      time.Duration // 2 s that a poll's feed waits for the next poll; less than 0: it does not
	PollSessions    int           // 65,536 feeds that wait so
}

func (l Limits) withDefaults() Limits {
	n := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	t := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	n(&l.Subscriptions, 1000)
	n(&l.PublishesFlying, 64)
	n(&l.OutboxBytes, 256<<10)
	n(&l.BadFrames, 20)
	n(&l.BatchEvents, 1000)
	n(&l.PollBytes, 1<<20)
	t(&l.MaxIdle, 25*time.Second)
	t(&l.DeadAfter, 60*time.Second)
	t(&l.ConnectTimeout, 5*time.Second)
	t(&l.TokenExpiring, 60*time.Second)
	t(&l.TokenSpread, 60*time.Second)
	t(&l.KeepAlive, 15*time.Second)
	t(&l.Retry, 3*time.Second)
	n(&l.PollSessions, 65_536)
	if l.PollGather == 0 {
		l.PollGather = 10 * time.Millisecond
	}
	if l.PollLinger == 0 {
		l.PollLinger = 2 * time.Second
	}
	return l
}

// Config is what a node hands its sessions. The limits may be zero.
type Config struct {
	Hub       *hub.Hub
	IDs       *wire.Keyring
	Publisher Publisher
	Verifier  Verifier
	Limits    Limits

	// Connections is how many sessions an organization may have at the same
	// time; 0, or a nil function: no limit. It must not block.
	Connections func(carillon.OrgID) int

	// Allowed returns why a principal may not be here any more: its organization
	// or its API key is gone; nil, or a nil function: it may. It must not block.
	Allowed func(*carillon.Principal) error

	// MaxConnections is how many sessions and polls the node may have at the
	// same time, MaxPerAddress how many of them a client's address, and MaxPerUser
	// how many sessions a user; 0: no limit.
	MaxConnections, MaxPerAddress, MaxPerUser int

	// DeflateFrom is how long an event's JSON is at least that is compressed for the
	// sessions that agreed to it; 0: none is.
	DeflateFrom int

	// Full returns why the node takes no session and no poll now; nil, or a nil
	// function: it does. It must not block.
	Full func() error
}

// Core is what all sessions of a node share.
type Core struct {
	Config

	dir       directory
	ids       connectionIDs
	began     time.Time // by the wall clock
	grants    grants
	locals    []local // by shard
	stats     counters
	deflaters *deflaters // nil: nothing is compressed
	lingering lingering
	leaving   atomic.Pointer[departures] // nil: the node does not drain
}

// NewCore fills in the defaults of the limits. A hub has one core, which is made
// before it has members.
func NewCore(c Config) *Core {
	c.Limits = c.Limits.withDefaults()
	core := &Core{Config: c, ids: newConnectionIDs(), began: time.Now().Round(0)}
	core.stats.limits = newLimits()
	core.deflaters = newDeflaters(c.DeflateFrom)
	core.lingering.init(c.Limits.PollSessions, func() { core.stats.limits.Add(limitPollSessions) })
	if c.Hub != nil {
		core.locals = make([]local, len(c.Hub.Shards()))
		c.Hub.SetTag(&tenant{core: core})
	}
	core.dir.init()
	core.grants.init()
	return core
}
