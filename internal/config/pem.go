package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// The algorithms of tokens, each with its kind of key.
const (
	hs256 = "HS256"
	rs256 = "RS256"
	es256 = "ES256"
	eddsa = "EdDSA"
)

// minRSABits is the least length of an RSA key (RFC 7518 §3.3).
const minRSABits = 2048

// algorithmOf is the one algorithm that a public key is for.
func algorithmOf(public any) (string, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return "", fmt.Errorf("the RSA key has %d bits; it needs at least %d", bits, minRSABits)
		}
		return rs256, nil
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return "", fmt.Errorf("the ECDSA key is on the curve %s; tokens use P-256", key.Params().Name)
		}
		return es256, nil
	case ed25519.PublicKey:
		return eddsa, nil
	}
	return "", errors.New("the key is of a kind that tokens do not use; it is RSA, ECDSA on P-256, or Ed25519")
}

// parsePublicKeys reads the public keys of a PEM file, at least one.
func parsePublicKeys(text []byte) (keys []any, err error) {
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		switch {
		case block == nil:
			return nil, errors.New("it is not PEM: a public key begins with -----BEGIN PUBLIC KEY-----")
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, errors.New("it has a private key, which belongs to the issuer alone; write its public key with: openssl pkey -in <private> -pubout")
		case block.Type != "PUBLIC KEY":
			return nil, fmt.Errorf("it has a %s; a public key begins with -----BEGIN PUBLIC KEY-----", clip(block.Type))
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the public key cannot be read: %w", err)
		}
		if _, err := algorithmOf(key); err != nil {
			return nil, err
		}
		keys, text = append(keys, key), rest
	}
	if len(keys) == 0 {
		return nil, errors.New("it is empty; it has a public key, which begins with -----BEGIN PUBLIC KEY-----")
	}
	return keys, nil
}
