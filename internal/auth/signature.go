package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithm is how a token is signed (RFC 7518 §3.1, RFC 8037 §3.1). Every kind
// of key has exactly one here, so the key decides and the token only agrees.
type Algorithm string

// The algorithms.
const (
	HS256 Algorithm = "HS256" // a secret of at least MinSecretBytes
	RS256 Algorithm = "RS256" // an RSA key of at least MinRSABits
	ES256 Algorithm = "ES256" // an ECDSA key on the curve P-256
	EdDSA Algorithm = "EdDSA" // an Ed25519 key
)

const (
	// MinRSABits is the least length of an RSA key (RFC 7518 §3.3).
	MinRSABits = 2048
	// MaxRSABits bounds what verifying one token may cost.
	MaxRSABits = 8192
)

// tokenKey is a key that tokens may be signed with. It knows its algorithm.
type tokenKey struct {
	alg    Algorithm
	method jwt.SigningMethod
	key    any
	label  string        // for the operator; says nothing of a secret
	used   atomic.Uint64 // tokens that it verified
}

// newSecret makes the key of the nth secret, from 1.
func newSecret(secret []byte, n int) (*tokenKey, error) {
	if len(secret) < MinSecretBytes {
		return nil, fmt.Errorf("secret %d has %d bytes; HS256 needs at least %d", n, len(secret), MinSecretBytes)
	}
	return &tokenKey{alg: HS256, method: jwt.SigningMethodHS256, key: secret, label: "secret " + strconv.Itoa(n)}, nil
}

// newPublicKey makes one of a *rsa.PublicKey, *ecdsa.PublicKey or
// ed25519.PublicKey. Its label is its thumbprint (RFC 7638).
func newPublicKey(public any) (*tokenKey, error) {
	k := &tokenKey{key: public}
	var canonical string
	switch key := public.(type) {
	case *rsa.PublicKey:
		bits := key.N.BitLen()
		if bits < MinRSABits || bits > MaxRSABits {
			return nil, fmt.Errorf("an RSA key has from %d to %d bits, not %d", MinRSABits, MaxRSABits, bits)
		}
		if key.E < 3 || key.E%2 == 0 {
			return nil, fmt.Errorf("an RSA key's exponent is odd and at least 3, not %d", key.E)
		}
		k.alg, k.method = RS256, jwt.SigningMethodRS256
		canonical = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, text64(big.NewInt(int64(key.E)).Bytes()), text64(key.N.Bytes()))
	case *ecdsa.PublicKey:
		point, err := key.Bytes() // checks that it is on its curve
		if err != nil || key.Curve != elliptic.P256() {
			return nil, errors.New("an ECDSA key is a point on the curve P-256")
		}
		k.alg, k.method = ES256, jwt.SigningMethodES256
		canonical = fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, text64(point[1:33]), text64(point[33:]))
	case ed25519.PublicKey:
		if len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an Ed25519 key has %d bytes, not %d", ed25519.PublicKeySize, len(key))
		}
		k.alg, k.method = EdDSA, jwt.SigningMethodEdDSA
		canonical = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, text64(key))
	default:
		return nil, errors.New("a public key is RSA, ECDSA on P-256, or Ed25519")
	}
	sum := sha256.Sum256([]byte(canonical))
	k.label = text64(sum[:])
	return k, nil
}

func text64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// verify checks a signature, and counts it if it is good.
func (k *tokenKey) verify(signed string, sig []byte) error {
	if err := k.method.Verify(signed, sig, k.key); err != nil {
		return err
	}
	k.used.Add(1)
	return nil
}

// header is what a token's header says (RFC 7515 §4), as far as it has a say.
type header struct {
	alg Algorithm
	kid string // "": none
	typ string // lower case, without application/; "": none
}

// maxKid is how long the name of a key may be.
const maxKid = 256

// How most libraries write the header of HS256, which then needs no reading.
const (
	usualHeader  = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9" // {"alg":"HS256","typ":"JWT"}
	usualHeader2 = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9" // {"typ":"JWT","alg":"HS256"}
)

// parseHeader reads a header that asks for nothing we would have to understand.
// Keys in it (jwk, jku, x5c, x5u) are not looked at: the issuer's configuration
// has the keys.
func parseHeader(part string) (header, error) {
	if part == usualHeader || part == usualHeader2 {
		return header{alg: HS256, typ: "jwt"}, nil
	}
	text, err := decode(part)
	if err != nil {
		return header{}, err
	}
	o, err := parseObject(text)
	if err != nil {
		return header{}, err
	}
	var h header
	alg, _, err := o.text("alg")
	if err != nil {
		return header{}, err
	}
	h.alg = Algorithm(alg)
	if !slices.Contains([]Algorithm{HS256, RS256, ES256, EdDSA}, h.alg) {
		return header{}, errors.New("alg is none of HS256, RS256, ES256, EdDSA")
	}
	for _, name := range []string{"crit", "b64"} {
		if _, found, err := o.get(name); found || err != nil {
			return header{}, fmt.Errorf("%s is not supported", name)
		}
	}
	if h.kid, _, err = o.text("kid"); err != nil {
		return header{}, err
	}
	if len(h.kid) > maxKid {
		return header{}, fmt.Errorf("kid has more than %d bytes", maxKid)
	}
	typ, found, err := o.text("typ")
	if err != nil {
		return header{}, err
	}
	if found {
		h.typ = mediaType(typ)
		if h.typ == "" {
			return header{}, errors.New("typ is empty")
		}
	}
	return h, nil
}
