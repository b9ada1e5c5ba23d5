package telemetry

import "time"

// Sample is what a node's counters say at one moment. Counters run from the
// start of the node; a field whose comment says "now" goes up and down. A map
// has one series for each key, and a key that was never counted need not be
// there.
type Sample struct {
	Version    string
	Durability string
	Ready      bool

	// Of the clients.
	Connections       int // now
	ConnectionsTotal  uint64
	Polls             uint64
	PollsAttached     uint64 // of them, to the feed of the one before
	PollsLingering    int    // feeds that wait for the next, now
	MessagesSent      uint64
	MessagesReceived  uint64
	Latency           Histogram
	Errors            map[string]uint64 // connections that ended badly, and frames that made no sense
	Gaps              uint64
	ReadingPaused     uint64
	Deflated          Compression       // events
	NotSmaller        uint64            // events that compression did not make smaller
	Inflated          Compression       // messages of clients
	InflateRefused    map[string]uint64 // by reason
	Handshakes        map[string]uint64 // by what became of them
	HandshakesWaiting int               // now
	HandshakesFullest uint64            // that were let through within 100 ms, the most since the start
	SocketsFull       int               // now
	SocketsKept       int64             // now

	// Of the way from the log to the clients.
	RingBytes, RingEntries    uint64 // now
	Feeds, Realms             uint64 // now
	FellBehind                uint64
	LeftOut                   map[string]uint64 // by policy
	Replayed                  uint64
	RingResumes, LogLookups   uint64
	TailEntries, TailReopened uint64
	TailCatchUps              uint64
	TailResets                uint64
	ScanPasses, ScanEntries   uint64
	ScanStale                 uint64
	MailboxOverflows          uint64

	// Of ephemeral events, which go past the log.
	EphemeralPublished uint64
	EphemeralHeard     uint64
	EphemeralDelivered uint64
	EphemeralDropped   map[string]uint64 // by reason

	// Of webhooks.
	Hooks HookSample

	// Of the way in.
	Published, Duplicates uint64
	PublishedBytes        uint64
	PublishedLarge        uint64
	PublishFailed         uint64
	PublishRefused        map[string]uint64 // by code
	InFlight              int64             // now
	InFlightBytes         int64             // now

	// Of the log.
	Appends, AppendFailures uint64
	AppendDuplicates        uint64
	Flights, BatchFlights   uint64
	QueueDepth              int // now
	ReadEntries             uint64
	AckCount                uint64
	AckTotal                time.Duration

	// Of the credentials.
	Refused     uint64
	TokensKnown uint64 // that had been verified before
	TokenKeys   []TokenKey
	KeySets     []KeySet

	// Of HTTP.
	Requests []Requests

	// Limits counts how often each limit was met, by its name.
	Limits map[string]uint64
}

// Compression is how many messages were compressed, and their bytes as they are
// and as they are sent.
type Compression struct{ Count, Bytes, Sent uint64 }

// TokenKey is how many tokens a key of an issuer verified.
type TokenKey struct {
	Issuer, Key string
	Used        uint64
}

// KeySet is what is known of the keys that an issuer publishes.
type KeySet struct {
	Issuer            string
	Keys              int           // now
	Age               time.Duration // now
	Fetches, Failures uint64
}

// Requests is how many requests to one route were answered with one status.
type Requests struct {
	Route  string
	Status int
	Count  uint64
}

// Histogram is a distribution of durations.
type Histogram struct {
	Bounds  []time.Duration // upper bounds, ascending
	Buckets []uint64        // one more than bounds, for what is above the last; not cumulative
	Sum     time.Duration
}

// HookSample is what a node's counters say of webhooks.
type HookSample struct {
	Received          []HookCount // requests, by source and what became of them at the door
	SignatureFailures []HookCount // by source and reason
	Outcomes          map[string]uint64
	Retries           uint64
	Durations         Durations   // from receipt, or retry, to outcome
	Dead, Pending     []HookCount // now, by source and organization
	InMemory          int         // deliveries that are processed or wait for it, now
	Lag               uint64      // entries that the ledger has not taken up, now
	Folded            uint64      // entries that it has
	Duplicates        uint64
	Rebuilt           uint64 // times the ledger was made anew
	Spooled           int64  // deliveries on this node's disk, now
	SpooledBytes      int64
	SpoolDamaged      int64 // files there that could not be read
	BodyBytes         int64 // of requests in hand, now
	Unrecorded        uint64
	Secrets           []HookSecret
	Files             []HookCount // requests to hooks of hooks files, by hook and what became of them
	Running, Waiting  int         // commands and forwarded requests, now
	Crowded           uint64      // those that found no room, not even to wait
	Leader            bool        // this node processes
}

// HookCount is a count of one source.
type HookCount struct {
	Source, Of string // Of: a status, a reason or an organization
	Count      uint64
}

// HookSecret is a secret of a source, by its id.
type HookSecret struct {
	Org, Source, Secret string
	Used                uint64
	Last                time.Time // zero: never
}

// Durations is a histogram in seconds. Buckets has one more element than Bounds.
type Durations struct {
	Bounds  []float64
	Buckets []uint64
	Sum     float64
}
