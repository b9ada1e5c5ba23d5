package server

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/durable"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/safenet"
	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/action"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
	"github.com/carillon-rt/carillon/internal/wire"
)

// hooks take webhooks in.
type hooks struct {
	sources   *hook.Sources
	ledger    *ledger.Ledger
	receiver  *hook.Receiver
	processor *hook.Processor
	runner    *action.Runner
	files     *action.Set     // nil: there are none
	requests  *action.Handler // of files; nil: there are none
	ids       deliveryIDs

	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// configuredSources are the sources of the settings. The error is a *config.Error.
func configuredSources(cfg *config.Config) ([]hook.Configured, error) {
	var all []hook.Configured
	var problems []config.Problem
	names := map[string]bool{}
	for i, o := range cfg.Orgs {
		for j, s := range o.Sources {
			d, err := definition(s)
			one := hook.Configured{Org: carillon.OrgID(o.ID), Definition: d}
			if err == nil {
				err = hook.CheckConfigured([]hook.Configured{one})
			}
			if name := o.ID + "/" + d.Name; err == nil && names[name] {
				err = carillon.BadRequest("the organization has the source %q already", d.Name)
			} else {
				names[name] = true
			}
			if err != nil {
				problems = append(problems, config.Problem{Path: fmt.Sprintf("orgs[%d].sources[%d]", i, j), Line: s.Line(), Message: message(err)})
				continue
			}
			all = append(all, one)
		}
	}
	return all, cfg.Wrong(problems)
}

func definition(s config.Source) (hook.Definition, error) {
	text, err := s.Text()
	if err != nil {
		return hook.Definition{}, err
	}
	return hook.ParseDefinition(text)
}

// message is what an error says to who wrote the settings.
func message(err error) string {
	if e := carillon.AsError(err); e.Code != carillon.CodeInternal {
		return e.Message
	}
	return err.Error()
}

// Check says what is wrong with settings that config.Load takes, as far as that is known
// without starting anything. The error is a *config.Error where it is about one of them.
func Check(cfg *config.Config) error {
	if _, err := configuredSources(cfg); err != nil {
		return err
	}
	_, err := hookFiles(cfg)
	if err != nil {
		return cfg.Wrong([]config.Problem{{Path: "hooks.files", Message: err.Error()}})
	}
	return nil
}

// hookFiles reads the hooks files; nil: there are none.
func hookFiles(cfg *config.Config) (*action.Set, error) {
	if len(cfg.Hooks.Files) == 0 {
		return nil, nil
	}
	set, err := action.Load(cfg.Hooks.Files, action.LoadOptions{})
	if err != nil {
		return nil, fmt.Errorf("server: hooks.files: %w", err)
	}
	return set, nil
}

// openSources makes the sources of webhooks, those of the settings first.
func (s *Server) openSources() error {
	configured, err := configuredSources(s.cfg)
	if err != nil {
		return err
	}
	keys, err := hookKeys(s.cfg)
	if err != nil {
		return err
	}
	s.hooks.sources, err = hook.NewSources(configured, s.engine.KV(), keys, s.cfg.Limits.HookSources, s.log)
	return err
}

// hookKeys is what secrets in the store are encrypted with. A node that has its log to
// itself makes a key at its first start, beside the log and not in it.
func hookKeys(cfg *config.Config) (string, error) {
	path := cfg.Hooks.KeyFile
	own := path == ""
	switch {
	case own && cfg.Engine.NATS.URL != "":
		return "", nil
	case own && cfg.Engine.Kind == config.KindMemory:
		return hook.NewKeyFile(), nil
	case own:
		path = filepath.Join(cfg.Data, "hooks.key")
	}
	text, err := os.ReadFile(path)
	if own && errors.Is(err, fs.ErrNotExist) {
		text = []byte(hook.NewKeyFile())
		err = durable.WriteFile(path, text)
	}
	if err != nil {
		return "", fmt.Errorf("server: the key that secrets of webhooks are encrypted with: %w", err)
	}
	return string(text), nil
}

// inData is a path of the settings, or the one below data.
func inData(cfg *config.Config, path, name string) string {
	switch {
	case path != "":
		return path
	case cfg.Engine.Kind == config.KindMemory:
		return ""
	}
	return filepath.Join(cfg.Data, name)
}

// startHooks takes up what webhooks brought, and follows the sources of the store.
func (s *Server) startHooks(ctx context.Context, orgs *org.Directory, install []byte) (err error) {
	h, cfg := &s.hooks, s.cfg
	if s.hooks.files, err = hookFiles(cfg); err != nil {
		return err
	}
	own, err := hkdf.Key(sha256.New, install, nil, "carillon deliveries v1", sha256.Size)
	if err != nil {
		return fmt.Errorf("server: the key of deliveries: %w", err)
	}
	h.ids = deliveryIDs{wire.NewKeyring(own)}
	path := inData(cfg, cfg.Hooks.Ledger, "hooks.db")
	if path != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return fmt.Errorf("server: the ledger of webhooks: %w", err)
		}
	}
	if h.ledger, err = ledger.Open(ctx, ledger.Config{Path: path, Keep: cfg.Hooks.Keep.D(), Known: cfg.Hooks.Known.D(), Logger: s.log}); err != nil {
		return fmt.Errorf("server: the ledger of webhooks: %w", err)
	}
	m := &cfg.Hooks.Commands
	queue := m.Queue
	if queue == 0 {
		queue = -1 // none may wait
	}
	h.runner = action.NewRunner(action.Config{
		Timeout: m.Timeout.D(), OutputBytes: m.Output.N(), PerHook: m.PerHook, Total: m.Concurrent, Queue: queue, Env: m.Environment,
		Client: safenet.Client(safenet.Config{Private: m.AllowPrivate, Timeout: m.Timeout.D()}), Logger: s.log,
	})
	c := hook.Config{
		Log: s.engine, Sources: h.sources, Ledger: h.ledger, IDs: h.ids, Publish: s.gate.SubmitFrom, Actions: h.runner, Full: s.memory.full,
		Usable:     usable(orgs),
		EventBytes: cfg.Limits.EventBytes.N(), BodyTimeout: min(cfg.Connection.BodyTimeout.D(), hookBodyTimeout), AnswerWithin: cfg.Hooks.AnswerWithin.D(),
		InFlightBytes: int64(cfg.Limits.HookBytesInFlight), Refusals: cfg.Limits.HookRefusalsPerSecond,
		SpoolDir: inData(cfg, cfg.Hooks.Spool, "hooks-spool"), SpoolBytes: int64(cfg.Limits.HookSpoolBytes),
		Workers: cfg.Hooks.Workers, Waiting: cfg.Limits.HookDeliveriesInMemory, Lease: cfg.Engine.NATS.URL != "", Logger: s.log,
	}
	if h.receiver, err = hook.NewReceiver(c); err != nil {
		return err
	}
	c.Busy = h.receiver.Busy
	h.processor = hook.NewProcessor(c)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h.cancel = cancel
	synced := make(chan struct{})
	h.ended.Go(func() { h.sources.Follow(run, func() { close(synced) }) })
	select {
	case <-synced:
	case <-ctx.Done():
		return ctx.Err()
	}
	h.ended.Go(func() { h.processor.Run(run) })
	h.ended.Go(func() { h.receiver.Run(run) })
	return nil
}

// usable reports whether an organization exists and may be used. Where all exist from
// their first use, those with a source do.
func usable(orgs *org.Directory) func(carillon.OrgID) bool {
	return func(id carillon.OrgID) bool {
		o, ok := orgs.Lookup(id)
		if !ok {
			return orgs.Open()
		}
		return !o.Disabled
	}
}

// hookBodyTimeout is how long the body of a webhook may take: whoever sends one gives
// up after 3 to 10 seconds.
const hookBodyTimeout = 10 * time.Second

// stop ends what was started, after the attempts in hand.
func (h *hooks) stop(ctx context.Context) error {
	if h.cancel != nil {
		h.cancel()
	}
	var errs []error
	if h.runner != nil {
		errs = append(errs, h.runner.Close(ctx))
	}
	h.ended.Wait()
	if h.ledger != nil {
		errs = append(errs, h.ledger.Close())
	}
	return errors.Join(errs...)
}

// door is everything under /hooks/: what the hooks files name, and the sources.
func (h *hooks) door(cfg *config.Config, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/hooks/{org}/{source}", h.receiver)
	mux.Handle("/", h.receiver) // which knows no such source
	if h.files == nil {
		return mux
	}
	h.requests = action.NewHandler(h.files, action.HandlerConfig{Runner: h.runner, Strict: cfg.Hooks.Strict, Verify: hook.VerifyWith, Logger: log})
	ids := map[string]bool{}
	for _, id := range h.files.IDs() {
		ids[id] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ids[strings.TrimPrefix(r.URL.Path, "/hooks/")] {
			h.requests.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// deliveryIDs print the places of deliveries. They are no ids of events, and none of
// those is one of them.
type deliveryIDs struct{ keys *wire.Keyring }

func (d deliveryIDs) ID(org carillon.OrgID, pos carillon.Position) string {
	return d.keys.Org(org).String(pos)
}

func (d deliveryIDs) Position(org carillon.OrgID, id string) (carillon.Position, bool) {
	return d.keys.Org(org).Decode(id)
}
