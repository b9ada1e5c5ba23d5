package action

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Action is a command, or a request to an address, and when it is wanted. It is
// read from YAML; keys that it does not know are an error.
type Action struct {
	Of string `yaml:"-"` // whose it is: the name by which it is counted and logged

	When    *Rule             `yaml:"when,omitempty"` // nil: always
	Command []string          `yaml:"command,omitempty"`
	Dir     string            `yaml:"dir,omitempty"`
	Env     map[string]string `yaml:"env,omitempty"`
	Stdin   bool              `yaml:"stdin,omitempty"`   // the command gets the body there
	Timeout time.Duration     `yaml:"timeout,omitempty"` // 0: the runner's
	Forward string            `yaml:"forward,omitempty"` // a URL: the body is sent there as it came
	Header  map[string]string `yaml:"header,omitempty"`  // of that request
	Pass    []string          `yaml:"pass,omitempty"`    // headers of the webhook that it gets, too
}

// UnmarshalYAML reads an action, without its Of.
func (a *Action) UnmarshalYAML(n *yaml.Node) error {
	d := &document{strict: true}
	f := d.fields(n, "the action")
	read := Action{
		Of:      a.Of,
		When:    d.rule(f.take("when"), "when", 0),
		Command: f.texts("command"),
		Dir:     f.text("dir"),
		Env:     f.pairs("env"),
		Stdin:   f.flag("stdin"),
		Timeout: f.duration("timeout"),
		Forward: f.text("forward"),
		Header:  f.pairs("header"),
		Pass:    f.texts("pass"),
	}
	f.done()
	if d.err != nil {
		return fmt.Errorf("action: %w", d.err)
	}
	*a = read
	return nil
}

// MarshalYAML writes the action, with secrets hidden, and the values of variables
// and headers, which may be some.
func (a *Action) MarshalYAML() (any, error) {
	type plain Action // without this method
	shown := plain(*a)
	shown.Env, shown.Header = hide(a.Env), hide(a.Header)
	return &shown, nil
}

func hide(values map[string]string) map[string]string {
	shown := maps.Clone(values)
	for name := range shown {
		shown[name] = hidden
	}
	return shown
}

// Validate says what is wrong with the action, all of it that is seen before it
// runs.
func (a *Action) Validate() error {
	var errs []error
	say := func(err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("action: %s", strings.TrimPrefix(err.Error(), "action: ")))
		}
	}
	if a.When != nil {
		say(a.When.Validate())
	}
	switch {
	case len(a.Command) > 0 && a.Forward != "":
		say(errors.New("it has a command and forward; make two actions of them"))
	case len(a.Command) > 0:
		say(a.checkCommand())
	case a.Forward != "":
		say(a.checkForward())
	default:
		say(errors.New("it does nothing; give it a command or forward"))
	}
	return errors.Join(errs...)
}

func (a *Action) checkCommand() error {
	switch {
	case len(a.Header) > 0 || len(a.Pass) > 0:
		return errors.New("header and pass are for forward, and it has a command")
	case a.Timeout < 0 || a.Timeout > maxTimeout:
		return fmt.Errorf("the timeout of a command is %s; at most %s", a.Timeout, maxTimeout)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Env)) {
		if err := checkName(name); err != nil {
			return err
		}
	}
	return a.command(&Request{}).check()
}

func (a *Action) checkForward() error {
	switch {
	case a.Dir != "" || len(a.Env) > 0 || a.Stdin:
		return errors.New("dir, env and stdin are for a command, and it has forward")
	case a.Timeout < 0 || a.Timeout > maxForward:
		return fmt.Errorf("the timeout of forward is %s; at most %s", a.Timeout, maxForward)
	case len(a.Pass) > maxHeaders:
		return fmt.Errorf("pass has %d headers; at most %d", len(a.Pass), maxHeaders)
	}
	for _, name := range a.Pass {
		if err := checkHeaderName(name); err != nil {
			return fmt.Errorf("pass: %w", err)
		}
	}
	if err := checkURL(a.Forward); err != nil {
		return err
	}
	return checkHeader(a.Header)
}

// Do does it, if its rule wants it for the request; Result.Ran says whether. When
// ctx ends, what runs is ended.
func (r *Runner) Do(ctx context.Context, a *Action, req *Request) (Result, error) {
	if a.When != nil {
		if ok, err := a.When.Eval(req); err != nil || !ok {
			return Result{Exit: -1}, err
		}
	}
	if a.Forward != "" {
		return r.Forward(ctx, a.forward(req))
	}
	return r.Run(ctx, a.command(req))
}

// command is the action's, for a request.
func (a *Action) command(req *Request) *Command {
	env := map[string]string{"CARILLON_DELIVERY": req.ID}
	maps.Copy(env, req.Env)
	maps.Copy(env, a.Env)
	c := &Command{Of: a.Of, Argv: a.Command, Dir: a.Dir, Timeout: a.Timeout}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		c.Env = append(c.Env, name+"="+env[name])
	}
	if a.Stdin {
		c.Stdin = req.Body
		if c.Stdin == nil {
			c.Stdin = []byte{}
		}
	}
	return c
}

// forward is the action's request, for one that came.
func (a *Action) forward(req *Request) *Forward {
	f := &Forward{Of: a.Of, URL: a.Forward, Header: http.Header{}, Body: req.Body, Timeout: a.Timeout}
	if t := req.contentType(); t != "" {
		f.Header.Set("Content-Type", t)
	}
	for _, name := range a.Pass {
		if values := req.Header.Values(name); len(values) > 0 {
			f.Header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
		}
	}
	for name, value := range a.Header {
		f.Header.Set(name, value)
	}
	return f
}
