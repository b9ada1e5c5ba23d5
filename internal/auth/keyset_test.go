package auth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/org"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// jwk is the public half of a key as JSON, with more members.
func jwk(key crypto.Signer, more string) string {
	b := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	switch k := key.Public().(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q%s}`, b(k.N.Bytes()), b(big.NewInt(int64(k.E)).Bytes()), more)
	case *ecdsa.PublicKey:
		point := must(k.Bytes())
		return fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q%s}`, b(point[1:33]), b(point[33:]), more)
	case ed25519.PublicKey:
		return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q%s}`, b(k), more)
	}
	panic("no such key")
}

func named(key crypto.Signer, kid string) string { return jwk(key, fmt.Sprintf(`,"kid":%q`, kid)) }

func set(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// publisher is an issuer's web server.
type publisher struct {
	*httptest.Server

	asked atomic.Int64

	mu     sync.Mutex
	answer func(w http.ResponseWriter)
}

func publish(t *testing.T, text string) *publisher {
	t.Helper()
	p := new(publisher)
	p.say(text)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.asked.Add(1)
		p.mu.Lock()
		answer := p.answer
		p.mu.Unlock()
		answer(w)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *publisher) do(answer func(w http.ResponseWriter)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func (p *publisher) say(text string) {
	p.do(func(w http.ResponseWriter) { _, _ = w.Write([]byte(text)) })
}

// rig is an Authenticator of the issuer "pub", whose keys are published, and of
// the one without a name, which has a secret.
type rig struct {
	*auth.Authenticator

	t    *testing.T
	now  atomic.Int64
	log  syncBuffer
	stop func() // and wait for Run
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newRig(t *testing.T, jwks auth.JWKS, policy auth.JWKSPolicy) *rig {
	t.Helper()
	dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: "demo"}}})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t}
	r.now.Store(now.UnixNano())
	r.Authenticator, err = auth.New(auth.Config{
		Issuers: []auth.Issuer{{Secrets: [][]byte{secret}, Any: true}, {Issuer: "pub", JWKS: &jwks, Any: true}},
		Orgs:    dir, JWKS: policy, Verified: 1000,
		Logger: slog.New(slog.NewTextHandler(&r.log, nil)),
		Now:    func() time.Time { return time.Unix(0, r.now.Load()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx) }()
	r.stop = func() { cancel(); <-ended }
	t.Cleanup(r.stop)
	return r
}

// pass moves the clock.
func (r *rig) pass(d time.Duration) { r.now.Add(int64(d)) }

// verify is what becomes of a token: "" or the code of its refusal.
func (r *rig) verify(token string) carillon.Code {
	r.t.Helper()
	p, err := r.VerifyToken(r.t.Context(), token)
	if err == nil {
		if p == nil || p.User != "alice" {
			r.t.Errorf("principal is %+v", p)
		}
		return ""
	}
	return carillon.AsError(err).Code
}

func (r *rig) want(what, token string, code carillon.Code) {
	r.t.Helper()
	if got := r.verify(token); got != code {
		r.t.Errorf("%s: %q, want %q", what, got, code)
	}
}

func kid(key crypto.Signer, name string) string {
	alg := auth.EdDSA
	switch key.(type) {
	case *rsa.PrivateKey:
		alg = auth.RS256
	case *ecdsa.PrivateKey:
		alg = auth.ES256
	}
	return issue(key, fmt.Sprintf(`{"alg":%q,"kid":%q}`, alg, name), claimsOf("pub"))
}

const (
	refused401 = carillon.CodeUnauthenticated
	later      = carillon.CodeUnavailable
)

func TestPublishedKeysVerify(t *testing.T) {
	pub := publish(t, set(named(rsaKey, "r"), named(ecKey, "e"), named(edKey, "d"), named(edOther, "d2")))
	r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{})
	r.want("RSA", kid(rsaKey, "r"), "")
	r.want("ECDSA", kid(ecKey, "e"), "")
	r.want("Ed25519", kid(edKey, "d"), "")
	r.want("the other Ed25519", kid(edOther, "d2"), "")
	r.want("no kid, one key for the algorithm", issue(rsaKey, head(auth.RS256), claimsOf("pub")), "")
	r.want("no kid, several keys for the algorithm", issue(edKey, head(auth.EdDSA), claimsOf("pub")), refused401)
	r.want("another key's kid", kid(edKey, "d2"), refused401)
	r.want("a key's kid with another algorithm", issue(edKey, `{"alg":"ES256","kid":"d"}`, claimsOf("pub")), later) // might be a new one
	r.want("an HMAC with a public key", forgeHS(edPublic), refused401)
	if n := pub.asked.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
	only := newRig(t, auth.JWKS{URL: pub.URL, Private: true, Algorithms: []auth.Algorithm{auth.ES256}}, auth.JWKSPolicy{})
	only.want("an algorithm that is listed", kid(ecKey, "e"), "")
	only.want("one that is not", kid(rsaKey, "r"), refused401)
	s := r.Stats()
	if len(s.Sets) != 1 || s.Sets[0].Issuer != "pub" || s.Sets[0].Keys != 4 || s.Sets[0].Fetches != 1 || s.Sets[0].Failures != 0 {
		t.Errorf("stats are %+v", s.Sets)
	}
	if len(s.Keys) != 5 {
		t.Errorf("keys are %+v", s.Keys)
	}
}

func forgeHS(key []byte) string {
	return forge(sha256.New, key, `{"alg":"HS256","kid":"d"}`, claimsOf("pub"))
}

func TestANewKeyIsFetchedOnceForAllWhoNeedIt(t *testing.T) {
	pub := publish(t, set(named(edKey, "old")))
	r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{MaxWaiting: 50})
	r.want("the first key", kid(edKey, "old"), "")
	r.pass(10 * time.Second)
	release := make(chan struct{})
	pub.do(func(w http.ResponseWriter) {
		<-release
		_, _ = w.Write([]byte(set(named(edKey, "old"), named(ecKey, "new"))))
	})
	answers := make(chan error, 100)
	token, bogus := kid(ecKey, "new"), kid(ecKey, "bogus")
	for range 25 { // Submit returns: nobody waits for the issuer
		r.Submit(token, func(_ *carillon.Principal, err error) { answers <- err })
		r.Submit(bogus, func(_ *carillon.Principal, err error) { answers <- err })
	}
	r.want("one more than may wait", token, later)
	r.want("who is known, meanwhile", kid(edKey, "old"), "")
	select {
	case err := <-answers:
		t.Fatalf("an answer before the keys: %v", err)
	default:
	}
	close(release)
	refused := 0
	for range 50 {
		if err := <-answers; err != nil {
			if carillon.AsError(err).Code != refused401 {
				t.Error(err)
			}
			refused++
		}
	}
	if refused != 25 {
		t.Errorf("%d refused, want the 25 bogus", refused)
	}
	if n := pub.asked.Load(); n != 2 {
		t.Errorf("the keys were fetched %d times, want 2", n)
	}
	if n := r.Limits()["jwks_waiting"]; n != 1 {
		t.Errorf("jwks_waiting was met %d times", n)
	}
	r.want("bogus again", bogus, refused401)
	r.pass(time.Minute)
	pub.say(set(named(ecKey, "bogus")))
	r.want("which the issuer now has", bogus, "")
	r.want("which the issuer has no longer", kid(edKey, "old"), later) // known only after another question
	r.pass(10 * time.Second)
	r.want("asked", kid(edKey, "old"), refused401)
}

func TestAKeyThatCameInBetweenIsNotAskedForAgain(t *testing.T) {
	pub := publish(t, set(named(edKey, "k")))
	r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{})
	r.want("the key", kid(edKey, "k"), "")
	called := 0
	if err := r.Late("pub", auth.EdDSA, "k", func() { called++ }); err != nil || called != 1 || pub.asked.Load() != 1 {
		t.Errorf("%v, called %d times, asked %d times", err, called, pub.asked.Load())
	}
}

func TestForgedKidsExhaustNothing(t *testing.T) {
	pub := publish(t, set(named(edKey, "good")))
	r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{MaxUnknown: 5})
	good := kid(edKey, "good")
	r.want("the good one", good, "")
	const turns, each = 20, 50
	var answered sync.WaitGroup
	for i := range turns {
		r.pass(10 * time.Second)
		for j := range each {
			answered.Add(1)
			r.Submit(kid(edOther, fmt.Sprintf("forged %d %d", i, j)), func(_ *carillon.Principal, err error) {
				if err == nil {
					t.Error("a forged token is accepted")
				}
				answered.Done()
			})
		}
		answered.Wait()
		r.want("the good one", good, "")
	}
	if n := pub.asked.Load(); n > turns+1 {
		t.Errorf("%d forged kids made %d fetches, more than one per interval", turns*each, n)
	}
	if unknown, waiting, _ := r.Retained(); unknown > 5 || waiting != 0 {
		t.Errorf("%d names and %d tokens are remembered", unknown, waiting)
	}
	if r.Limits()["jwks_unknown"] == 0 {
		t.Error("the limit was met and not counted")
	}
	// A rotation in the middle of it: told to come back, never that it is bad.
	pub.say(set(named(edKey, "good"), named(ecKey, "new")))
	r.want("a new key while the issuer must not be asked", kid(ecKey, "new"), later)
	r.pass(10 * time.Second)
	r.want("a new key", kid(ecKey, "new"), "")
}

func TestADeadIssuerStopsNobodyElse(t *testing.T) {
	pub := publish(t, set(named(edKey, "k")))
	r := newRig(t, auth.JWKS{URL: pub.URL + "/keys?secret=hush", Private: true}, auth.JWKSPolicy{MaxStale: time.Hour})
	r.want("while it lives", kid(edKey, "k"), "")
	pub.Close()
	r.pass(10 * time.Second)
	_, err := r.VerifyToken(t.Context(), kid(ecKey, "new"))
	if e := carillon.AsError(err); e.Code != later || e.RetryAfter <= 0 {
		t.Errorf("a key that cannot be asked for: %v, want unavailable and when to come back", err)
	}
	r.want("a key that is known", kid(edKey, "k"), "")
	r.want("another issuer", sign(`{"sub":"alice","org":"demo","exp":`+exp+`}`), "")
	r.pass(30 * time.Second) // what could not be asked is not taken for unknown
	r.want("again", kid(ecKey, "new"), later)
	r.pass(time.Hour)
	r.want("a key that nobody could confirm for too long", kid(edKey, "k"), later)
	if s := r.Stats().Sets[0]; s.Failures == 0 || s.Age < time.Hour {
		t.Errorf("stats are %+v", s)
	}
	if log := r.log.String(); !strings.Contains(log, "could not be fetched") || strings.Contains(log, "hush") {
		t.Errorf("the log is\n%s", log)
	}
}

func TestAnIssuerThatNeverAnsweredIsAskedAgain(t *testing.T) {
	pub := publish(t, "")
	pub.do(func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) })
	r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{})
	r.want("before there are keys", kid(edKey, "k"), later)
	pub.say(set(named(edKey, "k")))
	r.pass(10 * time.Second)
	r.want("afterwards", kid(edKey, "k"), "")
}

func TestWhatIsNoSetChangesNothing(t *testing.T) {
	pub := publish(t, set(named(edKey, "k")))
	r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{MaxBytes: 2000, MaxKeys: 3})
	r.want("at first", kid(edKey, "k"), "")
	reached := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached = true
		_, _ = w.Write([]byte(set(named(ecKey, "new"))))
	}))
	defer elsewhere.Close()
	for name, answer := range map[string]func(w http.ResponseWriter){
		"an error with a set": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte(set(named(ecKey, "new"))))
		},
		"a redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusFound)
		},
		"a page":            func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) },
		"nothing":           func(http.ResponseWriter) {},
		"no keys member":    func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{}`)) },
		"keys in an object": func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"keys":{}}`)) },
		"too many bytes": func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(strings.Repeat(" ", 2000) + set(named(ecKey, "new"))))
		},
		"too many keys": func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(set(named(ecKey, "new"), named(ecKey, "2"), named(ecKey, "3"), named(ecKey, "4"))))
		},
		"cut in the middle": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(set(named(ecKey, "new"))))
		},
	} {
		pub.do(answer)
		r.pass(time.Minute)
		r.want(name+": a new key", kid(ecKey, "new"), later)
		r.want(name+": the old key", kid(edKey, "k"), "")
	}
	if reached {
		t.Error("the redirect was followed")
	}
	if l := r.Limits(); l["jwks_bytes"] != 1 || l["jwks_keys"] != 1 {
		t.Errorf("limits are %v", l)
	}
}

func TestKeysAreNotFetchedFromPrivateAddresses(t *testing.T) {
	pub := publish(t, set(named(edKey, "k")))
	r := newRig(t, auth.JWKS{URL: strings.Replace(pub.URL, "http:", "https:", 1)}, auth.JWKSPolicy{})
	r.want("a key at a loopback address", kid(edKey, "k"), later)
	if pub.asked.Load() != 0 || !strings.Contains(r.log.String(), "prohibited") {
		t.Errorf("asked %d times; the log is\n%s", pub.asked.Load(), r.log.String())
	}
}

func TestWhoWaitsIsToldWhenTheNodeStops(t *testing.T) {
	release := make(chan struct{})
	pub := publish(t, "")
	pub.do(func(http.ResponseWriter) { <-release })
	defer close(release)
	r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{Timeout: time.Minute})
	answers := make(chan error, 1)
	r.Submit(kid(edKey, "k"), func(_ *carillon.Principal, err error) { answers <- err })
	r.stop()
	if err := <-answers; carillon.AsError(err).Code != later {
		t.Errorf("who waited: %v", err)
	}
	r.want("who comes later", kid(edKey, "k"), later)
}

func TestAKeyThatStaysKeepsItsCount(t *testing.T) {
	pub := publish(t, set(named(edKey, "k")))
	r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{})
	r.want("once", kid(edKey, "k"), "")
	pub.say(set(named(edKey, "k"), named(ecKey, "new")))
	r.pass(10 * time.Second)
	r.want("a new key", kid(ecKey, "new"), "")
	r.want("twice", kid(edKey, "k"), "")
	got := map[uint64]int{}
	for _, k := range r.Stats().Keys {
		got[k.Tokens]++
	}
	if d := cmp.Diff(map[uint64]int{0: 1, 1: 1, 2: 1}, got); d != "" { // the secret, the new key, the one that stayed
		t.Error(d)
	}
}

func TestParseSet(t *testing.T) {
	es, rs := `"alg":"ES256"`, `"alg":"RS256"`
	for _, tc := range []struct{ name, set, want string }{
		{"nothing", set(), ""},
		{"one of each", set(named(rsaKey, "r"), named(ecKey, "e"), named(edKey, "d")), "ES256,ES256 e,EdDSA,EdDSA d,RS256,RS256 r"},
		{"alg as the kind has it", set(jwk(ecKey, `,"kid":"e",`+es), jwk(rsaKey, ","+rs)), "ES256,ES256 e,RS256"},
		{"two without names", set(jwk(ecKey, ""), jwk(ecOther, "")), "ES256 several"},
		{"three of one kind", set(named(ecKey, "a"), named(ecOther, "b"), jwk(ecOther, "")), "ES256 a,ES256 b,ES256 several"},
		{"one name for two kinds", set(named(ecKey, "k"), named(edKey, "k")), "ES256,ES256 k,EdDSA,EdDSA k"},
		{"for signatures", set(jwk(edKey, `,"use":"sig","key_ops":["verify","sign"]`)), "EdDSA"},
		{"for encryption", set(jwk(edKey, `,"use":"enc"`)), ""},
		{"for signing only", set(jwk(edKey, `,"key_ops":["sign"]`)), ""},
		{"key_ops no list", set(jwk(edKey, `,"key_ops":"verify"`)), ""},
		{"another algorithm of the kind", set(jwk(rsaKey, `,"alg":"RS512"`), jwk(rsaKey, `,"alg":"PS256"`), jwk(rsaKey, `,"alg":"HS256"`)), ""},
		{"another kind's algorithm", set(jwk(ecKey, ","+rs)), ""},
		{"a secret", set(`{"kty":"oct","k":"` + b64(string(secret)) + `","kid":"s","alg":"HS256"}`), ""},
		{"another curve", set(`{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}`, `{"kty":"OKP","crv":"X25519","x":"AA"}`), ""},
		{"not on the curve", set(`{"kty":"EC","crv":"P-256","x":"` + b64(strings.Repeat("a", 32)) + `","y":"` + b64(strings.Repeat("b", 32)) + `"}`), ""},
		{"a short coordinate", set(`{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`), ""},
		{"a short Ed25519 key", set(`{"kty":"OKP","crv":"Ed25519","x":"AAAA"}`), ""},
		{"a weak RSA key", set(`{"kty":"RSA","n":"` + b64(strings.Repeat("\xff", 128)) + `","e":"AQAB"}`), ""},
		{"a huge RSA key", set(`{"kty":"RSA","n":"` + b64(strings.Repeat("\xff", 1025)) + `","e":"AQAB"}`), ""},
		{"an exponent of 1", set(`{"kty":"RSA","n":"` + b64(strings.Repeat("\xff", 256)) + `","e":"AQ"}`), ""},
		{"an even exponent", set(`{"kty":"RSA","n":"` + b64(strings.Repeat("\xff", 256)) + `","e":"BA"}`), ""},
		{"a huge exponent", set(`{"kty":"RSA","n":"` + b64(strings.Repeat("\xff", 256)) + `","e":"_____w"}`), ""},
		{"no n", set(`{"kty":"RSA","e":"AQAB"}`), ""},
		{"padding", set(`{"kty":"OKP","crv":"Ed25519","x":"` + base64.URLEncoding.EncodeToString(edPublic) + `"}`), ""},
		{"a member twice", set(jwk(edKey, `,"kty":"OKP"`)), ""},
		{"kid a number", set(jwk(edKey, `,"kid":1`)), ""},
		{"things that are no keys", set(`1`, `null`, `[]`, `"x"`, `{}`, named(edKey, "d")), "EdDSA,EdDSA d"},
		{"members that mean nothing here", set(jwk(edKey, `,"x5u":"https://evil.example/","x5c":["AA"],"d":"AA","ext":true`)), "EdDSA"},
	} {
		got, err := auth.ParseSet([]byte(tc.set), 10, asymmetricAlgorithms...)
		if s := strings.Join(got, ","); err != nil || s != tc.want {
			t.Errorf("%s: %s, %v, want %s", tc.name, s, err, tc.want)
		}
	}
	got, err := auth.ParseSet([]byte(set(named(rsaKey, "r"), named(ecKey, "e"))), 10, auth.ES256)
	if s := strings.Join(got, ","); err != nil || s != "ES256,ES256 e" {
		t.Errorf("an issuer for whom only ES256 is listed: %s, %v", s, err)
	}
}

func FuzzParseSet(f *testing.F) {
	f.Add([]byte(set(named(rsaKey, "r"), named(ecKey, "e"), named(edKey, "d"))))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"","y":""},[],1,{"key_ops":[]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		names, err := auth.ParseSet(text, 10, asymmetricAlgorithms...)
		if err == nil && !json.Valid(text) {
			t.Fatalf("%q has %v", text, names)
		}
	})
}
