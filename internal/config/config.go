// Package config is the settings of a node: one struct, read from a YAML file
// and the environment, checked in one place.
//
// A key that is not known is refused with its line and the key that was
// probably meant. All problems of a file are reported together. What Load
// returns is valid; nothing behind it checks again.
//
// [Example] is the reference of every setting.
package config

import (
	"slices"
	"time"
)

// Config is every setting of a node. Default has the values that hold where a
// file says nothing.
//
// Each scalar and each list of strings can also be set in the environment, as
// CARILLON_ and its path in capitals: limits.event_bytes is
// CARILLON_LIMITS_EVENT_BYTES. The environment wins over the file.
type Config struct {
	Listen     string     `yaml:"listen"` // the public port
	TLS        TLS        `yaml:"tls"`    // of the public port
	Proxy      Proxy      `yaml:"proxy"`
	Ops        Ops        `yaml:"ops"`
	Data       string     `yaml:"data"` // the directory of the log
	Engine     Engine     `yaml:"engine"`
	Orgs       []Org      `yaml:"orgs"`
	Issuers    []Issuer   `yaml:"issuers"`
	JWKS       JWKS       `yaml:"jwks"`
	Origins    []string   `yaml:"origins"` // of web pages that may call
	Limits     Limits     `yaml:"limits"`
	Handshakes Handshakes `yaml:"handshakes"`
	Connection Connection `yaml:"connection"`
	SSE        SSE        `yaml:"sse"`
	Poll       Poll       `yaml:"poll"`
	Drain      Drain      `yaml:"drain"`
	Memory     Memory     `yaml:"memory"`
	Hooks      Hooks      `yaml:"hooks"`
	Log        Log        `yaml:"log"`

	file  string            // where it was read from, or ""
	lines map[string]int    // path of a setting → its line in file
	env   map[string]string // path of a setting → the variable that set it
}

// Ops is the operations port: health, metrics, profiles, the live page.
type Ops struct {
	Listen  string   `yaml:"listen"`
	Hosts   []string `yaml:"hosts"`    // Host names it answers to, beside loopback
	Keys    []string `yaml:"keys"`     // hash lines of 'carillon keys new --ops'
	KeyFile string   `yaml:"key_file"` // more of them, one on each line; "": none

	loaded []string // from the file
}

// OperatorKeys are the lines of the operator's keys, wherever they stood.
func (o *Ops) OperatorKeys() []string { return slices.Concat(o.Keys, o.loaded) }

// TLS is where the public port's certificate comes from: two files, or an
// authority, or nowhere: then the port speaks in the clear.
type TLS struct {
	Cert string `yaml:"cert"` // a file of PEM
	Key  string `yaml:"key"`  // a file of PEM
	ACME ACME   `yaml:"acme"`
}

// On reports whether the public port speaks TLS.
func (t *TLS) On() bool { return t.Cert != "" || len(t.ACME.Hosts) > 0 }

// ACME is how certificates are fetched from an authority. Without hosts none are.
type ACME struct {
	Hosts     []string `yaml:"hosts"`
	Email     string   `yaml:"email"`
	Cache     string   `yaml:"cache"`     // a directory
	Directory string   `yaml:"directory"` // the authority's URL; "": Let's Encrypt's
	CA        string   `yaml:"ca"`        // a file of PEM that vouches for the URL; "": the system's
}

// Proxy is who stands in front of the public port and is believed about a
// client's address.
type Proxy struct {
	Trusted  []string `yaml:"trusted"`  // addresses, prefixes, "unix"; nobody else is believed
	Header   string   `yaml:"header"`   // x-forwarded-for, forwarded or none
	Protocol bool     `yaml:"protocol"` // they begin each connection with a PROXY header
}

// Engine is the log.
type Engine struct {
	Kind         string    `yaml:"kind"` // jetstream or memory
	NATS         NATS      `yaml:"nats"`
	Durability   string    `yaml:"durability"` // strict: on disk before the answer; relaxed: within a second
	Partitions   int       `yaml:"partitions"` // fixed when the log is made
	Retention    Retention `yaml:"retention"`
	DedupeWindow Duration  `yaml:"dedupe_window"` // how long a publisher's own id is remembered
}

// NATS is a server or a cluster that keeps the log, with kind jetstream. Without
// a URL the log is in the node itself.
type NATS struct {
	URL      string `yaml:"url"`
	Creds    string `yaml:"creds"` // a file, as the next three
	CA       string `yaml:"ca"`
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	Prefix   string `yaml:"prefix"` // of subjects, streams and buckets
	Replicas int    `yaml:"replicas"`
}

// The kinds and durabilities of an engine.
const (
	KindJetStream     = "jetstream"
	KindMemory        = "memory"
	DurabilityStrict  = "strict"
	DurabilityRelaxed = "relaxed"
)

// Retention says how much of the log is kept. What is beyond any of them goes,
// oldest first; a reader who was below gets a gap notice.
type Retention struct {
	Age          Duration `yaml:"age"`
	EventsPerOrg int64    `yaml:"events_per_org"` // 0: no limit
	BytesPerOrg  Size     `yaml:"bytes_per_org"`  // 0: no limit
	Bytes        Size     `yaml:"bytes"`          // of all organizations together
}

// Org is one organization.
type Org struct {
	ID        string       `yaml:"id"`
	Keys      []string     `yaml:"keys,omitempty"` // hash lines of 'carillon keys new'
	Disabled  bool         `yaml:"disabled,omitempty"`
	Limits    OrgLimits    `yaml:"limits,omitempty"`
	Retention OrgRetention `yaml:"retention,omitempty"`
	Sources   []Source     `yaml:"sources,omitempty"` // of webhooks
}

// OrgRetention is how much of an organization's own log is kept; nil means what
// [Retention] says.
type OrgRetention struct {
	Age    *Duration `yaml:"age,omitempty"`
	Events *int64    `yaml:"events,omitempty"` // 0: no limit of its own
	Bytes  *Size     `yaml:"bytes,omitempty"`  // 0: no limit
}

// EffectiveRetention is what holds for one organization beside the retention of
// all; 0: nothing. Its fields are those of org.Retention, so that one converts to
// the other.
type EffectiveRetention struct {
	Age    time.Duration
	Events int64
	Bytes  int64
}

// OrgLimits are an organization's own limits; nil means that of [Limits].
type OrgLimits struct {
	PublishPerSecond      *int  `yaml:"publish_per_second,omitempty"`
	PublishBurst          *int  `yaml:"publish_burst,omitempty"`
	PublishBytesPerSecond *Size `yaml:"publish_bytes_per_second,omitempty"`
	Connections           *int  `yaml:"connections,omitempty"`
}

// Effective is what holds for one organization. Its fields are those of
// org.Limits, so that one converts to the other.
type Effective struct {
	PublishPerSecond      int
	PublishBurst          int
	PublishBytesPerSecond int64
	Connections           int
}

// Issuer is somebody who signs tokens. At least one of Secrets, SecretFile,
// SecretEnv, PublicKeyFiles and JWKSURL is set; all of them are valid together,
// so that keys can be rotated.
type Issuer struct {
	Issuer     string   `yaml:"issuer"`                // the iss claim; "": tokens without
	Audience   string   `yaml:"audience,omitempty"`    // the aud claim; "": not looked at
	OrgClaim   string   `yaml:"org_claim,omitempty"`   // "": org
	Typ        string   `yaml:"typ,omitempty"`         // the header's typ; "": none, JWT or at+jwt
	Algorithms []string `yaml:"algorithms,omitempty"`  // of its keys; none: whatever they are for
	Secrets    []Secret `yaml:"secrets,omitempty"`     // ≥ 32 bytes each
	SecretFile string   `yaml:"secret_file,omitempty"` // its content, less a newline at the end
	SecretEnv  string   `yaml:"secret_env,omitempty"`  // the variable's value
	Orgs       []string `yaml:"orgs"`                  // whom it may name; ["*"]: all

	PublicKeyFiles []string `yaml:"public_key_files,omitempty"` // PEM
	JWKSURL        string   `yaml:"jwks_url,omitempty"`         // where it publishes its keys
	AllowPrivate   bool     `yaml:"allow_private,omitempty"`    // http, and private addresses, for that URL

	loaded [][]byte // from file and environment
	public []any    // from files
}

// Keys are the issuer's secrets, wherever they stood.
func (i *Issuer) Keys() [][]byte {
	var keys [][]byte
	for _, s := range i.Secrets {
		keys = append(keys, []byte(s))
	}
	return append(keys, i.loaded...)
}

// PublicKeys are those of its files: *rsa.PublicKey, *ecdsa.PublicKey or
// ed25519.PublicKey.
func (i *Issuer) PublicKeys() []any { return i.public }

// Any reports whether the issuer may name every organization.
func (i *Issuer) Any() bool { return len(i.Orgs) == 1 && i.Orgs[0] == "*" }

// JWKS is how the keys are kept fresh that issuers publish at a URL.
type JWKS struct {
	Refresh     Duration `yaml:"refresh"`      // how often they are fetched without need
	MinInterval Duration `yaml:"min_interval"` // between two fetches, whatever tokens name
	MaxStale    Duration `yaml:"max_stale"`    // how long those count that could not be fetched again
	Timeout     Duration `yaml:"timeout"`      // of one fetch
}

// Limits bound what one request, connection or organization may ask for. What
// happens at each is in the example.
type Limits struct {
	EventBytes   Size `yaml:"event_bytes"`
	RequestBytes Size `yaml:"request_bytes"`
	BatchEvents  int  `yaml:"batch_events"`
	FrameBytes   Size `yaml:"frame_bytes"`
	HeaderBytes  Size `yaml:"header_bytes"`
	TokenBytes   Size `yaml:"token_bytes"`

	SubscriptionsPerConnection     int  `yaml:"subscriptions_per_connection"`
	WildcardShapesPerOrg           int  `yaml:"wildcard_shapes_per_org"`
	PublishesInFlightPerConnection int  `yaml:"publishes_in_flight_per_connection"`
	OutboxBytes                    Size `yaml:"outbox_bytes"`
	BadFramesPerMinute             int  `yaml:"bad_frames_per_minute"`
	ControlFramesPerMinute         int  `yaml:"control_frames_per_minute"`
	Inflating                      int  `yaml:"inflating"`
	UsersPerEvent                  int  `yaml:"users_per_event"`
	Tickets                        int  `yaml:"tickets"`
	VerifiedTokens                 int  `yaml:"verified_tokens"` // 0: none is remembered
	PollSessions                   int  `yaml:"poll_sessions"`

	JWKSBytes   Size `yaml:"jwks_bytes"`
	JWKSKeys    int  `yaml:"jwks_keys"`
	JWKSUnknown int  `yaml:"jwks_unknown"`
	JWKSWaiting int  `yaml:"jwks_waiting"`
	CEBytes     Size `yaml:"ce_bytes"`

	Handshakes       int  `yaml:"handshakes"`
	ProxyHeaderBytes Size `yaml:"proxy_header_bytes"`

	RequestsInFlight int `yaml:"requests_in_flight"`
	MemoryPercent    int `yaml:"memory_percent"` // 0: no limit

	ConnectionsPerNode    int  `yaml:"connections_per_node"`    // 0: no limit
	ConnectionsPerAddress int  `yaml:"connections_per_address"` // 0: no limit
	ConnectionsPerUser    int  `yaml:"connections_per_user"`    // 0: no limit
	PublishInFlight       int  `yaml:"publish_in_flight"`
	PublishInFlightBytes  Size `yaml:"publish_in_flight_bytes"`

	RingBytes         Size `yaml:"ring_bytes"`
	FeedQueue         int  `yaml:"feed_queue"`
	ConflatedSubjects int  `yaml:"conflated_subjects"`
	Mailbox           int  `yaml:"mailbox"`
	EphemeralBuffer   int  `yaml:"ephemeral_buffer"`
	EphemeralBytes    Size `yaml:"ephemeral_bytes"`
	ScanWorkers       int  `yaml:"scan_workers"`
	HistoryPage       int  `yaml:"history_page"`
	HistoryBytes      Size `yaml:"history_bytes"`
	HistoryConcurrent int  `yaml:"history_concurrent"`

	HookSources            int  `yaml:"hook_sources"`
	HookBytesInFlight      Size `yaml:"hook_bytes_in_flight"`
	HookSpoolBytes         Size `yaml:"hook_spool_bytes"`
	HookRefusalsPerSecond  int  `yaml:"hook_refusals_per_second"`
	HookDeliveriesInMemory int  `yaml:"hook_deliveries_in_memory"`

	// Of every organization that has no own; 0: no limit.
	PublishPerSecond      int  `yaml:"publish_per_second"`
	PublishBurst          int  `yaml:"publish_burst"` // 0: one second's worth
	PublishBytesPerSecond Size `yaml:"publish_bytes_per_second"`
	Connections           int  `yaml:"connections"`
}

// Handshakes is how fast new clients are taken on: WebSockets, streams and polls.
type Handshakes struct {
	PerSecond  int      `yaml:"per_second"` // 0: no limit, and the others mean nothing
	Burst      int      `yaml:"burst"`      // 0: those of a tenth of a second
	Concurrent int      `yaml:"concurrent"` // that are judged at the same time, outside the event loops; 0: no limit
	Queue      int      `yaml:"queue"`      // 0: none waits
	Wait       Duration `yaml:"wait"`       // the longest
}

// Connection is the timing of a client's connection, its buffer and compression.
type Connection struct {
	HandshakeTimeout Duration `yaml:"handshake_timeout"`
	HeaderTimeout    Duration `yaml:"header_timeout"`
	MaxIdle          Duration `yaml:"max_idle"`
	DeadAfter        Duration `yaml:"dead_after"`
	ConnectTimeout   Duration `yaml:"connect_timeout"`
	MessageTimeout   Duration `yaml:"message_timeout"`
	WriteTimeout     Duration `yaml:"write_timeout"`
	SendBuffer       Size     `yaml:"send_buffer"`
	Compression      bool     `yaml:"compression"`
	CompressionMin   Size     `yaml:"compression_min"`
	BodyTimeout      Duration `yaml:"body_timeout"`
	TokenExpiring    Duration `yaml:"token_expiring"`
	TokenSpread      Duration `yaml:"token_spread"`
	MaxLifetime      Duration `yaml:"max_lifetime"` // 0: none
}

// SSE is the timing of event streams.
type SSE struct {
	Keepalive Duration `yaml:"keepalive"`
	Retry     Duration `yaml:"retry"`
}

// Poll is the timing of long polls.
type Poll struct {
	WaitMax     Duration `yaml:"wait_max"`
	WaitDefault Duration `yaml:"wait_default"`
	Gather      Duration `yaml:"gather"` // 0: an answer waits for no more
	Linger      Duration `yaml:"linger"` // 0: nothing of a poll stays
}

// Drain is how a node stops.
type Drain struct {
	Window   Duration `yaml:"window"`   // clients are sent away spread over this
	Rate     int      `yaml:"rate"`     // at most so many in a second; 0: no limit
	Deadline Duration `yaml:"deadline"` // then it stops whatever is left
}

// Memory is how the node uses it; what it refuses at is limits.memory_percent.
type Memory struct {
	Garbage Size `yaml:"garbage"` // that may gather; 0: what Go lets gather
}

// Log is the node's own log, not the events'.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn or error
	Format string `yaml:"format"` // json or text
}

// Default is the settings that hold where nothing else is said. It names no
// organization and no issuer, so nobody can use such a node yet.
func Default() *Config {
	return &Config{
		Listen: ":8080",
		TLS:    TLS{ACME: ACME{Cache: "./carillon-acme"}},
		Proxy:  Proxy{Header: "x-forwarded-for"},
		Ops:    Ops{Listen: "127.0.0.1:8081"},
		Data:   "./carillon-data",
		Engine: Engine{
			Kind:         KindJetStream,
			NATS:         NATS{Prefix: "car", Replicas: 3},
			Durability:   DurabilityStrict,
			Partitions:   8,
			Retention:    Retention{Age: 7 * day, EventsPerOrg: 1_000_000, Bytes: 10 * gib},
			DedupeWindow: 5 * minute,
		},
		Limits: Limits{
			EventBytes:   200 * kb,
			RequestBytes: 10 * mb,
			BatchEvents:  1000,
			FrameBytes:   1 * mib,
			HeaderBytes:  16 * kib,
			TokenBytes:   8 * kib,

			SubscriptionsPerConnection:     1000,
			WildcardShapesPerOrg:           1024,
			PublishesInFlightPerConnection: 64,
			OutboxBytes:                    256 * kib,
			BadFramesPerMinute:             20,
			ControlFramesPerMinute:         60_000,
			Inflating:                      4,
			UsersPerEvent:                  1000,
			Tickets:                        100_000,
			VerifiedTokens:                 65_536,
			PollSessions:                   65_536,

			JWKSBytes:   256 * kib,
			JWKSKeys:    100,
			JWKSUnknown: 1000,
			JWKSWaiting: 1000,
			CEBytes:     8 * kb,

			HookSources:            100,
			HookBytesInFlight:      64 * mib,
			HookSpoolBytes:         gib,
			HookRefusalsPerSecond:  100,
			HookDeliveriesInMemory: 10_000,

			Handshakes:       8192,
			ProxyHeaderBytes: 4 * kib,
			RequestsInFlight: 4096,
			MemoryPercent:    90,

			ConnectionsPerNode:   100_000,
			PublishInFlight:      100_000,
			PublishInFlightBytes: 256 * mib,

			RingBytes:         24 * mib,
			FeedQueue:         64,
			ConflatedSubjects: 1024,
			Mailbox:           4096,
			EphemeralBuffer:   8192,
			EphemeralBytes:    32 * kib,
			ScanWorkers:       4,
			HistoryPage:       1000,
			HistoryBytes:      1 * mib,
			HistoryConcurrent: 16,
		},
		// 25,000 at 25 µs each leave a third of one processor to those who are connected.
		Handshakes: Handshakes{PerSecond: 25_000, Concurrent: 64, Queue: 16_384, Wait: second},
		Connection: Connection{
			HandshakeTimeout: 10 * second,
			HeaderTimeout:    10 * second,
			MaxIdle:          25 * second,
			DeadAfter:        60 * second,
			ConnectTimeout:   5 * second,
			MessageTimeout:   minute,
			WriteTimeout:     10 * second,
			SendBuffer:       256 * kib,
			CompressionMin:   1 * kib,
			BodyTimeout:      minute,
			TokenExpiring:    60 * second,
			TokenSpread:      60 * second,
		},
		JWKS:  JWKS{Refresh: 15 * minute, MinInterval: 10 * second, MaxStale: day, Timeout: 5 * second},
		SSE:   SSE{Keepalive: 15 * second, Retry: 3 * second},
		Poll:  Poll{WaitMax: 30 * second, WaitDefault: 25 * second, Gather: second / 100, Linger: 2 * second},
		Drain: Drain{Window: 10 * second, Deadline: 30 * second},
		Log:   Log{Level: "info", Format: "json"},

		Memory: Memory{Garbage: 24 * mib},
		Hooks: Hooks{
			Retention: HookRetention{Age: 30 * day, Bytes: 4 * gib},
			Keep:      30 * day, Known: 3 * day, AnswerWithin: 8 * second / 10, Workers: 64,
			Commands: Commands{Timeout: 30 * second, Output: 64 * kib, Concurrent: 16, PerHook: 4, Queue: 256},
		},
	}
}

// OrgDefaults are the limits of an organization that has none of its own.
func (c *Config) OrgDefaults() Effective { return c.EffectiveLimits(Org{}) }

// EffectiveLimits are the limits of an organization: its own, and those of all
// where it has none.
func (c *Config) EffectiveLimits(o Org) Effective {
	return Effective{
		PublishPerSecond:      or(o.Limits.PublishPerSecond, c.Limits.PublishPerSecond),
		PublishBurst:          or(o.Limits.PublishBurst, c.Limits.PublishBurst),
		PublishBytesPerSecond: int64(or(o.Limits.PublishBytesPerSecond, c.Limits.PublishBytesPerSecond)),
		Connections:           or(o.Limits.Connections, c.Limits.Connections),
	}
}

// OrgRetention is what is kept of an organization that does not say it itself.
func (c *Config) OrgRetention() EffectiveRetention { return c.EffectiveRetention(Org{}) }

// EffectiveRetention is what is kept of an organization.
func (c *Config) EffectiveRetention(o Org) EffectiveRetention {
	return EffectiveRetention{
		Age:    or(o.Retention.Age, 0).D(),
		Events: or(o.Retention.Events, 0),
		Bytes:  int64(or(o.Retention.Bytes, c.Engine.Retention.BytesPerOrg)),
	}
}

// Chose reports whether the file or the environment named a setting.
func (c *Config) Chose(path string) bool { return c.lines[path] > 0 || c.env[path] != "" }

func or[T any](own *T, all T) T {
	if own != nil {
		return *own
	}
	return all
}
