package action_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

// careful is a hook that nothing is said about, to be changed.
const careful = `
- id: a
  execute-command: /usr/local/bin/deploy
  http-methods: [POST]
  trigger-rule: RULE
`

func TestCheckFindsWhatIsRiskyAndWhatDiffers(t *testing.T) {
	const signed = `{match: {type: payload-hmac-sha256, secret: '', parameter: {source: header, name: X-Sig}}}`
	github := `{match: {type: github, secrets: ['{{ getenv "S" }}']}}`
	header := func(kind, rest string) string {
		return fmt.Sprintf(`{match: {type: %s, parameter: {source: header, name: X-A}, %s}}`, kind, rest)
	}
	rule := func(r string) string { return strings.ReplaceAll(careful, "RULE", r) }
	with := func(line string) string { return rule(github) + "  " + line + "\n" }
	for _, c := range []struct {
		what, text string
		level      action.Level
		want       string
	}{
		{"no rule", strings.ReplaceAll(careful, "  trigger-rule: RULE\n", ""), action.LevelRisk, "no trigger-rule"},
		{"an empty rule", rule("{}"), action.LevelFault, "never true"},
		{"no signature", rule(header("value", "value: x")), action.LevelRisk, "checks a signature"},
		{"any method", strings.ReplaceAll(rule(github), "  http-methods: [POST]\n", ""), action.LevelRisk, "any method"},
		{"an unknown key", with("triger-rule: {}"), action.LevelFault, `"triger-rule" means nothing`},
		{"an unknown key in a match", rule(header("value", "valeu: x")), action.LevelFault, `"valeu" means nothing`},
		{"a regex that is none", rule(header("regex", `regex: "("`)), action.LevelFault, "missing closing"},
		{"a regex that is found anywhere", rule(header("regex", `regex: "refs/heads/main"`)), action.LevelRisk, "anywhere"},
		{"a range that is none", rule(`{match: {type: ip-whitelist, ip-range: here}}`), action.LevelFault, `"here"`},
		{"everybody", rule(`{match: {type: ip-whitelist, ip-range: 0.0.0.0/0}}`), action.LevelRisk, "everybody"},
		{"an address", rule(`{match: {type: ip-whitelist, ip-range: 192.0.2.1}}`), action.LevelDifference, "trusted proxies"},
		{"a single address of IPv6", rule(`{match: {type: ip-whitelist, ip-range: "2001:db8::1"}}`), action.LevelDifference, "2001:db8::1 is this address alone"},
		{"the client's address", rule(`{match: {type: value, value: x, parameter: {source: request, name: remote-addr}}}`), action.LevelDifference, "remote-addr"},
		{"an empty secret", rule(signed), action.LevelFault, "secret is empty"},
		{"a secret in clear", rule(strings.ReplaceAll(signed, "''", "hush")), action.LevelRisk, "secret stands in the file"},
		{"a provider's secret in clear", rule("{match: {type: slack, secrets: [hush]}}"), action.LevelRisk, "secret stands in the file"},
		{"SHA-1", rule(header("payload-hmac-sha1", "secret: hush")), action.LevelRisk, "SHA-1"},
		{"scalr", rule("{match: {type: scalr-signature, secret: hush}}"), action.LevelRisk, "SHA-1"},
		{"an old name", rule(header("payload-hash-sha256", "secret: hush")), action.LevelDifference, "payload-hmac-sha256"},
		{"a not over what may be missing", rule("{and: [" + github + ", {not: " + header("value", "value: x") + "}]}"), action.LevelRisk, `no header "X-A" at all`},
		{"a not over a signature", rule("{not: " + strings.ReplaceAll(signed, "''", "hush") + "}"), action.LevelRisk, "a signature in a not"},
		{"an or that a signature ends", rule("{or: [" + header("payload-hmac-sha256", "secret: hush") + ", " + github + "]}"), action.LevelRisk, "trigger-signature-soft-failures"},
		{"a token in the URL", rule(`{match: {type: value, value: x, parameter: {source: url, name: token}}}`), action.LevelRisk, "logs and proxies"},
		{"several at once", rule("{and: [" + github + "], match: {type: value}}"), action.LevelFault, "only the first counts"},
		{"a code that is none", with("success-http-response-code: 999"), action.LevelFault, "999"},
		{"output on error alone", with("include-command-output-in-response-on-error: true"), action.LevelFault, "does nothing without"},
		{"a command with arguments", strings.ReplaceAll(rule(github), "bin/deploy", "bin/deploy now"), action.LevelFault, "one name"},
		{"text for a shell", strings.ReplaceAll(with("pass-arguments-to-command: [{source: string, name: -c}, {source: payload, name: x}]"), "/usr/local/bin/deploy", "/bin/bash"), action.LevelRisk, "runs what the request says"},
		{"a script that the request names", strings.ReplaceAll(with("pass-arguments-to-command: [{source: payload, name: x}]"), "/usr/local/bin/deploy", "python3"), action.LevelRisk, "runs what the request says"},
		{"a variable with power", with("pass-environment-to-command: [{source: payload, name: x, envname: LD_PRELOAD}]"), action.LevelRisk, "LD_PRELOAD"},
		{"a source that is none", with("pass-arguments-to-command: [{source: body}]"), action.LevelFault, `"body" is none`},
		{"multipart", with("incoming-payload-content-type: multipart/form-data"), action.LevelDifference, "multipart"},
	} {
		found, err := action.Check(file(t, "hooks.yaml", c.text), action.LoadOptions{})
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		seen := false
		for _, f := range found {
			seen = seen || f.Level == c.level && strings.Contains(f.Text, c.want) && f.Line > 0
			if strings.Contains(f.String(), "hush") {
				t.Errorf("%s: a secret is told: %s", c.what, f)
			}
		}
		if !seen {
			t.Errorf("%s: %v, want %s: %q", c.what, found, c.level, c.want)
		}
	}
}

func TestCheckSaysNothingOfACarefulHook(t *testing.T) {
	for _, rule := range []string{
		`{match: {type: github, secrets: ['{{ getenv "S" }}']}}`,
		`{and: [{match: {type: payload-hmac-sha256, secret: '{{ getenv "S" }}', parameter: {source: header, name: X-Sig}}}, {match: {type: regex, regex: "^refs/tags/v", parameter: {source: payload, name: ref}}}]}`,
	} {
		name := file(t, "hooks.yaml", strings.ReplaceAll(careful, "RULE", rule)+"  pass-arguments-to-command: [{source: payload, name: ref}]\n")
		found, err := action.Check(name, action.LoadOptions{Template: true, Getenv: func(string) string { return "hush" }})
		if err != nil || len(found) != 1 || found[0].Level != action.LevelDifference || found[0].Line != 0 {
			t.Errorf("%v, %v; want only what is true of every file", found, err)
		}
	}
}

func TestAFindingSaysWhereItIs(t *testing.T) {
	name := file(t, "hooks.yaml", "\n- {id: a, execute-command: x, http-methods: [POST]}")
	found, err := action.Check(name, action.LoadOptions{})
	if err != nil || len(found) != 2 || found[1].String() != name+`:2: risk: hook "a": it has no trigger-rule: whoever reaches it runs its command` {
		t.Errorf("%v, %v", found, err)
	}
	for what, text := range map[string]string{"not a file of hooks": "a: b", "an id twice": "- {id: a, execute-command: x}\n- {id: a, execute-command: x}"} {
		if _, err := action.Check(file(t, "h", text), action.LoadOptions{}); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := action.Check("/nowhere/x", action.LoadOptions{}); err == nil {
		t.Error("no file: no error")
	}
}
