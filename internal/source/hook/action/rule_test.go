package action_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

func mac(h func() hash.Hash, secret, text string) string {
	m := hmac.New(h, []byte(secret))
	m.Write([]byte(text))
	return hex.EncodeToString(m.Sum(nil))
}

// The results that a rule can have, where an error is more than false.
const (
	yes      = "true"
	no       = "false"
	unsigned = "a wrong signature"
	broken   = "an error"
)

func eval(r *action.Rule, req *action.Request) string {
	ok, err := r.Eval(req)
	switch {
	case errors.Is(err, action.ErrSignature) && !ok:
		return unsigned
	case err != nil && !ok:
		return broken
	case err != nil:
		return "true, and an error"
	}
	return fmt.Sprint(ok)
}

const (
	isTrue    = `{match: {type: value, value: x, parameter: {source: string, name: x}}}`
	isFalse   = `{match: {type: value, value: x, parameter: {source: string, name: y}}}`
	isMissing = `{match: {type: value, value: x, parameter: {source: header, name: X-None}}}`
	isWrong   = `{match: {type: payload-hmac-sha256, secret: s, parameter: {source: string, name: bad}}}`
	isBroken  = `{match: {type: regex, regex: "(", parameter: {source: string, name: y}}}`
)

func TestRulesAreJudgedInOrderWithWhatIsMissing(t *testing.T) {
	for _, c := range []struct{ what, rule, want string }{
		{"nothing", `{}`, no},
		{"a match", isTrue, yes},
		{"an empty and", `{and: []}`, yes},
		{"an empty or", `{or: []}`, no},
		{"an empty rule in an and", `{and: [{}]}`, no},
		{"a not over nothing", `{not: {}}`, yes},
		{"an and of true", `{and: [` + isTrue + `,` + isTrue + `]}`, yes},
		{"an and with a false", `{and: [` + isTrue + `,` + isFalse + `]}`, no},
		{"an or with a true", `{or: [` + isFalse + `,` + isTrue + `]}`, yes},
		{"an or of false", `{or: [` + isFalse + `,` + isFalse + `]}`, no},
		{"a not over true", `{not: ` + isTrue + `}`, no},
		{"a not over false", `{not: ` + isFalse + `}`, yes},
		{"and before or", `{or: [` + isTrue + `], and: [` + isFalse + `]}`, no},
		{"or before not", `{not: ` + isFalse + `, or: [` + isFalse + `]}`, no},
		{"not before match", `{match: ` + isTrue[len("{match: "):len(isTrue)-1] + `, not: ` + isTrue + `}`, no},
		{"a null list counts as none", `{and: null, or: [` + isTrue + `]}`, yes},

		{"something missing", isMissing, no},
		{"in an and", `{and: [` + isMissing + `]}`, no},
		{"in an or, which goes on", `{or: [` + isMissing + `,` + isTrue + `]}`, yes},
		{"a not over it", `{not: ` + isMissing + `}`, yes},
		{"a not over it in an or", `{or: [` + isFalse + `, {not: ` + isMissing + `}]}`, yes},
		{"a not over it in an and", `{and: [{not: ` + isMissing + `}, ` + isTrue + `]}`, no},
		{"two nots over it", `{not: {not: ` + isMissing + `}}`, no},
		{"a not over an and with it", `{not: {and: [` + isMissing + `]}}`, yes},
		{"a not over an or of it", `{not: {or: [` + isMissing + `]}}`, yes},

		{"a wrong signature", isWrong, unsigned},
		{"in an or, before a true", `{or: [` + isWrong + `,` + isTrue + `]}`, unsigned},
		{"in an or, behind a true", `{or: [` + isTrue + `,` + isWrong + `]}`, yes},
		{"in an and, behind a false", `{and: [` + isFalse + `,` + isWrong + `]}`, no},
		{"in a not", `{not: ` + isWrong + `}`, unsigned},
		{"a regex that is none", isBroken, broken},
		{"in an or", `{or: [` + isBroken + `,` + isTrue + `]}`, broken},
		{"in a not", `{not: ` + isBroken + `}`, broken},

		{"an unknown type", `{match: {type: nope, parameter: {source: string, name: y}}}`, no},
		{"an unknown type, and something missing", `{not: {match: {type: nope, parameter: {source: header, name: X-None}}}}`, yes},
		{"an empty match", `{match: {}}`, broken},
		{"a source that is none", `{match: {type: value, value: x, parameter: {source: body, name: y}}}`, broken},
	} {
		if got := eval(parseRule(t, c.rule), request("", "")); got != c.want {
			t.Errorf("%s: %s is %s, want %s", c.what, c.rule, got, c.want)
		}
	}
}

func TestEachTypeOfMatchAsksForItsOwn(t *testing.T) {
	const body = `{"ref":"refs/heads/main"}`
	sha256Of, sha1Of, sha512Of := mac(sha256.New, "s", body), mac(sha1.New, "s", body), mac(sha512.New, "s", body)
	signed := func(kind, header string) string {
		return fmt.Sprintf(`{match: {type: %s, secret: s, parameter: {source: string, name: %q}}}`, kind, header)
	}
	for _, c := range []struct{ what, rule, want string }{
		{"value", `{match: {type: value, value: refs/heads/main, parameter: {source: payload, name: ref}}}`, yes},
		{"another value", `{match: {type: value, value: refs/heads/mai, parameter: {source: payload, name: ref}}}`, no},
		{"a value in another case", `{match: {type: value, value: Refs/heads/main, parameter: {source: payload, name: ref}}}`, no},
		{"a regex that is found", `{match: {type: regex, regex: "heads/m", parameter: {source: payload, name: ref}}}`, yes},
		{"a regex that is not found", `{match: {type: regex, regex: "^heads", parameter: {source: payload, name: ref}}}`, no},

		{"sha256", signed("payload-hmac-sha256", sha256Of), yes},
		{"sha256, named", signed("payload-hmac-sha256", "sha256="+sha256Of), yes},
		{"sha1", signed("payload-hmac-sha1", "sha1="+sha1Of), yes},
		{"sha512", signed("payload-hmac-sha512", "sha512="+sha512Of), yes},
		{"the old name of sha1", signed("payload-hash-sha1", sha1Of), yes},
		{"the old name of sha256", signed("payload-hash-sha256", sha256Of), yes},
		{"the old name of sha512", signed("payload-hash-sha512", sha512Of), yes},
		{"the name of another algorithm", signed("payload-hmac-sha256", "sha1="+sha256Of), unsigned},
		{"the signature of another algorithm", signed("payload-hmac-sha256", sha1Of), unsigned},
		{"upper case", signed("payload-hmac-sha256", strings.ToUpper(sha256Of)), unsigned},
		{"a part of it", signed("payload-hmac-sha256", sha256Of[:63]), unsigned},
		{"nothing", signed("payload-hmac-sha256", ""), unsigned},
		{"a list", signed("payload-hmac-sha256", "sha256=00,sha256="+sha256Of), yes},
		{"a list, without the name", signed("payload-hmac-sha256", "sha256=00,"+sha256Of), unsigned},
		{"a list, with a space", signed("payload-hmac-sha256", "sha256=00, sha256="+sha256Of), unsigned},
		{"the sixteenth", signed("payload-hmac-sha256", strings.Repeat("sha256=00,", 15)+"sha256="+sha256Of), yes},
		{"the seventeenth", signed("payload-hmac-sha256", strings.Repeat("sha256=00,", 16)+"sha256="+sha256Of), unsigned},
		{"an empty secret", `{match: {type: payload-hmac-sha256, parameter: {source: string, name: x}}}`, broken},
		{"a signature that is missing", `{match: {type: payload-hmac-sha256, secret: s, parameter: {source: header, name: X-None}}}`, no},

		{"an address", `{match: {type: ip-whitelist, ip-range: "192.0.2.7"}}`, yes},
		{"another address", `{match: {type: ip-whitelist, ip-range: "192.0.2.8"}}`, no},
		{"a range", `{match: {type: ip-whitelist, ip-range: "10.0.0.0/8  192.0.2.1/24"}}`, yes},
		{"another range", `{match: {type: ip-whitelist, ip-range: "10.0.0.0/8 2001:db8::/32"}}`, no},
		{"a range that is mapped", `{match: {type: ip-whitelist, ip-range: "::ffff:192.0.2.0/120"}}`, yes},
		{"no range", `{match: {type: ip-whitelist, ip-range: ""}}`, no},
		{"a range that is none", `{match: {type: ip-whitelist, ip-range: "192.0.2.0/33"}}`, broken},
		{"one behind a good one", `{match: {type: ip-whitelist, ip-range: "192.0.2.7 localhost"}}`, yes},
		{"one behind another", `{match: {type: ip-whitelist, ip-range: "192.0.2.8 localhost"}}`, broken},
	} {
		if got := eval(parseRule(t, c.rule), request(body, "application/json")); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func TestAnAddressIsFoundHoweverItIsWritten(t *testing.T) {
	for _, c := range []struct{ remote, ranges, want string }{
		{"192.0.2.7:80", "192.0.2.7", yes},
		{"192.0.2.7", "192.0.2.7", yes},
		{"[::ffff:192.0.2.7]:80", "192.0.2.7", yes},
		{"[2001:db8::1]:80", "2001:db8::1", yes},
		{"[2001:db8::2]:80", "2001:db8::1", no}, // a single one is not a /32
		{"[2001:db8::2]:80", "2001:db8::/64", yes},
		{"[fe80::1%eth0]:80", "fe80::/10", yes},
		{"2001:db8::1", "2001:db8::1", yes},
		{"192.0.2.7:80", "::/0", no},
		{"@", "192.0.2.7", broken},
		{"", "192.0.2.7", broken},
	} {
		r := request("", "")
		r.Remote = c.remote
		rule := parseRule(t, fmt.Sprintf(`{match: {type: ip-whitelist, ip-range: %q}}`, c.ranges))
		if got := eval(rule, r); got != c.want {
			t.Errorf("%s in %s: %s, want %s", c.remote, c.ranges, got, c.want)
		}
	}
}

func TestAMultipartBodyIsSignedAsItComes(t *testing.T) {
	const body = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n"
	r := request(body, "multipart/form-data; boundary=b")
	rule := func(signature string) *action.Rule {
		return parseRule(t, `{match: {type: payload-hmac-sha256, secret: s, parameter: {source: string, name: `+signature+`}}}`)
	}
	if got := eval(rule(mac(sha256.New, "s", "")), r); got != unsigned {
		t.Errorf("with the signature of nothing: %s", got)
	}
	if got := eval(rule(mac(sha256.New, "s", body)), r); got != yes {
		t.Errorf("with its own: %s", got)
	}
}

func TestScalrSignsBodyAndDate(t *testing.T) {
	const body, date = `{"a":1}`, "Fri 08 Sep 2017 11:24:32 UTC"
	at := time.Date(2017, 9, 8, 11, 24, 32, 0, time.UTC)
	good := mac(sha1.New, "s", body+date)
	for _, c := range []struct {
		what, signature, date string
		now                   time.Time
		want                  string
	}{
		{"good", good, date, at, yes},
		{"almost late", good, date, at.Add(299 * time.Second), yes},
		{"late", good, date, at.Add(301 * time.Second), unsigned},
		{"early", good, date, at.Add(-301 * time.Second), unsigned},
		{"wrong", good[:39] + "x", date, at, unsigned},
		{"of another date", good, "Fri 08 Sep 2017 11:24:33 UTC", at, unsigned},
		{"a date of another form", mac(sha1.New, "s", body+"2017-09-08"), "2017-09-08", at, broken},
		{"no date", good, "", at, no},
		{"no signature", "", date, at, no},
	} {
		r := request(body, "application/json")
		r.Now = c.now
		if c.signature != "" {
			r.Header.Set("X-Signature", c.signature)
		}
		if c.date != "" {
			r.Header.Set("Date", c.date)
		}
		if got := eval(parseRule(t, `{match: {type: scalr-signature, secret: s}}`), r); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	r := request("", "")
	r.Header.Set("X-Signature", "x")
	r.Header.Set("Date", date)
	if got := eval(parseRule(t, `{match: {type: scalr-signature}}`), r); got != broken {
		t.Errorf("without a secret: %s", got)
	}
}

func TestAProviderIsAskedWithAllItsSecrets(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, c := range []struct{ kind, want string }{
		{"github", "github"}, {"stripe", "stripe"}, {"slack", "slack"}, {"standard-webhooks", "standard"},
	} {
		rule := parseRule(t, fmt.Sprintf(`{match: {type: %s, secrets: [old, new]}}`, c.kind))
		r := request("body", "text/plain")
		if got := eval(rule, r); got != no {
			t.Errorf("%s, with nobody to ask: %s", c.kind, got)
		}
		asked := ""
		answer := true
		r.Now = now
		r.Verify = func(kind string, secrets []string, h http.Header, body []byte, at time.Time) bool {
			asked = fmt.Sprint(kind, secrets, h.Get("Content-Type"), string(body), at.Unix())
			return answer
		}
		if got := eval(rule, r); got != yes || asked != c.want+"[old new]text/plainbody1800000000" {
			t.Errorf("%s: %s, asked for %s", c.kind, got, asked)
		}
		answer = false
		if got := eval(rule, r); got != no {
			t.Errorf("%s, if it is not good: %s", c.kind, got)
		}
		if got := eval(parseRule(t, `{or: [{match: {type: `+c.kind+`, secret: s}}, `+isTrue+`]}`), r); got != yes {
			t.Errorf("%s in an or, which goes on: %s", c.kind, got)
		}
		asked = ""
		if got := eval(parseRule(t, `{match: {type: `+c.kind+`}}`), r); got != no || asked != "" {
			t.Errorf("%s without a secret: %s", c.kind, got)
		}
	}
}

func TestATimeInAHeaderIsNearOurs(t *testing.T) {
	now := time.Date(2026, 11, 27, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct{ what, value, tolerance, want string }{
		{"now", fmt.Sprint(now.Unix()), "", yes},
		{"five minutes ago", fmt.Sprint(now.Unix() - 300), "", yes},
		{"longer ago", fmt.Sprint(now.Unix() - 301), "", no},
		{"to come", fmt.Sprint(now.Unix() + 301), "", no},
		{"within a tolerance", fmt.Sprint(now.Unix() - 590), "10m", yes},
		{"of HTTP", now.Format(http.TimeFormat), "", yes},
		{"of RFC 3339", "2026-11-27T11:00:00+01:00", "", yes},
		{"of milliseconds", fmt.Sprint(now.UnixMilli()), "", no},
		{"with a sign", "+" + fmt.Sprint(now.Unix()), "", no},
		{"with a space", " " + fmt.Sprint(now.Unix()), "", no},
		{"no number", "NaN", "", no},
		{"empty", "", "", no},
	} {
		r := request("", "")
		r.Now = now
		r.Header.Set("X-Time", c.value)
		text := `{match: {type: header-time, parameter: {source: header, name: X-Time}`
		if c.tolerance != "" {
			text += ", tolerance: " + c.tolerance
		}
		if got := eval(parseRule(t, text+"}}"), r); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func TestARuleThatCannotBeMeantIsNotValid(t *testing.T) {
	for _, c := range []struct{ rule, want string }{
		{`{}`, "empty"},
		{`{and: []}`, "always true"},
		{`{or: []}`, "never true"},
		{`{and: [{not: {}}]}`, "empty"},
		{`{and: [` + isTrue + `], or: [` + isTrue + `]}`, "only the first counts"},
		{isBroken, "missing closing )"},
		{`{match: {type: nope, parameter: {source: string, name: a}}}`, "no such type"},
		{`{match: {type: value, value: x}}`, "source"},
		{`{match: {type: value, value: x, parameter: {source: request, name: path}}}`, "method and remote-addr"},
		{`{match: {type: payload-hmac-sha256, parameter: {source: header, name: a}}}`, "secret is empty"},
		{`{match: {type: scalr-signature}}`, "secret is empty"},
		{`{match: {type: github}}`, "takes secrets"},
		{`{match: {type: github, secrets: [a, ""]}}`, "takes secrets"},
		{`{match: {type: payload-hmac-sha1, secrets: [a], secret: a, parameter: {source: header, name: a}}}`, "one secret"},
		{`{match: {type: ip-whitelist}}`, "nobody"},
		{`{match: {type: ip-whitelist, ip-range: "1.2.3.4 x"}}`, `"x"`},
	} {
		err := parseRule(t, c.rule).Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "action: ") {
			t.Errorf("%s: %v, want %q in it", c.rule, err, c.want)
		}
	}
	for _, good := range []string{isTrue, `{not: ` + isMissing + `}`, `{match: {type: github, secret: s}}`, `{match: {type: ip-whitelist, ip-range: "::1"}}`} {
		if err := parseRule(t, good).Validate(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestARuleOfAnUnknownKeyOrTooDeepIsNotRead(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{match: {type: value, valeu: x}}`, "unknown key: valeu"},
		{`{nand: []}`, "unknown key: nand"},
		{`{and: {}}`, "takes a list"},
		{`{and: [x]}`, "takes keys with values"},
		{`{match: {type: [value]}}`, "takes text"},
		{`{match: {type: header-time, tolerance: 5}}`, "write it like 30s"},
		{strings.Repeat("{not: ", action.MaxDepth+1) + isTrue + strings.Repeat("}", action.MaxDepth+1), "deep"},
		{"&a {and: [*a]}", "deep"},
	} {
		var r action.Rule
		err := yaml.Unmarshal([]byte(c.text), &r)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: %v, want %q in it", c.text, err, c.want)
		}
	}
}

func TestNoSecretIsInWhatIsShownOfARule(t *testing.T) {
	const text = `{and: [{match: {type: payload-hmac-sha256, secret: hush, parameter: {source: header, name: X-Sig}}},
		{or: [{match: {type: github, secrets: [hush]}}, {not: {match: {type: value, value: hush, parameter: {source: header, name: X-Token}}}}]},
		{match: {type: scalr-signature, secret: hush}}]}`
	r := parseRule(t, text)
	shown, err := yaml.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(shown), "hush") {
		t.Errorf("it shows a secret:\n%s", shown)
	}
	if again := parseRule(t, string(shown)); again.Validate() != nil || strings.Count(string(shown), "type:") != 4 {
		t.Errorf("it does not show the rest:\n%s", shown)
	}
	req := request("body", "")
	req.Header.Set("X-Sig", "guess")
	_, err = r.Eval(req)
	if err == nil || slices.ContainsFunc([]string{"hush", "guess", mac(sha256.New, "hush", "body")}, func(s string) bool { return strings.Contains(err.Error(), s) }) {
		t.Errorf("the error is %v", err)
	}
}
