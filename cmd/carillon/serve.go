package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/listen"
	"github.com/carillon-rt/carillon/internal/server"
	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

// ServeCmd is `carillon serve`.
type ServeCmd struct {
	Config    string   `help:"The configuration file; 'carillon config example' prints one." env:"CARILLON_CONFIG" placeholder:"FILE"`
	Hooks     []string `help:"A hooks file of adnanh/webhook, whose hooks are served at /hooks/<id>; repeatable. With --hooks there need not be a configuration file." sep:"none" type:"path" placeholder:"FILE"`
	DebugEcho bool     `help:"Serve a WebSocket on the operations port at /debug/echo that sends back what it gets, for conformance suites."`
}

// Validate wants something to serve. An empty name, as of a variable that is set to
// nothing, is none.
func (c *ServeCmd) Validate() error {
	if c.Config == "" && len(c.Hooks) == 0 {
		return errors.New("missing flags: --config=FILE, or --hooks=FILE")
	}
	return nil
}

// Run runs a node until a signal ends it.
func (c *ServeCmd) Run(ctx context.Context, std *IO) error {
	cfg, err := config.Load(c.Config, os.Environ())
	if err != nil {
		return hint(err, "'carillon config example' explains every setting")
	}
	log, err := server.NewLogger(std.Err, cfg)
	if err != nil {
		return err
	}
	if err := c.addHooks(cfg, log); err != nil {
		return err
	}
	if c.Config != "" && len(cfg.Issuers) == 0 && !hasKeys(cfg) {
		log.Warn("nobody can use this node: the configuration has no issuer of tokens and no API key", "file", c.Config)
	}
	env := listen.Env{Get: os.Getenv, Unset: os.Unsetenv, PID: os.Getpid()}
	manager, err := listen.NewManager(env)
	if err != nil {
		return err
	}
	ports, err := listen.Inherit(env)
	if err != nil {
		return err
	}
	defer ports.Close()
	node, err := server.New(cfg, server.Options{Logger: log, Version: build().Version, Manager: manager, Inherited: ports, DebugEcho: c.DebugEcho, Alone: true})
	if err != nil {
		return err
	}

	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	done, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		for {
			select {
			case <-hangup:
				node.Reload()
				// What is not read again must not look as if it had been.
				log.Warn("only the certificate was read again; for other settings restart the node", "signal", "SIGHUP")
			case <-done:
				return
			}
		}
	}()
	defer func() {
		signal.Stop(hangup)
		close(done)
		<-told
	}()
	return explain(node.Run(ctx, nil), cfg)
}

// addHooks adds the hooks files to those of the settings, and says what they serve.
func (c *ServeCmd) addHooks(cfg *config.Config, log *slog.Logger) error {
	if len(c.Hooks) == 0 {
		return nil
	}
	cfg.Hooks.Files = append(cfg.Hooks.Files, c.Hooks...)
	set, err := action.Load(cfg.Hooks.Files, action.LoadOptions{})
	if err != nil {
		return hint(err, "'carillon hooks check' says what else is wrong with a hooks file, or risky")
	}
	if c.Config == "" {
		log.Info("serve: default settings, as there is no configuration file", "listen", cfg.Listen, "ops", cfg.Ops.Listen, "data", cfg.Data)
	}
	log.Info("serve: hooks files, each hook at /hooks/<id>", "files", cfg.Hooks.Files, "hooks", set.IDs())
	return nil
}

func hasKeys(cfg *config.Config) bool {
	for _, o := range cfg.Orgs {
		if len(o.Keys) > 0 && !o.Disabled {
			return true
		}
	}
	return false
}

// explain adds what would help to the errors of a start.
func explain(err error, cfg *config.Config) error {
	var busy *server.ListenError
	var used *server.StoreInUseError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &busy) && errors.Is(err, syscall.EADDRINUSE):
		if busy.Setting == "ops.listen" {
			return hint(busy, "another program has the operations port; choose another one with --ops or ops.listen (port 0: any)")
		}
		return hint(busy, "another program has the port; choose another one with --listen or listen (port 0: any)")
	case errors.As(err, &used):
		return hint(used, "only one process at a time has a log; stop the other one, or use another directory than %s", cfg.Data)
	}
	return err
}
