package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

const (
	maxFile     = 4 << 20 // of a configuration file, in bytes
	maxProblems = 100     // that an error tells
)

// Problem is one thing that is wrong with the settings, and what would be
// right.
type Problem struct {
	Path    string // of the setting, such as limits.event_bytes; "" for the whole file
	Line    int    // in the file, from 1; 0 where it does not stand in the file
	Env     string // the variable that set it, or ""
	Message string
}

// Error is everything that is wrong with the settings, in the order of the
// file; of more than a hundred problems the first hundred and how many follow.
type Error struct {
	File     string
	Problems []Problem
}

// Error has one line for each problem: file:line: setting: what.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		switch {
		case p.Env != "":
			fmt.Fprintf(&b, "%s: ", p.Env)
		case p.Line > 0:
			fmt.Fprintf(&b, "%s:%d: ", cmp.Or(e.File, "config"), p.Line)
		case e.File != "":
			fmt.Fprintf(&b, "%s: ", e.File)
		}
		if p.Path != "" {
			b.WriteString(p.Path + ": ")
		}
		b.WriteString(p.Message)
	}
	return b.String()
}

// Wrong is the error about these problems, which somebody found who knows more of a
// setting than this package does; nil if there are none.
func (c *Config) Wrong(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return &Error{File: c.file, Problems: problems}
}

// Load reads the file at path, then the environment (as os.Environ gives it),
// over the defaults, and checks the result. Without a path there is no file.
//
// The error is an *[Error] with every problem; it never holds a secret. A path
// in the file is relative to the working directory.
func Load(path string, env []string) (*Config, error) {
	if path == "" {
		return Parse("", nil, env)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{Problems: []Problem{{Message: err.Error()}}}
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, &Error{Problems: []Problem{{Message: err.Error()}}}
	}
	return Parse(path, text, env)
}

// Parse is Load for a file that was read already; name is for messages.
func Parse(name string, text []byte, env []string) (*Config, error) {
	c := Default()
	c.file = name
	c.lines = map[string]int{}
	c.env = map[string]string{}
	var problems []Problem
	if len(text) > maxFile {
		return nil, &Error{File: name, Problems: []Problem{{Message: fmt.Sprintf("the file has more than %d bytes", maxFile)}}}
	}
	problems = append(problems, c.readYAML(text)...)
	vars := environment(env)
	problems = append(problems, c.readEnv(vars)...)
	broken := map[string]bool{}
	for _, p := range problems {
		broken[p.Path] = true
	}
	problems = append(problems, c.readSecrets(vars)...)
	problems = append(problems, c.readPublicKeys()...)
	problems = append(problems, c.readOperatorKeys()...)
	for _, p := range c.check() {
		if !broken[p.Path] { // one message for each setting is enough
			problems = append(problems, p)
		}
	}
	if len(problems) == 0 {
		return c, nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	if n := len(problems); n > maxProblems {
		problems = append(slices.Clone(problems[:maxProblems]), Problem{Message: fmt.Sprintf("and %d problems more", n-maxProblems)})
	}
	return nil, &Error{File: name, Problems: problems}
}

// Validate checks settings that were changed after Load, such as by flags. The
// error is an *[Error].
func (c *Config) Validate() error {
	if p := c.check(); len(p) > 0 {
		return &Error{File: c.file, Problems: p}
	}
	return nil
}

// readSecrets fetches the issuers' secrets that stand elsewhere.
func (c *Config) readSecrets(vars map[string]string) (problems []Problem) {
	for i := range c.Issuers {
		iss := &c.Issuers[i]
		at := fmt.Sprintf("issuers[%d].", i)
		if iss.SecretEnv != "" {
			if v := vars[iss.SecretEnv]; v != "" {
				problems = append(problems, c.addSecret(iss, at+"secret_env", []byte(v))...)
			} else {
				problems = append(problems, c.problem(at+"secret_env", "%s is not set in the environment; set it to a secret of at least %d bytes", clip(iss.SecretEnv), minSecret))
			}
		}
		if iss.SecretFile != "" {
			v, err := readSecretFile(iss.SecretFile)
			if err != nil {
				problems = append(problems, c.problem(at+"secret_file", "%v", err))
				continue
			}
			problems = append(problems, c.addSecret(iss, at+"secret_file", v)...)
		}
	}
	return problems
}

// readOperatorKeys fetches the operator's keys that stand in a file.
func (c *Config) readOperatorKeys() []Problem {
	if c.Ops.KeyFile == "" {
		return nil
	}
	text, err := readSecretFile(c.Ops.KeyFile)
	if err != nil {
		return []Problem{c.problem("ops.key_file", "%v", err)}
	}
	c.Ops.loaded = strings.Fields(string(text))
	return nil
}

func (c *Config) addSecret(iss *Issuer, path string, v []byte) []Problem {
	iss.loaded = append(iss.loaded, v)
	if err := checkSecret(v); err != nil {
		return []Problem{c.problem(path, "%v", err)}
	}
	return nil
}

// readPublicKeys fetches the issuers' public keys.
func (c *Config) readPublicKeys() (problems []Problem) {
	for i := range c.Issuers {
		iss := &c.Issuers[i]
		for j, path := range iss.PublicKeyFiles {
			text, err := readSecretFile(path)
			var keys []any
			if err == nil {
				keys, err = parsePublicKeys(text)
			}
			if err != nil {
				problems = append(problems, c.problem(fmt.Sprintf("issuers[%d].public_key_files[%d]", i, j), "%v", err))
				continue
			}
			iss.public = append(iss.public, keys...)
		}
	}
	return problems
}

func readSecretFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("it is not a file")
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("the file has %d bytes; a secret is short", st.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b, _ = bytes.CutSuffix(b, []byte("\n"))
	b, _ = bytes.CutSuffix(b, []byte("\r"))
	return b, nil
}

// problem makes a Problem that knows where the setting was set.
func (c *Config) problem(path, format string, args ...any) Problem {
	return Problem{Path: path, Line: c.lineOf(path), Env: c.env[path], Message: fmt.Sprintf(format, args...)}
}

// lineOf is the line of a setting, or of the nearest thing around it that
// stands in the file.
func (c *Config) lineOf(path string) int {
	for p := path; p != ""; {
		if l := c.lines[p]; l > 0 {
			return l
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return 0
}
