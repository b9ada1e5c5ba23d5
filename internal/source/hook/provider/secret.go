package provider

import (
	"errors"
	"fmt"
	"strings"
)

// maxSecret is how long a secret may be, in bytes.
const maxSecret = 4096

// Secret is one of a source's secrets. It prints as its ID.
type Secret struct {
	ID  string `json:"id"`
	Key []byte `json:"-"` // the text as configured
}

// String is the ID.
func (s Secret) String() string { return s.ID }

// GoString is the ID.
func (s Secret) GoString() string { return fmt.Sprintf("provider.Secret{ID: %q}", s.ID) }

// CheckSecret says what is wrong with a configured secret, if anything, without
// repeating it. Whether it is hard to guess is not asked: the provider makes it, or
// accepts any.
func (p *Provider) CheckSecret(text string) error {
	if err := checkText(text); err != nil {
		return fmt.Errorf("provider: a secret of kind %s %w", p.kind, err)
	}
	if err := p.dialect.check(text); err != nil {
		return fmt.Errorf("provider: a secret of kind %s %w", p.kind, err)
	}
	return nil
}

func checkText(text string) error {
	switch {
	case text == "":
		return errors.New("is at least one character; this one is empty")
	case len(text) > maxSecret:
		return fmt.Errorf("is at most %d bytes, not %d", maxSecret, len(text))
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("has no control characters; this one has, perhaps the end of a line")
	}
	return nil
}
