package provider

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// standard is the specification Standard Webhooks, and Svix, from which it comes: an
// id, a timestamp and the body are signed.
type standard struct{}

// Before secrets, and how many bytes they have.
const (
	standardShared  = "whsec_" // for HMAC
	standardPublic  = "whpk_"  // of ed25519
	standardPrivate = "whsk_"  // of ed25519; the sender has it
	leastShared     = 24
	mostShared      = 64
)

// standardNames are the headers of a family, in the order id, timestamp, signature.
func standardNames(h http.Header) (id, at, sig string) {
	const webhook, svix = "Webhook-", "Svix-"
	family := webhook
	if len(h[webhook+"Id"])+len(h[webhook+"Timestamp"])+len(h[webhook+"Signature"]) == 0 && len(h[svix+"Signature"]) > 0 {
		family = svix // never some of one and some of the other
	}
	return family + "Id", family + "Timestamp", family + "Signature"
}

// look takes the v1 and v1a of the list; other versions and what cannot be a
// signature are not looked at.
func (standard) look(h http.Header, c *Claim) *Refusal {
	idName, atName, sigName := standardNames(h)
	list, r := signed(h, sigName)
	if r != nil {
		return r
	}
	n := 0
	for one := range strings.SplitSeq(list, " ") {
		version, text, _ := strings.Cut(one, ",")
		if version != "v1" && version != "v1a" {
			continue
		}
		if n++; n > maxSignatures {
			return refuse(SignatureMalformed, "the header "+sigName+" has more than "+strconv.Itoa(maxSignatures)+" signatures")
		}
		if version == "v1" {
			if sig, ok := strict64(text, sha256.Size); ok {
				c.signatures = append(c.signatures, sig)
			}
			continue
		}
		if sig, ok := strict64(text, ed25519.SignatureSize); ok {
			if c.asymmetric = append(c.asymmetric, sig); len(c.asymmetric) > maxAsymmetric {
				return refuse(SignatureMalformed, "the header "+sigName+" has more than "+strconv.Itoa(maxAsymmetric)+" signatures v1a")
			}
		}
	}
	if len(c.signatures)+len(c.asymmetric) == 0 {
		return refuse(SignatureMalformed, "the header "+sigName+" has no v1, and a signature in base64")
	}
	id, r := identified(h, idName)
	if r != nil {
		return r
	}
	at, r := stamped(h, atName)
	if r != nil {
		return r
	}
	c.hash, c.before, c.proves = sha256.New, id+"."+at+".", (*Claim).standard
	return c.unix(at)
}

// standard lets the secret say which signatures it is for.
func (c *Claim) standard(body, secret []byte) int {
	if text, ok := strings.CutPrefix(string(secret), standardPublic); ok {
		key, good := strict64(text, ed25519.PublicKeySize)
		if !good || len(c.asymmetric) == 0 {
			return 0
		}
		content := append([]byte(c.before), body...)
		for _, sig := range c.asymmetric { // nothing here is a secret, so the time may tell
			if ed25519.Verify(key, content, sig) {
				return 1
			}
		}
		return 0
	}
	key, err := shared(string(secret))
	if err != nil {
		return 0
	}
	return c.mac(body, key)
}

// shared is the key of HMAC that a secret holds.
func shared(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, standardShared)
	if !ok {
		return nil, fmt.Errorf("begins with %s, or with %s if it is a public key", standardShared, standardPublic)
	}
	code := base64.RawStdEncoding
	if strings.HasSuffix(text, "=") {
		code = base64.StdEncoding
	}
	key, err := code.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("is %s and a key in base64; what follows %s here is not base64", standardShared, standardShared)
	}
	if len(key) < leastShared || len(key) > mostShared {
		return nil, fmt.Errorf("is a key of %d to %d bytes, not %d", leastShared, mostShared, len(key))
	}
	return key, nil
}

func (standard) check(secret string) error {
	if text, ok := strings.CutPrefix(secret, standardPublic); ok {
		if _, ok := strict64(text, ed25519.PublicKeySize); !ok {
			return fmt.Errorf("that is a public key is %s and its %d bytes in base64", standardPublic, ed25519.PublicKeySize)
		}
		return nil
	}
	if strings.HasPrefix(secret, standardPrivate) {
		return fmt.Errorf("is not the private key, which only the sender has; configure the public key, %s", standardPublic)
	}
	_, err := shared(secret)
	return err
}

func (standard) id(h http.Header, _ bool, _ []byte) string {
	id, _, _ := standardNames(h)
	return h.Get(id)
}

func (standard) event(_ http.Header, d document) string { return d.text("type") }

func (standard) sign(h http.Header, body []byte, id, _ string, secret []byte, now time.Time) error {
	if identify(id) == "" {
		return errors.New("a delivery has an id")
	}
	at := strconv.FormatInt(now.Unix(), 10)
	c := &Claim{hash: sha256.New, before: id + "." + at + "."}
	var signature string
	if text, ok := strings.CutPrefix(string(secret), standardPrivate); ok {
		key, err := private(text)
		if err != nil {
			return err
		}
		signature = "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(key, append([]byte(c.before), body...)))
	} else {
		key, err := shared(string(secret))
		if err != nil {
			return fmt.Errorf("a secret to sign with %w", err)
		}
		signature = "v1," + base64.StdEncoding.EncodeToString(c.sum(body, key))
	}
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", at)
	h.Set("Webhook-Signature", signature)
	return nil
}

// private is a private key: its seed, or the seed and the public key.
func private(text string) (ed25519.PrivateKey, error) {
	if seed, ok := strict64(text, ed25519.SeedSize); ok {
		return ed25519.NewKeyFromSeed(seed), nil
	}
	if key, ok := strict64(text, ed25519.PrivateKeySize); ok {
		return ed25519.NewKeyFromSeed(key[:ed25519.SeedSize]), nil
	}
	return nil, fmt.Errorf("a private key is %s and %d or %d bytes in base64", standardPrivate, ed25519.SeedSize, ed25519.PrivateKeySize)
}

func (standard) headers() (read, secret []string) {
	return []string{
		"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature",
		"Svix-Id", "Svix-Timestamp", "Svix-Signature",
	}, nil
}

// strict64 decodes size bytes in base64 with its padding.
func strict64(s string, size int) ([]byte, bool) {
	if len(s) != base64.StdEncoding.EncodedLen(size) { // the decoder passes over ends of lines
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return b, err == nil && len(b) == size
}
