package action

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// process is a command that has begun. Its group is ended before it is reaped, while
// nobody else can have its number.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
	reaped chan struct{} // closed when it is gone
	killed chan struct{} // closed when its group has been killed

	stdin, stdout *os.File // our ends; stdin is nil where there is none
	output        *head
	read          chan struct{} // closed when all output is read
	feeding       sync.WaitGroup
}

// execute runs a command. One that could not be killed has ended when gone is
// closed; nil: it has.
func (r *Runner) execute(ctx context.Context, c *Command) (res Result, gone <-chan struct{}, err error) {
	res.Exit = -1
	env, remove, err := r.files(c)
	defer remove()
	if err != nil {
		return res, nil, err
	}
	began := time.Now()
	p, err := r.begin(c, env)
	if err != nil {
		return res, nil, err
	}
	why := r.attend(ctx, p, c)
	reaped := p.end()
	res.Ran, res.Took = true, time.Since(began)
	res.Output, res.Truncated = p.output.all()
	if !reaped {
		return res, p.reaped, fmt.Errorf("action: the command %q could not be killed", clip(c.Argv[0]))
	}
	state := p.cmd.ProcessState
	res.Exit = state.ExitCode()
	switch {
	case why != nil:
		return res, nil, why
	case !state.Success():
		return res, nil, &ExitError{Code: res.Exit, Signal: signalOf(state)}
	}
	return res, nil, nil
}

// attend waits for the end of a process, or tells it to end. The error says why.
func (r *Runner) attend(ctx context.Context, p *process, c *Command) error {
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = r.cfg.Timeout
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var why error
	select {
	case <-p.exited:
		return nil
	case <-timer.C:
		why = fmt.Errorf("%w after %s", ErrTimeout, timeout)
	case <-ctx.Done():
		why = stopped(ctx)
	case <-r.stop:
		why = ErrStopped
	}
	terminate(p.cmd.Process)
	grace := time.NewTimer(r.cfg.Grace)
	defer grace.Stop()
	select {
	case <-p.exited:
	case <-grace.C:
	}
	return why
}

// begin starts a command.
func (r *Runner) begin(c *Command, env []string) (*process, error) {
	path, err := c.find()
	if err != nil {
		return nil, err
	}
	p := &process{
		cmd:    &exec.Cmd{Path: path, Args: c.Argv, Dir: c.Dir, Env: append(r.environment(c.Env), env...)},
		exited: make(chan struct{}), reaped: make(chan struct{}), killed: make(chan struct{}),
		output: &head{most: r.cfg.OutputBytes}, read: make(chan struct{}),
	}
	ownGroup(p.cmd)
	var theirs []*os.File // the ends of the command
	stdout, w, err := os.Pipe()
	if err == nil {
		p.stdout, theirs = stdout, append(theirs, w)
		p.cmd.Stdout, p.cmd.Stderr = w, w
		if c.Stdin != nil {
			var in *os.File
			if in, p.stdin, err = os.Pipe(); err == nil {
				p.cmd.Stdin, theirs = in, append(theirs, in)
			}
		}
	}
	if err == nil {
		err = p.cmd.Start()
	}
	for _, f := range theirs {
		f.Close()
	}
	if err != nil {
		p.closePipes()
		return nil, fmt.Errorf("action: the command %q: %w", clip(c.Argv[0]), err)
	}
	go p.reap()
	go func() {
		defer close(p.read)
		_, _ = io.Copy(p.output, p.stdout) // as far as it goes
	}()
	if p.stdin != nil {
		p.feeding.Go(func() {
			_, _ = p.stdin.Write(c.Stdin) // who does not read it does not want it
			p.stdin.Close()
		})
	}
	return p, nil
}

func (p *process) reap() {
	ended(p.cmd)
	close(p.exited)
	<-p.killed
	_ = p.cmd.Wait() // ProcessState says how it ended
	close(p.reaped)
}

// end ends what is left of a process and its group, and says whether it is gone.
func (p *process) end() (gone bool) {
	select {
	case <-p.exited: // its output may still be on its way
		await(p.read, settle)
	default:
	}
	kill(p.cmd.Process)
	close(p.killed)
	gone = await(p.reaped, killedWait)
	await(p.read, settle) // all who wrote are dead, unless they have left the group
	p.closePipes()
	<-p.read
	p.feeding.Wait()
	return gone
}

// closePipes ends who reads or writes there.
func (p *process) closePipes() {
	if p.stdout != nil {
		p.stdout.Close()
	}
	if p.stdin != nil {
		p.stdin.Close()
	}
}

// await waits, but not longer than that, and says whether it happened.
func await(what <-chan struct{}, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-what:
		return true
	case <-timer.C:
		return false
	}
}

// head keeps the beginning of what is written to it.
type head struct {
	most int

	mu   sync.Mutex
	kept []byte
	more bool
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	room := min(h.most-len(h.kept), len(p))
	h.kept = append(h.kept, p[:room]...)
	h.more = h.more || room < len(p)
	return len(p), nil
}

func (h *head) all() (kept []byte, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept, h.more
}
