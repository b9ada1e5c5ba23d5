package auth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/carillon-rt/carillon"
)

// Claims are what a token says. Empty fields are left out.
type Claims struct {
	Issuer      string
	Audience    string
	User        string
	Org         string
	OrgClaim    string // "": DefaultOrgClaim
	Role        carillon.Role
	Expires     time.Time // whole seconds; the rest is cut off
	Permissions *carillon.Permissions
}

// Sign makes an HS256 token, for development and the command line. It refuses
// claims that could not be verified, and a secret below MinSecretBytes.
func Sign(secret []byte, c Claims) (string, error) {
	if len(secret) < MinSecretBytes {
		return "", fmt.Errorf("the secret has %d bytes; HS256 needs at least %d", len(secret), MinSecretBytes)
	}
	if c.OrgClaim == "" {
		c.OrgClaim = DefaultOrgClaim
	}
	claims := map[string]any{"sub": c.User, c.OrgClaim: c.Org, "exp": c.Expires.Unix()}
	for name, v := range map[string]string{"iss": c.Issuer, "aud": c.Audience, "role": string(c.Role)} {
		if v != "" {
			claims[name] = v
		}
	}
	if c.Permissions != nil {
		p := map[string]any{}
		if c.Permissions.Subscribe != nil {
			p["subscribe"] = c.Permissions.Subscribe
		}
		if c.Permissions.Publish != nil {
			p["publish"] = c.Permissions.Publish
		}
		if c.Permissions.Rooms != nil {
			p["rooms"] = c.Permissions.Rooms
		}
		claims["permissions"] = p
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	parsed, err := parseObject(payload)
	if err != nil {
		return "", err
	}
	if _, _, _, err := readClaims(parsed, c.OrgClaim, c.Expires.Add(-time.Second), nil); err != nil {
		return "", err
	}
	signed := usualHeader + "." + base64.RawURLEncoding.EncodeToString(payload)
	sig, err := jwt.SigningMethodHS256.Sign(signed, secret)
	if err != nil {
		return "", err
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}
