package org

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/carillon-rt/carillon"
)

// An API key is ck_<id>_<secret>. The id finds the key, the secret proves it.
// Only the SHA-256 of the secret is kept: the secret has 256 random bits, so
// there is nothing that a slow hash would protect.
const (
	keyPrefix      = "ck_"
	maxKeyID       = 32
	keyIDBytes     = 10 // random, 16 characters
	keySecretBytes = 32 // random, 52 characters
)

var keyText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Key is an API key as it is stored: without its secret.
type Key struct {
	ID   string // 1–32 of [a-z0-9], unique in the install
	Org  carillon.OrgID
	Hash [sha256.Size]byte // of the secret's text
}

// NewKey makes an API key of an organization. The text is shown once and is
// what the server's clients send; the Key is what is kept.
func NewKey(org carillon.OrgID) (text string, k Key) {
	var id [keyIDBytes]byte
	var secret [keySecretBytes]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(secret[:])
	k = Key{ID: keyText.EncodeToString(id[:]), Org: org}
	s := keyText.EncodeToString(secret[:])
	k.Hash = sha256.Sum256([]byte(s))
	return keyPrefix + k.ID + "_" + s, k
}

// Line is the key as a line of the configuration: <id>:<sha256 in hex>.
func (k Key) Line() string { return k.ID + ":" + hex.EncodeToString(k.Hash[:]) }

// Proves reports, in constant time, whether the secret is the key's.
func (k Key) Proves(secret string) bool {
	sum := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(sum[:], k.Hash[:]) == 1
}

// ParseKey reads a line that Line made, as a key of the organization.
func ParseKey(org carillon.OrgID, line string) (Key, error) {
	if IsKey(line) {
		return Key{}, errors.New("org: this is an API key itself; the configuration has its hash, <id>:<sha256 in hex>")
	}
	id, sum, ok := strings.Cut(line, ":")
	if !ok || !validKeyID(id) {
		return Key{}, errors.New("org: a key hash is <id>:<sha256 in hex>, as 'carillon keys new' prints it")
	}
	k := Key{ID: id, Org: org}
	if b, err := hex.DecodeString(sum); err != nil || copy(k.Hash[:], b) != sha256.Size || len(b) != sha256.Size {
		return Key{}, fmt.Errorf("org: key hash %q: after the colon come %d hex digits", id, 2*sha256.Size)
	}
	return k, nil
}

// IsKey reports whether a credential is meant as an API key.
func IsKey(text string) bool { return strings.HasPrefix(text, keyPrefix) }

// SplitKey takes an API key apart.
func SplitKey(text string) (id, secret string, ok bool) {
	rest, ok := strings.CutPrefix(text, keyPrefix)
	id, secret, found := strings.Cut(rest, "_")
	return id, secret, ok && found && validKeyID(id)
}

func validKeyID(id string) bool {
	if id == "" || len(id) > maxKeyID {
		return false
	}
	for i := 0; i < len(id); i++ {
		if c := id[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
