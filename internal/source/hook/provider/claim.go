package provider

import (
	"crypto/hmac"
	"crypto/subtle"
	"hash"
	"net/http"
	"time"
)

// What bounds the work that a stranger can ask for.
const (
	maxSignatures = 16   // in one request
	maxAsymmetric = 4    // of them such that cost a reading of the body each
	maxSigned     = 4096 // bytes of a header with signatures
)

// Reason is why a request is refused: for metrics and the audit, never for the
// answer, which is the same for all.
type Reason string

// The reasons.
const (
	SignatureMissing   Reason = "signature_missing"
	SignatureMalformed Reason = "signature_malformed" // there is none that could be one
	SignatureMismatch  Reason = "signature_mismatch"  // none was made with a secret that we have
	TimestampMissing   Reason = "timestamp_missing"
	TimestampMalformed Reason = "timestamp_malformed"
	TimestampStale     Reason = "timestamp_stale"
	TimestampFuture    Reason = "timestamp_future"
	BadHeaders         Reason = "headers" // another header that belongs to it is missing, empty, too long or there twice
)

// Reasons are all reasons there are.
func Reasons() []Reason {
	return []Reason{
		SignatureMissing, SignatureMalformed, SignatureMismatch,
		TimestampMissing, TimestampMalformed, TimestampStale, TimestampFuture, BadHeaders,
	}
}

// Refusal is a request that is not taken.
//
//nolint:errname // it is an answer more than a failure, and named for what it is
type Refusal struct {
	Reason Reason
	text   string
}

// Error says what was wrong, for the operator.
func (r *Refusal) Error() string { return "provider: " + r.text }

func refuse(reason Reason, text string) *Refusal { return &Refusal{Reason: reason, text: text} }

// Claim is a request that says it is the provider's, before that is proven.
type Claim struct {
	signatures    [][]byte         // decoded
	asymmetric    [][]byte         // those of ed25519
	before, after string           // what is signed around the body
	hash          func() hash.Hash // of the MAC
	proves        func(c *Claim, body, key []byte) int

	now       time.Time
	tolerance time.Duration
}

// Look refuses what needs no body to be refused: headers that are missing, doubled or
// not of the provider's form, and a signed timestamp out of tolerance. The names of
// headers are as package http reads them.
func (p *Provider) Look(h http.Header, now time.Time) (*Claim, *Refusal) {
	c := &Claim{proves: (*Claim).mac, now: now, tolerance: p.tolerance}
	if r := p.dialect.look(h, c); r != nil {
		return nil, r
	}
	return c, nil
}

// Verify proves that one of the secrets signed the body, its raw bytes: which is that
// secret's index, the least if there are several. All are tried, however early one
// matches, so that the time says nothing about which one did. A secret that is empty
// signs nothing, nor does one of kind standard that is not of its form.
func (c *Claim) Verify(body []byte, secrets []Secret) (which int, _ *Refusal) {
	which = -1
	for i, s := range secrets {
		first := c.proves(c, body, s.Key) & subtle.ConstantTimeEq(int32(which), -1)
		which = subtle.ConstantTimeSelect(first, i, which)
	}
	if which < 0 {
		return -1, refuse(SignatureMismatch, "no signature was made with a secret of this source and for this body")
	}
	return which, nil
}

// mac is 1 if a signature is the MAC of the content with the key, 0 otherwise.
func (c *Claim) mac(body, key []byte) int {
	if len(key) == 0 {
		return 0 // anybody has that one
	}
	sum := c.sum(body, key)
	ok := 0
	for _, sig := range c.signatures {
		ok |= subtle.ConstantTimeCompare(sig, sum)
	}
	return ok
}

func (c *Claim) sum(body, key []byte) []byte {
	m := hmac.New(c.hash, key)
	m.Write([]byte(c.before))
	m.Write(body)
	m.Write([]byte(c.after))
	return m.Sum(nil)
}

// at refuses a time out of tolerance.
func (c *Claim) at(t time.Time) *Refusal {
	switch d := c.now.Sub(t); {
	case d > c.tolerance:
		return refuse(TimestampStale, "the timestamp is more than "+c.tolerance.String()+" in the past")
	case d < -c.tolerance:
		return refuse(TimestampFuture, "the timestamp is more than "+c.tolerance.String()+" in the future; is the clock of this machine right?")
	}
	return nil
}

// unix refuses a time in Unix seconds that is not of that form, or out of tolerance.
func (c *Claim) unix(text string) *Refusal {
	s, ok := digits(text, maxUnix)
	if !ok {
		return refuse(TimestampMalformed, "the timestamp is not in Unix seconds")
	}
	return c.at(time.Unix(s, 0))
}
