package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"

	client "github.com/carillon-rt/carillon/clients/go"
	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

// HooksSourcesCmd lists the sources of an organization.
type HooksSourcesCmd struct {
	Remote

	JSON bool `help:"Print each as a line of JSON." name:"json"`
}

// Run lists them.
func (c *HooksSourcesCmd) Run(ctx context.Context, std *IO) error {
	api, err := c.hooks()
	if err != nil {
		return err
	}
	var answer struct {
		Sources []json.RawMessage `json:"sources"`
	}
	if err := api.do(ctx, "sources", http.MethodGet, "/v1/hooks/sources", nil, &answer); err != nil {
		return c.explain(err)
	}
	w := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', 0)
	if len(answer.Sources) > 0 && !c.JSON {
		fmt.Fprintln(w, "NAME\tKIND\tURL\tFROM\tSECRETS")
	}
	for _, raw := range answer.Sources {
		if c.JSON {
			if err := std.printJSON(raw); err != nil {
				return err
			}
			continue
		}
		var s hookSource
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		from := "api"
		if s.FromConfig {
			from = "settings"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Name, s.Kind, api.base+s.URL, from, s.secrets())
	}
	if len(answer.Sources) == 0 && !c.JSON {
		std.say("there is no source yet; 'carillon hooks source add' makes one")
	}
	return w.Flush()
}

// secrets lists the ids of its secrets, and when each was last used.
func (s *hookSource) secrets() string {
	var list []string
	for _, secret := range s.Secrets {
		used := "not used since the node started"
		if secret.LastUsed != nil {
			used = "used " + secret.LastUsed.Local().Format("2006-01-02 15:04:05")
		}
		list = append(list, secret.ID+" ("+used+")")
	}
	return strings.Join(list, ", ")
}

// HooksSourceCmd changes sources.
type HooksSourceCmd struct {
	Add    HooksSourceAddCmd    `cmd:"" help:"Add a source, with a secret of yours or one that is made and shown once."`
	Remove HooksSourceRemoveCmd `cmd:"" help:"Remove a source. What it received stays."`
}

// HooksSourceAddCmd makes a source.
type HooksSourceAddCmd struct {
	Remote

	SecretFlags `embed:""`

	Name     string `arg:"" help:"Its name: the end of its URL, and the first part of the type of its events."`
	Kind     string `help:"github, stripe, slack, standard or generic; or a preset of generic: shopify, gitlab, gitea, forgejo, bitbucket, linear." placeholder:"KIND"`
	File     string `short:"f" help:"Its definition, YAML or JSON, as under 'sources' in the settings; '-' for standard input." placeholder:"FILE"`
	Generate bool   `help:"Make a secret and print it; so it is without any secret."`
	Replace  bool   `help:"Replace the definition of a source that is there. It keeps its secrets."`
	JSON     bool   `help:"Print the source as JSON." name:"json"`

	kind provider.Kind // as the flag or the definition has it
}

// Run makes it.
func (c *HooksSourceAddCmd) Run(ctx context.Context, std *IO) error {
	path, err := sourcePath(c.Name)
	if err != nil {
		return err
	}
	secret, err := c.text(std)
	if err != nil {
		return err
	}
	if secret != "" && c.Generate {
		return errors.New("--generate makes a secret, and one is given; leave out one of them")
	}
	definition, given, err := c.definition(std, secret)
	if err != nil {
		return err
	}
	if !given && !c.Generate && !c.Replace && makesItsOwn(c.kind) {
		return hint(fmt.Errorf("no secret, and %s makes its own", theProvider(c.kind)),
			"give the one it shows, with --secret-file; --generate makes one for tests")
	}
	api, err := c.hooks()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	var was hookSource
	err = api.do(ctx, "source add", http.MethodGet, path, nil, &was)
	switch {
	case err == nil && was.FromConfig: // the server says so too, but not what would help here
		return hint(fmt.Errorf("the source %q is in the node's settings", c.Name), "change it there, or take another name")
	case err == nil && !c.Replace:
		return hint(fmt.Errorf("there is a source %q already", c.Name), "--replace gives it another definition, 'carillon hooks secret add' another secret")
	case err != nil && !isCode(err, client.CodeNotFound):
		return c.explain(err)
	}
	there := err == nil
	if err := api.do(ctx, "source add", http.MethodPut, path, definition, &raw); err != nil {
		return c.explain(err)
	}
	if there && c.Generate && !given {
		if err := api.do(ctx, "secret add", http.MethodPost, path+"/secrets", nil, &raw); err != nil {
			return c.explain(err)
		}
	}
	return printMade(std, api, raw, c.JSON)
}

// definition is what to send, checked as far as that can be done here, and whether it
// has secrets.
func (c *HooksSourceAddCmd) definition(std *IO, secret string) (js []byte, secrets bool, err error) {
	fields := map[string]any{}
	if c.File != "" {
		text, err := readAll(c.File, std, hook.MaxDefinition)
		if err != nil {
			return nil, false, fmt.Errorf("-f: %w", err)
		}
		if _, err := hook.ParseDefinition(text); err != nil {
			return nil, false, fmt.Errorf("-f %s: %w", c.File, err)
		}
		if err := yaml.Unmarshal(text, &fields); err != nil {
			return nil, false, fmt.Errorf("-f %s: %w", c.File, err)
		}
	}
	if c.Kind != "" {
		kind, preset, err := kindOf(c.Kind)
		if err != nil {
			return nil, false, fmt.Errorf("--kind: %w", err)
		}
		if have, ok := fields["kind"]; ok && have != string(kind) {
			return nil, false, fmt.Errorf("--kind is %s, and the definition says %v", kind, have)
		}
		fields["kind"] = kind
		if _, ok := fields["generic"]; preset != "" && !ok {
			fields["generic"] = map[string]any{"preset": preset}
		}
	}
	if fields["kind"] == nil {
		return nil, false, hint(errors.New("the source has no kind"), "say whose webhooks they are, such as --kind github")
	}
	c.kind = provider.Kind(fmt.Sprint(fields["kind"]))
	if secret != "" {
		have, _ := fields["secrets"].([]any)
		fields["secrets"] = append(have, secret)
	}
	js, err = json.Marshal(fields)
	return js, fields["secrets"] != nil, err
}

// printMade prints a source that was made or has a new secret: the only time that one
// which was made is seen.
func printMade(std *IO, api *hookAPI, raw json.RawMessage, asJSON bool) error {
	if asJSON {
		return std.printJSON(raw)
	}
	var s hookSource
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	w := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "url\t%s\n", api.base+s.URL)
	made := false
	for _, secret := range s.Secrets {
		if secret.Secret != "" {
			fmt.Fprintf(w, "secret\t%s\n", secret.Secret)
			made = true
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	switch kind := provider.Kind(s.Kind); {
	case made && makesItsOwn(kind):
		std.say("the secret is shown only now; it is for tests, as %s makes its own", theProvider(kind))
	case made:
		std.say("the secret is shown only now; enter it where %s asks for one", theProvider(kind))
	}
	return nil
}

// makesItsOwn reports whether a provider shows a secret and takes none.
func makesItsOwn(kind provider.Kind) bool {
	return kind == provider.KindStripe || kind == provider.KindSlack
}

func theProvider(kind provider.Kind) string {
	switch kind {
	case provider.KindGitHub:
		return "GitHub"
	case provider.KindStripe:
		return "Stripe"
	case provider.KindSlack:
		return "Slack"
	case provider.KindStandard, provider.KindGeneric:
	}
	return "the provider"
}

// HooksSourceRemoveCmd removes a source.
type HooksSourceRemoveCmd struct {
	Remote

	Name string `arg:"" help:"Its name."`
}

// Run removes it.
func (c *HooksSourceRemoveCmd) Run(ctx context.Context, std *IO) error {
	path, err := sourcePath(c.Name)
	if err != nil {
		return err
	}
	api, err := c.hooks()
	if err != nil {
		return err
	}
	if err := api.do(ctx, "source remove", http.MethodDelete, path, nil, nil); err != nil {
		return c.explain(err)
	}
	_, err = fmt.Fprintf(std.Out, "%s removed\n", c.Name)
	return err
}
