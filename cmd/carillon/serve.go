package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/listen"
	"github.com/carillon-rt/carillon/internal/server"
)

// ServeCmd is `carillon serve`.
type ServeCmd struct {
	Config    string `help:"The configuration file; 'carillon config example' prints one." required:"" env:"CARILLON_CONFIG" placeholder:"FILE"`
	DebugEcho bool   `help:"Serve a WebSocket on the operations port at /debug/echo that sends back what it gets, for conformance suites."`
}

// Validate refuses an empty name, as of a variable that is set to nothing.
func (c *ServeCmd) Validate() error {
	if c.Config == "" {
		return errors.New("missing flags: --config=FILE")
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
	if len(cfg.Issuers) == 0 && !hasKeys(cfg) {
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
	node, err := server.New(cfg, server.Options{Logger: log, Version: build().Version, Manager: manager, Inherited: ports, DebugEcho: c.DebugEcho})
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
