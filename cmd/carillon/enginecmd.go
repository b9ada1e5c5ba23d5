package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/server"
)

// EngineCmd is about the log as a whole.
type EngineCmd struct {
	Export EngineExportCmd `cmd:"" help:"Write the log to a file, for another place. The node must not run."`
	Import EngineImportCmd `cmd:"" help:"Make the log from such a file, where there is none yet. Cursors stay valid."`
}

// EngineExportCmd is `carillon engine export`.
type EngineExportCmd struct {
	Config string `help:"The configuration of the node whose log it is." required:"" env:"CARILLON_CONFIG" placeholder:"FILE"`
	File   string `arg:"" help:"The file to write. It must not exist; keep it safe, the install's key is in it."`
}

// EngineImportCmd is `carillon engine import`.
type EngineImportCmd struct {
	Config string `help:"The configuration of the node that goes on with the log." required:"" env:"CARILLON_CONFIG" placeholder:"FILE"`
	File   string `arg:"" help:"The file that 'carillon engine export' has written."`
}

// Run writes the file; when that fails there is none.
func (c *EngineExportCmd) Run(ctx context.Context, std *IO) error {
	cfg, log, err := settings(c.Config, std)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return hint(err, "an export does not replace a file; choose another name")
	}
	if err != nil {
		return err
	}
	m, err := server.ExportLog(ctx, cfg, log, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return explain(errors.Join(err, os.Remove(c.File)), cfg)
	}
	fmt.Fprintf(std.Out, "exported the log, %d partitions, to %s\n", m.Partitions, c.File)
	return nil
}

// Run makes the log.
func (c *EngineImportCmd) Run(ctx context.Context, std *IO) error {
	cfg, log, err := settings(c.Config, std)
	if err != nil {
		return err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := server.ImportLog(ctx, cfg, log, f)
	if err != nil {
		return explain(err, cfg)
	}
	fmt.Fprintf(std.Out, "imported the log of %s, %d partitions\n", m.Made.Format("2006-01-02 15:04 MST"), m.Partitions)
	return nil
}

// settings reads a configuration and makes its logger.
func settings(file string, std *IO) (*config.Config, *slog.Logger, error) {
	cfg, err := config.Load(file, os.Environ())
	if err != nil {
		return nil, nil, hint(err, "'carillon config example' explains every setting")
	}
	log, err := server.NewLogger(std.Err, cfg)
	return cfg, log, err
}
