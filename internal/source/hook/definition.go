package hook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/listen"
	"github.com/carillon-rt/carillon/internal/match"
	"github.com/carillon-rt/carillon/internal/source/hook/action"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
	"github.com/carillon-rt/carillon/internal/source/hook/shape"
)

// Limits of a definition.
const (
	MaxDefinition = 64 << 10 // bytes of its text
	MaxSecrets    = 8        // of one source
	maxSecret     = 4096     // bytes
	maxActions    = 16
	maxAllow      = 500
	maxEvents     = 200
	maxTries      = 50
	maxTolerance  = time.Hour
)

// Definition is a source as it is configured: in the node's settings, or over the
// API, as YAML or JSON with these names. What it leaves out has the default.
type Definition struct {
	Name string        `yaml:"name"`
	Kind provider.Kind `yaml:"kind"` // github, stripe, slack, standard or generic

	// Where its secrets come from: as they are, one on each line of a file, or of a
	// variable of the environment. All of them are valid together. Those from the
	// API are kept apart, encrypted.
	Secrets    []string `yaml:"secrets,omitempty"`
	SecretFile string   `yaml:"secret_file,omitempty"`
	SecretEnv  string   `yaml:"secret_env,omitempty"`

	Allow     []string `yaml:"allow,omitempty"`      // addresses and prefixes; none: everybody
	BodyBytes int      `yaml:"body_bytes,omitempty"` // the largest body; 0: 1 MiB
	Tolerance string   `yaml:"tolerance,omitempty"`  // of timestamps, such as 5m
	SHA1      bool     `yaml:"sha1,omitempty"`       // github: take X-Hub-Signature too
	Generic   *Generic `yaml:"generic,omitempty"`

	Events  []string     `yaml:"events,omitempty"`   // patterns of the provider's events; none: all
	When    *action.Rule `yaml:"when,omitempty"`     // what else must be so
	Subject string       `yaml:"subject,omitempty"`  // path of the event's subject in the payload
	OrderBy string       `yaml:"order_by,omitempty"` // path of what keeps its order

	Pick   []string          `yaml:"pick,omitempty"`
	Drop   []string          `yaml:"drop,omitempty"`
	Rename map[string]string `yaml:"rename,omitempty"` // path to new name

	Publish *bool           `yaml:"publish,omitempty"` // false: only its actions are done
	Actions []action.Action `yaml:"actions,omitempty"` // of the operator only
	Tries   int             `yaml:"tries,omitempty"`   // until it is a dead letter; 0: 6

	text string // as it was written, without secrets
}

// Generic is how a source of kind generic signs; it has the fields of
// provider.Generic, so that one converts to the other.
type Generic struct {
	Preset string `yaml:"preset,omitempty"`

	Header    string `yaml:"header,omitempty"`
	Prefix    string `yaml:"prefix,omitempty"`
	Algorithm string `yaml:"algorithm,omitempty"`
	Encoding  string `yaml:"encoding,omitempty"`
	Separator string `yaml:"separator,omitempty"`

	TimestampHeader string `yaml:"timestamp_header,omitempty"`
	TimestampFormat string `yaml:"timestamp_format,omitempty"`

	Content string `yaml:"content,omitempty"`

	IDHeader string `yaml:"id_header,omitempty"`
	IDField  string `yaml:"id_field,omitempty"`

	EventHeader string `yaml:"event_header,omitempty"`
	EventField  string `yaml:"event_field,omitempty"`
}

// ParseDefinition reads a definition, as YAML or JSON. The error may be shown.
func ParseDefinition(text []byte) (Definition, error) {
	if len(text) > MaxDefinition {
		return Definition{}, carillon.Errorf(carillon.CodeTooLarge, "the definition of a source has %d bytes; at most %d", len(text), MaxDefinition)
	}
	var d Definition
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&d); err != nil && !errors.Is(err, io.EOF) {
		return Definition{}, carillon.BadRequest("the definition of a source is an object such as {kind: github, secrets: [\"…\"]}: %s", inWords(err))
	}
	var err error
	d.text, err = withoutSecrets(text)
	return d, err
}

// Source is a source that can be used. It is immutable: a change makes another.
type Source struct {
	Org        carillon.OrgID
	Name       string
	Definition Definition // without secrets
	Secrets    []Secret
	FromConfig bool   // it cannot be changed over the API
	Revision   uint64 // in the store; 0: it is not from there

	provider *provider.Provider
	keys     []provider.Secret
	allow    []netip.Prefix
	body     int
	events   []carillon.Pattern
	shape    *shape.Shape
	tries    int
	publish  bool
}

// build checks a definition and makes the source. secrets are all it has. The
// error may be shown.
func build(org carillon.OrgID, d Definition, secrets []Secret) (*Source, error) {
	if _, err := carillon.ParseSource(d.Name); err != nil {
		return nil, err
	}
	s := &Source{Org: org, Name: d.Name, Secrets: secrets, body: d.BodyBytes, tries: d.Tries, publish: d.Publish == nil || *d.Publish}
	bad := func(format string, args ...any) error {
		return carillon.BadRequest("the source %q: %s", d.Name, fmt.Sprintf(format, args...))
	}
	tolerance := time.Duration(0)
	if d.Tolerance != "" {
		var err error
		if tolerance, err = time.ParseDuration(d.Tolerance); err != nil || tolerance < time.Second || tolerance > maxTolerance {
			return nil, bad("tolerance is a time from 1s to 1h, such as 5m, not %q", clip(d.Tolerance))
		}
	}
	cfg := provider.Config{Kind: d.Kind, Tolerance: tolerance, SHA1: d.SHA1}
	switch {
	case d.Generic != nil && d.Kind != provider.KindGeneric:
		return nil, bad("'generic' is for kind generic; this is %s", d.Kind)
	case d.Generic != nil:
		cfg.Generic = provider.Generic(*d.Generic)
	}
	var err error
	if s.provider, err = provider.New(cfg); err != nil {
		return nil, bad("%s", plain(err))
	}
	if err := s.check(&d, bad); err != nil {
		return nil, err
	}
	if s.shape, err = shape.New(d.Pick, d.Drop, d.Rename); err != nil {
		return nil, bad("%s", plain(err))
	}
	for _, secret := range secrets {
		if err := s.provider.CheckSecret(secret.Text); err != nil {
			return nil, bad("a secret: %s", plain(err))
		}
		s.keys = append(s.keys, provider.Secret{ID: secret.ID, Key: []byte(secret.Text)})
	}
	d.Secrets, d.SecretFile, d.SecretEnv = nil, "", ""
	s.Definition = d
	return s, nil
}

func (s *Source) check(d *Definition, bad func(string, ...any) error) error {
	switch {
	case len(s.Secrets) == 0:
		return bad("it has no secret; a source without one would take what anybody sends")
	case len(s.Secrets) > MaxSecrets:
		return bad("%d secrets; at most %d are valid together", len(s.Secrets), MaxSecrets)
	case d.BodyBytes < 0 || d.BodyBytes > maxBody:
		return bad("body_bytes is %d; it is at most %d", d.BodyBytes, maxBody)
	case d.Tries < 0 || d.Tries > maxTries:
		return bad("tries is %d; it is 1–%d", d.Tries, maxTries)
	case len(d.Allow) > maxAllow || len(d.Events) > maxEvents || len(d.Actions) > maxActions:
		return bad("at most %d addresses, %d events and %d actions", maxAllow, maxEvents, maxActions)
	case !s.publish && len(d.Actions) == 0:
		return bad("publish is false and there are no actions: it would do nothing")
	}
	if s.body == 0 {
		s.body = DefaultBodyBytes
	}
	if s.tries == 0 {
		s.tries = DefaultTries
	}
	for _, text := range d.Allow {
		prefix, err := listen.ParsePrefix(text)
		if err != nil {
			return bad("allow: %s", plain(err))
		}
		s.allow = append(s.allow, prefix)
	}
	for _, text := range d.Events {
		p, err := carillon.ParsePattern(text)
		if err != nil {
			return bad("events: %s", carillon.AsError(err).Message)
		}
		s.events = append(s.events, p)
	}
	for name, path := range map[string]string{"subject": d.Subject, "order_by": d.OrderBy} {
		if path == "" {
			continue
		}
		if err := shape.Check(path); err != nil {
			return bad("%s: %s", name, plain(err))
		}
	}
	if d.When != nil {
		if err := d.When.Validate(); err != nil {
			return bad("when: %s", plain(err))
		}
	}
	for i := range d.Actions {
		d.Actions[i].Of = string(s.Org) + "/" + s.Name
		if err := d.Actions[i].Validate(); err != nil {
			return bad("actions[%d]: %s", i, plain(err))
		}
	}
	return nil
}

// allows reports whether a client with this address may send. Addresses of IPv4
// that are written as IPv6 are IPv4.
func (s *Source) allows(remote string) bool {
	if len(s.allow) == 0 {
		return true
	}
	port, err := netip.ParseAddrPort(remote)
	addr := port.Addr()
	if err != nil {
		if addr, err = netip.ParseAddr(remote); err != nil {
			return false
		}
	}
	addr = addr.Unmap().WithZone("")
	for _, prefix := range s.allow {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// wants reports whether the source takes this event of its provider, as far as that
// is said by name.
func (s *Source) wants(event string) bool {
	if len(s.events) == 0 {
		return true
	}
	t, err := carillon.ParseType(event)
	if err != nil {
		return false
	}
	for _, p := range s.events {
		if match.Match(p, t) {
			return true
		}
	}
	return false
}

// plain is an error's text without the name of a package in front.
func plain(err error) string {
	text := err.Error()
	for _, name := range []string{"listen: ", "provider: ", "shape: ", "action: "} {
		text = strings.TrimPrefix(text, name)
	}
	return text
}

// clip shortens what came from outside for an error message.
func clip(s string) string {
	const shown = 80
	if len(s) <= shown {
		return s
	}
	return strings.ToValidUTF8(s[:shown], "") + "…"
}

var (
	unknownKey = regexp.MustCompile(`field (\S+) (?:not found in|already set in) type \S+`)
	wrongType  = regexp.MustCompile(`cannot unmarshal !!(\S+)(?: .*)? into (\S+)`)
)

// inWords is an error of the YAML library for who wrote the definition.
func inWords(err error) string {
	text := strings.TrimPrefix(strings.Join(strings.Fields(err.Error()), " "), "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors: ")
	text = unknownKey.ReplaceAllString(text, `there is no key $1, or it is there twice`)
	return wrongType.ReplaceAllString(text, `what is there is no $2`)
}

// withoutSecrets is the text of a definition less where its secrets come from.
func withoutSecrets(text []byte) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil || len(doc.Content) != 1 {
		return "", err
	}
	fields := doc.Content[0]
	var kept []*yaml.Node
	for i := 0; i+1 < len(fields.Content); i += 2 {
		switch fields.Content[i].Value {
		case "secrets", "secret_file", "secret_env":
		default:
			kept = append(kept, fields.Content[i], fields.Content[i+1])
		}
	}
	fields.Content = kept
	out, err := yaml.Marshal(fields)
	return string(out), err
}

// Fields are what the definition says, by its names, as JSON has values. What rules
// compare with is hidden: it may be a secret.
func (d Definition) Fields() (map[string]any, error) {
	text, err := yaml.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("hook: %w", err)
	}
	fields := map[string]any{}
	if err := yaml.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("hook: %w", err)
	}
	return fields, nil
}
