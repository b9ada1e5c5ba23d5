package bench

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"
)

// tokenLife is longer than any run.
const tokenLife = 12 * time.Hour

// minter signs HS256 tokens for any org and user, as the issuer of
// `carillon dev` does.
type minter struct {
	secret []byte
	exp    int64
}

func newMinter(secret string, now time.Time) *minter {
	return &minter{secret: []byte(secret), exp: now.Add(tokenLife).Unix()}
}

func (m *minter) token(org, user, role string) string {
	claims, err := json.Marshal(struct {
		Sub  string `json:"sub"`
		Org  string `json:"org"`
		Role string `json:"role"`
		Exp  int64  `json:"exp"`
	}{user, org, role, m.exp})
	if err != nil {
		panic("bench: claims did not marshal: " + err.Error()) // strings and a number always do
	}
	b64 := base64.RawURLEncoding
	t := b64.AppendEncode([]byte("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."), claims)
	mac := hmac.New(sha256.New, m.secret)
	mac.Write(t)
	return string(b64.AppendEncode(append(t, '.'), mac.Sum(nil)))
}
