package provider_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

var now = time.Unix(1_800_000_000, 0)

const (
	shared = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	other  = "whsec_bm90IHRoZSBvbmUgdGhhdCBpcyB1c2VkIGhlcmU="
)

func newProvider(t testing.TB, cfg provider.Config) *provider.Provider {
	t.Helper()
	p, err := provider.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func of(t testing.TB, kind provider.Kind) *provider.Provider {
	t.Helper()
	cfg := provider.Config{Kind: kind}
	if kind == provider.KindGeneric {
		cfg.Generic.Header = "X-Signature"
	}
	return newProvider(t, cfg)
}

// header makes a header of names and values.
func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func secrets(texts ...string) []provider.Secret {
	var all []provider.Secret
	for i, text := range texts {
		all = append(all, provider.Secret{ID: fmt.Sprint("s", i), Key: []byte(text)})
	}
	return all
}

// mac computes a MAC without the package.
func mac(h func() hash.Hash, key, content string) []byte {
	m := hmac.New(h, []byte(key))
	m.Write([]byte(content))
	return m.Sum(nil)
}

func hexMAC(key, content string) string { return hex.EncodeToString(mac(sha256.New, key, content)) }

// judge is "" if the request is taken, otherwise why it is not.
func judge(p *provider.Provider, h http.Header, body string, at time.Time, texts ...string) provider.Reason {
	c, r := p.Look(h, at)
	if r == nil {
		_, r = c.Verify([]byte(body), secrets(texts...))
	}
	if r == nil {
		return ""
	}
	return r.Reason
}

// The bodies, secrets and signatures are those that the providers publish.
func TestPublishedVectorsVerify(t *testing.T) {
	const slackBody = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar" +
		"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=" +
		"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
	standard := []string{"id", "msg_p5jXN8AQM9LWM0D4loKWxJek", "timestamp", "1614265330", "signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}
	family := func(name string) http.Header {
		h := http.Header{}
		for i := 0; i < len(standard); i += 2 {
			h.Set(name+standard[i], standard[i+1])
		}
		return h
	}
	for _, tt := range []struct {
		name         string
		kind         provider.Kind
		h            http.Header
		body, secret string
		at           int64
	}{
		{
			"github", provider.KindGitHub,
			header("X-GitHub-Event", "push", "X-GitHub-Delivery", "1", "X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
			"Hello, World!", "It's a Secret to Everybody", 0,
		},
		{
			"slack", provider.KindSlack,
			header("X-Slack-Request-Timestamp", "1531420618", "X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
			slackBody, "8f742231b10e8888abcd99yyyzzz85a5", 1531420618,
		},
		{"standard", provider.KindStandard, family("webhook-"), `{"test": 2432232314}`, shared, 1614265330},
		{"svix", provider.KindStandard, family("svix-"), `{"test": 2432232314}`, shared, 1614265330},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := of(t, tt.kind)
			if why := judge(p, tt.h, tt.body, time.Unix(tt.at, 0), tt.secret); why != "" {
				t.Errorf("it is refused: %s", why)
			}
			if why := judge(p, tt.h, tt.body+" ", time.Unix(tt.at, 0), tt.secret); why != provider.SignatureMismatch {
				t.Errorf("with another body it is %q", why)
			}
			if why := judge(p, tt.h, tt.body, time.Unix(tt.at, 0), other); why != provider.SignatureMismatch {
				t.Errorf("with another secret it is %q", why)
			}
		})
	}
}

// keys are two secrets that a kind accepts.
func keys(kind provider.Kind) (string, string) {
	if kind == provider.KindStandard {
		return shared, other
	}
	return "a secret", "another secret"
}

func TestWhatSignSignsIsTaken(t *testing.T) {
	const body = `{"id":"evt_1","event_id":"evt_1","type":"a.b"}`
	for _, kind := range provider.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			p, h := of(t, kind), http.Header{}
			right, wrong := keys(kind)
			if err := p.Sign(h, []byte(body), "evt_1", "a.b", secrets(right)[0], now); err != nil {
				t.Fatal(err)
			}
			for _, tt := range []struct {
				what    string
				secrets []string
				which   int
			}{
				{"the only one", []string{right}, 0},
				{"the new one of two", []string{right, wrong}, 0},
				{"the old one of two", []string{wrong, right}, 1},
				{"one that is there twice", []string{wrong, right, right}, 1},
				{"another", []string{wrong}, -1},
				{"none", nil, -1},
				{"an empty one", []string{""}, -1},
			} {
				c, r := p.Look(h, now)
				if r != nil {
					t.Fatal(r)
				}
				which, r := c.Verify([]byte(body), secrets(tt.secrets...))
				if which != tt.which || (r == nil) != (which >= 0) {
					t.Errorf("the secret is %s: which = %d, %v; want %d", tt.what, which, r, tt.which)
				}
				if r != nil && r.Reason != provider.SignatureMismatch {
					t.Errorf("the secret is %s: the reason is %s", tt.what, r.Reason)
				}
			}
			for _, changed := range []string{"", body[1:], body + "\n", strings.Replace(body, "a", "A", 1)} {
				if why := judge(p, h, changed, now, right); why != provider.SignatureMismatch {
					t.Errorf("with the body %q it is %q", changed, why)
				}
			}
		})
	}
}

// An HMAC with an empty key can be computed by anybody.
func TestAnEmptySecretProvesNothing(t *testing.T) {
	p := of(t, provider.KindGitHub)
	h := header("X-GitHub-Event", "push", "X-GitHub-Delivery", "1", "X-Hub-Signature-256", "sha256="+hexMAC("", "x"))
	if why := judge(p, h, "x", now, ""); why != provider.SignatureMismatch {
		t.Errorf("it is %q", why)
	}
	p = newProvider(t, provider.Config{Kind: provider.KindGeneric, Generic: provider.Generic{Header: "X-Token", Algorithm: "plain"}})
	if why := judge(p, header("X-Token", ""), "x", now, ""); why != provider.SignatureMissing {
		t.Errorf("an empty token is %q", why)
	}
	p = newProvider(t, provider.Config{Kind: provider.KindGeneric, Generic: provider.Generic{Header: "X-Token", Algorithm: "plain", Prefix: "Bearer "}})
	if why := judge(p, header("X-Token", "Bearer "), "x", now, ""); why != provider.SignatureMalformed {
		t.Errorf("an empty token behind a prefix is %q", why)
	}
	p = of(t, provider.KindStandard)
	h = header("Webhook-Id", "1", "Webhook-Timestamp", "1800000000", "Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac(sha256.New, "", "1.1800000000.x")))
	if why := judge(p, h, "x", now, "whsec_", "", "whpk_"); why != provider.SignatureMismatch {
		t.Errorf("an empty shared key is %q", why)
	}
}

func TestTimestampsMayBeOffByTheToleranceInBothDirections(t *testing.T) {
	const body = `{}`
	generic := func(format string) provider.Config {
		return provider.Config{Kind: provider.KindGeneric, Generic: provider.Generic{Header: "X-Sig", TimestampHeader: "X-Time", TimestampFormat: format, Content: "{timestamp}{body}"}}
	}
	for name, cfg := range map[string]provider.Config{
		"stripe":                  {Kind: provider.KindStripe},
		"slack":                   {Kind: provider.KindSlack},
		"standard":                {Kind: provider.KindStandard},
		"generic in seconds":      generic(""),
		"generic in milliseconds": generic("unix_ms"),
		"generic in RFC 3339":     generic("rfc3339"),
	} {
		for _, tolerance := range []time.Duration{0, 10 * time.Second} {
			cfg.Tolerance = tolerance
			p, h := newProvider(t, cfg), http.Header{}
			right, _ := keys(cfg.Kind)
			if err := p.Sign(h, []byte(body), "1", "", secrets(right)[0], now); err != nil {
				t.Fatal(err)
			}
			if tolerance == 0 {
				tolerance = provider.DefaultTolerance
			}
			for late, want := range map[time.Duration]provider.Reason{
				0:                        "",
				tolerance - time.Second:  "",
				time.Second - tolerance:  "",
				tolerance + time.Second:  provider.TimestampStale,
				-tolerance - time.Second: provider.TimestampFuture,
				1000000 * time.Hour:      provider.TimestampStale,
				-400000 * time.Hour:      provider.TimestampFuture,
			} {
				if why := judge(p, h, body, now.Add(late), right); why != want {
					t.Errorf("%s, tolerance %s, %s late: it is %q, want %q", name, tolerance, late, why, want)
				}
			}
		}
	}
}

func TestRefusalsAndSecretsDoNotShowWhatTheyAreAbout(t *testing.T) {
	s := provider.Secret{ID: "s1", Key: []byte("hidden-secret")}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), fmt.Sprintf("%v", []provider.Secret{s})} {
		if strings.Contains(text, "hidden") || strings.Contains(text, "104") || !strings.Contains(text, "s1") {
			t.Errorf("a secret prints as %s", text)
		}
	}
	p := of(t, provider.KindGitHub)
	computed := hexMAC("hidden-secret", "x")
	sent := hexMAC("wrong", "x")
	c, r := p.Look(header("X-GitHub-Event", "push", "X-GitHub-Delivery", "1", "X-Hub-Signature-256", "sha256="+sent), now)
	if r != nil {
		t.Fatal(r)
	}
	_, r = c.Verify([]byte("x"), []provider.Secret{s})
	for _, part := range []string{computed, sent, "hidden"} {
		if strings.Contains(r.Error(), part) {
			t.Errorf("the refusal says %s", r)
		}
	}
	_, r = p.Look(header("X-Hub-Signature-256", "sha256="+sent+"0"), now)
	if strings.Contains(r.Error(), sent) {
		t.Errorf("the refusal says %s", r)
	}
	err := of(t, provider.KindStandard).CheckSecret("whsec_hidden")
	if err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("the error is %v", err)
	}
	err = of(t, provider.KindStandard).Sign(http.Header{}, nil, "1", "", provider.Secret{Key: []byte("whsec_hidden")}, now)
	if err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("the error of Sign is %v", err)
	}
}

func TestReasonsAreAllNamed(t *testing.T) {
	all := provider.Reasons()
	slices.Sort(all)
	if n := len(all); n != 8 || len(slices.Compact(all)) != n {
		t.Errorf("the reasons are %q", all)
	}
}
