package provider

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// generic is a signature in a header, as the configuration describes it.
type generic struct {
	header, prefix, separator string
	encoding                  string
	hash                      func() hash.Hash // nil: plain
	before, after             []piece          // of the content, around the body

	timestamp, format string // a header, or "": none is signed
	idHeader          string
	idField           []string
	idSigned          bool
	eventHeader       string
	eventField        []string
}

// piece is a part of what is signed: a text, or what a header of the request says.
type piece struct {
	text   string
	header string
}

func (g *generic) look(h http.Header, c *Claim) *Refusal {
	value, r := signed(h, g.header)
	if r != nil {
		return r
	}
	if g.hash == nil {
		token, ok := strings.CutPrefix(value, g.prefix)
		if !ok || token == "" {
			return refuse(SignatureMalformed, "the header "+g.header+" is "+strconv.Quote(g.prefix)+" and a token")
		}
		c.signatures, c.proves = [][]byte{[]byte(token)}, (*Claim).token
	} else if r = g.signatures(value, c); r != nil {
		return r
	}
	if n := len(h[g.idHeader]); g.idSigned || n > 1 {
		if _, r = identified(h, g.idHeader); r != nil {
			return r
		}
	}
	if v := h[g.eventHeader]; len(v) > 1 || len(v) == 1 && len(v[0]) > maxName {
		return refuse(BadHeaders, "the header "+g.eventHeader+" is there once, and names an event")
	}
	var at string
	if g.timestamp != "" {
		if at, r = stamped(h, g.timestamp); r != nil {
			return r
		}
		if r = g.at(at, c); r != nil {
			return r
		}
	}
	c.hash, c.before, c.after = g.hash, content(g.before, h), content(g.after, h)
	return nil
}

// signatures takes those of the header that can be such.
func (g *generic) signatures(value string, c *Claim) *Refusal {
	size, n := g.hash().Size(), 0
	for rest, more := value, true; more; {
		one := rest
		if more = false; g.separator != "" {
			one, rest, more = strings.Cut(rest, g.separator)
			one = strings.Trim(one, " ")
		}
		text, ok := strings.CutPrefix(one, g.prefix)
		if !ok {
			continue
		}
		if n++; n > maxSignatures {
			return refuse(SignatureMalformed, "the header "+g.header+" has more than "+strconv.Itoa(maxSignatures)+" signatures")
		}
		if sig, ok := g.decode(text, size); ok {
			c.signatures = append(c.signatures, sig)
		}
	}
	if len(c.signatures) == 0 {
		return refuse(SignatureMalformed, "the header "+g.header+" is "+strconv.Quote(g.prefix)+" and "+strconv.Itoa(size)+" bytes in "+g.encoding)
	}
	return nil
}

// decode is lenient only where senders are known to differ: about the case of
// hexadecimal, and about the padding of base64url.
func (g *generic) decode(s string, size int) ([]byte, bool) {
	switch g.encoding {
	case "base64":
		return strict64(s, size)
	case "base64url":
		code := base64.RawURLEncoding.Strict()
		if len(s) == base64.URLEncoding.EncodedLen(size) {
			code = base64.URLEncoding.Strict()
		}
		if len(s) != code.EncodedLen(size) {
			return nil, false
		}
		b, err := code.DecodeString(s)
		return b, err == nil && len(b) == size
	}
	b, err := hex.DecodeString(s)
	return b, err == nil && len(b) == size
}

func (g *generic) encode(b []byte) string {
	switch g.encoding {
	case "base64":
		return base64.StdEncoding.EncodeToString(b)
	case "base64url":
		return base64.RawURLEncoding.EncodeToString(b)
	}
	return hex.EncodeToString(b)
}

// token compares digests, which are of one length whatever the token's.
func (c *Claim) token(_, key []byte) int {
	if len(key) == 0 {
		return 0
	}
	want, got := sha256.Sum256(key), sha256.Sum256(c.signatures[0])
	return subtle.ConstantTimeCompare(want[:], got[:])
}

// at refuses a timestamp that is not of the format, or out of tolerance.
func (g *generic) at(text string, c *Claim) *Refusal {
	switch g.format {
	case formatMillis:
		ms, ok := digits(text, maxUnix+3)
		if !ok {
			return refuse(TimestampMalformed, "the timestamp is not in milliseconds of Unix time")
		}
		return c.at(time.UnixMilli(ms))
	case formatRFC3339:
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return refuse(TimestampMalformed, "the timestamp is not of RFC 3339")
		}
		return c.at(t)
	}
	return c.unix(text)
}

// content is what pieces stand for in a request.
func content(pieces []piece, h http.Header) string {
	var b strings.Builder
	for _, p := range pieces {
		b.WriteString(p.text)
		if p.header != "" {
			b.WriteString(h.Get(p.header))
		}
	}
	return b.String()
}

func (g *generic) check(secret string) error {
	if g.hash == nil && strings.Trim(secret, " ") != secret {
		return errors.New("that is sent as it is neither begins nor ends with a space")
	}
	return nil
}

func (g *generic) id(h http.Header, form bool, body []byte) string {
	if g.idHeader != "" {
		if id := identify(h.Get(g.idHeader)); id != "" || g.idField == nil {
			return id
		}
	}
	if g.idField == nil {
		return ""
	}
	if form {
		object, _, err := formObject(body, "")
		if err != nil {
			return ""
		}
		body = object
	}
	return scalar(find(body, g.idField...))
}

func (g *generic) event(h http.Header, d document) string {
	var name, rest string
	if g.eventHeader != "" {
		name = h.Get(g.eventHeader)
	}
	if g.eventField != nil {
		rest = d.text(g.eventField...)
	}
	return dotted(name, rest)
}

func (g *generic) sign(h http.Header, body []byte, id, event string, key []byte, now time.Time) error {
	if g.idSigned && identify(id) == "" {
		return errors.New("a delivery has an id, which is signed")
	}
	if g.idHeader != "" && id != "" {
		h.Set(g.idHeader, id)
	}
	if g.eventHeader != "" && event != "" {
		h.Set(g.eventHeader, event)
	}
	if g.timestamp != "" {
		h.Set(g.timestamp, g.stamp(now))
	}
	if g.hash == nil {
		h.Set(g.header, g.prefix+string(key))
		return nil
	}
	c := &Claim{hash: g.hash, before: content(g.before, h), after: content(g.after, h)}
	h.Set(g.header, g.prefix+g.encode(c.sum(body, key)))
	return nil
}

func (g *generic) stamp(now time.Time) string {
	switch g.format {
	case formatMillis:
		return strconv.FormatInt(now.UnixMilli(), 10)
	case formatRFC3339:
		return now.UTC().Format(time.RFC3339)
	}
	return strconv.FormatInt(now.Unix(), 10)
}

func (g *generic) headers() (read, secret []string) {
	for _, name := range []string{g.idHeader, g.eventHeader, g.timestamp, g.header} {
		switch {
		case name == "":
		case name == g.header && g.hash == nil:
			secret = append(secret, name)
		default:
			read = append(read, name)
		}
	}
	return read, secret
}

// algorithm is the hash that a name stands for; nil is none, of plain.
func algorithm(name string) (h func() hash.Hash, ok bool) {
	switch name {
	case "sha256":
		return sha256.New, true
	case "sha512":
		return sha512.New, true
	case "sha1":
		return sha1.New, true
	}
	return nil, name == plain
}
