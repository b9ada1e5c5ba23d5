package provider_test

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

func generic(g provider.Generic) provider.Config {
	return provider.Config{Kind: provider.KindGeneric, Generic: g}
}

// What is in the headers is written here by hand, as the provider would.
func TestGenericSignaturesAreTakenAsConfigured(t *testing.T) {
	const body, secret = `{"a":1}`, "a secret"
	sum256, sum512, sum1 := mac(sha256.New, secret, body), mac(sha512.New, secret, body), mac(sha1.New, secret, body)
	std, urlSafe := base64.StdEncoding.EncodeToString, base64.URLEncoding.EncodeToString
	for _, tt := range []struct {
		what string
		cfg  provider.Generic
		h    http.Header
		want provider.Reason
	}{
		{"the defaults", provider.Generic{Header: "x-sig"}, header("X-Sig", hex.EncodeToString(sum256)), ""},
		{"hexadecimal in capitals", provider.Generic{Header: "x-sig"}, header("X-Sig", strings.ToUpper(hex.EncodeToString(sum256))), ""},
		{"no header", provider.Generic{Header: "x-sig"}, header(), missing},
		{"the header twice", provider.Generic{Header: "x-sig"}, header("X-Sig", hex.EncodeToString(sum256), "X-Sig", hex.EncodeToString(sum256)), malformed},
		{"sha512", provider.Generic{Header: "x-sig", Algorithm: "sha512"}, header("X-Sig", hex.EncodeToString(sum512)), ""},
		{"sha1", provider.Generic{Header: "x-sig", Algorithm: "sha1"}, header("X-Sig", hex.EncodeToString(sum1)), ""},
		{"sha1 where sha256 is configured", provider.Generic{Header: "x-sig"}, header("X-Sig", hex.EncodeToString(sum1)), malformed},
		{"base64", provider.Generic{Header: "x-sig", Encoding: "base64"}, header("X-Sig", std(sum256)), ""},
		{"base64 without padding", provider.Generic{Header: "x-sig", Encoding: "base64"}, header("X-Sig", strings.TrimRight(std(sum256), "=")), malformed},
		{"hexadecimal where base64 is configured", provider.Generic{Header: "x-sig", Encoding: "base64"}, header("X-Sig", hex.EncodeToString(sum256)), malformed},
		{"base64url", provider.Generic{Header: "x-sig", Encoding: "base64url"}, header("X-Sig", urlSafe(sum256)), ""},
		{"base64url without padding", provider.Generic{Header: "x-sig", Encoding: "base64url"}, header("X-Sig", strings.TrimRight(urlSafe(sum256), "=")), ""},
		{"a prefix", provider.Generic{Header: "x-sig", Prefix: "sha256="}, header("X-Sig", "sha256="+hex.EncodeToString(sum256)), ""},
		{"no prefix", provider.Generic{Header: "x-sig", Prefix: "sha256="}, header("X-Sig", hex.EncodeToString(sum256)), malformed},
		{"several", provider.Generic{Header: "x-sig", Prefix: "v1=", Separator: ","}, header("X-Sig", "v0=1, v1=zz,v1="+hex.EncodeToString(sum256)+" , "), ""},
		{"several, none good", provider.Generic{Header: "x-sig", Prefix: "v1=", Separator: ","}, header("X-Sig", "v1="+strings.Repeat("00", 32)+",v1="+strings.Repeat("11", 32)), mismatch},
		{"several, 16", provider.Generic{Header: "x-sig", Separator: " "}, header("X-Sig", strings.Repeat("00 ", 15)+hex.EncodeToString(sum256)), ""},
		{"several, too many", provider.Generic{Header: "x-sig", Separator: " "}, header("X-Sig", strings.Repeat("00 ", 16)+hex.EncodeToString(sum256)), malformed},
		{"several where one is configured", provider.Generic{Header: "x-sig"}, header("X-Sig", hex.EncodeToString(sum256)+","+hex.EncodeToString(sum256)), malformed},
		{"text around the body", provider.Generic{Header: "x-sig", Content: "<{body}>"}, header("X-Sig", hexMAC(secret, "<"+body+">")), ""},
		{
			"a time and an id",
			provider.Generic{Header: "x-sig", TimestampHeader: "x-time", IDHeader: "x-id", Content: "{id}.{timestamp}.{body}"},
			header("X-Sig", hexMAC(secret, "{timestamp}.1800000000."+body), "X-Time", "1800000000", "X-Id", "{timestamp}"), "",
		},
		{
			"another time",
			provider.Generic{Header: "x-sig", TimestampHeader: "x-time", Content: "{body}{timestamp}"},
			header("X-Sig", hexMAC(secret, body+"1800000000"), "X-Time", "1800000001"), mismatch,
		},
		{
			"another id",
			provider.Generic{Header: "x-sig", IDHeader: "x-id", Content: "{body}.{id}"},
			header("X-Sig", hexMAC(secret, body+".1"), "X-Id", "2"), mismatch,
		},
		{
			"no id, which is signed",
			provider.Generic{Header: "x-sig", IDHeader: "x-id", Content: "{body}.{id}"},
			header("X-Sig", hexMAC(secret, body+".")), headers,
		},
		{"no id, which is not signed", provider.Generic{Header: "x-sig", IDHeader: "x-id"}, header("X-Sig", hexMAC(secret, body)), ""},
		{"two ids", provider.Generic{Header: "x-sig", IDHeader: "x-id"}, header("X-Sig", hexMAC(secret, body), "X-Id", "1", "X-Id", "2"), headers},
		{"two events", provider.Generic{Header: "x-sig", EventHeader: "x-event"}, header("X-Sig", hexMAC(secret, body), "X-Event", "1", "X-Event", "2"), headers},
		{"no time", provider.Generic{Header: "x-sig", TimestampHeader: "x-time", Content: "{timestamp}{body}"}, header("X-Sig", hexMAC(secret, body)), untimed},
		{"a time in milliseconds", provider.Generic{Header: "x-sig", TimestampHeader: "x-time", TimestampFormat: "unix_ms", Content: "{timestamp}{body}"}, header("X-Sig", hexMAC(secret, "1800000000999"+body), "X-Time", "1800000000999"), ""},
		{"a time of RFC 3339", provider.Generic{Header: "x-sig", TimestampHeader: "x-time", TimestampFormat: "rfc3339", Content: "{timestamp}{body}"}, header("X-Sig", hexMAC(secret, "2027-01-15T09:00:00+01:00"+body), "X-Time", "2027-01-15T09:00:00+01:00"), ""},
		{"seconds where RFC 3339 is configured", provider.Generic{Header: "x-sig", TimestampHeader: "x-time", TimestampFormat: "rfc3339", Content: "{timestamp}{body}"}, header("X-Sig", hexMAC(secret, "1800000000"+body), "X-Time", "1800000000"), badTime},
		{"letters where milliseconds are configured", provider.Generic{Header: "x-sig", TimestampHeader: "x-time", TimestampFormat: "unix_ms", Content: "{timestamp}{body}"}, header("X-Sig", hexMAC(secret, "now"+body), "X-Time", "now"), badTime},
		{"a token", provider.Generic{Header: "authorization", Algorithm: "plain", Prefix: "Bearer "}, header("Authorization", "Bearer a secret"), ""},
		{"a longer token", provider.Generic{Header: "x-token", Algorithm: "plain"}, header("X-Token", "a secret "), mismatch},
		{"a shorter token", provider.Generic{Header: "x-token", Algorithm: "plain"}, header("X-Token", "a secre"), mismatch},
		{"a token without prefix", provider.Generic{Header: "x-token", Algorithm: "plain", Prefix: "Bearer "}, header("X-Token", "a secret"), malformed},

		{"shopify", provider.Generic{Preset: "shopify"}, header("X-Shopify-Hmac-Sha256", std(sum256)), ""},
		{"gitlab", provider.Generic{Preset: "gitlab"}, header("X-Gitlab-Token", secret), ""},
		{"gitea", provider.Generic{Preset: "gitea"}, header("X-Gitea-Signature", hex.EncodeToString(sum256)), ""},
		{"forgejo", provider.Generic{Preset: "forgejo"}, header("X-Gitea-Signature", hex.EncodeToString(sum256)), ""},
		{"bitbucket", provider.Generic{Preset: "bitbucket"}, header("X-Hub-Signature", "sha256="+hex.EncodeToString(sum256)), ""},
		{"linear", provider.Generic{Preset: "linear"}, header("Linear-Signature", hex.EncodeToString(sum256)), ""},
		{"a preset with another header", provider.Generic{Preset: "shopify", Header: "X-Mine"}, header("X-Mine", std(sum256)), ""},
	} {
		p := newProvider(t, generic(tt.cfg))
		if why := judge(p, tt.h, body, time.Unix(1_800_000_000, 0), "wrong", secret); why != tt.want {
			t.Errorf("%s: it is %q, want %q", tt.what, why, tt.want)
		}
	}
}

func TestWhatIsWrongWithSettingsIsSaid(t *testing.T) {
	for _, tt := range []struct {
		what string
		cfg  provider.Config
		want string // a part of the error
	}{
		{"no kind", provider.Config{}, `["github" "stripe" "slack" "standard" "generic"]`},
		{"an unknown kind", provider.Config{Kind: "GitHub"}, `kind "GitHub" is none of`},
		{"a negative tolerance", provider.Config{Kind: provider.KindSlack, Tolerance: -time.Second}, "from 1s to 1h0m0s"},
		{"a short tolerance", provider.Config{Kind: provider.KindSlack, Tolerance: time.Millisecond}, "from 1s to 1h0m0s"},
		{"a long tolerance", provider.Config{Kind: provider.KindSlack, Tolerance: 24 * time.Hour}, "from 1s to 1h0m0s"},
		{"a tolerance without timestamp", provider.Config{Kind: provider.KindGitHub, Tolerance: time.Minute}, "signs no timestamp"},
		{"a tolerance without timestamp, generic", provider.Config{Kind: provider.KindGeneric, Tolerance: time.Minute, Generic: provider.Generic{Header: "x"}}, "signs no timestamp"},
		{"sha1 of another kind", provider.Config{Kind: provider.KindSlack, SHA1: true}, "kind github"},
		{"generic settings of another kind", provider.Config{Kind: provider.KindSlack, Generic: provider.Generic{Header: "x"}}, "belong to kind generic"},
		{"no header", generic(provider.Generic{}), "header: name the header"},
		{"a header with a space", generic(provider.Generic{Header: "x sig"}), `header: "x sig" is no name`},
		{"a header that is not ASCII", generic(provider.Generic{Header: "ü"}), "no name of a header"},
		{"a timestamp header with a colon", generic(provider.Generic{Header: "x", TimestampHeader: "x:"}), "timestamp_header"},
		{"an id header with a colon", generic(provider.Generic{Header: "x", IDHeader: "x:"}), "id_header"},
		{"an event header with a colon", generic(provider.Generic{Header: "x", EventHeader: "x:"}), "event_header"},
		{"an unknown preset", generic(provider.Generic{Preset: "github"}), `"shopify" "gitlab" "gitea" "forgejo" "bitbucket" "linear"`},
		{"an unknown algorithm", generic(provider.Generic{Header: "x", Algorithm: "md5"}), "sha256, sha512, sha1 and plain"},
		{"an unknown encoding", generic(provider.Generic{Header: "x", Encoding: "base32"}), "hex, base64 and base64url"},
		{"plain with encoding", generic(provider.Generic{Header: "x", Algorithm: "plain", Encoding: "hex"}), "no encoding"},
		{"plain with separator", generic(provider.Generic{Header: "x", Algorithm: "plain", Separator: ","}), "no separator"},
		{"plain with content", generic(provider.Generic{Header: "x", Algorithm: "plain", Content: "{body}"}), "no content"},
		{"plain with timestamp", generic(provider.Generic{Header: "x", Algorithm: "plain", TimestampHeader: "y"}), "not signed"},
		{"gitlab with encoding", generic(provider.Generic{Preset: "gitlab", Encoding: "hex"}), "no encoding"},
		{"a long prefix", generic(provider.Generic{Header: "x", Prefix: strings.Repeat("x", 65)}), "at most 64"},
		{"a space before the prefix", generic(provider.Generic{Header: "x", Prefix: " x"}), "prefix"},
		{"a prefix with an end of line", generic(provider.Generic{Header: "x", Prefix: "x\n"}), "ASCII"},
		{"a separator that signatures have", generic(provider.Generic{Header: "x", Separator: "="}), "no signature has"},
		{"a separator that is a letter", generic(provider.Generic{Header: "x", Separator: ", a"}), "no signature has"},
		{"a long separator", generic(provider.Generic{Header: "x", Separator: ",,,,,"}), "one to four"},
		{"a separator in the prefix", generic(provider.Generic{Header: "x", Prefix: "v1,", Separator: ","}), "has the separator"},
		{"content without body", generic(provider.Generic{Header: "x", Content: "{timestamp}", TimestampHeader: "y"}), "{body} in it, once"},
		{"content with two bodies", generic(provider.Generic{Header: "x", Content: "{body}{body}"}), "{body} in it, once"},
		{"content with something unknown", generic(provider.Generic{Header: "x", Content: "{url}{body}"}), `not "url}`},
		{"content with an open brace", generic(provider.Generic{Header: "x", Content: "{body}{"}), "after '{' stands"},
		{"content with an id that is nowhere", generic(provider.Generic{Header: "x", Content: "{id}{body}"}), "id_header"},
		{"content with a time that is nowhere", generic(provider.Generic{Header: "x", Content: "{timestamp}{body}"}), "timestamp_header"},
		{"long content", generic(provider.Generic{Header: "x", Content: "{body}" + strings.Repeat("x", 250)}), "content"},
		{"a time that is not signed", generic(provider.Generic{Header: "x", TimestampHeader: "y"}), "not signed"},
		{"a format of no time", generic(provider.Generic{Header: "x", TimestampFormat: "unix"}), "there is no timestamp_header"},
		{"an unknown format", generic(provider.Generic{Header: "x", TimestampHeader: "y", Content: "{timestamp}{body}", TimestampFormat: "iso"}), "unix, unix_ms and rfc3339"},
		{"an empty field in a path", generic(provider.Generic{Header: "x", IDField: "a..b"}), "id_field"},
		{"a deep path", generic(provider.Generic{Header: "x", EventField: "a.b.c.d.e.f.g.h.i"}), "event_field"},
	} {
		_, err := provider.New(tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "provider: ") {
			t.Errorf("%s: the error is %v, want one with %q", tt.what, err, tt.want)
		}
	}
}

func TestPresetsSignAndNameDeliveries(t *testing.T) {
	const body = `{"action":"create"}`
	want := map[string]string{
		"shopify":   "orders_create",
		"gitlab":    "orders_create",
		"gitea":     "orders_create.create",
		"forgejo":   "orders_create.create",
		"bitbucket": "orders_create",
		"linear":    "orders_create.create",
	}
	if n := len(provider.Presets()); n != len(want) {
		t.Errorf("there are %d presets, want %d", n, len(want))
	}
	for _, name := range provider.Presets() {
		p, h := newProvider(t, generic(provider.Generic{Preset: name})), http.Header{}
		if err := p.Sign(h, []byte(body), "d-1", "orders/create", secrets("a secret")[0], now); err != nil {
			t.Fatal(err)
		}
		if why := judge(p, h, body, now, "a secret"); why != "" {
			t.Errorf("%s: it is refused: %s", name, why)
		}
		d, err := p.Read(h, "application/json", []byte(body))
		if err != nil || d.ID != "d-1" || d.Event != want[name] {
			t.Errorf("%s: the delivery is %+v, %v", name, d, err)
		}
		id, event := p.Claimed(h)
		if id != "d-1" || event != "orders_create" {
			t.Errorf("%s: it claims to be %q, %q", name, id, event)
		}
	}
	if !slices.Contains(provider.Kinds(), provider.KindGeneric) || newProvider(t, generic(provider.Generic{Preset: "linear"})).Kind() != provider.KindGeneric {
		t.Error("a preset is of another kind than generic")
	}
}

func TestNothingIsSignedThatWouldNotBeTaken(t *testing.T) {
	signedID := newProvider(t, generic(provider.Generic{Header: "x-sig", IDHeader: "x-id", Content: "{id}{body}"}))
	for _, tt := range []struct {
		what      string
		p         *provider.Provider
		id, event string
		secret    string
	}{
		{"github without id", of(t, provider.KindGitHub), "", "push", "x"},
		{"github without event", of(t, provider.KindGitHub), "1", "", "x"},
		{"standard without id", of(t, provider.KindStandard), "", "", shared},
		{"standard with another secret", of(t, provider.KindStandard), "1", "", "x"},
		{"standard with half a private key", of(t, provider.KindStandard), "1", "", "whsk_AAAA"},
		{"generic without id", signedID, "", "", "x"},
		{"an empty secret", of(t, provider.KindSlack), "", "", ""},
	} {
		h := http.Header{}
		if err := tt.p.Sign(h, nil, tt.id, tt.event, secrets(tt.secret)[0], now); err == nil || !strings.HasPrefix(err.Error(), "provider: ") {
			t.Errorf("%s: the error is %v, the headers are %v", tt.what, err, h)
		}
	}
}
