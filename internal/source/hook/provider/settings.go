package provider

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Generic says how a provider that has no kind of its own signs, and where its ids
// and events are. Header is required, unless Preset fills it.
type Generic struct {
	Preset string // shopify, gitlab, gitea, forgejo, bitbucket or linear: what is empty below is as theirs

	Header    string // with the signature
	Prefix    string // of each signature, such as sha256=
	Algorithm string // of HMAC: sha256, which is the default, sha512 or sha1; or plain: the header has the secret itself
	Encoding  string // hex, which is the default, base64 or base64url
	Separator string // between several signatures in the header; "": there is one

	TimestampHeader string // which has to be signed: Content says where
	TimestampFormat string // unix, which is the default, unix_ms or rfc3339

	Content string // what is signed: {body}, which is the default, with any text, {timestamp} and {id} around it

	IDHeader string // with the id of the delivery; where it is missing:
	IDField  string // that of the body, its path with dots; a string or a number

	EventHeader string // with what happened
	EventField  string // that of the body, a string; with both, the header's, a dot and the field's
}

const (
	plain         = "plain"
	formatUnix    = "unix"
	formatMillis  = "unix_ms"
	formatRFC3339 = "rfc3339"
)

// Bounds of settings, in bytes, and of a path in fields.
const (
	maxSetting = 255
	maxPrefix  = 64
	maxPath    = 8
)

// Presets are the names of all presets there are.
func Presets() []string {
	return []string{"shopify", "gitlab", "gitea", "forgejo", "bitbucket", "linear"}
}

func preset(name string) (Generic, bool) {
	switch name {
	case "":
		return Generic{}, true
	case "shopify":
		return Generic{Header: "X-Shopify-Hmac-Sha256", Encoding: "base64", IDHeader: "X-Shopify-Webhook-Id", EventHeader: "X-Shopify-Topic"}, true
	case "gitlab": // the key is the same in retries, and is sent since 17.4
		return Generic{Header: "X-Gitlab-Token", Algorithm: plain, IDHeader: "Idempotency-Key", EventHeader: "X-Gitlab-Event"}, true
	case "gitea", "forgejo":
		return Generic{Header: "X-Gitea-Signature", IDHeader: "X-Gitea-Delivery", EventHeader: "X-Gitea-Event", EventField: "action"}, true
	case "bitbucket":
		return Generic{Header: "X-Hub-Signature", Prefix: "sha256=", IDHeader: "X-Request-UUID", EventHeader: "X-Event-Key"}, true
	case "linear":
		return Generic{Header: "Linear-Signature", IDHeader: "Linear-Delivery", EventHeader: "Linear-Event", EventField: "action"}, true
	}
	return Generic{}, false
}

// filled is g with what a preset and the defaults say where it says nothing.
func (g Generic) filled() (Generic, error) {
	p, ok := preset(g.Preset)
	if !ok {
		return g, fmt.Errorf("preset %q is none of %q", clip(g.Preset), Presets())
	}
	for _, f := range []struct {
		to   *string
		from string
	}{
		{&g.Header, p.Header},
		{&g.Prefix, p.Prefix},
		{&g.Algorithm, p.Algorithm},
		{&g.Algorithm, "sha256"},
		{&g.Encoding, p.Encoding},
		{&g.IDHeader, p.IDHeader},
		{&g.EventHeader, p.EventHeader},
		{&g.EventField, p.EventField},
	} {
		if *f.to == "" {
			*f.to = f.from
		}
	}
	return g, nil
}

func newGeneric(cfg Generic) (*generic, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	g := &generic{prefix: cfg.Prefix, separator: cfg.Separator, encoding: cfg.Encoding, format: cfg.TimestampFormat}
	for _, f := range []struct {
		setting, value string
		to             *string
	}{
		{"header", cfg.Header, &g.header},
		{"timestamp_header", cfg.TimestampHeader, &g.timestamp},
		{"id_header", cfg.IDHeader, &g.idHeader},
		{"event_header", cfg.EventHeader, &g.eventHeader},
	} {
		if f.value != "" && !isToken(f.value) {
			return nil, fmt.Errorf("%s: %q is no name of a header, such as X-Signature", f.setting, clip(f.value))
		}
		*f.to = http.CanonicalHeaderKey(f.value)
	}
	if g.header == "" {
		return nil, errors.New("header: name the header with the signature, or a preset")
	}
	if g.idField, err = fieldPath("id_field", cfg.IDField); err != nil {
		return nil, err
	}
	if g.eventField, err = fieldPath("event_field", cfg.EventField); err != nil {
		return nil, err
	}
	var ok bool
	if g.hash, ok = algorithm(cfg.Algorithm); !ok {
		return nil, fmt.Errorf("algorithm %q is none of sha256, sha512, sha1 and plain", clip(cfg.Algorithm))
	}
	if err := g.checkForm(); err != nil {
		return nil, err
	}
	if err := g.setContent(cfg.Content); err != nil {
		return nil, err
	}
	return g, g.checkTime()
}

// checkForm checks what says how signatures are written.
func (g *generic) checkForm() error {
	if len(g.prefix) > maxPrefix || strings.HasPrefix(g.prefix, " ") || !isVisible(g.prefix) {
		return fmt.Errorf("prefix: %q is at most %d characters of ASCII, such as sha256=", clip(g.prefix), maxPrefix)
	}
	if g.hash == nil {
		if g.encoding != "" || g.separator != "" {
			return errors.New("algorithm plain: the header has the secret itself, so there is no encoding and no separator")
		}
		return nil
	}
	switch g.encoding {
	case "":
		g.encoding = "hex"
	case "hex", "base64", "base64url":
	default:
		return fmt.Errorf("encoding %q is none of hex, base64 and base64url", clip(g.encoding))
	}
	const ofSignatures = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_="
	switch {
	case g.separator == "":
	case len(g.separator) > 4 || !isVisible(g.separator) || strings.ContainsAny(g.separator, ofSignatures):
		return fmt.Errorf("separator: %q is one to four characters of ASCII that no signature has, such as a comma", clip(g.separator))
	case strings.Contains(g.prefix, g.separator):
		return fmt.Errorf("prefix: %q has the separator %q in it", g.prefix, g.separator)
	}
	return nil
}

// setContent splits what is signed at the body.
func (g *generic) setContent(text string) error {
	if g.hash == nil {
		if text != "" {
			return errors.New("algorithm plain signs nothing, so there is no content")
		}
		return nil
	}
	if text == "" {
		text = "{body}"
	}
	before, after, ok := strings.Cut(text, "{body}")
	if !ok || strings.Contains(after, "{body}") || len(text) > maxSetting {
		return fmt.Errorf("content: %q has {body} in it, once, such as {timestamp}.{body}", clip(text))
	}
	var err error
	if g.before, err = g.pieces(before); err != nil {
		return err
	}
	g.after, err = g.pieces(after)
	return err
}

func (g *generic) pieces(text string) (all []piece, err error) {
	for text != "" {
		i := strings.IndexByte(text, '{')
		if i < 0 {
			i = len(text)
		}
		if i > 0 {
			all, text = append(all, piece{text: text[:i]}), text[i:]
			continue
		}
		name, rest, _ := strings.Cut(text[1:], "}")
		var header string
		switch name {
		case "timestamp":
			header = g.timestamp
		case "id":
			header, g.idSigned = g.idHeader, true
		default:
			return nil, fmt.Errorf("content: after '{' stands body}, timestamp} or id}, not %q", clip(text[1:]))
		}
		if header == "" {
			return nil, fmt.Errorf("content: {%s} needs %s_header, which says where it is", name, name)
		}
		all, text = append(all, piece{header: header}), rest
	}
	return all, nil
}

// checkTime checks that a timestamp is signed, so that it proves something.
func (g *generic) checkTime() error {
	stamps := func(p piece) bool { return p.header == g.timestamp }
	switch {
	case g.timestamp == "" && g.format != "":
		return errors.New("timestamp_format: there is no timestamp_header")
	case g.timestamp == "":
		return nil
	case !slices.ContainsFunc(g.before, stamps) && !slices.ContainsFunc(g.after, stamps):
		return errors.New("timestamp_header: who sends a delivery again would write a new one, as it is not signed; content has {timestamp} in it, such as {timestamp}.{body}, or leave it out")
	}
	switch g.format {
	case "", formatUnix, formatMillis, formatRFC3339:
		return nil
	}
	return fmt.Errorf("timestamp_format %q is none of %s, %s and %s", clip(g.format), formatUnix, formatMillis, formatRFC3339)
}

// fieldPath splits the path of a field.
func fieldPath(setting, text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	names := strings.Split(text, ".")
	if len(text) > maxSetting || len(names) > maxPath || slices.Contains(names, "") {
		return nil, fmt.Errorf("%s: %q is the names of 1 to %d fields with dots between, such as data.id", setting, clip(text), maxPath)
	}
	return names, nil
}

// isToken reports whether s is a token of HTTP (RFC 9110 §5.6.2).
func isToken(s string) bool {
	return len(s) <= maxSetting && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
	})
}

// isVisible reports whether s is characters of ASCII, spaces among them.
func isVisible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
}
