package auth_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/org"
)

const hs256 = `{"alg":"HS256","typ":"JWT"}`

var (
	secret  = []byte("the-secret-of-the-issuer-without-a-name")
	rotated = []byte("the-old-secret-of-the-issuer-without-a-name")
	acme    = []byte("the-secret-of-the-issuer-acme-0123456789")
	now     = time.Unix(1_800_000_000, 0)
)

// exp is a good expiry, as JSON.
const exp = "1800000600"

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// forge signs any header and claims, good or not.
func forge(h func() hash.Hash, key []byte, header, claims string) string {
	signed := b64(header) + "." + b64(claims)
	m := hmac.New(h, key)
	m.Write([]byte(signed))
	return signed + "." + b64(string(m.Sum(nil)))
}

func sign(claims string) string { return forge(sha256.New, secret, hs256, claims) }

func newAuth(t testing.TB, keys ...org.Key) *auth.Authenticator {
	t.Helper()
	orgs := []org.Org{{ID: "demo"}, {ID: "acme"}, {ID: "other"}, {ID: "closed", Disabled: true}}
	for i := range orgs {
		for _, k := range keys {
			if k.Org == orgs[i].ID {
				orgs[i].Keys = append(orgs[i].Keys, k)
			}
		}
	}
	dir, err := org.NewDirectory(org.Config{Orgs: orgs})
	if err != nil {
		t.Fatal(err)
	}
	a, err := auth.New(auth.Config{
		Issuers: []auth.Issuer{
			{Secrets: [][]byte{secret, rotated}, Any: true},
			{Issuer: "acme", Audience: "carillon", Secrets: [][]byte{acme}, Orgs: []carillon.OrgID{"acme"}, OrgClaim: "https://acme.example/org"},
		},
		Orgs:    dir,
		Origins: auth.NewOrigins([]string{"https://app.example"}),
		Now:     func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestTokenBecomesPrincipal(t *testing.T) {
	a := newAuth(t)
	end := time.Unix(1_800_000_600, 0)
	for name, tc := range map[string]struct {
		token string
		want  carillon.Principal
	}{
		"the least": {
			sign(`{"sub":"alice","org":"demo","exp":` + exp + `}`),
			carillon.Principal{Org: "demo", User: "alice", Role: carillon.RoleMember, Expires: end},
		},
		"everything": {
			sign(`{"sub":"alice","org":"demo","exp":` + exp + `,"nbf":1,"iat":"whenever","jti":7,"role":"admin","extra":{"a":[1]},
			"permissions":{"subscribe":["orders.*","a.**"],"publish":["a.b"],"rooms":["ops","team-*"]}}`),
			carillon.Principal{Org: "demo", User: "alice", Role: carillon.RoleAdmin, Expires: end, Permissions: &carillon.Permissions{
				Subscribe: []carillon.Pattern{"orders.*", "a.>"}, Publish: []carillon.Pattern{"a.b"}, Rooms: []string{"ops", "team-*"},
			}},
		},
		"permissions without lists grant nothing": {
			sign(`{"sub":"a","org":"demo","exp":` + exp + `,"permissions":{}}`),
			carillon.Principal{Org: "demo", User: "a", Role: carillon.RoleMember, Expires: end, Permissions: &carillon.Permissions{}},
		},
		"any UTF-8 is a user": {
			sign(`{"sub":"Ælf \u00e9 \ud83d\ude00","org":"demo","exp":` + exp + `}`),
			carillon.Principal{Org: "demo", User: "Ælf é 😀", Role: carillon.RoleMember, Expires: end},
		},
		"an escaped name is the same name": {
			sign(`{"\u0073ub":"a","org":"demo","exp":` + exp + `}`),
			carillon.Principal{Org: "demo", User: "a", Role: carillon.RoleMember, Expires: end},
		},
		"the secret before the rotation": {
			forge(sha256.New, rotated, hs256, `{"sub":"a","org":"demo","exp":`+exp+`}`),
			carillon.Principal{Org: "demo", User: "a", Role: carillon.RoleMember, Expires: end},
		},
		"a named issuer, its claim, its aud": {
			forge(sha256.New, acme, hs256, `{"iss":"acme","aud":"carillon","sub":"a","https://acme.example/org":"acme","org":7,"exp":`+exp+`}`),
			carillon.Principal{Org: "acme", User: "a", Role: carillon.RoleMember, Expires: end},
		},
		"aud in a list": {
			forge(sha256.New, acme, hs256, `{"iss":"acme","aud":["x","carillon"],"sub":"a","https://acme.example/org":"acme","exp":`+exp+`}`),
			carillon.Principal{Org: "acme", User: "a", Role: carillon.RoleMember, Expires: end},
		},
		"aud where the issuer has none is not looked at": {
			sign(`{"aud":7,"sub":"a","org":"demo","exp":` + exp + `}`),
			carillon.Principal{Org: "demo", User: "a", Role: carillon.RoleMember, Expires: end},
		},
		"exp with a fraction": {
			sign(`{"sub":"a","org":"demo","exp":1.80000060025e9}`),
			carillon.Principal{Org: "demo", User: "a", Role: carillon.RoleMember, Expires: end.Add(250 * time.Millisecond)},
		},
		"exp in the leeway": {
			sign(`{"sub":"a","org":"demo","exp":1799999971}`),
			carillon.Principal{Org: "demo", User: "a", Role: carillon.RoleMember, Expires: time.Unix(1_800_000_001, 0)},
		},
		"nbf in the leeway": {
			sign(`{"sub":"a","org":"demo","nbf":1800000030,"exp":` + exp + `}`),
			carillon.Principal{Org: "demo", User: "a", Role: carillon.RoleMember, Expires: end},
		},
		"header in another order, no typ": {
			forge(sha256.New, secret, ` { "kid" : "x" , "alg" : "HS256" } `, ` { "sub" : "a" , "org" : "demo" , "exp" : `+exp+` } `),
			carillon.Principal{Org: "demo", User: "a", Role: carillon.RoleMember, Expires: end},
		},
		"typ of an access token": {
			forge(sha256.New, secret, `{"alg":"HS256","typ":"application/at+JWT"}`, `{"sub":"a","org":"demo","exp":`+exp+`}`),
			carillon.Principal{Org: "demo", User: "a", Role: carillon.RoleMember, Expires: end},
		},
		"keys in the header are not looked at": {
			forge(sha256.New, secret, `{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"},"jku":"https://evil.example/","x5u":"x","x5c":[],"kid":"../../dev/null"}`, `{"sub":"a","org":"demo","exp":`+exp+`}`),
			carillon.Principal{Org: "demo", User: "a", Role: carillon.RoleMember, Expires: end},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := a.VerifyToken(t.Context(), tc.token)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// good is a token that would be taken, for rows that spoil one thing.
func good(header string) string {
	return forge(sha256.New, secret, header, `{"sub":"alice","org":"demo","exp":`+exp+`}`)
}

func claims(more string) string {
	return sign(`{"sub":"alice","org":"demo","exp":` + exp + more + `}`)
}

func TestTokensRefused(t *testing.T) {
	a := newAuth(t)
	if _, err := a.VerifyToken(t.Context(), good(hs256)); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good(hs256), ".")
	attacker := []byte(strings.Repeat("x", 32))
	const notValid = "the token is not valid"
	acmeToken := func(aud string) string {
		return forge(sha256.New, acme, hs256, `{"iss":"acme",`+aud+`"sub":"a","https://acme.example/org":"acme","exp":`+exp+`}`)
	}
	many := `["` + strings.Repeat(`a","`, auth.MaxPatterns) + `a"]`

	for _, tc := range []struct {
		name, token, message string // the message begins so; exactly notValid if it is that
	}{
		// Form (RFC 7515 §7.1): three parts, base64url, no padding, one spelling.
		{"empty", "", notValid},
		{"words", "Bearer x", notValid},
		{"one part", parts[0], notValid},
		{"two parts", parts[0] + "." + parts[1], notValid},
		{"four parts", good(hs256) + ".", notValid},
		{"five parts, a JWE", good(hs256) + ".a.b", notValid},
		{"a very long run of dots", strings.Repeat(".", 8000), notValid},
		{"no signature", parts[0] + "." + parts[1] + ".", notValid},
		{"no claims", parts[0] + ".." + parts[2], notValid},
		{"no header", "." + parts[1] + "." + parts[2], notValid},
		{"padding", good(hs256) + "=", notValid},
		{"padding in the claims", parts[0] + "." + parts[1] + "==." + parts[2], notValid},
		{"a space before", " " + good(hs256), notValid},
		{"a space behind", good(hs256) + " ", notValid},
		{"a newline inside", parts[0] + "." + parts[1] + "." + parts[2][:5] + "\n" + parts[2][5:], notValid},
		{"a newline behind", good(hs256) + "\r\n", notValid},
		{"base64 of the other alphabet", parts[0] + "." + parts[1] + "." + strings.Repeat("+/", 21) + "A", notValid},
		{"another spelling of the signature", good(hs256)[:len(good(hs256))-1] + next(parts[2][len(parts[2])-1]), notValid},
		{"a signature cut short", good(hs256)[:len(good(hs256))-4], notValid},
		{"too long", good(hs256) + strings.Repeat("A", auth.DefaultMaxTokenBytes), "the token is not valid: it is longer than 8192 bytes"},
		{"an API key", "ck_abc_def", "an API key belongs in the Authorization header"},

		// Header (RFC 7515 §4, RFC 8725 §3.1, §3.2).
		{"alg none, no signature", b64(`{"alg":"none"}`) + "." + parts[1] + ".", notValid},
		{"alg none, signed", good(`{"alg":"none"}`), notValid},
		{"alg None", good(`{"alg":"None"}`), notValid},
		{"alg hs256", good(`{"alg":"hs256"}`), notValid},
		{"alg RS256 with an HMAC", good(`{"alg":"RS256"}`), notValid},
		{"alg HS512", forge(sha512.New, secret, `{"alg":"HS512"}`, `{"sub":"alice","org":"demo","exp":`+exp+`}`), notValid},
		{"alg HS384 with the HMAC of HS256", good(`{"alg":"HS384"}`), notValid},
		{"no alg", good(`{"typ":"JWT"}`), notValid},
		{"alg a number", good(`{"alg":256}`), notValid},
		{"alg null", good(`{"alg":null}`), notValid},
		{"alg in a list", good(`{"alg":["HS256"]}`), notValid},
		{"ALG", good(`{"ALG":"HS256"}`), notValid},
		{"alg twice", good(`{"alg":"HS256","alg":"HS256"}`), notValid},
		{"crit", good(`{"alg":"HS256","crit":["exp"],"exp":1}`), notValid},
		{"crit, empty", good(`{"alg":"HS256","crit":[]}`), notValid},
		{"b64 false without crit", good(`{"alg":"HS256","b64":false}`), notValid},
		{"kid a number", good(`{"alg":"HS256","kid":1}`), notValid},
		{"kid twice", good(`{"alg":"HS256","kid":"a","kid":"a"}`), notValid},
		{"kid very long", good(`{"alg":"HS256","kid":"` + strings.Repeat("k", 257) + `"}`), notValid},
		{"typ empty", good(`{"alg":"HS256","typ":""}`), notValid},
		{"typ application/", good(`{"alg":"HS256","typ":"application/"}`), notValid},
		{"crit twice", good(`{"alg":"HS256","crit":[],"crit":null}`), notValid},
		{"b64 false with crit", good(`{"alg":"HS256","b64":false,"crit":["b64"]}`), notValid},
		{"a token for another purpose", good(`{"alg":"HS256","typ":"secevent+jwt"}`), notValid},
		{"typ a number", good(`{"alg":"HS256","typ":1}`), notValid},
		{"header not JSON", good(`alg`), notValid},
		{"header a list", good(`["alg"]`), notValid},
		{"header empty", good(`{}`), notValid},
		{"more behind the header", good(hs256 + `{}`), notValid},
		{"header not UTF-8", good("{\"alg\":\"HS256\",\"a\":\"\xff\"}"), notValid},
		{"header with a BOM", good("\ufeff" + hs256), notValid},

		// Signature: only configured secrets count.
		{"another secret", forge(sha256.New, attacker, hs256, `{"sub":"alice","org":"demo","exp":`+exp+`}`), notValid},
		{"the key brought along", forge(sha256.New, attacker, `{"alg":"HS256","jwk":{"kty":"oct","k":"`+b64(string(attacker))+`"}}`, `{"sub":"alice","org":"demo","exp":`+exp+`}`), notValid},
		{"the empty secret", forge(sha256.New, nil, hs256, `{"sub":"alice","org":"demo","exp":`+exp+`}`), notValid},
		{"other claims under a good signature", parts[0] + "." + b64(`{"sub":"root","org":"demo","exp":`+exp+`}`) + "." + parts[2], notValid},

		// The issuer chooses the key.
		{"an unknown issuer", claims(`,"iss":"nobody"`), notValid},
		{"the empty issuer", claims(`,"iss":""`), notValid},
		{"issuer null", claims(`,"iss":null`), notValid},
		{"iss twice", claims(`,"iss":"acme","iss":"acme"`), notValid},
		{"another issuer's secret", forge(sha256.New, secret, hs256, `{"iss":"acme","aud":"carillon","sub":"a","https://acme.example/org":"acme","exp":`+exp+`}`), notValid},
		{"no issuer, a named one's secret", forge(sha256.New, acme, hs256, `{"aud":"carillon","sub":"a","org":"acme","exp":`+exp+`}`), notValid},
		{"Iss is not iss", forge(sha256.New, acme, hs256, `{"Iss":"acme","aud":"carillon","sub":"a","org":"acme","exp":`+exp+`}`), notValid},
		{"no aud", acmeToken(``), notValid},
		{"another aud", acmeToken(`"aud":"carillon2",`), notValid},
		{"aud in capitals", acmeToken(`"aud":"Carillon",`), notValid},
		{"others' aud", acmeToken(`"aud":["a","b"],`), notValid},
		{"aud an empty list", acmeToken(`"aud":[],`), notValid},
		{"aud in an object", acmeToken(`"aud":{"carillon":1},`), "the token is not valid: aud is a string or a list of strings"},
		{"aud of mixed kinds", acmeToken(`"aud":["carillon",1],`), "the token is not valid: aud is a string or a list of strings"},
		{"aud twice", acmeToken(`"aud":"carillon","aud":"carillon",`), `the token is not valid: "aud" is there twice`},
		{"an org that the issuer may not name", forge(sha256.New, acme, hs256, `{"iss":"acme","aud":"carillon","sub":"a","https://acme.example/org":"demo","exp":`+exp+`}`), notValid},
		{"an org that does not exist", sign(`{"sub":"a","org":"nowhere","exp":` + exp + `}`), notValid},
		{"a disabled org", sign(`{"sub":"a","org":"closed","exp":` + exp + `}`), notValid},

		// Claims (RFC 7519 §4): exact names, no repetition, the right kinds.
		{"claims not JSON", sign(`sub`), notValid},
		{"claims a list", sign(`["sub"]`), notValid},
		{"claims a string", sign(`"sub"`), notValid},
		{"claims empty", sign(``), notValid},
		{"claims not UTF-8", claims(",\"x\":\"\xc3\x28\""), notValid},
		{"deep claims", sign(`{"a":` + strings.Repeat("[", 2900) + strings.Repeat("]", 2900)), notValid},
		{"no exp", sign(`{"sub":"a","org":"demo"}`), "the token is not valid: it needs exp"},
		{"Exp is not exp", sign(`{"sub":"a","org":"demo","EXP":` + exp + `}`), "the token is not valid: it needs exp"},
		{"exp a string", sign(`{"sub":"a","org":"demo","exp":"` + exp + `"}`), "the token is not valid: exp is a number"},
		{"exp null", sign(`{"sub":"a","org":"demo","exp":null}`), "the token is not valid: exp is a number"},
		{"exp true", sign(`{"sub":"a","org":"demo","exp":true}`), "the token is not valid: exp is a number"},
		{"exp in milliseconds", sign(`{"sub":"a","org":"demo","exp":` + exp + `000}`), "the token is not valid: exp is out of range; it is seconds since 1970, not milliseconds"},
		{"exp huge", sign(`{"sub":"a","org":"demo","exp":1e300}`), "the token is not valid: exp is out of range"},
		{"exp beyond huge", sign(`{"sub":"a","org":"demo","exp":1e999}`), "the token is not valid: exp is out of range"},
		{"exp negative", sign(`{"sub":"a","org":"demo","exp":-1}`), "the token is not valid: exp is out of range"},
		{"exp twice", claims(`,"exp":` + exp), `the token is not valid: "exp" is there twice`},
		{"exp twice, once in disguise", claims(`,"e\u0078p":` + exp), `the token is not valid: "exp" is there twice`},
		{"expired", sign(`{"sub":"a","org":"demo","exp":1799999970}`), "the token has expired"},
		{"expired long ago", sign(`{"sub":"a","org":"demo","exp":0}`), "the token has expired"},
		{"nbf in the future", claims(`,"nbf":1800000031`), "the token is not valid: its nbf is in the future"},
		{"nbf a string", claims(`,"nbf":"1"`), "the token is not valid: nbf is a number"},
		{"nbf twice", claims(`,"nbf":1,"nbf":2`), `the token is not valid: "nbf" is there twice`},
		{"no sub", sign(`{"org":"demo","exp":` + exp + `}`), "the token is not valid: it needs sub, the user"},
		{"Sub is not sub", sign(`{"Sub":"a","org":"demo","exp":` + exp + `}`), "the token is not valid: it needs sub, the user"},
		{"sub empty", sign(`{"sub":"","org":"demo","exp":` + exp + `}`), "the token is not valid: sub: a user is 1–255 bytes"},
		{"sub a number", sign(`{"sub":1,"org":"demo","exp":` + exp + `}`), `the token is not valid: "sub": not a string`},
		{"sub with a control character", sign(`{"sub":"a\u0000","org":"demo","exp":` + exp + `}`), "the token is not valid: sub: a user is UTF-8 without control characters"},
		{"sub half a pair", sign(`{"sub":"\ud800","org":"demo","exp":` + exp + `}`), `the token is not valid: "sub": not UTF-8`},
		{"sub too long", sign(`{"sub":"` + strings.Repeat("a", 256) + `","org":"demo","exp":` + exp + `}`), "the token is not valid: sub: a user is 1–255 bytes"},
		{"sub twice", claims(`,"sub":"root"`), `the token is not valid: "sub" is there twice`},
		{"no org", sign(`{"sub":"a","exp":` + exp + `}`), "the token is not valid: it needs org, the organization"},
		{"ORG is not org", sign(`{"sub":"a","ORG":"demo","exp":` + exp + `}`), "the token is not valid: it needs org, the organization"},
		{"org invalid", sign(`{"sub":"a","org":"De mo","exp":` + exp + `}`), `the token is not valid: org: org "De mo"`},
		{"org a subject with a dot", sign(`{"sub":"a","org":"demo.>","exp":` + exp + `}`), `the token is not valid: org: org "demo.>"`},
		{"org a list", sign(`{"sub":"a","org":["demo"],"exp":` + exp + `}`), `the token is not valid: "org": not a string`},
		{"org twice", claims(`,"org":"other"`), `the token is not valid: "org" is there twice`},
		{"role not known", claims(`,"role":"root"`), "the token is not valid: role is member, publisher or admin"},
		{"role in capitals", claims(`,"role":"Admin"`), "the token is not valid: role is member, publisher or admin"},
		{"role empty", claims(`,"role":""`), "the token is not valid: role is member, publisher or admin"},
		{"role null", claims(`,"role":null`), `the token is not valid: "role": not a string`},
		{"role a list", claims(`,"role":["admin"]`), `the token is not valid: "role": not a string`},
		{"role twice", claims(`,"role":"member","role":"admin"`), `the token is not valid: "role" is there twice`},

		// Permissions.
		{"permissions null", claims(`,"permissions":null`), "the token is not valid: permissions: it is an object"},
		{"permissions a list", claims(`,"permissions":["a"]`), "the token is not valid: permissions: it is an object"},
		{"permissions twice", claims(`,"permissions":{},"permissions":{}`), `the token is not valid: "permissions" is there twice`},
		{"an unknown key", claims(`,"permissions":{"sub":[]}`), `the token is not valid: permissions: "sub" is not known; it has subscribe, publish and rooms`},
		{"a key in capitals", claims(`,"permissions":{"Subscribe":[]}`), `the token is not valid: permissions: "Subscribe" is not known`},
		{"a key twice", claims(`,"permissions":{"subscribe":["a"],"subscribe":[">"]}`), `the token is not valid: permissions: "subscribe" is there twice`},
		{"a list null", claims(`,"permissions":{"subscribe":null}`), "the token is not valid: permissions: subscribe is not a list of strings"},
		{"a list a string", claims(`,"permissions":{"subscribe":">"}`), "the token is not valid: permissions: subscribe is not a list of strings"},
		{"a number in a list", claims(`,"permissions":{"publish":[1]}`), "the token is not valid: permissions: publish is not a list of strings"},
		{"a bad pattern", claims(`,"permissions":{"subscribe":["ord*"]}`), `the token is not valid: permissions: pattern "ord*"`},
		{"an empty pattern", claims(`,"permissions":{"publish":[""]}`), "the token is not valid: permissions: pattern is empty"},
		{"a bad glob", claims(`,"permissions":{"rooms":["a b"]}`), `the token is not valid: permissions: room glob "a b"`},
		{"more than a thousand patterns", claims(`,"permissions":{"subscribe":` + many + `}`), "the token is not valid: permissions: more than 1000 patterns"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := a.VerifyToken(t.Context(), tc.token)
			if err == nil {
				t.Fatalf("accepted as %+v", p)
			}
			e, ok := err.(*carillon.Error)
			if !ok || e.Code != carillon.CodeUnauthenticated {
				t.Fatalf("error is %T %v", err, err)
			}
			if tc.message == notValid && e.Message != notValid || !strings.HasPrefix(e.Message, tc.message) {
				t.Errorf("message is %q, not %q", e.Message, tc.message)
			}
			if e.Err == nil && !strings.HasPrefix(tc.name, "an API key") {
				t.Error("there is no reason for the log")
			}
			if len(tc.token) > 40 && strings.Contains(err.Error(), tc.token[len(tc.token)-20:]) {
				t.Errorf("the error tells the token: %v", err)
			}
		})
	}
}

// next is the base64url letter after c, which differs in the last bits only.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)+1:][:1]
}

// Whoever may sign in an open directory makes organizations; who may not, does not.
func TestOpenDirectoryMakesOrganizationsOnlyForGoodTokens(t *testing.T) {
	dir, err := org.NewDirectory(org.Config{Open: true})
	if err != nil {
		t.Fatal(err)
	}
	a, err := auth.New(auth.Config{Issuers: []auth.Issuer{{Secrets: [][]byte{secret}, Any: true}}, Orgs: dir, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	body := `{"sub":"a","org":"new","exp":` + exp + `}`
	if _, err := a.VerifyToken(t.Context(), forge(sha256.New, rotated, hs256, body)); err == nil || len(dir.IDs()) != 0 {
		t.Errorf("a bad signature: %v, orgs %v", err, dir.IDs())
	}
	if p, err := a.VerifyToken(t.Context(), sign(body)); err != nil || p.Org != "new" {
		t.Errorf("%+v, %v", p, err)
	}
	if d := cmp.Diff([]carillon.OrgID{"new"}, dir.IDs()); d != "" {
		t.Error(d)
	}
}

func TestSignedTokensVerify(t *testing.T) {
	a := newAuth(t)
	c := auth.Claims{
		User: "a <b>", Org: "demo", Role: carillon.RolePublisher, Expires: now.Add(time.Hour),
		Permissions: &carillon.Permissions{Subscribe: []carillon.Pattern{"a.>"}},
	}
	token, err := auth.Sign(secret, c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.VerifyToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	want := &carillon.Principal{Org: "demo", User: "a <b>", Role: carillon.RolePublisher, Expires: now.Add(time.Hour), Permissions: c.Permissions}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	token, err = auth.Sign(acme, auth.Claims{Issuer: "acme", Audience: "carillon", OrgClaim: "https://acme.example/org", User: "a", Org: "acme", Expires: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.VerifyToken(t.Context(), token); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]auth.Claims{
		"no user":       {Org: "demo", Expires: now},
		"no org":        {User: "a", Expires: now},
		"no expiry":     {User: "a", Org: "demo"},
		"a bad role":    {User: "a", Org: "demo", Role: "root", Expires: now},
		"a bad glob":    {User: "a", Org: "demo", Expires: now, Permissions: &carillon.Permissions{Rooms: []string{""}}},
		"a taken claim": {User: "a", Org: "demo", OrgClaim: "exp", Expires: now},
	} {
		if token, err := auth.Sign(secret, c); err == nil {
			t.Errorf("%s: signed as %s", name, token)
		}
	}
	if _, err := auth.Sign([]byte("short"), c); err == nil {
		t.Error("signed with a short secret")
	}
}

// FuzzVerify: whatever is signed, claims are read as encoding/json reads them
// where it is not lenient, and nothing panics.
func FuzzVerify(f *testing.F) {
	f.Add(hs256, `{"sub":"a","org":"demo","exp":`+exp+`}`)
	f.Add(`{"alg":"none"}`, `{}`)
	f.Add(` {"alg" : "HS256"} `, `{"permissions":{"subscribe":["a.*"]},"sub":"a\"\\","aud":["x",{"y":[]}],"org":"demo","exp":1.8e9}`)
	f.Add(hs256, `{"":0,"a":-1.5e+3,"b":true,"c":null,"d":[[],{}]}`)
	a := newAuth(f)
	f.Fuzz(func(t *testing.T, header, body string) {
		token := forge(sha256.New, secret, header, body)
		p, err := a.VerifyToken(t.Context(), token)
		// Without the right signature, never.
		if p2, err := a.VerifyToken(t.Context(), token[:strings.LastIndexByte(token, '.')+1]+b64(strings.Repeat("x", 32))); err == nil {
			t.Fatalf("accepted without a signature: %+v", p2)
		}
		_, _ = a.VerifyBearer(t.Context(), header)
		if err != nil {
			if e, ok := err.(*carillon.Error); !ok || e.Code != carillon.CodeUnauthenticated {
				t.Fatalf("error is %T %v", err, err)
			}
			return
		}
		var h, m map[string]any
		if err := json.Unmarshal([]byte(header), &h); err != nil || h["alg"] != "HS256" || h["crit"] != nil {
			t.Fatalf("header accepted: %q", header)
		}
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatalf("claims accepted: %q, %v", body, err)
		}
		if m["sub"] != p.User || m["org"] != string(p.Org) || p.Expires.Before(now) {
			t.Fatalf("%q is %+v", body, p)
		}
		if _, err := carillon.ParseUser(p.User); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkVerifyHS256(b *testing.B) {
	a := newAuth(b)
	for name, token := range map[string]string{
		"least":       sign(`{"sub":"alice","org":"demo","exp":` + exp + `}`),
		"permissions": sign(`{"sub":"alice","org":"demo","exp":` + exp + `,"role":"member","jti":"0123456789","permissions":{"subscribe":["orders.>","workflow.*.completed"],"publish":["orders.created"],"rooms":["ops-*"]}}`),
		"forged":      forge(sha256.New, acme, hs256, `{"sub":"alice","org":"demo","exp":`+exp+`}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.VerifyToken(b.Context(), token); (err != nil) != (name == "forged") {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerifyKey(b *testing.B) {
	var keys []org.Key
	var text string
	for range 1000 {
		var k org.Key
		text, k = org.NewKey("demo")
		keys = append(keys, k)
	}
	a := newAuth(b, keys...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.VerifyKey(text); err != nil {
			b.Fatal(err)
		}
	}
}

func Example() {
	text, key := org.NewKey("demo")
	dir, _ := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: "demo", Keys: []org.Key{key}}}})
	a, _ := auth.New(auth.Config{Orgs: dir})
	p, err := a.VerifyBearer(context.Background(), text)
	fmt.Println(p.Org, p.Role, err)
	// Output: demo admin <nil>
}
