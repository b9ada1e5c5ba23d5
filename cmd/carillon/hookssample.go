package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

// secret is what a sample is signed with.
func (c *HooksTestCmd) secret(std *IO, p *provider.Provider) (string, error) {
	if c.SecretFile != "" {
		c.Secret = "" // that of the environment is for when nothing is said
	}
	secret, err := (&SecretFlags{c.Secret, c.SecretFile}).text(std)
	if err != nil {
		return "", err
	}
	if secret == "" {
		return "", hint(errors.New("no secret to sign with"),
			"set CARILLON_HOOK_SECRET to the source's secret, or name a file with --secret-file; `carillon dev` prints one")
	}
	if err := p.CheckSecret(secret); err != nil {
		return "", hint(err, "it is the secret of the source %q, as its provider shows it", c.Source)
	}
	return secret, nil
}

// body is what to send, and fills in the event and the id.
func (c *HooksTestCmd) body(std *IO, kind provider.Kind) (contentType string, body []byte, err error) {
	if c.Event == "" {
		c.Event = usualEvent(kind)
	}
	if c.ID == "" {
		c.ID = newDelivery(kind)
	}
	if c.Body == "" {
		if c.ContentType != "" {
			return "", nil, errors.New("--content-type goes with --body")
		}
		if all := provider.Samples(kind); !slices.Contains(all, c.Event) {
			return "", nil, fmt.Errorf("--event: there is no sample %q of %s; there are %s", c.Event, kind, strings.Join(all, ", "))
		}
		return provider.Sample(kind, c.Event, c.ID)
	}
	if body, err = readAll(c.Body, std, maxTestBody); err != nil {
		return "", nil, fmt.Errorf("--body: %w", err)
	}
	if contentType = c.ContentType; contentType == "" {
		contentType = "application/x-www-form-urlencoded"
		if json.Valid(body) {
			contentType = "application/json"
		}
	}
	return contentType, body, nil
}

// maxTestBody is the largest body that any source takes.
const maxTestBody = 25 << 20

func usualEvent(kind provider.Kind) string {
	switch kind {
	case provider.KindGitHub:
		return "pull_request"
	case provider.KindStripe:
		return "invoice.paid"
	case provider.KindSlack:
		return "app_mention"
	case provider.KindStandard:
		return "user.created"
	case provider.KindGeneric:
	}
	return "event"
}

// newDelivery is an id as the provider makes them.
func newDelivery(kind provider.Kind) string {
	text := rand.Text()
	switch kind {
	case provider.KindStripe:
		return "evt_" + text
	case provider.KindSlack:
		return "Ev" + text
	case provider.KindStandard:
		return "msg_" + text
	case provider.KindGitHub, provider.KindGeneric:
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
