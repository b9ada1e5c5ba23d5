package hook

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

// Secret is one that a provider signs with. Printing it does not show it.
type Secret struct {
	ID   string // names it in metrics, answers and the audit; tells nothing about it
	Text string

	sealed string // as it is stored; "" for one that is not
	use    *usage // shared by all copies
}

// usage is when a secret was last used.
type usage struct {
	count atomic.Uint64
	last  atomic.Int64 // Unix seconds
}

// LastUsed is when this node last saw a webhook that was signed with it; zero: never,
// since it started.
func (s *Secret) LastUsed() time.Time {
	if last := s.use.last.Load(); last != 0 {
		return time.Unix(last, 0).UTC()
	}
	return time.Time{}
}

func (s *Secret) used(now time.Time) {
	s.use.count.Add(1)
	s.use.last.Store(now.Unix())
}

// Format keeps the text out of logs and errors, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "secret "+s.ID) }

// MarshalText keeps it out of encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte("secret " + s.ID), nil }

// vault encrypts the secrets that are stored, and names all of them. Its keys are
// not in the store: whoever has only that has no secret.
type vault struct {
	keys []vaultKey // the first encrypts, all decrypt
}

type vaultKey struct {
	id   string
	aead cipher.AEAD
	name []byte // for the ids of secrets
}

// vaultKeyBytes is how long a key is.
const vaultKeyBytes = 32

// newVault takes the text of a file: on each line a key, as 64 characters of hex,
// the newest first.
func newVault(text string) (*vault, error) {
	v := &vault{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := hex.DecodeString(line)
		if err != nil || len(key) != vaultKeyBytes {
			return nil, fmt.Errorf("hook: a key that secrets are encrypted with is %d characters of hex on a line of its own", 2*vaultKeyBytes)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("hook: %w", err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("hook: %w", err)
		}
		v.keys = append(v.keys, vaultKey{id: sum(key, "id")[:8], aead: aead, name: []byte(sum(key, "name"))})
	}
	if len(v.keys) == 0 {
		return nil, errors.New("hook: there is no key that secrets are encrypted with")
	}
	return v, nil
}

// NewKeyFile is the text of a file with a new key.
func NewKeyFile() string {
	var key [vaultKeyBytes]byte
	_, _ = rand.Read(key[:]) // never fails
	return hex.EncodeToString(key[:]) + "\n"
}

func sum(key []byte, parts ...string) string {
	mac := hmac.New(sha256.New, key)
	for _, part := range parts {
		mac.Write([]byte(part + "\x00"))
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// secret makes one of a text: the same text of the same source has the same id.
func (v *vault) secret(org carillon.OrgID, source, text string) Secret {
	oldest := v.keys[len(v.keys)-1] // keeps ids as they were when a key is added
	return Secret{ID: sum(oldest.name, string(org), source, text)[:8], Text: text, use: new(usage)}
}

// about binds what is encrypted to its place: moved to another source it does not
// open.
func about(org carillon.OrgID, source string) []byte {
	return []byte("carillon hook secret v1\x00" + string(org) + "\x00" + source)
}

func (v *vault) seal(org carillon.OrgID, source, text string) string {
	key := v.keys[0]
	return key.id + "." + base64.RawURLEncoding.EncodeToString(key.aead.Seal(nil, nil, []byte(text), about(org, source)))
}

func (v *vault) open(org carillon.OrgID, source, sealed string) (string, error) {
	id, text, _ := strings.Cut(sealed, ".")
	box, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return "", errors.New("hook: a stored secret is damaged")
	}
	for _, key := range v.keys {
		if key.id == id {
			plain, err := key.aead.Open(nil, nil, box, about(org, source))
			if err != nil {
				return "", errors.New("hook: a stored secret is damaged, or belongs to another source")
			}
			return string(plain), nil
		}
	}
	return "", fmt.Errorf("hook: a stored secret is encrypted with a key, %s, that this node does not have", clip(id))
}

// newSecret is a text that nobody can guess, in the form that the kind wants.
func newSecret(kind provider.Kind) string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	if kind == provider.KindStandard {
		return "whsec_" + base64.StdEncoding.EncodeToString(b[:])
	}
	return hex.EncodeToString(b[:])
}

// lines are the secrets in the text of a file or a variable.
func lines(text string) (list []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) != "" {
			list = append(list, line)
		}
	}
	return list
}
