package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/org"
)

// The keys of the tests' issuers, and of somebody else.
var (
	rsaKey, rsaOther     = must(rsa.GenerateKey(rand.Reader, 2048)), must(rsa.GenerateKey(rand.Reader, 2048))
	ecKey, ecOther       = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	edPublic, edKey, _   = ed25519.GenerateKey(rand.Reader)
	_, edOther, _        = ed25519.GenerateKey(rand.Reader)
	signers              = map[auth.Algorithm]crypto.Signer{auth.RS256: rsaKey, auth.ES256: ecKey, auth.EdDSA: edKey}
	strangers            = map[auth.Algorithm]crypto.Signer{auth.RS256: rsaOther, auth.ES256: ecOther, auth.EdDSA: edOther}
	asymmetricAlgorithms = []auth.Algorithm{auth.RS256, auth.ES256, auth.EdDSA}
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func weakRSA(t *testing.T) *rsa.PublicKey {
	t.Helper()
	n := new(big.Int).Lsh(big.NewInt(1), 1023)
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}
}

func p384(t *testing.T) *ecdsa.PublicKey {
	t.Helper()
	return &must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)).PublicKey
}

// signature signs as RFC 7518 §3 says, whatever the header says.
func signature(key crypto.Signer, signed string) []byte {
	sum := sha256.Sum256([]byte(signed))
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return must(rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:]))
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			panic(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case ed25519.PrivateKey:
		return ed25519.Sign(key, []byte(signed))
	}
	panic("no such key")
}

// issue makes a token with any header and claims, signed with a key.
func issue(key crypto.Signer, header, claims string) string {
	signed := b64(header) + "." + b64(claims)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature(key, signed))
}

func claimsOf(iss string) string {
	return fmt.Sprintf(`{"iss":%q,"sub":"alice","org":"demo","exp":%s}`, iss, exp)
}

func head(alg auth.Algorithm) string { return fmt.Sprintf(`{"alg":%q}`, alg) }

// newPublicAuth knows an issuer for each algorithm, named like it, one with all
// keys and a secret, "all", and one that wants at+jwt, "typed".
func newPublicAuth(t testing.TB) *auth.Authenticator {
	t.Helper()
	return newPublicAuthThatRemembers(t, 1000)
}

func newPublicAuthThatRemembers(t testing.TB, most int) *auth.Authenticator {
	t.Helper()
	dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: "demo"}}})
	if err != nil {
		t.Fatal(err)
	}
	all := []any{&rsaOther.PublicKey, rsaKey.Public(), ecOther.Public(), ecKey.Public(), edPublic}
	issuers := []auth.Issuer{
		{Issuer: "HS256", Any: true, Secrets: [][]byte{secret}},
		{Issuer: "all", Any: true, Keys: all, Secrets: [][]byte{secret, rotated}},
		{Issuer: "typed", Any: true, Keys: all, Type: "at+JWT"},
	}
	for _, alg := range asymmetricAlgorithms {
		issuers = append(issuers, auth.Issuer{Issuer: string(alg), Any: true, Keys: []any{signers[alg].Public()}})
	}
	a, err := auth.New(auth.Config{Issuers: issuers, Orgs: dir, Verified: most, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestEveryAlgorithmVerifiesWithItsKey(t *testing.T) {
	a := newPublicAuth(t)
	for _, alg := range asymmetricAlgorithms {
		for _, iss := range []string{string(alg), "all"} {
			p, err := a.VerifyToken(t.Context(), issue(signers[alg], head(alg), claimsOf(iss)))
			if err != nil || p.User != "alice" || p.Org != "demo" {
				t.Errorf("%s of issuer %s: %+v, %v", alg, iss, p, err)
			}
		}
	}
	for _, key := range []crypto.Signer{rsaOther, ecOther} { // the one before the rotation
		alg := auth.RS256
		if key == crypto.Signer(ecOther) {
			alg = auth.ES256
		}
		if _, err := a.VerifyToken(t.Context(), issue(key, head(alg), claimsOf("all"))); err != nil {
			t.Errorf("%s with the other key: %v", alg, err)
		}
	}
	if _, err := a.VerifyToken(t.Context(), forge(sha256.New, rotated, hs256, claimsOf("all"))); err != nil {
		t.Errorf("a secret beside keys: %v", err)
	}
}

// What RFC 8725 warns of, where the key is public.
func TestTheKeyFixesTheAlgorithm(t *testing.T) {
	a := newPublicAuth(t)
	refuse := func(name, token string) {
		t.Helper()
		p, err := a.VerifyToken(t.Context(), token)
		e := carillon.AsError(err)
		switch {
		case err == nil:
			t.Errorf("%s: accepted as %+v", name, p)
		case e.Code != carillon.CodeUnauthenticated || e.Message != "the token is not valid" || e.Err == nil:
			t.Errorf("%s: %v", name, err)
		}
	}
	der := func(public any) []byte { return must(x509.MarshalPKIXPublicKey(public)) }
	for _, alg := range asymmetricAlgorithms {
		public := signers[alg].Public()
		iss := string(alg)
		for form, secret := range map[string][]byte{
			"PEM":      pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der(public)}),
			"DER":      der(public),
			"its text": fmt.Appendf(nil, "%v", public),
		} {
			refuse(iss+"'s public key as "+form+" for a secret", forge(sha256.New, secret, hs256, claimsOf(iss)))
			refuse(iss+"'s public key as "+form+" for a secret, alg as configured", forge(sha256.New, secret, head(alg), claimsOf(iss)))
		}
		refuse(iss+": a stranger's key", issue(strangers[alg], head(alg), claimsOf(iss)))
		refuse(iss+": alg none", b64(`{"alg":"none"}`)+"."+b64(claimsOf(iss))+".")
		refuse(iss+": no signature", b64(head(alg))+"."+b64(claimsOf(iss))+".")
		refuse(iss+": for an issuer with a secret", issue(signers[alg], head(alg), claimsOf("HS256")))
		for _, other := range asymmetricAlgorithms {
			if other == alg {
				continue
			}
			refuse(fmt.Sprintf("%s signed, %s said", alg, other), issue(signers[alg], head(other), claimsOf("all")))
			refuse(fmt.Sprintf("%s for an issuer with %s", alg, other), issue(signers[alg], head(alg), claimsOf(string(other))))
		}
		for _, said := range []string{"RS512", "PS256", "ES384", "ES256K", "ED25519", "Ed25519", "eddsa", "rs256", "HS512"} {
			refuse(fmt.Sprintf("%s, and alg %s", alg, said), issue(signers[alg], head(auth.Algorithm(said)), claimsOf(iss)))
		}
		brought := issue(strangers[alg], fmt.Sprintf(`{"alg":%q,"jwk":{"kty":"OKP","crv":"Ed25519","x":%q},"jku":"https://evil.example/","x5u":"https://evil.example/","x5c":["AA"],"kid":"x"}`,
			alg, base64.RawURLEncoding.EncodeToString(edOther.Public().(ed25519.PublicKey))), claimsOf(iss))
		refuse(iss+": keys brought along", brought)
		token := issue(signers[alg], head(alg), claimsOf(iss))
		parts := strings.Split(token, ".")
		refuse(iss+": other claims", parts[0]+"."+b64(strings.Replace(claimsOf(iss), "alice", "root", 1))+"."+parts[2])
		refuse(iss+": another header", b64(` `+head(alg))+"."+parts[1]+"."+parts[2])
		refuse(iss+": a signature cut short", token[:len(token)-4])
		refuse(iss+": a longer signature", token+"AAAA")
		refuse(iss+": a signature of zeros", parts[0]+"."+parts[1]+"."+base64.RawURLEncoding.EncodeToString(make([]byte, 64)))
	}

	signed := b64(head(auth.ES256)) + "." + b64(claimsOf("ES256"))
	sum := sha256.Sum256([]byte(signed))
	asn := must(ecdsa.SignASN1(rand.Reader, ecKey, sum[:]))
	refuse("ES256 in DER", signed+"."+base64.RawURLEncoding.EncodeToString(asn))
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(asn, &rs); err != nil {
		t.Fatal(err)
	}
	wide := append(rs.R.FillBytes(make([]byte, 48)), rs.S.FillBytes(make([]byte, 48))...)
	refuse("ES256 as wide as ES384", signed+"."+base64.RawURLEncoding.EncodeToString(wide))
	right := append(rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))...)
	if _, err := a.VerifyToken(t.Context(), signed+"."+base64.RawURLEncoding.EncodeToString(right)); err != nil {
		t.Errorf("the same as RFC 7518 §3.4 has it: %v", err)
	}
}

func TestATypCanBeDemanded(t *testing.T) {
	a := newPublicAuth(t)
	for typ, ok := range map[string]bool{
		`,"typ":"at+jwt"`: true, `,"typ":"AT+JWT"`: true, `,"typ":"application/at+jwt"`: true,
		``: false, `,"typ":"JWT"`: false, `,"typ":"jwt"`: false, `,"typ":"application/jwt"`: false, `,"typ":"secevent+jwt"`: false,
	} {
		_, err := a.VerifyToken(t.Context(), issue(edKey, `{"alg":"EdDSA"`+typ+`}`, claimsOf("typed")))
		if (err == nil) != ok {
			t.Errorf("typed, a token with %q: %v", typ, err)
		}
	}
}

func TestWhichKeyIsInUseIsCounted(t *testing.T) {
	a := newPublicAuth(t)
	for i, token := range []string{
		forge(sha256.New, rotated, hs256, claimsOf("all")),
		forge(sha256.New, rotated, hs256, claimsOf("all")),
		issue(edKey, head(auth.EdDSA), claimsOf("all")),
	} {
		if _, err := a.VerifyToken(t.Context(), token); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	_, _ = a.VerifyToken(t.Context(), forge(sha256.New, acme, hs256, claimsOf("all"))) // refused, and not counted for a key
	got := map[string]uint64{}
	for _, k := range a.Stats().Keys {
		if k.Issuer == "all" {
			got[k.Key] = k.Tokens
		}
	}
	if len(got) != 7 || got["secret 1"] != 0 || got["secret 2"] != 2 {
		t.Errorf("counts are %v", got)
	}
	// RFC 7638, section 3.
	canonical := fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, base64.RawURLEncoding.EncodeToString(edPublic))
	sum := sha256.Sum256([]byte(canonical))
	if got[base64.RawURLEncoding.EncodeToString(sum[:])] != 1 {
		t.Errorf("the Ed25519 key, by its thumbprint: %v", got)
	}
	if n := a.Stats().Refused; n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
}

func BenchmarkVerifyPublicKey(b *testing.B) {
	a := newPublicAuthThatRemembers(b, 0)
	for _, alg := range asymmetricAlgorithms {
		token := issue(signers[alg], head(alg), claimsOf(string(alg)))
		b.Run(string(alg), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.VerifyToken(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
