package provider_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

const (
	missing   = provider.SignatureMissing
	malformed = provider.SignatureMalformed
	mismatch  = provider.SignatureMismatch
	headers   = provider.BadHeaders
	untimed   = provider.TimestampMissing
	badTime   = provider.TimestampMalformed
)

// change is a request that was good until somebody did something to it. What want
// says is why it is refused; "": it is good still.
type change struct {
	what string
	do   func(h http.Header)
	want provider.Reason
}

func set(name, value string) func(http.Header) { return func(h http.Header) { h.Set(name, value) } }
func add(name, value string) func(http.Header) { return func(h http.Header) { h.Add(name, value) } }
func del(name string) func(http.Header)        { return func(h http.Header) { h.Del(name) } }

// edit changes a value that is there.
func edit(name string, f func(string) string) func(http.Header) {
	return func(h http.Header) { h.Set(name, f(h.Get(name))) }
}

func upperHex(s string) string {
	scheme, digest, _ := strings.Cut(s, "=")
	return scheme + "=" + strings.ToUpper(digest)
}

// spoiled is what is done to one signature after a prefix.
func spoiled(name string) []change {
	return []change{
		{"as it was", func(http.Header) {}, ""},
		{"without signature", del(name), missing},
		{"an empty signature", set(name, ""), missing},
		{"the signature twice", func(h http.Header) { h.Add(name, h.Get(name)) }, malformed},
		{"another signature behind it", add(name, "x"), malformed},
		{"a space before it", edit(name, func(s string) string { return " " + s }), malformed},
		{"a space behind it", edit(name, func(s string) string { return s + " " }), malformed},
		{"percent-encoded", edit(name, url.QueryEscape), malformed},
		{"a digit less", edit(name, func(s string) string { return s[:len(s)-1] }), malformed},
		{"two digits less", edit(name, func(s string) string { return s[:len(s)-2] }), malformed},
		{"two digits more", edit(name, func(s string) string { return s + "00" }), malformed},
		{"the prefix alone", edit(name, func(s string) string { return s[:strings.IndexByte(s, '=')+1] }), malformed},
		{"without prefix", edit(name, func(s string) string { return s[strings.IndexByte(s, '=')+1:] }), malformed},
		{"no hexadecimal", edit(name, func(s string) string { return s[:len(s)-1] + "g" }), malformed},
		{"another scheme", edit(name, func(s string) string { return "sha1" + s[strings.IndexByte(s, '='):] }), malformed},
		{"the scheme in capitals", edit(name, strings.ToUpper), malformed},
		{"the digest in capitals", edit(name, upperHex), malformed},
		{"base64 in place of hexadecimal", edit(name, func(s string) string {
			scheme, digest, _ := strings.Cut(s, "=")
			b, _ := hex.DecodeString(digest)
			return scheme + "=" + base64.StdEncoding.EncodeToString(b)
		}), malformed},
		{"very long", set(name, strings.Repeat("0", 5000)), malformed},
		{"another digest", edit(name, func(s string) string { return s[:len(s)-64] + strings.Repeat("0", 64) }), mismatch},
	}
}

// stamps are what is done to a timestamp in a header of its own.
func stamps(name string) []change {
	changes := []change{
		{"without timestamp", del(name), untimed},
		{"an empty timestamp", set(name, ""), untimed},
		{"the timestamp twice", func(h http.Header) { h.Add(name, h.Get(name)) }, badTime},
		{"another time that is as good", set(name, "1800000001"), mismatch},
		{"a time long ago", set(name, "0"), provider.TimestampStale},
		{"a time far away", set(name, "99999999999"), provider.TimestampFuture},
	}
	for _, s := range []string{"NaN", "+1800000000", "-1", " 1800000000", "1800000000 ", "1.8e9", "1800000000.0", "0x6b49d200", "１８００００００００", "000001800000000", "999999999999"} {
		changes = append(changes, change{"the timestamp " + s, set(name, s), badTime})
	}
	return changes
}

func TestWhatIsNotOfTheProvidersFormIsRefused(t *testing.T) {
	sig := func(content string) string { return hexMAC("a secret", content) }
	stripe := func(f func(s string) string) func(http.Header) { return edit("Stripe-Signature", f) }
	good := "v1=" + sig("1800000000.x")
	many := func(n int) string { return strings.Repeat(",v1="+strings.Repeat("0", 64), n) }
	b64 := base64.StdEncoding.EncodeToString(mac(sha256.New, "24 bytes for a key, or so", "m1.1800000000.x"))
	standard := "whsec_" + base64.StdEncoding.EncodeToString([]byte("24 bytes for a key, or so"))
	list := func(s string) func(http.Header) { return set("Webhook-Signature", s) }
	id := func(name string) []change {
		return []change{
			{"without id", del(name), headers},
			{"an empty id", set(name, ""), headers},
			{"the id twice", func(h http.Header) { h.Add(name, h.Get(name)) }, headers},
			{"an id with a control character", set(name, "a\x01"), headers},
			{"an id that is not UTF-8", set(name, "a\xff"), headers},
			{"a very long id", set(name, strings.Repeat("x", provider.MaxID+1)), headers},
		}
	}
	for _, tt := range []struct {
		kind    provider.Kind
		secret  string
		changes []change
	}{
		{provider.KindGitHub, "a secret", slices.Concat(spoiled("X-Hub-Signature-256"), id("X-GitHub-Delivery"), []change{
			{"another id, which is not signed", set("X-GitHub-Delivery", "2"), ""},
			{"without event", del("X-GitHub-Event"), headers},
			{"an empty event", set("X-GitHub-Event", ""), headers},
			{"the event twice", add("X-GitHub-Event", "push"), headers},
			{"a very long event", set("X-GitHub-Event", strings.Repeat("x", 256)), headers},
		})},
		{provider.KindSlack, "a secret", slices.Concat(spoiled("X-Slack-Signature"), stamps("X-Slack-Request-Timestamp"))},
		{provider.KindStripe, "a secret", []change{
			{"as it was", func(http.Header) {}, ""},
			{"without signature", del("Stripe-Signature"), missing},
			{"the header twice", stripeTwice, malformed},
			{"v0 alone", stripe(func(s string) string { return strings.Replace(s, "v1=", "v0=", 1) }), malformed},
			{"v0 besides", stripe(func(s string) string { return s + ",v0=" + strings.Repeat("0", 64) }), ""},
			{"a good v1 behind others", set("Stripe-Signature", "t=1800000000"+many(15)+","+good), ""},
			{"more than 16", set("Stripe-Signature", "t=1800000000"+many(16)+","+good), malformed},
			{"the time behind the signature", set("Stripe-Signature", good+",t=1800000000"), ""},
			{"unknown schemes", set("Stripe-Signature", "a,v2=1,t=1800000000,,"+good+",=,v1"), ""},
			{"an unreadable v1 besides", set("Stripe-Signature", "t=1800000000,v1=zz,"+good), ""},
			{"an unreadable v1 alone", set("Stripe-Signature", "t=1800000000,v1=zz"), malformed},
			{"the digest in capitals", set("Stripe-Signature", "t=1800000000,v1="+strings.ToUpper(sig("1800000000.x"))), malformed},
			{"a space before v1", set("Stripe-Signature", "t=1800000000, "+good), malformed},
			{"percent-encoded", stripe(url.QueryEscape), untimed},
			{"cut", stripe(func(s string) string { return s[:len(s)-1] }), malformed},
			{"without time", set("Stripe-Signature", good), untimed},
			{"two times", set("Stripe-Signature", "t=1800000000,t=1800000000,"+good), badTime},
			{"no number", set("Stripe-Signature", "t=NaN,"+good), badTime},
			{"an empty time", set("Stripe-Signature", "t=,"+good), badTime},
			{"a zero before the time", set("Stripe-Signature", "t=01800000000,"+good), mismatch},
			{"another time that is as good", set("Stripe-Signature", "t=1800000001,"+good), mismatch},
			{"another separator", stripe(func(s string) string { return strings.Replace(s, ",", ";", 1) }), malformed},
		}},
		{provider.KindStandard, standard, slices.Concat(stamps("Webhook-Timestamp"), id("Webhook-Id"), []change{
			{"as it was", func(http.Header) {}, ""},
			{"without signature", del("Webhook-Signature"), missing},
			{"the header twice", add("Webhook-Signature", "v1,"+b64), malformed},
			{"another id", set("Webhook-Id", "m2"), mismatch},
			{"a good one behind others", list(strings.Repeat("v1,"+strings.Repeat("A", 43)+"= ", 15) + "v1," + b64), ""},
			{"more than 16", list(strings.Repeat("v1,"+strings.Repeat("A", 43)+"= ", 16) + "v1," + b64), malformed},
			{"more than 4 with public keys", list(strings.Repeat("v1a,"+strings.Repeat("A", 86)+"== ", 5) + "v1," + b64), malformed},
			{"unknown versions", list("v2,x v1a,y , v1 v1," + b64), ""},
			{"an unknown version alone", list("v2," + b64), malformed},
			{"a MAC as v1a", list("v1a," + b64), malformed},
			{"without padding", list("v1," + strings.TrimRight(b64, "=")), malformed},
			{"of the URL's alphabet", list("v1," + strings.NewReplacer("+", "-", "/", "_").Replace(b64[:42]+"/"+"=")), malformed},
			{"percent-encoded", edit("Webhook-Signature", url.QueryEscape), malformed},
			{"hexadecimal", list("v1," + sig("m1.1800000000.x")), malformed},
			{"cut", list("v1," + b64[:len(b64)-4]), malformed},
			{"an end of line in it", list("v1," + b64[:8] + "\n" + b64[8:]), malformed},
			{"a tab between", list("v1,x\tv1," + b64), malformed},
			{"some headers of Svix besides", set("Svix-Id", "m2"), ""},
			{"the id under Svix's name alone", func(h http.Header) { h.Set("Svix-Id", h.Get("Webhook-Id")); h.Del("Webhook-Id") }, headers},
			{"the signature under Svix's name alone", func(h http.Header) {
				h.Set("Svix-Signature", h.Get("Webhook-Signature"))
				h.Del("Webhook-Signature")
			}, missing},
		})},
	} {
		p := of(t, tt.kind)
		for _, c := range tt.changes {
			h := http.Header{}
			if err := p.Sign(h, []byte("x"), "m1", "push", secrets(tt.secret)[0], now); err != nil {
				t.Fatal(err)
			}
			c.do(h)
			if why := judge(p, h, "x", now, tt.secret); why != c.want {
				t.Errorf("%s, %s: it is %q, want %q", tt.kind, c.what, why, c.want)
			}
		}
	}
}

func stripeTwice(h http.Header) { h.Add("Stripe-Signature", h.Get("Stripe-Signature")) }
