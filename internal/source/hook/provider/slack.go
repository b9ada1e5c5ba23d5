package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// slack signs v0, a timestamp and the body.
type slack struct{}

const (
	slackSignature = "X-Slack-Signature"
	slackTimestamp = "X-Slack-Request-Timestamp"
	slackRetry     = "X-Slack-Retry-Num"
	slackWhy       = "X-Slack-Retry-Reason"
)

// The types of what the Events API posts, around the event itself.
const (
	slackCallback  = "event_callback"
	slackChallenge = "url_verification"
)

func (slack) look(h http.Header, c *Claim) *Refusal {
	value, r := signed(h, slackSignature)
	if r != nil {
		return r
	}
	digest, ok := strings.CutPrefix(value, "v0=")
	sig, good := lowerHex(digest, sha256.Size)
	if !ok || !good {
		return refuse(SignatureMalformed, "the header "+slackSignature+" is v0= and 64 digits in lower-case hexadecimal")
	}
	at, r := stamped(h, slackTimestamp)
	if r != nil {
		return r
	}
	c.hash, c.signatures, c.before = sha256.New, [][]byte{sig}, "v0:"+at+":"
	return c.unix(at)
}

func (slack) check(string) error { return nil }

// id is that of the Events API. A command and an interaction have none: they are not
// sent again.
func (slack) id(_ http.Header, form bool, body []byte) string {
	if form {
		return ""
	}
	return scalar(find(body, "event_id"))
}

func (slack) event(_ http.Header, d document) string {
	typ := d.text("type")
	switch {
	case d.inner:
		return dotted("interactive", typ)
	case d.form && d.text("command") != "":
		return "command"
	case typ == slackCallback:
		if name := d.text("event", "type"); name != "" {
			return name
		}
	}
	return typ
}

// challenge is what Slack wants to hear back, of a request that asks for it.
func (slack) challenge(d document) string {
	if d.form || d.text("type") != slackChallenge {
		return ""
	}
	return d.text("challenge")
}

func (slack) sign(h http.Header, body []byte, _, _ string, key []byte, now time.Time) error {
	at := strconv.FormatInt(now.Unix(), 10)
	sum := (&Claim{hash: sha256.New, before: "v0:" + at + ":"}).sum(body, key)
	h.Set(slackTimestamp, at)
	h.Set(slackSignature, "v0="+hex.EncodeToString(sum))
	return nil
}

func (slack) headers() (read, secret []string) {
	return []string{slackSignature, slackTimestamp, slackRetry, slackWhy}, nil
}
