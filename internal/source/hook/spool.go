package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/durable"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
)

const (
	spoolSuffix   = ".delivery"
	damagedSuffix = ".damaged"      // behind that: it could not be read, and stays until somebody removes it
	spoolRetry    = 2 * time.Second // after the log did not take one
)

// spool is a directory of deliveries that the log could not take: one file for each,
// on disk before its sender is answered.
type spool struct {
	dir     string
	most    int64        // bytes
	bytes   atomic.Int64 // of all files
	files   atomic.Int64 // to be handed on
	damaged atomic.Int64 // others
	names   atomic.Uint64
	wake    chan struct{}
}

// spooled is a file of it.
type spooled struct {
	Org      carillon.OrgID   `json:"org"`
	Received *intake.Received `json:"received"`
}

var errSpoolFull = errors.New("hook: as much lies on this node's disk as may")

func openSpool(dir string, most int64) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("hook: the directory for deliveries while the log is away: %w", err)
	}
	s := &spool{dir: dir, most: most, wake: make(chan struct{}, 1)}
	s.names.Store(uint64(time.Now().UnixNano())) //nolint:gosec // after 1970
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("hook: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") { // not finished: nobody was told that it is there
			_ = os.Remove(filepath.Join(dir, e.Name()))
			continue
		}
		count := &s.files
		switch {
		case strings.HasSuffix(e.Name(), spoolSuffix):
		case strings.HasSuffix(e.Name(), spoolSuffix+damagedSuffix):
			count = &s.damaged
		default:
			continue
		}
		if info, err := e.Info(); err == nil {
			s.bytes.Add(info.Size())
			count.Add(1)
		}
	}
	s.poke()
	return s, nil
}

func (s *spool) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// put writes a delivery; with a nil error it survives the machine's power.
func (s *spool) put(org carillon.OrgID, received *intake.Received) error {
	kept := *received
	kept.Meta.Spooled = true
	text, err := json.Marshal(spooled{org, &kept})
	if err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	if size := int64(len(text)); s.bytes.Add(size) > s.most {
		s.bytes.Add(-size)
		return errSpoolFull
	}
	path := filepath.Join(s.dir, fmt.Sprintf("%020d%s", s.names.Add(1), spoolSuffix))
	if err := durable.WriteFile(path, text); err != nil {
		_ = os.Remove(path) // it may be there, and nobody is told so
		s.bytes.Add(-int64(len(text)))
		return fmt.Errorf("hook: %w", err)
	}
	s.files.Add(1)
	s.poke()
	return nil
}

// run hands what is in the spool to store, the oldest first, until ctx ends.
func (s *spool) run(ctx context.Context, store func(context.Context, carillon.OrgID, *intake.Received) error, log *slog.Logger) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		for s.files.Load() > 0 && ctx.Err() == nil {
			if err := s.hand(ctx, store, log); err != nil {
				log.Warn("hook: deliveries on this node's disk wait for the log", "deliveries", s.files.Load(), "err", err)
				select {
				case <-time.After(spoolRetry):
				case <-ctx.Done():
				}
			}
		}
	}
}

// hand hands on what is there now.
func (s *spool) hand(ctx context.Context, store func(context.Context, carillon.OrgID, *intake.Received) error, log *slog.Logger) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), spoolSuffix) || ctx.Err() != nil {
			continue
		}
		path := filepath.Join(s.dir, e.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("hook: %w", err)
		}
		var kept spooled
		if err = json.Unmarshal(text, &kept); err != nil || kept.Received == nil {
			log.Error("hook: a delivery on this node's disk, which its sender was told is taken, is not readable; it is put aside", "file", path+damagedSuffix, "err", err)
			if err = os.Rename(path, path+damagedSuffix); err == nil {
				s.damaged.Add(1)
				s.bytes.Add(int64(len(text))) // it still lies there
			}
		} else if err = store(ctx, kept.Org, kept.Received); err == nil {
			err = os.Remove(path)
		}
		if err != nil {
			return err
		}
		s.files.Add(-1)
		s.bytes.Add(-int64(len(text)))
	}
	return nil
}
