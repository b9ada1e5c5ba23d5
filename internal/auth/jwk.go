package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
)

// keyName is how a token names a key: by algorithm and kid. Without a kid it
// means the only key that the issuer has for the algorithm.
type keyName struct {
	alg Algorithm
	kid string
}

// errManyKeys: several keys for one algorithm, and a token that does not say
// which.
var errManyKeys = errors.New("header: no kid, and the issuer has several keys for the algorithm")

var errNoKeys = errors.New("it has no member keys, a list")

// errSetTooBig is the error of a set with more keys than allowed.
var errSetTooBig = errors.New("too many keys")

// parseSet reads a JWK Set (RFC 7517 §5). Keys of a kind that is not used here,
// for another purpose or for another algorithm than those allowed are passed
// over, as the RFC wants it; of two with one name the first counts. Secrets are
// passed over, too: whoever reads the URL has them.
func parseSet(text []byte, most int, allowed []Algorithm) (map[keyName]*tokenKey, error) {
	o, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	v, found, err := o.get("keys")
	if err != nil || !found {
		return nil, errNoKeys
	}
	list, ok := elements(v)
	if !ok {
		return nil, errNoKeys
	}
	if len(list) > most {
		return nil, fmt.Errorf("%w: %d, and the limit is %d", errSetTooBig, len(list), most)
	}
	keys := make(map[keyName]*tokenKey, 2*len(list))
	for _, text := range list {
		k, kid, err := parseJWK(text)
		if err != nil || !slices.Contains(allowed, k.alg) {
			continue
		}
		if name := (keyName{k.alg, kid}); kid != "" && keys[name] == nil {
			keys[name] = k
		}
		only := keyName{alg: k.alg}
		if _, several := keys[only]; several {
			keys[only] = nil
			continue
		}
		keys[only] = k
	}
	return keys, nil
}

// parseJWK reads a public key that verifies signatures (RFC 7517 §4).
func parseJWK(text []byte) (k *tokenKey, kid string, err error) {
	if text[0] != '{' {
		return nil, "", errNotObject
	}
	o, err := split(text)
	if err != nil {
		return nil, "", err
	}
	var kty, use, alg string
	for _, m := range []struct {
		name string
		to   *string
	}{{"kty", &kty}, {"use", &use}, {"alg", &alg}, {"kid", &kid}} {
		if *m.to, _, err = o.text(m.name); err != nil {
			return nil, "", err
		}
	}
	if use != "" && use != "sig" {
		return nil, "", errors.New("use is not sig")
	}
	if v, found, err := o.get("key_ops"); found || err != nil {
		if ops, bad := texts(v); err != nil || bad != nil || !slices.Contains(ops, "verify") {
			return nil, "", errors.New("key_ops has no verify")
		}
	}
	public, err := o.publicKey(kty)
	if err != nil {
		return nil, "", err
	}
	if k, err = newPublicKey(public); err != nil {
		return nil, "", err
	}
	if alg != "" && Algorithm(alg) != k.alg {
		return nil, "", fmt.Errorf("a key of this kind is for %s here", k.alg)
	}
	return k, kid, nil
}

// publicKey reads the members that are the key itself (RFC 7518 §6, RFC 8037
// §2).
func (o object) publicKey(kty string) (any, error) {
	crv, _, err := o.text("crv")
	if err != nil {
		return nil, err
	}
	switch {
	case kty == "RSA":
		n, err := o.bytes("n", (MaxRSABits+7)/8)
		if err != nil {
			return nil, err
		}
		e, err := o.bytes("e", 4)
		if err != nil {
			return nil, err
		}
		exponent := new(big.Int).SetBytes(e).Int64()
		if exponent > math.MaxInt32 {
			return nil, errors.New("the exponent is too large")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent)}, nil
	case kty == "EC" && crv == "P-256":
		x, err := o.bytes("x", 32)
		if err != nil {
			return nil, err
		}
		y, err := o.bytes("y", 32)
		if err != nil {
			return nil, err
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	case kty == "OKP" && crv == "Ed25519":
		x, err := o.bytes("x", ed25519.PublicKeySize)
		return ed25519.PublicKey(x), err
	}
	return nil, errors.New("a kind of key that is not used here")
}

// bytes finds a member of up to most bytes in base64url.
func (o object) bytes(name string, most int) ([]byte, error) {
	s, found, err := o.text(name)
	if err != nil {
		return nil, err
	}
	b, err := decode(s)
	if err != nil || !found || len(b) == 0 || len(b) > most {
		return nil, fmt.Errorf("%s is from 1 to %d bytes in base64url", name, most)
	}
	return b, nil
}
