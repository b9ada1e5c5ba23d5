package action

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Bounds that have no setting.
const (
	maxTimeout  = time.Hour        // of a command
	maxForward  = time.Minute      // of a request
	answerBytes = 16 << 10         // of the answer to a request
	settle      = time.Second / 4  // for what remains when a process has ended
	maxString   = 128<<10 - 1      // bytes of one argument, or of one variable with its name
	maxStrings  = 1 << 20          // bytes of all of them together
	killedWait  = 10 * time.Second // for a process that was killed
)

// Config of a Runner. A zero field is its default.
type Config struct {
	Timeout        time.Duration // of a command; 30 s
	Grace          time.Duration // between SIGTERM and SIGKILL; 5 s
	ForwardTimeout time.Duration // of a request, its answer included; 15 s
	OutputBytes    int           // that are kept of what a command writes; 64 KiB

	Total     int // that run at the same time; 16
	PerHook   int // of these, of one hook; 4
	Queue     int // that wait; 64, and less than 0: none may
	PerQueue  int // of these, of one hook; a quarter of Queue
	TempDir   string
	UserAgent string // of requests; carillon

	// Env names variables of the server that commands get, too, beside PATH, HOME
	// and LANG.
	Env []string

	// InheritEnvironment hands commands all variables of the server, its secrets
	// among them.
	InheritEnvironment bool

	Logger *slog.Logger // nil: nothing is logged
	Client *http.Client // for requests; nil: there are none. Redirects are not followed
}

// Errors of commands and requests, beside [ExitError] and [StatusError]. Where all
// places are taken it is a [carillon.Error], with the time after which to come
// again.
var (
	ErrTimeout = errors.New("action: it took too long and was stopped")
	ErrStopped = errors.New("action: it was stopped, because the server stops")
)

// ExitError is that a command ended, and not well.
type ExitError struct {
	Code   int    // -1 where it was ended by a signal
	Signal string // "": none
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return "action: the command was ended by a signal: " + e.Signal
	}
	return fmt.Sprintf("action: the command ended with status %d", e.Code)
}

// StatusError is that an answer was not 2xx.
type StatusError struct{ Status int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("action: the answer is %d; 2xx would be well", e.Status)
}

// Result is what became of a command or a request. With an error it is as far as
// it came.
type Result struct {
	Ran       bool          // it was begun: its rule wanted it, and there was a place
	Exit      int           // of a command: its status; -1: it was ended by a signal, or never began
	Status    int           // of a request: that of the answer; 0: there is none
	Output    []byte        // of a command, both what it writes and its errors; or the answer's body
	Truncated bool          // there was more
	Took      time.Duration // without waiting for a place
}

// Runner runs commands and makes requests, as many at a time as it may. It is safe
// from anywhere.
type Runner struct {
	cfg    Config
	places *places
	stop   chan struct{} // closed when what runs is to end
	once   chan struct{} // has one in it until stop is closed
}

// NewRunner makes a runner. Whoever makes it closes it.
func NewRunner(cfg Config) *Runner {
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	cfg.Grace = cmp.Or(cfg.Grace, 5*time.Second)
	cfg.ForwardTimeout = cmp.Or(cfg.ForwardTimeout, 15*time.Second)
	cfg.OutputBytes = cmp.Or(cfg.OutputBytes, 64<<10)
	cfg.Total = cmp.Or(cfg.Total, 16)
	cfg.PerHook = cmp.Or(cfg.PerHook, 4)
	cfg.Queue = max(0, cmp.Or(cfg.Queue, 64))
	cfg.PerQueue = cmp.Or(cfg.PerQueue, max(1, cfg.Queue/4))
	cfg.UserAgent = cmp.Or(cfg.UserAgent, "carillon")
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Client != nil {
		c := *cfg.Client
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		c.Jar = nil
		cfg.Client = &c
	}
	r := &Runner{
		cfg: cfg, places: newPlaces(cfg.Total, cfg.PerHook, cfg.Queue, cfg.PerQueue),
		stop: make(chan struct{}), once: make(chan struct{}, 1),
	}
	r.once <- struct{}{}
	return r
}

// Stats of a Runner.
type Stats struct {
	Running, Waiting int    // now
	Full             uint64 // what found no room, not even to wait
}

// Stats are of all commands and requests.
func (r *Runner) Stats() Stats { return r.places.stats() }

// Close refuses what comes, and waits for what runs and waits. When ctx ends, what
// still does is ended, and nothing is left but what cannot be killed, which is an
// error.
func (r *Runner) Close(ctx context.Context) error {
	idle := r.places.close()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-r.once:
		close(r.stop)
	default: // somebody else has
	}
	hopeless := time.NewTimer(r.cfg.Grace + killedWait)
	defer hopeless.Stop()
	select {
	case <-idle:
		return nil
	case <-hopeless.C:
		return errors.New("action: a command could not be killed")
	}
}

// Run runs a command and waits for its end. The error is nil if its status is 0.
// When ctx ends, so does the command.
func (r *Runner) Run(ctx context.Context, c *Command) (Result, error) {
	if err := c.check(); err != nil {
		return Result{Exit: -1}, err
	}
	at, err := r.places.take(c.Of)
	if err != nil {
		return Result{Exit: -1}, fmt.Errorf("action: %w", err)
	}
	return r.run(ctx, at, c, func(Result, error) {})
}

// run runs a command that has a place, and leaves it. done is told of the end
// before that, so that closing the runner waits for it.
func (r *Runner) run(ctx context.Context, at *place, c *Command, done func(Result, error)) (res Result, err error) {
	var gone <-chan struct{}
	defer func() {
		done(res, err)
		at.leaveAfter(gone)
	}()
	if err := at.wait(ctx, r.stop); err != nil {
		return Result{Exit: -1}, err
	}
	res, gone, err = r.execute(ctx, c)
	return res, err
}

// Forward makes a request and reads the answer. The error is nil if it is 2xx.
func (r *Runner) Forward(ctx context.Context, f *Forward) (Result, error) {
	at, err := r.places.take(f.Of)
	if err != nil {
		return Result{}, fmt.Errorf("action: %w", err)
	}
	defer at.leave()
	if err := at.wait(ctx, r.stop); err != nil {
		return Result{}, err
	}
	return r.send(ctx, f)
}

// stopped is why a context has ended.
func stopped(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, ErrTimeout) || errors.Is(cause, ErrStopped) {
		return cause
	}
	return fmt.Errorf("action: it was stopped: %w", cause)
}
