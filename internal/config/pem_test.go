package config_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/config"
)

// publicPEM is a public key as openssl writes it.
func publicPEM(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestPublicKeysComeFromFiles(t *testing.T) {
	ec := func(c elliptic.Curve) *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	n := new(big.Int).Lsh(big.NewInt(1), 2047)
	strong := &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}
	weak := &rsa.PublicKey{N: new(big.Int).Rsh(strong.N, 1), E: 65537}
	ed, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(edPrivate)
	if err != nil {
		t.Fatal(err)
	}
	p256 := publicPEM(t, ec(elliptic.P256()).Public())
	for name, tc := range map[string]struct {
		file, more string
		keys       int    // 0: refused
		says       string // then
	}{
		"RSA":                      {file: publicPEM(t, strong), keys: 1},
		"three kinds, with text":   {file: publicPEM(t, strong) + "\n" + p256 + "\n\n" + publicPEM(t, ed), keys: 3, more: ", algorithms: [ES256, RS256, EdDSA]"},
		"a weak RSA key":           {file: publicPEM(t, weak), says: "the RSA key has 2047 bits; it needs at least 2048"},
		"another curve":            {file: publicPEM(t, ec(elliptic.P384()).Public()), says: "the ECDSA key is on the curve P-384; tokens use P-256"},
		"a private key":            {file: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), says: "it has a private key, which belongs to the issuer alone"},
		"a certificate":            {file: strings.ReplaceAll(p256, "PUBLIC KEY", "CERTIFICATE"), says: "it has a CERTIFICATE; a public key begins with"},
		"no PEM":                   {file: "hello", says: "it is not PEM"},
		"PEM and more":             {file: p256 + "hello", says: "it is not PEM"},
		"empty":                    {file: "\n", says: "it is empty"},
		"no key in it":             {file: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", says: "the public key cannot be read"},
		"an algorithm not listed":  {file: p256, more: ", algorithms: [RS256]", says: "there is no key for RS256 in public_key_files"},
		"an algorithm for secrets": {file: p256, more: ", algorithms: [ES256, HS256]", says: "HS256 needs a secret, and there is none; a public key is none"},
	} {
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(path, []byte(tc.file), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Parse("c.yaml", fmt.Appendf(nil, "issuers: [{orgs: ['*'], public_key_files: [%s]%s}]", path, tc.more), nil)
		switch {
		case tc.keys == 0 && (err == nil || !strings.Contains(err.Error(), tc.says)):
			t.Errorf("%s: error is %v, want %q", name, err, tc.says)
		case tc.keys > 0 && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.keys > 0 && len(c.Issuers[0].PublicKeys()) != tc.keys:
			t.Errorf("%s: %d keys, want %d", name, len(c.Issuers[0].PublicKeys()), tc.keys)
		}
	}
}
