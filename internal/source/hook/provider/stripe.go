package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// stripe signs a timestamp and the body. The secret is the whole text, whsec_ too.
type stripe struct{}

const stripeSignature = "Stripe-Signature"

// look takes the v1 of the header. Others, v0 too, which is for tests, are not looked
// at, nor is a v1 that cannot be one.
func (stripe) look(h http.Header, c *Claim) *Refusal {
	value, r := signed(h, stripeSignature)
	if r != nil {
		return r
	}
	var at string
	times, sigs := 0, 0
	for part := range strings.SplitSeq(value, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "t":
			at = value
			times++
		case "v1":
			if sigs++; sigs > maxSignatures {
				return refuse(SignatureMalformed, "the header "+stripeSignature+" has more than "+strconv.Itoa(maxSignatures)+" signatures")
			}
			if sig, ok := lowerHex(value, sha256.Size); ok {
				c.signatures = append(c.signatures, sig)
			}
		}
	}
	switch {
	case times == 0:
		return refuse(TimestampMissing, "the header "+stripeSignature+" has no t")
	case times > 1:
		return refuse(TimestampMalformed, "the header "+stripeSignature+" has more than one t")
	case len(c.signatures) == 0:
		return refuse(SignatureMalformed, "the header "+stripeSignature+" has no v1 of 64 digits in lower-case hexadecimal")
	}
	c.hash, c.before = sha256.New, at+"."
	return c.unix(at)
}

func (stripe) check(string) error { return nil }

// id and event are the same in events and in thin events.
func (stripe) id(_ http.Header, form bool, body []byte) string {
	if form {
		return ""
	}
	return scalar(find(body, "id"))
}

func (stripe) event(_ http.Header, d document) string { return d.text("type") }

func (stripe) sign(h http.Header, body []byte, _, _ string, key []byte, now time.Time) error {
	at := strconv.FormatInt(now.Unix(), 10)
	sum := (&Claim{hash: sha256.New, before: at + "."}).sum(body, key)
	h.Set(stripeSignature, "t="+at+",v1="+hex.EncodeToString(sum))
	return nil
}

func (stripe) headers() (read, secret []string) { return []string{stripeSignature}, nil }
