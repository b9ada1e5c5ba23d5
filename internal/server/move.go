package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
)

// ExportLog writes the log of a configuration to w, with the install's key. A log
// in a directory must not be in use.
func ExportLog(ctx context.Context, cfg *config.Config, log *slog.Logger, w io.Writer) (jetstream.Manifest, error) {
	c, err := placeOfLog(cfg, log)
	if err != nil {
		return jetstream.Manifest{}, err
	}
	m, err := jetstream.Export(ctx, c, w)
	return m, moved(cfg, err)
}

// ImportLog makes the log that ExportLog has written where the configuration says,
// if there is none yet.
func ImportLog(ctx context.Context, cfg *config.Config, log *slog.Logger, r io.Reader) (jetstream.Manifest, error) {
	c, err := placeOfLog(cfg, log)
	if err != nil {
		return jetstream.Manifest{}, err
	}
	c.Partitions = cfg.Engine.Partitions
	m, err := jetstream.Import(ctx, c, r)
	return m, moved(cfg, err)
}

func moved(cfg *config.Config, err error) error {
	if errors.Is(err, engine.ErrStoreInUse) {
		return &StoreInUseError{Dir: cfg.Data, Err: err}
	}
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}

func placeOfLog(cfg *config.Config, log *slog.Logger) (c jetstream.Config, err error) {
	if cfg.Engine.Kind != config.KindJetStream {
		return c, fmt.Errorf("server: the kind of the log is %s, which keeps nothing", cfg.Engine.Kind)
	}
	return jetstream.Config{Dir: cfg.Data, Prefix: cfg.Engine.NATS.Prefix, NATS: natsOf(cfg), Logger: log}, nil
}

// natsOf is the external server of a configuration, or nil.
func natsOf(cfg *config.Config) *jetstream.NATS {
	n := &cfg.Engine.NATS
	if n.URL == "" {
		return nil
	}
	return &jetstream.NATS{URL: n.URL, Creds: n.Creds, CA: n.CA, Cert: n.Cert, Key: n.Key, Replicas: n.Replicas}
}
