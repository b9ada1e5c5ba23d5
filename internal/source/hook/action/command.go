package action

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Command is a program with its arguments.
type Command struct {
	Of      string   // whose it is: the name by which it is counted and logged
	Argv    []string // the program, and its arguments, as it gets them
	Dir     string   // where it runs; "": where the server does
	Env     []string // NAME=value, beside what the runner gives
	Stdin   []byte   // nil: it has none
	Files   []File
	Timeout time.Duration // 0: the runner's
}

// File is written for a command, and removed when it has ended.
type File struct {
	Env  string // the variable that has its path
	Data []byte
}

// check says what the system would refuse, in words.
func (c *Command) check() error {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return errors.New("action: the command is empty; name a program")
	}
	total := 0
	for i, a := range c.Argv {
		what := fmt.Sprintf("argument %d", i)
		if err := checkString(what, a, len(a), "hand it over as a file or on standard input"); err != nil {
			return err
		}
		total += len(a)
	}
	for _, v := range c.Env {
		name, value, _ := strings.Cut(v, "=")
		if err := checkName(name); err != nil {
			return err
		}
		if err := checkString("the variable "+clip(name), value, len(v), "hand it over as a file"); err != nil {
			return err
		}
		total += len(v)
	}
	for _, f := range c.Files {
		if err := checkName(f.Env); err != nil {
			return err
		}
	}
	if total > maxStrings {
		return fmt.Errorf("action: arguments and variables have %d bytes; a command takes at most %d", total, maxStrings)
	}
	return nil
}

func checkName(name string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") {
		return fmt.Errorf("action: %q cannot be the name of a variable; it takes letters, digits and _", clip(name))
	}
	return nil
}

func checkString(what, s string, size int, instead string) error {
	if size > maxString {
		return fmt.Errorf("action: %s has %d bytes; a command takes at most %d in one: %s", what, size, maxString, instead)
	}
	if strings.Contains(s, "\x00") {
		return fmt.Errorf("action: %s has a zero byte, which a command cannot take: %s", what, instead)
	}
	return nil
}

// find is where the program is: with a directory only there, without in PATH.
func (c *Command) find() (string, error) {
	name := c.Argv[0]
	if c.Dir != "" && !filepath.IsAbs(name) {
		name = filepath.Join(c.Dir, name)
		if !filepath.IsAbs(name) { // it is looked up from Dir otherwise, once more
			var err error
			if name, err = filepath.Abs(name); err != nil {
				return "", fmt.Errorf("action: %w", err)
			}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil && strings.Contains(c.Argv[0], " ") {
		return "", fmt.Errorf("action: the command %q is not found; its arguments are given apart: %w", clip(c.Argv[0]), err)
	}
	if err != nil {
		return "", fmt.Errorf("action: the command %q: %w", clip(c.Argv[0]), err)
	}
	return path, nil
}

// environment is what a command finds: what the runner gives, then its own.
func (r *Runner) environment(own []string) []string {
	env := []string{} // nil would be all of the server's
	if r.cfg.InheritEnvironment {
		env = os.Environ()
	} else {
		for _, name := range slices.Concat([]string{"PATH", "HOME", "LANG"}, r.cfg.Env) {
			if v, ok := os.LookupEnv(name); ok {
				env = append(env, name+"="+v)
			}
		}
	}
	return append(env, own...) // where a name is there twice, the last counts
}

// files writes the files of a command. remove removes them; it is to be called
// with an error, too.
func (r *Runner) files(c *Command) (env []string, remove func(), err error) {
	var names []string
	remove = func() {
		for _, name := range names {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				r.cfg.Logger.Warn("a file of a command is not removed", "hook", c.Of, "error", err)
			}
		}
	}
	for _, f := range c.Files {
		dir := c.Dir
		if dir == "" {
			dir = r.cfg.TempDir
		}
		file, err := os.CreateTemp(dir, "carillon-hook-*") // nobody else can read it
		if err != nil {
			return nil, remove, fmt.Errorf("action: a file for the command: %w", err)
		}
		name := file.Name()
		names = append(names, name)
		_, err = file.Write(f.Data)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, remove, fmt.Errorf("action: a file for the command: %w", err)
		}
		if name, err = filepath.Abs(name); err != nil {
			return nil, remove, fmt.Errorf("action: %w", err)
		}
		env = append(env, f.Env+"="+name)
	}
	return env, remove, nil
}
