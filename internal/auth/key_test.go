package auth_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/org"
)

func TestAPIKeyIsAnAdminWithoutUser(t *testing.T) {
	text, key := org.NewKey("demo")
	stored, err := org.ParseKey("demo", key.Line())
	if err != nil || stored != key {
		t.Fatalf("%+v is stored as %q and read as %+v, %v", key, key.Line(), stored, err)
	}
	if strings.Contains(key.Line(), text[len(text)-20:]) {
		t.Error("the stored line has the secret")
	}
	a := newAuth(t, stored)
	p, err := a.VerifyBearer(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	want := carillon.Principal{Org: "demo", Role: carillon.RoleAdmin, KeyID: key.ID}
	if *p != want || !p.Server() || !p.Admin() {
		t.Errorf("principal is %+v", p)
	}
	if _, err := a.VerifyBearer(t.Context(), good(hs256)); err != nil {
		t.Errorf("a bearer may be a token too: %v", err)
	}
}

func TestKeysRefused(t *testing.T) {
	text, key := org.NewKey("demo")
	other, otherKey := org.NewKey("acme")
	off, offKey := org.NewKey("closed")
	a := newAuth(t, key, otherKey, offKey)
	prefix, secret := text[:20], text[20:]
	for name, s := range map[string]string{
		"empty": "", "prefix": "ck_", "no secret": prefix, "no underscore": prefix[:19],
		"another's secret": prefix + other[20:], "in capitals": prefix + strings.ToUpper(secret),
		"cut": text[:len(text)-1], "longer": text + "a", "a space": text + " ", "an unknown id": "ck_abc_" + secret,
		"a strange id": "ck_../x_" + secret, "the hash": "ck_" + strings.Replace(key.Line(), ":", "_", 1),
		"another prefix": "CK_" + text[3:], "a disabled org's": off, "very long": text + strings.Repeat("a", 9000),
	} {
		p, err := a.VerifyKey(s)
		e, ok := err.(*carillon.Error)
		if !ok || e.Code != carillon.CodeUnauthenticated || p != nil {
			t.Errorf("%s: %+v, %v", name, p, err)
			continue
		}
		if strings.Contains(e.Error(), secret[:20]) {
			t.Errorf("%s: the error tells the key: %v", name, e)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: "demo"}}})
	if err != nil {
		t.Fatal(err)
	}
	long := [][]byte{secret}
	for name, tc := range map[string]struct {
		cfg  auth.Config
		want string
	}{
		"no directory":      {auth.Config{}, "Orgs is required"},
		"a short secret":    {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true, Secrets: [][]byte{secret, []byte("short")}}}}, "secret 2 has 5 bytes; HS256 needs at least 32"},
		"no key":            {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true}}}, "no secret, no key"},
		"many keys":         {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true, Secrets: slices.Repeat(long, 17)}}}, "it has 17 secrets and keys"},
		"a weak RSA key":    {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true, Keys: []any{weakRSA(t)}}}}, "key 1: an RSA key has from 2048 to 8192 bits, not 1024"},
		"another curve":     {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true, Keys: []any{p384(t)}}}}, "a point on the curve P-256"},
		"a private key":     {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true, Keys: []any{ecKey}}}}, "a public key is RSA, ECDSA on P-256, or Ed25519"},
		"a short Ed25519":   {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true, Keys: []any{edPublic[:31]}}}}, "an Ed25519 key has 32 bytes, not 31"},
		"keys over http":    {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true, JWKS: &auth.JWKS{URL: "http://id.example/jwks"}}}}, "is not https"},
		"keys in a file":    {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true, JWKS: &auth.JWKS{URL: "file:///etc/passwd", Private: true}}}}, "is not one like https"},
		"keys of ftp":       {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true, JWKS: &auth.JWKS{URL: "ftp://h/x", Private: true}}}}, "is not https"},
		"published secrets": {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true, JWKS: &auth.JWKS{URL: "https://h/x", Algorithms: []auth.Algorithm{auth.HS256}}}}}, "published keys are for RS256, ES256 or EdDSA"},
		"a weak ticket key": {auth.Config{Orgs: dir, Tickets: &auth.Tickets{Key: make([]byte, 31), Used: newKV(t)}}, "tickets need a key of at least 32 bytes"},
		"tickets for ever":  {auth.Config{Orgs: dir, Tickets: &auth.Tickets{Key: make([]byte, 32)}}, "tickets need a key of at least 32 bytes and a Claimer"},
		"no org":            {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long}}}, "may name no organization"},
		"all and some":      {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long, Any: true, Orgs: []carillon.OrgID{"demo"}}}}, "not both"},
		"an unknown org":    {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long, Orgs: []carillon.OrgID{"x"}}}}, `no organization "x"`},
		"* is no name":      {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long, Orgs: []carillon.OrgID{"*"}}}}, `no organization "*"`},
		"a taken claim":     {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long, Any: true, OrgClaim: "sub"}}}, `org claim cannot be "sub"`},
		"an issuer twice":   {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long, Any: true}, {Secrets: long, Any: true}}}, "is there twice"},
	} {
		if _, err := auth.New(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, err := auth.New(auth.Config{Orgs: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.VerifyToken(t.Context(), sign(`{"sub":"a","org":"demo","exp":99999999999}`)); err == nil {
		t.Error("without issuers a token is accepted")
	}
}
