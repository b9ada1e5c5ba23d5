package archtest

// A Rule says what one package may import besides the standard library, the
// root package, and libraries that docs/dependencies.md names.
//
// Packages are named by their path in the repository; "." is the root. Test
// files may import any room: they wire real parts together, which code in the
// middle must not. Nothing imports a command.
type Rule struct {
	Package string
	May     []string // first-party packages; a last element "*" stands for any path below
	Never   []string // packages that it must not import although everybody else may
	StdOnly bool     // no library at all
	Test    bool     // for tests: only test files and other Test packages import it
	Why     string
}

// Table is the architecture. Data runs from gate through engine, hub and session
// to the transports; imports run from both edges towards the middle. The sides
// where events come in and go out meet in the log and in server, nowhere else.
//
// A new package needs a row, and a new arrow needs a reason that fits in Why.
var Table = []Rule{
	// The middle: words and pure functions.
	{
		Package: ".",
		StdOnly: true,
		Why:     "it is the vocabulary: whoever imports it gets nothing else",
	},
	{
		Package: "protocol",
		StdOnly: true,
		Why:     "the contract, embedded",
	},
	{
		Package: "internal/match",
		StdOnly: true,
		Why:     "a pure function of patterns and types, fuzzed on its own",
	},
	{
		Package: "internal/wire",
		Why:     "it turns values into bytes and back, and knows no stage",
	},
	{
		Package: "internal/config",
		Why:     "it makes settings into one checked value; server hands out the parts",
	},
	{
		Package: "internal/limit",
		StdOnly: true,
		Why:     "plain counters with names, which stages keep",
	},
	{
		Package: "internal/durable",
		StdOnly: true,
		Why:     "files, for whoever keeps one that a power cut must not take",
	},
	{
		Package: "internal/telemetry",
		Why:     "stages keep plain counters, and telemetry reads them through functions it is handed",
	},
	{
		Package: "internal/admin",
		Why:     "static files of the dashboard",
	},
	{
		Package: "internal/safenet",
		Why:     "a dialer, for whoever calls addresses that strangers chose",
	},

	// The log.
	{
		Package: "internal/engine",
		Why:     "a port: it says what durable means, and stays below every stage",
	},
	{
		Package: "internal/engine/memory",
		May:     []string{"internal/engine"},
		Why:     "an engine keeps the port's promises and knows nobody who uses them",
	},
	{
		Package: "internal/engine/jetstream",
		May:     []string{"internal/engine"},
		Why:     "an engine keeps the port's promises and knows nobody who uses them",
	},

	// Who it is, and what they may use.
	{
		Package: "internal/org",
		May:     []string{"internal/match", "internal/engine", "internal/safenet"},
		Why:     "limits and keys, kept in the engine's KV",
	},
	{
		Package: "internal/auth",
		May:     []string{"internal/match", "internal/engine", "internal/safenet", "internal/org", "internal/limit"},
		Why:     "it makes credentials into principals of organizations that exist, and serves every door",
	},

	// The stages.
	{
		Package: "internal/gate",
		May:     []string{"internal/engine", "internal/org", "internal/match", "internal/limit"},
		Never:   []string{"net/http"},
		Why:     "the only way in is the same for every door, so it knows none of them, nor who listens",
	},
	{
		Package: "internal/hub",
		May:     []string{"internal/engine", "internal/match", "internal/limit"},
		Never:   []string{"net/http"},
		Why:     "it moves entries; who reads them, and in which form, is decided after it",
	},
	{
		Package: "internal/session",
		May:     []string{"internal/hub", "internal/wire", "internal/match", "internal/limit"},
		Never:   []string{"net/http", "net"},
		Why:     "a conversation without its socket; it publishes through an interface that server connects to gate",
	},
	{
		Package: "internal/admission",
		Why:     "it lets clients through or not, whoever they are and whatever they want",
	},
	{
		Package: "internal/answer",
		Why:     "it knows HTTP and bytes; what an answer says is made by who asks it to send it",
	},
	{
		Package: "internal/listen",
		Why:     "it makes connections whose peer is known; what is asked on them is decided behind it",
	},
	{
		Package: "internal/loop",
		Why:     "it knows connections and bytes, not frames; its shard is a function it calls",
	},

	// The doors.
	{
		Package: "internal/front",
		May:     []string{"internal/admission", "internal/hub", "internal/listen", "internal/loop"},
		Why:     "it reads requests on the loops of the hub's shards, and passes on to a listener what it does not understand; the doors are handlers",
	},
	{
		Package: "internal/transport",
		May:     []string{"internal/admission", "internal/wire", "internal/auth", "internal/front"},
		Why:     "what the doors have in common: who asks, and how a request is refused",
	},
	{
		Package: "internal/transport/ws",
		May:     []string{"internal/admission", "internal/transport", "internal/session", "internal/wire", "internal/auth", "internal/front", "internal/loop"},
		Why:     "a transport sees a session and bytes, never the hub behind it nor another transport",
	},
	{
		Package: "internal/transport/sse",
		May:     []string{"internal/admission", "internal/answer", "internal/transport", "internal/session", "internal/wire", "internal/auth", "internal/front", "internal/loop"},
		Why:     "as transport/ws",
	},
	{
		Package: "internal/transport/poll",
		May:     []string{"internal/admission", "internal/answer", "internal/transport", "internal/session", "internal/wire", "internal/auth", "internal/front", "internal/loop"},
		Why:     "as transport/ws",
	},
	{
		Package: "internal/transport/frames",
		May:     []string{"internal/answer", "internal/transport", "internal/session", "internal/wire", "internal/auth", "internal/front", "internal/loop"},
		Why:     "as transport/ws",
	},
	{
		Package: "internal/api",
		May:     []string{"internal/answer", "internal/auth", "internal/front", "internal/gate", "internal/hub", "internal/limit", "internal/org", "internal/wire", "protocol"},
		Why:     "requests and answers; sessions it reaches through an interface, the log through gate and hub",
	},

	// What comes from other systems.
	{
		Package: "internal/source/hook/intake",
		Why:     "facts as entries and entries as facts: pure",
	},
	{
		Package: "internal/source/hook/provider",
		Why:     "what each provider signs and says: pure",
	},
	{
		Package: "internal/source/hook/shape",
		StdOnly: true,
		Why:     "what is done to a payload: pure",
	},
	{
		Package: "internal/source/hook/ledger",
		May:     []string{"internal/durable", "internal/source/hook/intake"},
		Why:     "a projection of entries it is handed; it knows no engine and asks nobody",
	},
	{
		Package: "internal/source/hook/action",
		Why:     "rules, commands and requests; who may verify and who may be called it is handed",
	},
	{
		Package: "internal/source/hook",
		May:     []string{"internal/durable", "internal/engine", "internal/limit", "internal/listen", "internal/match", "internal/wire", "internal/source/hook/*"},
		Why:     "webhooks into the intake, and from there to whoever publishes, whom it is handed",
	},
	{
		Package: "internal/source/hook/manage",
		May:     []string{"internal/auth", "internal/engine", "internal/source/hook", "internal/source/hook/intake", "internal/source/hook/ledger", "internal/transport", "internal/wire"},
		Why:     "requests and answers about sources and deliveries",
	},

	// The edges.
	{
		Package: "internal/server",
		May:     []string{"internal/*"},
		Why:     "the one place that wires everything",
	},
	{
		Package: "cmd/carillon",
		May:     []string{"internal/config", "internal/durable", "internal/auth", "internal/org", "internal/listen", "internal/server", "internal/bench", "internal/source/hook", "internal/source/hook/action", "internal/source/hook/provider", "clients/go"},
		Why:     "flags and output; what it does as a client it does with the client everybody has",
	},
	{
		Package: "internal/bench",
		May:     []string{"internal/wire"},
		Why:     "the load generator measures from outside; what it could reach inside would be in its numbers",
	},
	{
		Package: "clients/go",
		Never:   []string{"github.com/carillon-rt/carillon"},
		Why:     "a module of its own: its users get neither the server's libraries nor its Go version",
	},

	// For tests. They are held to nothing but the rule that code does not use them.
	{Package: "internal/testkit", May: []string{"internal/*"}, Test: true, Why: "parts that tests of several rooms share"},
	{Package: "internal/testkit/vectors", Test: true, Why: "the root's tests run vectors too, without the parts of testkit that start servers"},
	{Package: "internal/engine/enginetest", May: []string{"internal/*"}, Test: true, Why: "the port's promises, as a test"},
	{Package: "internal/transport/transporttest", May: []string{"internal/*"}, Test: true, Why: "what every transport does alike, as a test"},
	{Package: "internal/archtest", StdOnly: true, Test: true, Why: "this table"},
}

// Confined names libraries that only these packages may import. Elsewhere they
// would be a second way to do what the package is there for. Tests are free: a
// library makes a good oracle.
var Confined = map[string][]string{
	"github.com/nats-io/nats-server/v2": {"internal/engine/jetstream", "internal/bench", "internal/testkit"}, // bench compares with the bare engine
	"github.com/nats-io/nats.go":        {"internal/engine/jetstream", "internal/bench", "internal/testkit"},
	"github.com/alecthomas/kong":        {"cmd/carillon"},
	"code.dny.dev/ssrf":                 {"internal/safenet"},
	"modernc.org/sqlite":                {"internal/source/hook/ledger"},
}
