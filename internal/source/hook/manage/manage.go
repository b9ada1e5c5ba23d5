// Package manage is the API of webhooks: an organization's sources, and what was
// delivered to them. It is for the organization's servers and admins.
package manage

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
	"github.com/carillon-rt/carillon/internal/transport"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Config is what the API stands on. All but Logger is required.
type Config struct {
	Auth    *auth.Authenticator
	Sources *hook.Sources
	Ledger  *ledger.Ledger
	Intake  func(carillon.OrgID) engine.Log
	IDs     hook.IDs
	Events  *wire.Keyring // ids of events
	Logger  *slog.Logger  // of what went wrong on our side
}

type api struct{ Config }

// routes is the whole surface.
func routes() []route {
	return []route{
		{http.MethodGet, "/v1/hooks/sources", (*api).listSources},
		{http.MethodGet, "/v1/hooks/sources/{source}", (*api).getSource},
		{http.MethodPut, "/v1/hooks/sources/{source}", (*api).putSource},
		{http.MethodDelete, "/v1/hooks/sources/{source}", (*api).removeSource},
		{http.MethodPost, "/v1/hooks/sources/{source}/secrets", (*api).addSecret},
		{http.MethodDelete, "/v1/hooks/sources/{source}/secrets/{secret}", (*api).removeSecret},
		{http.MethodGet, "/v1/hooks/deliveries", (*api).list},
		{http.MethodGet, "/v1/hooks/deliveries/{id}", (*api).show},
		{http.MethodPost, "/v1/hooks/deliveries/{id}/retry", (*api).retry},
		{http.MethodPost, "/v1/hooks/deliveries/{id}/discard", (*api).discard},
		{http.MethodPost, "/v1/hooks/retry", (*api).retryMany},
		{http.MethodPost, "/v1/hooks/discard", (*api).discardMany},
	}
}

// Routes are the method and the path of each, such as "GET /v1/hooks/sources".
func Routes() []string {
	var list []string
	for _, r := range routes() {
		list = append(list, r.method+" "+r.path)
	}
	return list
}

type route struct {
	method, path string
	handle       func(*api, *call) error
}

// call is one request of somebody who may ask.
type call struct {
	w   http.ResponseWriter
	r   *http.Request
	who *carillon.Principal
}

// Handler is everything under /v1/hooks/.
func Handler(cfg Config) http.Handler {
	a := &api{cfg}
	mux := http.NewServeMux()
	allow := map[string][]string{}
	for _, r := range routes() {
		mux.Handle(r.method+" "+r.path, a.handler(func(c *call) error { return r.handle(a, c) }))
		allow[r.path] = append(allow[r.path], r.method)
		if r.method == http.MethodGet {
			allow[r.path] = append(allow[r.path], http.MethodHead)
		}
	}
	for path, methods := range allow {
		slices.Sort(methods)
		mux.Handle(path, a.handler(func(c *call) error { return transport.Method(c.w, c.r, methods...) }))
	}
	mux.Handle("/", a.handler(func(*call) error {
		return carillon.Errorf(carillon.CodeNotFound, "there is nothing at this path; webhooks are at /v1/hooks/sources and /v1/hooks/deliveries")
	}))
	return mux
}

// handler lets in who may ask.
func (a *api) handler(handle func(*call) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		transport.Answers(w.Header(), transport.NoStore)
		who, err := a.caller(r)
		if err == nil {
			err = handle(&call{w, r, who})
		}
		if err != nil {
			transport.Problem(w, r, a.Logger, err)
		}
	})
}

func (a *api) caller(r *http.Request) (*carillon.Principal, error) {
	c, err := a.Auth.FromRequest(r, 0)
	if err != nil {
		return nil, err
	}
	who, err := a.Auth.Verify(r.Context(), c)
	if err != nil {
		return nil, err
	}
	if !who.Admin() {
		return nil, carillon.Errorf(carillon.CodeForbidden, "webhooks are managed with an API key of the organization, or as one of its admins")
	}
	return who, nil
}

// by names who asks, for the record.
func (c *call) by() string {
	if c.who.User != "" {
		return c.who.User
	}
	return c.who.KeyID
}

func (c *call) answer(status int, v any) error {
	js, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	_, _ = c.w.Write(append(js, '\n')) // the client may be gone
	return nil
}

// body reads the body of a request, which may be JSON or YAML.
func (c *call) body() ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(c.r.Body, hook.MaxDefinition+1))
	switch {
	case err != nil:
		return nil, &carillon.Error{Code: carillon.CodeBadRequest, Message: "the body could not be read to its end, or not in the time that the server allows", Err: err}
	case len(body) > hook.MaxDefinition:
		return nil, carillon.Errorf(carillon.CodeTooLarge, "the body is larger than %d bytes", hook.MaxDefinition)
	}
	return body, nil
}

type secret struct {
	ID       string     `json:"id"`
	Secret   string     `json:"secret,omitempty"` // only in the answer that made it
	LastUsed *time.Time `json:"last_used"`        // by this node, since it started
}

// view is a source as it is shown: its definition, and what else there is to know.
func view(s *hook.Source, made map[string]string) (map[string]any, error) {
	v, err := s.Definition.Fields()
	if err != nil {
		return nil, err
	}
	secrets := []secret{}
	for i := range s.Secrets {
		one := secret{ID: s.Secrets[i].ID, Secret: made[s.Secrets[i].ID]}
		if last := s.Secrets[i].LastUsed(); !last.IsZero() {
			one.LastUsed = &last
		}
		secrets = append(secrets, one)
	}
	v["name"], v["url"], v["secrets"] = s.Name, "/hooks/"+string(s.Org)+"/"+s.Name, secrets
	if s.FromConfig {
		v["from_config"] = true
	}
	return v, nil
}

func (c *call) answerSource(status int, s *hook.Source, made map[string]string) error {
	v, err := view(s, made)
	if err != nil {
		return err
	}
	return c.answer(status, v)
}

func (a *api) listSources(c *call) error {
	if _, err := transport.Query(c.r, nil); err != nil {
		return err
	}
	list := []map[string]any{}
	for _, s := range a.Sources.List(c.who.Org) {
		v, err := view(s, nil)
		if err != nil {
			return err
		}
		list = append(list, v)
	}
	return c.answer(http.StatusOK, map[string]any{"sources": list})
}

func (a *api) getSource(c *call) error {
	s, ok := a.Sources.Get(c.who.Org, c.r.PathValue("source"))
	if !ok {
		return carillon.Errorf(carillon.CodeNotFound, "there is no such source; make it with PUT")
	}
	return c.answerSource(http.StatusOK, s, nil)
}

// putSource makes or changes a source. One without any secret gets a new one, which
// is shown once.
func (a *api) putSource(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	d, err := hook.ParseDefinition(body)
	if err != nil {
		return err
	}
	name := c.r.PathValue("source")
	if d.Name != "" && d.Name != name {
		return carillon.BadRequest("the definition is of %q, and the path of %q; leave out the name", d.Name, name)
	}
	d.Name = name
	if d.SecretFile != "" || d.SecretEnv != "" {
		return carillon.Errorf(carillon.CodeForbidden, "files and variables of the node are for its own settings; send the secret itself")
	}
	s, made, err := a.Sources.Put(c.r.Context(), c.who.Org, d)
	if err != nil {
		return err
	}
	a.Logger.Info("hook: a source was changed", "org", c.who.Org, "source", name, "by", c.by())
	return c.answerSource(http.StatusOK, s, made)
}

func (a *api) removeSource(c *call) error {
	if err := a.Sources.Remove(c.r.Context(), c.who.Org, c.r.PathValue("source")); err != nil {
		return err
	}
	a.Logger.Info("hook: a source was removed", "org", c.who.Org, "source", c.r.PathValue("source"), "by", c.by())
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) addSecret(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	text := ""
	if len(body) > 0 {
		if err := transport.Object(body, map[string]transport.Field{"secret": {To: &text, Kind: "a string: the secret that the provider signs with"}}); err != nil {
			return err
		}
	}
	s, id, made, err := a.Sources.AddSecret(c.r.Context(), c.who.Org, c.r.PathValue("source"), text)
	if err != nil {
		return err
	}
	a.Logger.Info("hook: a secret was added", "org", c.who.Org, "source", s.Name, "secret", id, "by", c.by())
	return c.answerSource(http.StatusCreated, s, map[string]string{id: made})
}

func (a *api) removeSecret(c *call) error {
	s, err := a.Sources.RemoveSecret(c.r.Context(), c.who.Org, c.r.PathValue("source"), c.r.PathValue("secret"))
	if err != nil {
		return err
	}
	a.Logger.Info("hook: a secret was removed", "org", c.who.Org, "source", s.Name, "secret", c.r.PathValue("secret"), "by", c.by())
	return c.answerSource(http.StatusOK, s, nil)
}

// find is the delivery that a path names: by our id, or by the provider's, of which
// it is the newest.
func (a *api) find(ctx context.Context, c *call) (ledger.Delivery, []ledger.Attempt, error) {
	id := c.r.PathValue("id")
	pos, ok := a.IDs.Position(c.who.Org, id)
	if !ok {
		d, err := a.Ledger.ByDelivery(ctx, c.who.Org, id)
		if err != nil {
			return d, nil, missing(err)
		}
		pos = d.Pos
	}
	d, attempts, err := a.Ledger.Get(ctx, c.who.Org, pos)
	return d, attempts, missing(err)
}

func missing(err error) error {
	if errors.Is(err, ledger.ErrNotFound) {
		return carillon.Errorf(carillon.CodeNotFound, "there is no such delivery, or it is older than what is kept")
	}
	return err
}

// states reads a list of states.
func states(texts []string) (list []ledger.State, err error) {
	for _, text := range texts {
		for word := range strings.SplitSeq(text, ",") {
			state, err := ledger.ParseState(word)
			if err != nil {
				return nil, err
			}
			list = append(list, state)
		}
	}
	return list, nil
}
