package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/config"
)

// TokenCmd prints a token for a client: an HS256 JWT.
type TokenCmd struct {
	Secret    string   `help:"The issuer's secret. Others on this machine can see it; --secret-env is safer." placeholder:"TEXT"`
	SecretEnv string   `help:"The environment variable that has the issuer's secret (default: CARILLON_JWT_SECRET)." default:"CARILLON_JWT_SECRET" placeholder:"NAME"`
	Org       string   `help:"The organization." required:"" env:"CARILLON_ORG" placeholder:"ORG"`
	User      string   `help:"The user." required:"" placeholder:"USER"`
	Role      string   `help:"member, publisher or admin (default: member)." default:"member" placeholder:"ROLE"`
	Expires   string   `help:"How long it is good for, like 15m, 1h or 7d (default: 1h)." default:"1h" placeholder:"DURATION"`
	Issuer    string   `help:"The iss claim." placeholder:"TEXT"`
	Audience  string   `help:"The aud claim." placeholder:"TEXT"`
	OrgClaim  string   `help:"The claim that names the organization (default: org)." default:"org" placeholder:"NAME"`
	Subscribe []string `help:"A pattern it may subscribe to; repeatable. Given any of --subscribe, --publish and --rooms, the token may do only what they say." placeholder:"PATTERN"`
	Publish   []string `help:"A pattern of types it may publish; repeatable." placeholder:"PATTERN"`
	Rooms     []string `help:"A room it may enter, '*' for any characters; repeatable." placeholder:"GLOB"`
	JSON      bool     `help:"Print JSON." name:"json"`
}

// Run prints the token.
func (c *TokenCmd) Run(std *IO) error {
	secret := c.Secret
	if secret == "" {
		if secret = os.Getenv(c.SecretEnv); secret == "" {
			return fmt.Errorf("no secret: %s is not set; set it to the issuer's secret, or name another variable with --secret-env", c.SecretEnv)
		}
	}
	ttl, err := config.ParseDuration(c.Expires)
	if err != nil {
		return fmt.Errorf("--expires: %w", err)
	}
	if ttl.D() < time.Second {
		return errors.New("--expires: a token is good for at least 1s")
	}
	claims := auth.Claims{
		Issuer:   c.Issuer,
		Audience: c.Audience,
		User:     c.User,
		Org:      c.Org,
		OrgClaim: c.OrgClaim,
		Role:     carillon.Role(c.Role),
		Expires:  time.Now().Add(ttl.D()).Truncate(time.Second),
	}
	if len(c.Subscribe)+len(c.Publish)+len(c.Rooms) > 0 {
		p := &carillon.Permissions{Rooms: c.Rooms}
		if p.Subscribe, err = parsePatterns("--subscribe", c.Subscribe); err != nil {
			return err
		}
		if p.Publish, err = parsePatterns("--publish", c.Publish); err != nil {
			return err
		}
		claims.Permissions = p
	}
	token, err := auth.Sign([]byte(secret), claims)
	if err != nil {
		return fmt.Errorf("no token: %w", err)
	}
	if c.JSON {
		return std.printJSON(struct {
			Token   string `json:"token"`
			Org     string `json:"org"`
			User    string `json:"user"`
			Expires string `json:"expires"`
		}{token, c.Org, c.User, claims.Expires.UTC().Format(time.RFC3339)})
	}
	_, err = fmt.Fprintln(std.Out, token)
	return err
}

func parsePatterns(flag string, list []string) ([]carillon.Pattern, error) {
	var out []carillon.Pattern
	for _, s := range list {
		p, err := carillon.ParsePattern(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %s", flag, carillon.AsError(err).Message)
		}
		out = append(out, p)
	}
	return out, nil
}
