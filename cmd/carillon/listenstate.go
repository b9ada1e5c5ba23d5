package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"github.com/carillon-rt/carillon/internal/durable"
)

// listenKey says whose progress it is.
type listenKey struct {
	Server  string   `json:"server"`
	Org     string   `json:"org"`
	Choice  []string `json:"choice,omitempty"` // patterns, in order; none: all sources
	Forward string   `json:"forward"`
}

// listenState is how far a listen got, in a file of its own.
type listenState struct {
	listenKey

	Cursor string `json:"cursor"` // everything before it is done; "": nothing was yet

	path string
}

// openListenState reads the state of a key, from a file or, if that is "", from the
// one of the key in the user's directory.
func openListenState(path string, key listenKey) (*listenState, error) {
	if path == "" {
		dir, err := stateDir()
		if err != nil {
			return nil, hint(fmt.Errorf("there is no place to keep how far listening got: %w", err), "name a file with --state, or --no-state")
		}
		js, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(js)
		path = filepath.Join(dir, "listen-"+hex.EncodeToString(sum[:8])+".json")
	}
	s := &listenState{listenKey: key, path: path}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err != nil {
		return nil, err
	}
	was := listenState{path: path}
	switch err := json.Unmarshal(text, &was); {
	case err != nil || was.Cursor == "":
		return nil, hint(fmt.Errorf("%s does not say how far listening got", path), "remove it to start at --since, or name another file with --state")
	case !reflect.DeepEqual(was.listenKey, key):
		return nil, hint(fmt.Errorf("%s is of another listen: in %s at %s, for %s", path, was.Org, was.Server, was.Forward),
			"each server, organization, choice of events and address has a file of its own; name another one with --state")
	}
	return &was, nil
}

// keep makes a cursor the place, on disk.
func (s *listenState) keep(cursor string) error {
	if cursor == s.Cursor {
		return nil
	}
	next := *s
	next.Cursor = cursor
	text, err := json.Marshal(next)
	if err == nil {
		err = durable.WriteFile(s.path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("how far listening got cannot be kept: %w", err)
	}
	s.Cursor = cursor
	return nil
}

// stateDir is where programs of this user keep what they know, as the XDG base
// directories say.
func stateDir() (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "carillon"), nil
}
