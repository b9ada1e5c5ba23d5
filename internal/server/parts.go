package server

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/admission"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/gate"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/telemetry"
	"github.com/carillon-rt/carillon/internal/wire"
)

// openEngine locks the store and opens the log.
func openEngine(ctx context.Context, cfg *config.Config, orgs *org.Directory, log *slog.Logger) (engine.Engine, error) {
	e := &cfg.Engine
	perOrg := e.Retention.EventsPerOrg
	if perOrg == 0 { // no limit, which to an engine is a number nobody reaches
		perOrg = math.MaxInt64
	}
	bytes := int64(e.Retention.Bytes)
	if !cfg.Chose("engine.retention.bytes") && e.Retention.Bytes == config.Default().Engine.Retention.Bytes {
		bytes = 0 // nobody chose it: it may be less where there is less room
	}
	intake := int64(cfg.Hooks.Retention.Bytes)
	if !cfg.Chose("hooks.retention.bytes") && cfg.Hooks.Retention.Bytes == config.Default().Hooks.Retention.Bytes {
		intake = 0 // as above
	}
	if e.Kind == config.KindMemory {
		return memory.New(memory.Config{
			Partitions: e.Partitions, Retention: e.Retention.Age.D(), MaxPerOrg: int(min(perOrg, math.MaxInt)),
			OrgBudget: orgs.Budget, MaxBytes: bytes, DedupeWindow: e.DedupeWindow.D(), SignalBuffer: cfg.Limits.EphemeralBuffer,
			IntakeRetention: cfg.Hooks.Retention.Age.D(), IntakeMaxBytes: intake, IntakeBudget: intakeBudget(cfg),
		}), nil
	}
	c := jetstream.Config{
		Dir: cfg.Data, Durability: jetstream.Durability(e.Durability), Partitions: e.Partitions, Prefix: e.NATS.Prefix,
		Retention: e.Retention.Age.D(), MaxPerOrg: perOrg, OrgBudget: orgs.Budget, MaxBytes: bytes, DedupeWindow: e.DedupeWindow.D(),
		SignalBuffer: cfg.Limits.EphemeralBuffer, Logger: log,
		IntakeRetention: cfg.Hooks.Retention.Age.D(), IntakeMaxBytes: intake, IntakeBudget: intakeBudget(cfg),
	}
	if c.NATS = natsOf(cfg); c.NATS != nil {
		log.Info("server: connecting to the log", "nats", c.NATS.URL)
	} else {
		log.Info("server: opening the log", "data", cfg.Data, "durability", e.Durability)
	}
	opened, err := jetstream.Open(ctx, c)
	switch {
	case err == nil:
		return opened, nil
	case errors.Is(err, engine.ErrStoreInUse):
		return nil, &StoreInUseError{Dir: cfg.Data, Err: err}
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("server: the log in %s may not be opened: %w", cfg.Data, err)
	}
	return nil, fmt.Errorf("server: open the log: %w", err)
}

// intakeBudget is how much of what webhooks brought one organization keeps.
func intakeBudget(cfg *config.Config) func(carillon.OrgID) engine.Budget {
	budget := engine.Budget{Bytes: int64(cfg.Hooks.Retention.BytesPerOrg)}
	return func(carillon.OrgID) engine.Budget { return budget }
}

// StoreInUseError says that another process has the log's directory.
type StoreInUseError struct {
	Dir string
	Err error
}

func (e *StoreInUseError) Error() string {
	return fmt.Sprintf("%s is in use by another process", e.Dir)
}

func (e *StoreInUseError) Unwrap() error { return e.Err }

const (
	installKeyName  = "install.key"
	installKeyBytes = 32
)

// installKey returns the key of this install, from which all its other keys come.
// It is made at the first start and kept with the log: whoever has the one has
// the other.
func installKey(ctx context.Context, kv engine.KV) ([]byte, error) {
	key, _, err := kv.Get(ctx, installKeyName)
	if errors.Is(err, engine.ErrNoKey) {
		key = make([]byte, installKeyBytes)
		_, _ = rand.Read(key) // never fails
		if _, err = kv.Create(ctx, installKeyName, key); errors.Is(err, engine.ErrKeyExists) {
			key, _, err = kv.Get(ctx, installKeyName) // another node was first
		}
	}
	if err != nil {
		return nil, fmt.Errorf("server: the install's key: %w", err)
	}
	if len(key) < installKeyBytes {
		return nil, fmt.Errorf("server: the install's key has %d bytes instead of %d; the store is damaged", len(key), installKeyBytes)
	}
	return key, nil
}

// tickets are those of this install.
func tickets(cfg *config.Config, key []byte, kv engine.KV) (*auth.Tickets, error) {
	own, err := hkdf.Key(sha256.New, key, nil, "carillon ticket v1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("server: the key of tickets: %w", err)
	}
	return &auth.Tickets{Key: own, Used: kv, Most: cfg.Limits.Tickets}, nil
}

// verifier is who asks: auth, with the organizations it knows.
type verifier struct {
	*auth.Authenticator

	orgs *org.Directory
}

// Verify is for sessions, which cannot wait.
func (v *verifier) Verify(token string, done func(*carillon.Principal, error)) { v.Submit(token, done) }

// connections is how many an organization may have at the same time; 0: no limit.
func (v *verifier) connections(id carillon.OrgID) int {
	if o, ok := v.orgs.Get(id); ok {
		return o.Limits.Connections
	}
	return 0
}

// newAuth makes the part that verifies credentials. rest is what does not come
// from the settings.
// allowed says why somebody who came in may not be here any more. An
// organization that is open exists from its first use, and stays.
func (v *verifier) allowed(p *carillon.Principal) error {
	o, ok := v.orgs.Lookup(p.Org)
	switch {
	case !ok && !v.orgs.Open():
		return carillon.Errorf(carillon.CodeForbidden, "this organization does not exist any more")
	case ok && o.Disabled:
		return carillon.Errorf(carillon.CodeForbidden, "this organization is disabled; ask the operator")
	}
	if p.KeyID != "" {
		if _, ok := v.orgs.Key(p.KeyID); !ok {
			return carillon.Errorf(carillon.CodeForbidden, "this API key does not exist any more")
		}
	}
	return nil
}

// newDirectory has the organizations of the config.
func newDirectory(cfg *config.Config, open bool) (*org.Directory, error) {
	orgs := make([]org.Org, 0, len(cfg.Orgs))
	for _, o := range cfg.Orgs {
		id := carillon.OrgID(o.ID)
		one := org.Org{
			ID: id, Disabled: o.Disabled,
			Limits: org.Limits(cfg.EffectiveLimits(o)), Retention: org.Retention(cfg.EffectiveRetention(o)),
		}
		for _, line := range o.Keys {
			k, err := org.ParseKey(id, line)
			if err != nil {
				return nil, fmt.Errorf("server: org %q: %w", o.ID, err)
			}
			one.Keys = append(one.Keys, k)
		}
		orgs = append(orgs, one)
	}
	dir, err := org.NewDirectory(org.Config{
		Orgs: orgs, Open: open, Defaults: org.Limits(cfg.OrgDefaults()), Retention: org.Retention(cfg.OrgRetention()),
	})
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return dir, nil
}

func newAuth(cfg *config.Config, dir *org.Directory, rest auth.Config) (*verifier, error) {
	issuers := make([]auth.Issuer, 0, len(cfg.Issuers))
	for i := range cfg.Issuers {
		iss := &cfg.Issuers[i]
		a := auth.Issuer{
			Issuer: iss.Issuer, Audience: iss.Audience, Type: iss.Typ, OrgClaim: iss.OrgClaim, Any: iss.Any(),
			Secrets: iss.Keys(), Keys: iss.PublicKeys(), JWKS: published(iss),
		}
		if !a.Any {
			for _, id := range iss.Orgs {
				a.Orgs = append(a.Orgs, carillon.OrgID(id))
			}
		}
		issuers = append(issuers, a)
	}
	l := &cfg.Limits
	rest.Issuers, rest.Orgs, rest.MaxTokenBytes, rest.Verified = issuers, dir, l.TokenBytes.N(), l.VerifiedTokens
	rest.JWKS = auth.JWKSPolicy{
		Refresh: cfg.JWKS.Refresh.D(), MinInterval: cfg.JWKS.MinInterval.D(), MaxStale: cfg.JWKS.MaxStale.D(), Timeout: cfg.JWKS.Timeout.D(),
		MaxBytes: l.JWKSBytes.N(), MaxKeys: l.JWKSKeys, MaxUnknown: l.JWKSUnknown, MaxWaiting: l.JWKSWaiting,
	}
	a, err := auth.New(rest)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return &verifier{a, dir}, nil
}

// published is where an issuer publishes its keys, or nil.
func published(iss *config.Issuer) *auth.JWKS {
	if iss.JWKSURL == "" {
		return nil
	}
	p := &auth.JWKS{URL: iss.JWKSURL, Private: iss.AllowPrivate}
	for _, alg := range iss.Algorithms {
		if alg := auth.Algorithm(alg); alg != auth.HS256 { // that of its secrets
			p.Algorithms = append(p.Algorithms, alg)
		}
	}
	return p
}

func newGate(cfg *config.Config, e engine.Engine, orgs *org.Directory, source func(carillon.OrgID, string) bool, full func() error) *gate.Gate {
	l := &cfg.Limits
	return gate.New(gate.Config{
		Open: e.Open, Signals: e.Signals, Orgs: orgs, Source: source, EventBytes: l.EventBytes.N(), BatchEvents: l.BatchEvents,
		BatchBytes: l.RequestBytes.N(), UsersPerEvent: l.UsersPerEvent,
		InFlight: l.PublishInFlight, InFlightBytes: int64(l.PublishInFlightBytes), Full: full,
	})
}

func newCore(cfg *config.Config, h *hub.Hub, ids *wire.Keyring, g *gate.Gate, v *verifier, full func() error) *session.Core {
	l := &cfg.Limits
	return session.NewCore(session.Config{
		Hub: h, IDs: ids, Publisher: g, Verifier: v, Connections: v.connections, Allowed: v.allowed,
		MaxConnections: l.ConnectionsPerNode, MaxPerAddress: l.ConnectionsPerAddress, MaxPerUser: l.ConnectionsPerUser, Full: full,
		DeflateFrom: deflateFrom(&cfg.Connection),
		Limits: session.Limits{
			Subscriptions: l.SubscriptionsPerConnection, PublishesFlying: l.PublishesInFlightPerConnection,
			OutboxBytes: l.OutboxBytes.N(), BadFrames: l.BadFramesPerMinute, BatchEvents: l.BatchEvents, PollBytes: l.HistoryBytes.N(), PollSessions: l.PollSessions,
			PollGather: orNone(cfg.Poll.Gather), PollLinger: orNone(cfg.Poll.Linger),
			MaxIdle: cfg.Connection.MaxIdle.D(), DeadAfter: cfg.Connection.DeadAfter.D(), ConnectTimeout: cfg.Connection.ConnectTimeout.D(),
			TokenExpiring: cfg.Connection.TokenExpiring.D(), TokenSpread: cfg.Connection.TokenSpread.D(), KeepAlive: cfg.SSE.Keepalive.D(), MaxLifetime: cfg.Connection.MaxLifetime.D(), Retry: cfg.SSE.Retry.D(),
		},
	})
}

// newAdmission is what lets new clients in, or nil where there is no limit.
func newAdmission(h *config.Handshakes) *admission.Gate {
	if h.PerSecond == 0 {
		return nil
	}
	return admission.New(admission.Config{
		PerSecond: h.PerSecond, Burst: h.Burst, Queue: h.Queue, Wait: h.Wait.D(), Concurrent: h.Concurrent,
	})
}

// deflateFrom is how large events are that are compressed; 0: none are.
func deflateFrom(c *config.Connection) int {
	if !c.Compression {
		return 0
	}
	return c.CompressionMin.N()
}

// orNone is a duration as the limits of a session have it, where 0 means the default.
func orNone(d config.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d.D()
}

// NewLogger makes the node's logger from its settings.
func NewLogger(w io.Writer, cfg *config.Config) (*slog.Logger, error) {
	return telemetry.NewLogger(w, cfg.Log.Level, cfg.Log.Format)
}
