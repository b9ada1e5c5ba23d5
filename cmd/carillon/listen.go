package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	client "github.com/carillon-rt/carillon/clients/go"
)

// ListenCmd brings webhooks to a server that the internet cannot reach: it connects
// out, and sends what was delivered to an address near by, as it came.
type ListenCmd struct {
	Remote

	Patterns []string `arg:"" optional:"" help:"Which events, such as 'gh.pull_request.*' (default: those of all sources)." placeholder:"PATTERN"`

	Forward     string        `required:"" help:"Where webhooks are sent, such as http://localhost:3000/webhooks." placeholder:"URL"`
	Source      []string      `help:"Only what this source received; repeatable." placeholder:"NAME"`
	Since       string        `help:"Where to start the first time: now, earliest, a time back such as -1h, or after an event id (default: now). Later it goes on where it was." default:"now" placeholder:"CURSOR"`
	State       string        `help:"The file that keeps how far it got (default: one for this server, organization, choice and address, in $XDG_STATE_HOME/carillon)." placeholder:"FILE"`
	NoState     bool          `help:"Keep nothing: start at --since each time."`
	Header      []string      `help:"Send this header too, 'Name: value', instead of what came under this name; repeatable. Credentials that came are not kept, so not sent." sep:"none" placeholder:"HEADER"`
	Timeout     time.Duration `help:"How long an answer may take (default: 30s)." default:"30s" placeholder:"DURATION"`
	MaxFailures int           `help:"End after N answers to one webhook that are not 2xx (default: try for ever). A server that is away is always waited for." placeholder:"N"`
	SkipFailed  bool          `help:"Leave out a webhook that was not answered with 2xx, or with --max-failures not in N tries, and go on with the next."`
	PrintBodies bool          `help:"Print what came, too, once."`
	JSON        bool          `help:"Print each try as a line of JSON." name:"json"`
}

// Validate refuses what cannot work before anything is asked.
func (c *ListenCmd) Validate() error {
	if _, err := c.target(); err != nil && c.Forward != "" { // that it is missing is said otherwise
		return err
	}
	switch _, isName := carillon.ParseNamedCursor(c.Since); {
	case !isName && len(c.Since) != idLen:
		return fmt.Errorf("--since %q: it is now, earliest, a time back such as -10m (s, m, h, d), or an event id", c.Since)
	case len(c.Patterns) > 0 && len(c.Source) > 0:
		return errors.New("both patterns and --source; a pattern says the source itself: 'gh.pull_request.*'")
	case c.NoState && c.State != "":
		return errors.New("--no-state and --state; leave out one of them")
	case c.MaxFailures < 0:
		return errors.New("--max-failures is a number of answers, 1 or more")
	case c.Timeout <= 0:
		return errors.New("--timeout is longer than 0, such as 30s")
	}
	return nil
}

// Run forwards until it is interrupted.
func (c *ListenCmd) Run(ctx context.Context, std *IO) error {
	to, err := c.target()
	if err != nil {
		return err
	}
	defer to.http.CloseIdleConnections()
	api, err := c.hooks()
	if err != nil {
		return err
	}
	cl, err := c.client(false, 0)
	if err != nil {
		return err
	}
	sources, err := api.sources(ctx)
	if err != nil {
		return c.explain(err)
	}
	patterns, err := c.patterns(sources)
	if err != nil {
		return err
	}
	state, after, err := c.begin(std, sources[0].org())
	if err != nil {
		return err
	}
	l := &listener{cmd: c, std: std, api: api, to: to, state: state}
	sub, err := cl.Subscribe(ctx, patterns, client.SubscribeOptions{
		After: after,
		OnGap: func(g client.Gap) { l.gap(&g) },
		OnConnect: func(n client.Connection) {
			std.say("listening in %s to %s, for %s", n.Org, strings.Join(shownPatterns(patterns), " "), to)
		},
		OnDisconnect: func(err *client.Error, in time.Duration) {
			std.say("%v; back in %s", err, in.Round(10*time.Millisecond))
		},
	})
	if ctx.Err() != nil {
		return nil // interrupted: the orderly end
	}
	if err != nil {
		return c.explain(err)
	}
	defer func() { _ = sub.Close() }() // the end is already decided
	if err := l.keep(sub.Cursor()); err != nil {
		return err
	}
	return c.explain(l.run(ctx, sub))
}

// maxPatterns is how many a connection may have; with more sources it hears all.
const maxPatterns = 1000

// patterns are what to subscribe to.
func (c *ListenCmd) patterns(sources []hookSource) (list []string, err error) {
	if len(sources) == 0 {
		return nil, hint(errors.New("the organization has no webhook source yet"), "carillon hooks source add NAME --kind github")
	}
	if len(c.Patterns) > 0 {
		return c.Patterns, nil
	}
	var names []string
	for _, s := range sources {
		names = append(names, s.Name)
	}
	for _, name := range c.Source {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("--source: there is no source %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	if len(c.Source) > 0 {
		names = c.Source
	}
	if len(names) > maxPatterns {
		return []string{">"}, nil
	}
	for _, name := range names {
		list = append(list, name+".>")
	}
	return list, nil
}

// shownPatterns are as many as fit a line.
func shownPatterns(list []string) []string {
	const most = 10
	if len(list) <= most {
		return list
	}
	return append(slices.Clone(list[:most]), fmt.Sprintf("and %d more", len(list)-most))
}

// begin says where to start, and where what was done is kept; nil: nowhere.
func (c *ListenCmd) begin(std *IO, org string) (*listenState, string, error) {
	if c.NoState {
		return nil, c.Since, nil
	}
	to, err := c.target()
	if err != nil {
		return nil, "", err
	}
	choice := c.Patterns
	for _, name := range c.Source {
		choice = append(choice, name+".>")
	}
	choice = slices.Compact(slices.Sorted(slices.Values(choice)))
	state, err := openListenState(c.State, listenKey{Server: c.base(), Org: org, Choice: choice, Forward: to.String()})
	if err != nil || state.Cursor == "" {
		return state, c.Since, err
	}
	if c.Since != "now" {
		std.say("going on where %s left off, not at --since; --no-state starts there", state.path)
	}
	return state, state.Cursor, nil
}

// listener takes one webhook after the other.
type listener struct {
	cmd   *ListenCmd
	std   *IO
	api   *hookAPI
	to    *target
	state *listenState // nil: nothing is kept
}

// run forwards until ctx ends. Its place moves past a webhook when that was taken with
// a 2xx, or is given up.
func (l *listener) run(ctx context.Context, sub *client.Subscription) error {
	for {
		e, err := sub.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				return err
			}
			return l.keep(sub.Cursor()) // all before it is done
		}
		if e.Source == "" || e.Delivery == "" {
			continue // somebody published it; it is no webhook
		}
		if err := l.deliver(ctx, &e); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // interrupted, the orderly end: it comes again next time
			}
			return err
		}
		if err := l.keep(sub.Cursor()); err != nil {
			return err
		}
	}
}

// keep makes a cursor the place where the next listen begins.
func (l *listener) keep(cursor string) error {
	if l.state == nil || cursor == "" {
		return nil
	}
	return l.state.keep(cursor)
}

// deliver sends one webhook until it is taken. An error ends listening.
func (l *listener) deliver(ctx context.Context, e *client.Event) error {
	d, err := l.fetch(ctx, e)
	if err != nil {
		return err
	}
	if d == nil {
		return l.print(e, nil, attempt{err: errGone})
	}
	for try, failures := 0, 0; ; try++ {
		a := l.to.post(ctx, d)
		a.first = try == 0
		if a.ok() {
			return l.print(e, d, a)
		}
		if ctx.Err() != nil {
			return errors.Join(l.print(e, d, a), ctx.Err())
		}
		if a.status != 0 {
			failures++
		}
		most := l.cmd.MaxFailures
		if l.cmd.SkipFailed {
			most = max(most, 1)
		}
		a.last = most > 0 && failures >= most
		if !a.last {
			a.again = forwardWait(try)
		}
		a.skipped = a.last && l.cmd.SkipFailed
		if err := l.print(e, d, a); err != nil {
			return err
		}
		switch {
		case a.skipped:
			return nil
		case a.last:
			return hint(fmt.Errorf("%s was answered with %d, %s", visible(d.Delivery), a.status, several(failures, "time")),
				"the next listen begins with it; --skip-failed leaves such out")
		}
		if err := pause(ctx, a.again); err != nil {
			return err
		}
	}
}

// gap says aloud that something is missing.
func (l *listener) gap(g *client.Gap) {
	l.std.say("GAP: webhooks are missing here.")
	l.std.say("%v", g)
	if l.cmd.JSON {
		_ = l.std.printJSON(map[string]string{"gap": string(g.Reason)}) // the next line fails too, and is looked at
	}
}

// pause waits, or returns the error of a context that ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
