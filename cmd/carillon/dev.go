package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/durable"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/server"
)

// DevCmd is `carillon dev`: a node to try things out with, on this machine.
type DevCmd struct {
	Listen     string   `help:"The public port's address; port 0 takes any that is free (default: 127.0.0.1:8080)." default:"127.0.0.1:8080" placeholder:"ADDR"`
	Ops        string   `help:"The operations port's address, with the live page (default: 127.0.0.1:8081)." default:"127.0.0.1:8081" placeholder:"ADDR"`
	Data       string   `help:"Keep the log and the keys in this directory (default: a temporary one, removed at the end)." placeholder:"DIR"`
	EnvFile    string   `help:"Write addresses and keys to this file, as KEY=value lines, once the node is ready." placeholder:"FILE"`
	Engine     string   `help:"jetstream keeps the log on disk, memory does not." enum:"jetstream,memory" default:"jetstream"`
	Durability string   `help:"When an event is on disk. strict: before its publisher's answer; relaxed: within a second." enum:"strict,relaxed" default:"strict"`
	Origin     []string `help:"Let web pages of this origin call, like http://localhost:3000; repeatable." placeholder:"URL"`
	LogLevel   string   `help:"How much the node says about itself: debug, info, warn or error (default: warn)." enum:"debug,info,warn,error" default:"warn" placeholder:"LEVEL"`
	DebugEcho  bool     `help:"Serve a WebSocket on the operations port at /debug/echo that sends back what it gets, for conformance suites."`
}

// Whom dev's credentials stand for.
const (
	devOrg    = "demo"
	devUser   = "dev"
	devSource = "gh" // of webhooks
	devKind   = "github"
	devExpiry = 365 * 24 * time.Hour
)

// Run runs the node until a signal ends it.
func (c *DevCmd) Run(ctx context.Context, std *IO) (err error) {
	cfg, err := config.Load("", os.Environ())
	if err != nil {
		return err
	}
	cfg.Listen, cfg.Ops.Listen = c.Listen, c.Ops
	cfg.Engine.Kind, cfg.Engine.Durability = c.Engine, c.Durability
	cfg.Origins = append(cfg.Origins, c.Origin...)
	cfg.Log.Level, cfg.Log.Format = c.LogLevel, "text"
	cfg.Drain.Window = 0 // who tries things out does not wait for clients to leave

	cfg.Data = c.Data
	if c.Data == "" {
		if cfg.Data, err = os.MkdirTemp("", "carillon-dev-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(cfg.Data)) }()
	}
	keys, err := devSecrets(cfg.Data)
	if err != nil {
		return err
	}
	cfg.Issuers = []config.Issuer{{Secrets: []config.Secret{config.Secret(keys.JWTSecret)}, Orgs: []string{"*"}}}
	source, err := config.SourceOf(fmt.Sprintf("{name: %s, kind: %s, secrets: [%q]}", devSource, devKind, keys.HookSecret))
	if err != nil {
		return err
	}
	cfg.Orgs = []config.Org{{ID: devOrg, Keys: []string{keys.KeyLine}, Sources: []config.Source{source}}}
	if err := cfg.Validate(); err != nil {
		return err
	}
	token, err := auth.Sign([]byte(keys.JWTSecret), auth.Claims{
		User: devUser, Org: devOrg, Role: carillon.RoleAdmin, Expires: time.Now().Add(devExpiry),
	})
	if err != nil {
		return err
	}
	log, err := server.NewLogger(std.Err, cfg)
	if err != nil {
		return err
	}
	node, err := server.New(cfg, server.Options{
		Logger: log, Version: build().Version, DebugEcho: c.DebugEcho, Alone: true,
		Development: &server.Development{Org: devOrg, User: devUser, Token: token},
	})
	if err != nil {
		return err
	}
	ready := func() error {
		v := devValues{
			Version: build().Version, URL: node.PublicURL(), OpsURL: node.OpsURL(), Org: devOrg, User: devUser,
			APIKey: keys.APIKey, Token: token, JWTSecret: keys.JWTSecret, HookSecret: keys.HookSecret, Durability: node.Durability(), EnvFile: c.EnvFile,
			Log: "in memory, gone at the end",
		}
		switch {
		case c.Engine == config.KindMemory:
		case c.Data == "":
			v.Log = cfg.Data + ", removed at the end; --data DIR keeps it"
		default:
			v.Log = cfg.Data + ", kept"
		}
		if c.EnvFile != "" {
			if err := v.writeEnv(c.EnvFile); err != nil {
				return fmt.Errorf("--env-file: %w", err)
			}
		}
		return v.tell(std.Out)
	}
	return explain(node.Run(ctx, ready), cfg)
}

// secrets are dev's, kept beside the log so that tokens outlive a restart.
type secrets struct {
	JWTSecret  string `json:"jwt_secret"`
	APIKey     string `json:"api_key"`
	KeyLine    string `json:"api_key_line"`
	HookSecret string `json:"hook_secret"` // older files have none
}

// devSecrets reads the secrets of a directory, and makes those that are missing.
func devSecrets(dir string) (s secrets, err error) {
	path := filepath.Join(dir, "dev-secrets.json")
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		key, hash := org.NewKey(devOrg)
		s = secrets{JWTSecret: newSecret(), APIKey: key, KeyLine: hash.Line()}
	case err != nil:
		return s, err
	default:
		if err := json.Unmarshal(text, &s); err != nil || s.JWTSecret == "" || s.KeyLine == "" {
			return s, hint(fmt.Errorf("%s is not readable", path), "remove it, and dev makes new keys")
		}
	}
	if s.HookSecret != "" {
		return s, nil
	}
	s.HookSecret = newSecret()
	if text, err = json.MarshalIndent(s, "", "  "); err != nil {
		return s, err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return s, err
	}
	return s, durable.WriteFile(path, append(text, '\n'))
}

// newSecret is a text that nobody can guess.
func newSecret() string {
	var b [36]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// devValues are what dev tells.
type devValues struct {
	Version, URL, OpsURL, Org, User, APIKey, Token, JWTSecret, HookSecret, Durability, Log, EnvFile string
}

func (v devValues) writeEnv(path string) error {
	var b bytes.Buffer
	for _, kv := range [][2]string{
		{"CARILLON_URL", v.URL},
		{"CARILLON_OPS_URL", v.OpsURL},
		{"CARILLON_ORG", v.Org},
		{"CARILLON_API_KEY", v.APIKey},
		{"CARILLON_TOKEN", v.Token},
		{"CARILLON_JWT_SECRET", v.JWTSecret},
		{"CARILLON_HOOK_SECRET", v.HookSecret},
	} {
		fmt.Fprintf(&b, "%s=%s\n", kv[0], kv[1])
	}
	return durable.WriteFile(path, b.Bytes())
}

// WebSocketURL is the public port's, for clients that want to be told.
func (v devValues) WebSocketURL() (string, error) {
	u, err := url.Parse(v.URL)
	if err != nil {
		return "", err
	}
	u.Scheme, u.Path = "ws", "/v1/ws"
	return u.String(), nil
}

// tell prints what a person needs to begin.
func (v devValues) tell(w io.Writer) error {
	t, err := template.New("dev").Parse(banner)
	if err != nil {
		return err
	}
	return t.Execute(w, v)
}

// banner is the template of it.
const banner = `Carillon {{.Version}} is ready, for development.

  live page   {{.OpsURL}}/
  public      {{.URL}}
  log         {{.Log}}
  durability  {{.Durability}}

Paste this into another terminal{{if .EnvFile}}, or: set -a; . {{.EnvFile}}; set +a{{end}}

  export CARILLON_URL={{.URL}} CARILLON_ORG={{.Org}} CARILLON_API_KEY={{.APIKey}}
  export CARILLON_TOKEN={{.Token}}
  export CARILLON_HOOK_SECRET={{.HookSecret}}

Listen, with curl (Server-Sent Events), and publish:

  curl -NG $CARILLON_URL/v1/sse -H "Authorization: Bearer $CARILLON_TOKEN" -d 'pattern=>'
  curl $CARILLON_URL/v1/events -H "Authorization: Bearer $CARILLON_API_KEY" \
    --json '{"type": "workflow.step.completed", "subject": "wf-123", "data": {"step": 3}}'

The same with carillon:

  carillon tail '>' --since -10m
  carillon publish workflow.step.completed --data '{"step": 3}'

Webhooks come in at {{.URL}}/hooks/{{.Org}}/gh; send one, and have them on this machine:

  carillon hooks test github
  carillon listen --forward http://localhost:3000/webhooks

In a web page (its origin is allowed with --origin), or in Node.js 22:

  new EventSource("{{.URL}}/v1/sse?pattern=%3E&token={{.Token}}").onmessage = e => console.log(e.data)

  ws = new WebSocket("{{.WebSocketURL}}", ["carillon.v1", "bearer.{{.Token}}"])
  ws.onmessage = e => console.log(e.data)
  ws.onopen = () => ws.send('{"type": "subscribe", "pattern": ">"}')

Ctrl-C ends it.
`
