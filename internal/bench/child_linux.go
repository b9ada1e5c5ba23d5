package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startLimit = 60 * time.Second
	stopLimit  = 30 * time.Second
	lookEvery  = 10 * time.Millisecond
)

// child is a process that we started and stop.
type child struct {
	name   string
	cmd    *exec.Cmd
	log    string        // file with its output
	exited chan struct{} // closed when it has been waited for
	err    error         // after exited
}

// startChild starts a program on the given CPUs with its output in a file.
func startChild(name, log string, cpus []int, procs int, argv []string) (*child, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", name, err)
	}
	defer out.Close()
	// Not CommandContext: it is stopped with SIGTERM and waited for.
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // see above
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C at a terminal is ours to hand on
	cmd.Env = os.Environ()
	if procs > 0 {
		cmd.Env = append(cmd.Env, "GOMAXPROCS="+strconv.Itoa(procs))
	}
	if err := onCPUs(cpus, cmd.Start); err != nil {
		return nil, fmt.Errorf("bench: start %s: %w", name, err)
	}
	c := &child{name: name, cmd: cmd, log: log, exited: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// waitFor waits until the child has written a file of KEY=value lines with every
// key of need.
func (c *child) waitFor(ctx context.Context, path string, need ...string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		if env, ok := readEnv(path, need); ok {
			return env, nil
		}
		select {
		case <-c.exited:
			return nil, fmt.Errorf("bench: %s ended before it was ready: %w\n%s", c.name, c.err, c.tail())
		case <-ctx.Done():
			return nil, fmt.Errorf("bench: %s is not ready: %w\n%s", c.name, context.Cause(ctx), c.tail())
		case <-look.C:
		}
	}
}

func readEnv(path string, need []string) (map[string]string, bool) {
	b, err := os.ReadFile(path)
	if err != nil || !bytes.HasSuffix(b, []byte("\n")) {
		return nil, false
	}
	env := map[string]string{}
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "=")
		if ok {
			env[key] = strings.Trim(value, `"'`)
		}
	}
	for _, key := range need {
		if env[key] == "" {
			return nil, false
		}
	}
	return env, true
}

// stop sends SIGTERM and waits; a child that does not end is killed.
func (c *child) stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-c.exited:
	case <-limit.C:
		_ = c.cmd.Process.Kill()
		<-c.exited
		return fmt.Errorf("bench: %s did not end within %s of SIGTERM and was killed\n%s", c.name, stopLimit, c.tail())
	}
	var exit *exec.ExitError
	if c.err != nil && (!errors.As(c.err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM) {
		return fmt.Errorf("bench: %s: %w\n%s", c.name, c.err, c.tail())
	}
	return nil
}

// tail is the end of what the child wrote.
func (c *child) tail() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return string(b)
}

// server is what is under load.
type server struct {
	url, opsURL, secret string
	org, hookSecret     string // where webhooks may go; of one that is ours
	pid                 int
	child               *child // nil: not ours
}

// startServer starts `dev` with an empty store under dir.
func startServer(ctx context.Context, cfg *Config, dir string) (*server, error) {
	env := filepath.Join(dir, "env")
	argv := append([]string(nil), cfg.Program...)
	argv = append(argv, "dev", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0",
		"--data", filepath.Join(dir, "data"), "--env-file", env, "--durability", cfg.Durability)
	argv = append(argv, cfg.ServerArgs...)
	c, err := startChild("the server", filepath.Join(dir, "server.log"), cfg.ServerCPUs, cfg.Procs, argv)
	if err != nil {
		return nil, err
	}
	vars, err := c.waitFor(ctx, env, "CARILLON_URL", "CARILLON_JWT_SECRET")
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return &server{
		url:        strings.TrimSuffix(vars["CARILLON_URL"], "/"),
		opsURL:     strings.TrimSuffix(vars["CARILLON_OPS_URL"], "/"),
		secret:     vars["CARILLON_JWT_SECRET"],
		org:        vars["CARILLON_ORG"],
		hookSecret: vars["CARILLON_HOOK_SECRET"],
		pid:        c.pid(),
		child:      c,
	}, nil
}
