package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/server"
)

// ConfigCmd is about configuration files.
type ConfigCmd struct {
	Check   ConfigCheckCmd   `cmd:"" help:"Check a file, and say on which line what is wrong."`
	Print   ConfigPrintCmd   `cmd:"" help:"Print the settings in effect: defaults, file and environment."`
	Example ConfigExampleCmd `cmd:"" help:"Print every setting with its default, explained."`
}

// ConfigCheckCmd checks a file together with the environment.
type ConfigCheckCmd struct {
	File string `arg:"" help:"The configuration file."`
	JSON bool   `help:"Print JSON." name:"json"`
}

// problemJSON is one problem for machines.
type problemJSON struct {
	Setting string `json:"setting,omitempty"`
	Line    int    `json:"line,omitempty"`
	Env     string `json:"env,omitempty"`
	Message string `json:"message"`
}

// Run prints "ok", or every problem, and then it returns an error.
func (c *ConfigCheckCmd) Run(std *IO) error {
	cfg, err := config.Load(c.File, os.Environ())
	if err == nil {
		err = server.Check(cfg)
	}
	var bad *config.Error
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	problems := []problemJSON{}
	if bad != nil {
		for _, p := range bad.Problems {
			problems = append(problems, problemJSON{p.Path, p.Line, p.Env, p.Message})
		}
	}
	switch {
	case c.JSON:
		err := std.printJSON(struct {
			OK       bool          `json:"ok"`
			Problems []problemJSON `json:"problems"`
		}{bad == nil, problems})
		if err != nil {
			return err
		}
	case bad == nil:
		_, err := fmt.Fprintln(std.Out, "ok")
		return err
	default:
		if _, err := fmt.Fprintln(std.Err, bad.Error()); err != nil {
			return err
		}
	}
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%s has a problem", c.File)
	}
	return fmt.Errorf("%s has %d problems", c.File, len(problems))
}

// ConfigPrintCmd prints the settings that hold, without secrets.
type ConfigPrintCmd struct {
	File string `arg:"" optional:"" help:"The configuration file; without one, the defaults and the environment."`
}

// Run prints the settings.
func (c *ConfigPrintCmd) Run(std *IO) error {
	cfg, err := config.Load(c.File, os.Environ())
	if err != nil {
		return err
	}
	return cfg.Print(std.Out)
}

// ConfigExampleCmd prints the reference of every setting.
type ConfigExampleCmd struct{}

// Run prints the reference.
func (c *ConfigExampleCmd) Run(std *IO) error {
	_, err := std.Out.Write(config.Example())
	return err
}
