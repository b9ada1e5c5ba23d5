package provider_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
	"github.com/carillon-rt/carillon/internal/wire"
)

// everyKind has each kind, and the generic one in several forms.
func everyKind(t testing.TB) []*provider.Provider {
	t.Helper()
	var all []*provider.Provider
	for _, kind := range provider.Kinds() {
		all = append(all, of(t, kind))
	}
	for _, name := range provider.Presets() {
		all = append(all, newProvider(t, generic(provider.Generic{Preset: name})))
	}
	return append(
		all,
		newProvider(t, provider.Config{Kind: provider.KindGitHub, SHA1: true}),
		newProvider(t, generic(provider.Generic{
			Header: "X-Sig", Prefix: "v1=", Separator: ",", Encoding: "base64url", Algorithm: "sha512",
			TimestampHeader: "X-Time", TimestampFormat: "rfc3339", Content: "{id}.{timestamp}.{body}.",
			IDHeader: "X-Id", IDField: "data.id", EventHeader: "X-Event", EventField: "data.kind",
		})),
		newProvider(t, generic(provider.Generic{Header: "X-Sig", TimestampHeader: "X-Time", TimestampFormat: "unix_ms", Content: "{timestamp}{body}", IDField: "id", EventField: "type"})),
	)
}

// FuzzLook: no header makes Look panic, nothing is proven without the secret, and what
// is refused has a reason.
func FuzzLook(f *testing.F) {
	all := everyKind(f)
	for i, p := range all {
		h := http.Header{}
		right, _ := keys(p.Kind())
		if err := p.Sign(h, []byte("x"), "1", "push", secrets(right)[0], now); err != nil {
			f.Fatal(err)
		}
		var b bytes.Buffer
		_ = h.Write(&b)
		f.Add(byte(i), b.String(), "x")
	}
	f.Add(byte(1), "Stripe-Signature: t=1800000000,v1=0,v1\n", "x")
	f.Add(byte(3), "Svix-Signature: v1a, v1,\nSvix-Id: 1\nSvix-Timestamp: 1\n", "x")
	f.Fuzz(func(t *testing.T, kind byte, lines, body string) {
		p, h := all[int(kind)%len(all)], http.Header{}
		for line := range strings.Lines(lines) {
			name, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ": ")
			h.Add(name, value)
		}
		c, r := p.Look(h, now)
		if (c == nil) == (r == nil) {
			t.Fatalf("Look gives %v, %v", c, r)
		}
		if r != nil {
			if r.Reason == "" || r.Reason == provider.SignatureMismatch || !strings.HasPrefix(r.Error(), "provider: ") {
				t.Errorf("it is refused: %q, %v", r.Reason, r)
			}
		} else if which, r := c.Verify([]byte(body), secrets("nobody has this one", other)); r == nil || which != -1 {
			t.Errorf("it is proven with a secret that nobody has: %d", which)
		}
		if id, event := p.Claimed(h); len(id) > provider.MaxID || event != "" && badEvent(event) {
			t.Errorf("it claims to be %q, %q", id, event)
		}
		kept, cut := p.Keep(h)
		if len(kept)+len(cut) > len(h) {
			t.Errorf("of %v, %v are kept and %q cut", h, kept, cut)
		}
	})
}

func badEvent(event string) bool {
	_, err := carillon.ParseType("src." + event)
	return err != nil || len(event) > 150 || strings.Count(event, ".") > 11
}

// FuzzRead: whatever the body is, what can be read has a good event and id, the id is
// what ID says, the payload is what the log of events takes, and what Sign signs is
// taken, and of another body is not.
func FuzzRead(f *testing.F) {
	all := everyKind(f)
	for i, p := range all {
		for _, name := range provider.Samples(p.Kind()) {
			typ, body, err := provider.Sample(p.Kind(), name, "")
			if err != nil {
				f.Fatal(err)
			}
			f.Add(byte(i), typ == ofJSON, "1", name, body)
		}
	}
	for _, body := range []string{
		``, `{"id":1,"type":"\ud83d"}`, `{"a":1,"\u0061":2}`, `{"id":"\ud83d\ude00","event_id":"a","type":"event_callback","event":{"type":"..a"}}`,
		`payload={"type":1}&command`, `a=%ff`, `a=1&a=2&a`, strings.Repeat("[", 200), `{"data":{"id":"","kind":""}}`, `"\\ud83d"`, `{"action":"*.>"}`, "\xef\xbb\xbf{}",
	} {
		f.Add(byte(0), true, "1", "push", []byte(body))
		f.Add(byte(2), false, "1", "push", []byte(body))
		f.Add(byte(12), true, "1", "push", []byte(body))
	}
	f.Fuzz(func(t *testing.T, kind byte, isJSON bool, id, event string, body []byte) {
		p, h, typ := all[int(kind)%len(all)], http.Header{}, ofForm
		if isJSON {
			typ = ofJSON
		}
		right, wrong := keys(p.Kind())
		if err := p.Sign(h, body, id, event, secrets(right)[0], now); err == nil {
			roundTrip(t, p, h, body, right, wrong)
		}
		d, err := p.Read(h, typ, body)
		if err != nil {
			if d != nil || !strings.HasPrefix(err.Error(), "provider: ") {
				t.Errorf("it is %+v, %v", d, err)
			}
			_ = p.ID(h, typ, body)
			return
		}
		if badEvent(d.Event) {
			t.Errorf("the event is %q", d.Event)
		}
		if got := p.ID(h, typ, body); got != d.ID || len(got) > provider.MaxID || !utf8.ValidString(got) {
			t.Errorf("the id is %q, and %q once it is read", got, d.ID)
		}
		draft, err := wire.ParseDraft([]byte(`{"type":"a","data":` + string(d.Payload) + `}`))
		if err != nil || !bytes.Equal(draft.Data, d.Payload) {
			t.Errorf("the log takes %s as %s, %v", d.Payload, draft.Data, err)
		}
	})
}

// roundTrip looks at what was signed as a server would get it.
func roundTrip(t *testing.T, p *provider.Provider, h http.Header, body []byte, right, wrong string) {
	t.Helper()
	for _, late := range []time.Duration{0, time.Minute, -time.Minute} {
		c, r := p.Look(h, now.Add(late))
		if r != nil {
			// What nobody can send is refused too: names and ids that are too long.
			if r.Reason != provider.BadHeaders {
				t.Errorf("what was signed is refused: %v", r)
			}
			return
		}
		if which, r := c.Verify(body, secrets(wrong, right)); which != 1 || r != nil {
			t.Errorf("what was signed is not proven: %d, %v", which, r)
		}
		if h.Get("X-Gitlab-Token") != "" {
			continue // it proves who sends, not what
		}
		if which, r := c.Verify(append(body[:len(body):len(body)], 'x'), secrets(wrong, right)); which != -1 || r == nil {
			t.Errorf("another body is proven: %d", which)
		}
	}
}

// FuzzCompact: a text is taken if and only if the log of events takes it, and becomes
// what it becomes there.
func FuzzCompact(f *testing.F) {
	for _, text := range []string{
		`{}`, ` [ 1 , "a" ] `, `{"a":1,"b":{"a":[]}}`, `{"a":1,"a":2}`, `{"\u0061":1,"a":2}`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00"`, `"\\ud83d"`, `"\\\ud83d"`,
		`-0.0e+1`, `nul`, "\"\x01\"", "\"\xff\"", `{"":1,"":2}`, `{"a":1,}`, strings.Repeat("[", 129) + strings.Repeat("]", 129), ``,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := provider.Compact(text)
		if !json.Valid(text) {
			if err == nil {
				t.Errorf("%q becomes %s", text, got)
			}
			return
		}
		draft, wireErr := wire.ParseDraft([]byte(`{"type":"a","data":` + string(text) + `}`))
		deep := wireErr != nil && strings.Contains(wireErr.Error(), "nest deeper")
		if (err == nil) != (wireErr == nil) && !deep {
			t.Fatalf("%q: %v, and the log says %v", text, err, wireErr)
		}
		if err == nil && !bytes.Equal(draft.Data, got) {
			t.Errorf("%q becomes %s, and in the log %s", text, got, draft.Data)
		}
	})
}

// FuzzSanitise: whatever a provider calls an event, it is the end of a type.
func FuzzSanitise(f *testing.F) {
	for _, said := range []string{"", ".", "a.b", "a..b.", "repo:push", "\xff.\x00", strings.Repeat("a.", 100), strings.Repeat("ä", 200), "*.>"} {
		f.Add(said)
	}
	f.Fuzz(func(t *testing.T, said string) {
		got := provider.EventName(said)
		if badEvent(got) {
			t.Errorf("%q is %q", said, got)
		}
		if again := provider.EventName(got); again != got {
			t.Errorf("%q is %q, and that is %q", said, got, again)
		}
		if !badEvent(said) && got != said {
			t.Errorf("%q, which is good, is %q", said, got)
		}
	})
}
