package provider

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"
)

// github signs the body alone. Neither the id nor the name of the event is covered:
// who has one signed delivery can send it again as another, so the caller compares
// bodies too.
type github struct {
	sha1 bool
}

const (
	githubEvent    = "X-Github-Event"
	githubDelivery = "X-Github-Delivery"
	githubSHA256   = "X-Hub-Signature-256"
	githubSHA1     = "X-Hub-Signature"
)

func (g github) look(h http.Header, c *Claim) *Refusal {
	name, prefix, size := githubSHA256, "sha256=", sha256.Size
	c.hash = sha256.New
	if g.sha1 && len(h[githubSHA256]) == 0 { // one that is there decides
		name, prefix, size = githubSHA1, "sha1=", sha1.Size
		c.hash = sha1.New
	}
	value, r := signed(h, name)
	if r != nil {
		return r
	}
	digest, ok := strings.CutPrefix(value, prefix)
	sig, good := lowerHex(digest, size)
	if !ok || !good {
		return refuse(SignatureMalformed, "the header "+name+" is "+prefix+" and a digest in lower-case hexadecimal")
	}
	c.signatures = [][]byte{sig}
	if _, r = identified(h, githubDelivery); r != nil {
		return r
	}
	if event, n := one(h, githubEvent); n != 1 || event == "" || len(event) > maxName {
		return refuse(BadHeaders, "the header "+githubEvent+" is there once, and names an event")
	}
	return nil
}

func (github) check(string) error { return nil }

func (github) id(h http.Header, _ bool, _ []byte) string { return h.Get(githubDelivery) }

func (github) event(h http.Header, d document) string {
	return dotted(h.Get(githubEvent), d.text("action"))
}

func (g github) sign(h http.Header, body []byte, id, event string, key []byte, _ time.Time) error {
	if identify(id) == "" || event == "" || len(event) > maxName {
		return errors.New("a delivery has an id and the name of an event")
	}
	h.Set(githubEvent, event)
	h.Set(githubDelivery, id)
	h.Set(githubSHA256, "sha256="+hex.EncodeToString((&Claim{hash: sha256.New}).sum(body, key)))
	if g.sha1 {
		h.Set(githubSHA1, "sha1="+hex.EncodeToString((&Claim{hash: sha1.New}).sum(body, key)))
	}
	return nil
}

func (github) headers() (read, secret []string) {
	return []string{githubEvent, githubDelivery, githubSHA256, githubSHA1}, nil
}
