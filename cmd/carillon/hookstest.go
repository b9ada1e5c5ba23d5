package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/carillon-rt/carillon"
	client "github.com/carillon-rt/carillon/clients/go"
	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

// HooksTestCmd sends one webhook, as its provider would, to a server.
type HooksTestCmd struct {
	Remote

	Kind        string `arg:"" help:"Whose webhook: github, stripe, slack, standard or generic; or a preset of generic, such as gitlab."`
	Event       string `help:"Which sample; one that there is not is answered with those there are. With --body: what GitHub calls the event (default: pull_request, invoice.paid and the like)." placeholder:"EVENT"`
	Org         string `help:"The organization (default: that of the API key)." env:"CARILLON_ORG" placeholder:"ORG"`
	Source      string `help:"The source (default: the only one of this kind)." placeholder:"NAME"`
	Secret      string `help:"The secret to sign with. Others on this machine can see it; the variable or --secret-file is safer." env:"CARILLON_HOOK_SECRET" placeholder:"TEXT"`
	SecretFile  string `help:"A file that has the secret on its only line; '-' for standard input." placeholder:"FILE"`
	Body        string `help:"Send this file instead of a sample; '-' for standard input." placeholder:"FILE"`
	ContentType string `help:"With --body: what it is (default: JSON if it is that, else a form)." placeholder:"TYPE"`
	ID          string `help:"The provider's id of the delivery; the same again is a duplicate (default: a new one)." name:"id" placeholder:"ID"`
	JSON        bool   `help:"Print JSON." name:"json"`
}

// testWait is how long the state of a delivery is waited for.
const testWait = 5 * time.Second

// testResult is what came of it.
type testResult struct {
	URL       string `json:"url"`
	Kind      string `json:"kind"`
	Event     string `json:"event"`
	Delivery  string `json:"delivery"` // the provider's id
	Size      int    `json:"size"`
	Status    int    `json:"status"`
	TookMS    int64  `json:"took_ms"`
	Answer    string `json:"answer,omitempty"`
	ID        string `json:"id,omitempty"` // ours
	Duplicate bool   `json:"duplicate,omitempty"`
	State     string `json:"state,omitempty"`
	EventType string `json:"event_type,omitempty"`
	EventID   string `json:"event_id,omitempty"`
	Error     string `json:"error,omitempty"`
}

// Run sends it, and says what came of it.
func (c *HooksTestCmd) Run(ctx context.Context, std *IO) error {
	kind, preset, err := kindOf(c.Kind)
	if err != nil {
		return err
	}
	var api *hookAPI // nil: nobody who may look
	if c.Key+c.Token != "" {
		if api, err = c.hooks(); err != nil {
			return err
		}
	}
	generic := json.RawMessage(nil)
	if preset != "" {
		generic = json.RawMessage(`{"preset":"` + preset + `"}`)
	}
	if c.Source == "" || c.Org == "" || kind == provider.KindGeneric && preset == "" {
		s, err := c.source(ctx, api, kind, preset)
		if err != nil {
			return err
		}
		c.Source, c.Org = s.Name, either(c.Org, s.org())
		if generic == nil {
			generic = s.Generic
		}
	}
	if _, err := carillon.ParseOrgID(c.Org); err != nil {
		return fmt.Errorf("--org: %s", carillon.AsError(err).Message)
	}
	if _, err := carillon.ParseSource(c.Source); err != nil {
		return fmt.Errorf("--source: %s", carillon.AsError(err).Message)
	}
	p, err := providerOf(kind, generic)
	if err != nil {
		return err
	}
	secret, err := c.secret(std, p)
	if err != nil {
		return err
	}
	contentType, body, err := c.body(std, kind)
	if err != nil {
		return err
	}
	h := http.Header{"Content-Type": {contentType}, "User-Agent": {"carillon-hooks-test/" + build().Version}}
	if err := p.Sign(h, body, c.ID, c.Event, provider.Secret{Key: []byte(secret)}, time.Now()); err != nil {
		return err
	}
	result, err := c.send(ctx, h, body)
	if err != nil {
		return c.explain(err)
	}
	taken := result.Status/100 == 2
	if taken && api != nil && result.ID != "" && !result.Duplicate {
		if err := settle(ctx, api, result); err != nil {
			return c.explain(err)
		}
	}
	if c.JSON {
		err = std.printJSON(result)
	} else {
		err = result.print(std)
	}
	switch {
	case err != nil:
		return err
	case taken:
		if api == nil && !c.JSON {
			std.say("with an API key (CARILLON_API_KEY) it also says what became of it")
		}
		return nil
	}
	return result.refused(c)
}

// source looks up where to send it to.
func (c *HooksTestCmd) source(ctx context.Context, api *hookAPI, kind provider.Kind, preset string) (*hookSource, error) {
	if api == nil {
		missing, example := "--source", "--source gh"
		switch {
		case c.Source != "" && c.Org != "":
			return nil, hint(errors.New("how a generic source signs is in its definition, which nobody but its organization may see"),
				"set CARILLON_API_KEY, or name a preset instead of generic, such as gitlab")
		case c.Source != "":
			missing, example = "--org", "--org demo"
		}
		return nil, hint(fmt.Errorf("where to? %s is missing", missing), "give %s, or set CARILLON_API_KEY, and it is looked up", example)
	}
	all, err := api.sources(ctx)
	if err != nil {
		return nil, c.explain(err)
	}
	var names, fitting []string
	var found *hookSource
	for i := range all {
		s := &all[i]
		names = append(names, s.Name+" ("+s.Kind+")")
		if c.Source == s.Name && s.Kind == string(kind) || c.Source == "" && s.Kind == string(kind) && s.is(preset) {
			found, fitting = s, append(fitting, s.Name)
		}
	}
	switch {
	case len(fitting) == 1:
		return found, nil
	case len(fitting) > 1:
		return nil, fmt.Errorf("there are several sources of kind %s: %s; choose with --source", kind, strings.Join(fitting, ", "))
	case len(all) == 0:
		return nil, hint(errors.New("the organization has no webhook source yet"), "carillon hooks source add NAME --kind %s", c.Kind)
	case c.Source != "":
		return nil, fmt.Errorf("there is no source %q of kind %s; there are %s", c.Source, kind, strings.Join(names, ", "))
	}
	return nil, hint(fmt.Errorf("there is no source of kind %s; there are %s", c.Kind, strings.Join(names, ", ")), "carillon hooks source add NAME --kind %s", c.Kind)
}

// is reports whether a generic source has a preset, or any.
func (s *hookSource) is(preset string) bool {
	var g struct {
		Preset string `json:"preset"`
	}
	if preset == "" {
		return true
	}
	return json.Unmarshal(s.Generic, &g) == nil && g.Preset == preset
}

// providerOf is a provider that signs. generic is as a definition has it.
func providerOf(kind provider.Kind, generic json.RawMessage) (*provider.Provider, error) {
	cfg := provider.Config{Kind: kind}
	if kind == provider.KindGeneric && len(generic) > 0 {
		d, err := hook.ParseDefinition(fmt.Appendf(nil, `{"generic":%s}`, generic))
		if err != nil {
			return nil, err
		}
		if d.Generic != nil {
			cfg.Generic = provider.Generic(*d.Generic)
		}
	}
	return provider.New(cfg)
}

// send sends it once.
func (c *HooksTestCmd) send(ctx context.Context, h http.Header, body []byte) (*testResult, error) {
	r := &testResult{URL: c.base() + "/hooks/" + c.Org + "/" + c.Source, Kind: c.Kind, Event: c.Event, Delivery: c.ID, Size: len(body)}
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = h
	began := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, &client.Error{Op: "test", Code: client.CodeNetwork, Message: "no answer", Err: errors.Unwrap(err)}
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return nil, &client.Error{Op: "test", Code: client.CodeNetwork, Message: "the answer broke off", Err: err}
	}
	r.Status, r.TookMS, r.Answer = res.StatusCode, time.Since(began).Milliseconds(), strings.TrimSpace(string(answer))
	var said struct {
		ID        string `json:"id"`
		Duplicate bool   `json:"duplicate"`
	}
	_ = json.Unmarshal(answer, &said) // a challenge, and the answer to a form of Slack's, are not JSON
	r.ID, r.Duplicate = either(said.ID, res.Header.Get("Carillon-Delivery")), said.Duplicate
	return r, nil
}

// settle waits until something became of it.
func settle(ctx context.Context, api *hookAPI, r *testResult) error {
	end := time.Now().Add(testWait)
	for {
		_, d, err := api.delivery(ctx, r.ID)
		if err != nil && !isCode(err, client.CodeNotFound) { // it is not listed at once
			return err
		}
		r.State, r.EventType, r.EventID, r.Error = either(d.State, statePending), d.EventType, d.EventID, d.Error
		if r.State != statePending || time.Now().After(end) {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *testResult) print(std *IO) error {
	w := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "sent\t%s of %s, %s, id %s\n", visible(r.Event), r.Kind, bytesOf(int64(r.Size)), visible(r.Delivery))
	fmt.Fprintf(w, "to\t%s\n", r.URL)
	fmt.Fprintf(w, "answered\t%d in %d ms  %s\n", r.Status, r.TookMS, visible(clipped(r.Answer, 200)))
	switch {
	case r.Duplicate:
		fmt.Fprintf(w, "%s\tthis was delivered before, and is not published again\n", stateDuplicate)
	case r.State == statePublished:
		fmt.Fprintf(w, "%s\tas %s, event %s\n", r.State, r.EventType, r.EventID)
	case r.State == statePending:
		fmt.Fprintf(w, "%s\tstill, after %v; carillon hooks show %s\n", r.State, testWait, r.ID)
	case r.State == stateDead:
		fmt.Fprintf(w, "%s\t%s\n", r.State, visible(r.Error))
	case r.State != "":
		fmt.Fprintf(w, "%s\tcarillon hooks show %s\n", r.State, r.ID)
	}
	return w.Flush()
}

// refused is the error of an answer that is none of success.
func (r *testResult) refused(c *HooksTestCmd) error {
	err := fmt.Errorf("the server does not take it: %d", r.Status)
	switch r.Status {
	case http.StatusUnauthorized:
		return hint(err, "is this the secret of the source %q? `carillon hooks list --source %s` says what was wrong", c.Source, c.Source)
	case http.StatusNotFound:
		return hint(err, "is there a source %q in the organization %q? `carillon hooks sources` lists them", c.Source, c.Org)
	case http.StatusForbidden:
		return hint(err, "the source takes webhooks from some addresses only: 'allow' in its definition")
	case http.StatusServiceUnavailable:
		return hint(err, "the server cannot store it now; its log says why")
	}
	return err
}
