package auth_test

import (
	"strings"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/org"
)

func TestAPIKeyIsAnAdminWithoutUser(t *testing.T) {
	text, key := auth.NewKey("demo")
	stored, err := auth.ParseKey("demo", key.Line())
	if err != nil || stored != key {
		t.Fatalf("%+v is stored as %q and read as %+v, %v", key, key.Line(), stored, err)
	}
	if strings.Contains(key.Line(), text[len(text)-20:]) {
		t.Error("the stored line has the secret")
	}
	a := newAuth(t, stored)
	for _, verify := range []func(string) (*carillon.Principal, error){a.VerifyKey, a.VerifyBearer} {
		p, err := verify(text)
		if err != nil {
			t.Fatal(err)
		}
		want := carillon.Principal{Org: "demo", Role: carillon.RoleAdmin, KeyID: key.ID}
		if *p != want || !p.Server() || !p.Admin() {
			t.Errorf("principal is %+v", p)
		}
	}
	if _, err := a.VerifyBearer(good(hs256)); err != nil {
		t.Errorf("a bearer may be a token too: %v", err)
	}
}

func TestKeysDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		text, key := auth.NewKey("demo")
		if seen[text] || seen[key.ID] || len(text) != 3+16+1+52 {
			t.Fatalf("key %q", text)
		}
		seen[text], seen[key.ID] = true, true
	}
}

func TestKeysRefused(t *testing.T) {
	text, key := auth.NewKey("demo")
	other, otherKey := auth.NewKey("acme")
	off, offKey := auth.NewKey("closed")
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

func TestParseKeyRefuses(t *testing.T) {
	text, key := auth.NewKey("demo")
	for _, line := range []string{"", ":", key.ID, key.ID + ":", text, key.Line() + "0", key.Line()[:len(key.Line())-2], "A:" + key.Line(), " " + key.Line(), key.ID + ":" + strings.Repeat("zz", 32), strings.Repeat("a", 33) + ":" + strings.Repeat("00", 32)} {
		if k, err := auth.ParseKey("demo", line); err == nil {
			t.Errorf("%q is %+v", line, k)
		} else if strings.Contains(err.Error(), text[20:]) {
			t.Errorf("the error tells the key: %v", err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: "demo"}}})
	if err != nil {
		t.Fatal(err)
	}
	long := [][]byte{secret}
	_, key := auth.NewKey("demo")
	_, lost := auth.NewKey("nowhere")
	for name, tc := range map[string]struct {
		cfg  auth.Config
		want string
	}{
		"no directory":     {auth.Config{}, "Orgs is required"},
		"a short secret":   {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true, Secrets: [][]byte{secret, []byte("short")}}}}, "secret 2 has 5 bytes; HS256 needs at least 32"},
		"no secret":        {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Any: true}}}, "no secret"},
		"no org":           {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long}}}, "may name no organization"},
		"all and some":     {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long, Any: true, Orgs: []carillon.OrgID{"demo"}}}}, "not both"},
		"an unknown org":   {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long, Orgs: []carillon.OrgID{"x"}}}}, `no organization "x"`},
		"* is no name":     {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long, Orgs: []carillon.OrgID{"*"}}}}, `no organization "*"`},
		"a taken claim":    {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long, Any: true, OrgClaim: "sub"}}}, `org claim cannot be "sub"`},
		"an issuer twice":  {auth.Config{Orgs: dir, Issuers: []auth.Issuer{{Secrets: long, Any: true}, {Secrets: long, Any: true}}}, "is there twice"},
		"a key twice":      {auth.Config{Orgs: dir, Keys: []auth.Key{key, key}}, "is there twice"},
		"a key of nowhere": {auth.Config{Orgs: dir, Keys: []auth.Key{lost}}, `no organization "nowhere"`},
		"a strange key id": {auth.Config{Orgs: dir, Keys: []auth.Key{{ID: "A_b", Org: "demo"}}}, "an id is"},
	} {
		if _, err := auth.New(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, err := auth.New(auth.Config{Orgs: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.VerifyToken(sign(`{"sub":"a","org":"demo","exp":99999999999}`)); err == nil {
		t.Error("without issuers a token is accepted")
	}
}
