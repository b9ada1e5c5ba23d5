package auth_test

import (
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/org"
	"github.com/carillon-rt/carillon/internal/testkit/vectors"
)

// newVectorAuth is the Authenticator of the vectors.
func newVectorAuth(t *testing.T) *auth.Authenticator {
	t.Helper()
	given := vectors.Given[struct {
		Now      int64
		Orgs     []carillon.OrgID
		Disabled []carillon.OrgID
		Allowed  []string
		Issuers  []struct {
			Issuer   string
			Audience string
			OrgClaim string `json:"org_claim"`
			Orgs     []carillon.OrgID
			Secrets  []string
			Keys     []string
		}
	}](t, "credentials.json")
	var orgs []org.Org
	for _, id := range given.Orgs {
		orgs = append(orgs, org.Org{ID: id})
	}
	for _, id := range given.Disabled {
		orgs = append(orgs, org.Org{ID: id, Disabled: true})
	}
	dir, err := org.NewDirectory(org.Config{Orgs: orgs})
	if err != nil {
		t.Fatal(err)
	}
	cfg := auth.Config{Orgs: dir, Origins: auth.NewOrigins(given.Allowed), Now: func() time.Time { return time.Unix(given.Now, 0) }}
	for _, g := range given.Issuers {
		iss := auth.Issuer{Issuer: g.Issuer, Audience: g.Audience, OrgClaim: g.OrgClaim, Orgs: g.Orgs}
		if g.Orgs[0] == "*" {
			iss.Any, iss.Orgs = true, nil
		}
		for _, s := range g.Secrets {
			iss.Secrets = append(iss.Secrets, []byte(s))
		}
		for _, k := range g.Keys {
			block, _ := pem.Decode([]byte(k))
			public, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			iss.Keys = append(iss.Keys, public)
		}
		cfg.Issuers = append(cfg.Issuers, iss)
	}
	a, err := auth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

type tokenVector struct {
	Header, Claims vectors.Text
	Signature      string
	Token          string // instead of the three
}

func (v tokenVector) token() string {
	if v.Header == "" {
		return v.Token
	}
	return b64(string(v.Header)) + "." + b64(string(v.Claims)) + "." + v.Signature
}

func TestTokensOfTheVectors(t *testing.T) {
	a := newVectorAuth(t)
	vectors.Run(t, "credentials.json", "token", func(t *testing.T, in tokenVector) (any, error) {
		p, err := a.VerifyToken(t.Context(), in.token())
		if err != nil {
			return nil, err
		}
		who := map[string]any{"org": p.Org, "user": p.User, "role": p.Role, "expires": p.Expires.Unix()}
		if p.Permissions != nil {
			who["permissions"] = struct {
				Subscribe []carillon.Pattern `json:"subscribe,omitempty"`
				Publish   []carillon.Pattern `json:"publish,omitempty"`
				Rooms     []string           `json:"rooms,omitempty"`
			}{p.Permissions.Subscribe, p.Permissions.Publish, p.Permissions.Rooms}
		}
		return who, nil
	})
}

func TestPlacesOfTheVectors(t *testing.T) {
	a := newVectorAuth(t)
	names := map[auth.Where]string{
		auth.Nowhere: "nowhere", auth.InHeader: "Authorization", auth.InSubprotocol: "Sec-WebSocket-Protocol",
		auth.InQuery: "token", auth.InTicket: "ticket", auth.InCookie: "Cookie",
	}
	vectors.Run(t, "credentials.json", "place", func(_ *testing.T, in struct {
		Path    string
		Headers [][2]string
	},
	) (any, error) {
		r := httptest.NewRequest("GET", in.Path, nil)
		for _, pair := range in.Headers {
			r.Header.Add(pair[0], pair[1])
		}
		var places auth.Places
		switch path, _, _ := strings.Cut(in.Path, "?"); path {
		case "/v1/ws":
			places = auth.Subprotocol | auth.TicketQuery
		case "/v1/sse", "/v1/poll":
			places = auth.TicketQuery
		}
		c, err := a.FromRequest(r, places)
		return struct {
			From  string `json:"from"`
			Token string `json:"token,omitempty"`
		}{names[c.Where], c.Text}, err
	})
}
