package action_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

func parseAction(t *testing.T, text string) *action.Action {
	t.Helper()
	var a action.Action
	if err := yaml.Unmarshal([]byte(text), &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

func TestAnActionRunsItsCommandIfItsRuleWantsIt(t *testing.T) {
	r := runner(t, action.Config{})
	a := parseAction(t, fmt.Sprintf(`
when: {match: {type: value, value: refs/heads/main, parameter: {source: payload, name: ref}}}
command: [%q, child-env]
env: {OWN: x, CARILLON_EVENT: mine}
timeout: 1m
`, self()[0]))
	if err := a.Validate(); err != nil {
		t.Fatal(err)
	}
	req := request(`{"ref":"refs/heads/main"}`, "application/json")
	req.Env = map[string]string{"CARILLON_EVENT": "push", "CARILLON_SOURCE": "gh"}
	res, err := r.Do(t.Context(), a, req)
	if err != nil || !res.Ran {
		t.Fatalf("%+v, %v", res, err)
	}
	for _, want := range []string{"OWN=x\n", "CARILLON_EVENT=mine\n", "CARILLON_SOURCE=gh\n", "CARILLON_DELIVERY=d1\n"} {
		if !strings.Contains("\n"+string(res.Output), "\n"+want) {
			t.Errorf("there is no %q in\n%s", want, res.Output)
		}
	}
	res, err = r.Do(t.Context(), a, request(`{"ref":"refs/heads/other"}`, "application/json"))
	if err != nil || res.Ran {
		t.Errorf("another one: %+v, %v", res, err)
	}
	wrong := parseAction(t, `{when: `+isWrong+`, command: [touch, /nowhere/x]}`)
	if res, err := r.Do(t.Context(), wrong, req); !errors.Is(err, action.ErrSignature) || res.Ran {
		t.Errorf("with a wrong signature: %+v, %v", res, err)
	}
	stdin := parseAction(t, `{command: [cat], stdin: true, dir: /bin}`)
	if res, err := r.Do(t.Context(), stdin, req); err != nil || string(res.Output) != string(req.Body) {
		t.Errorf("on standard input: %q, %v", res.Output, err)
	}
}

func TestAnActionThatCannotBeMeantIsNotValid(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{}`, "does nothing"},
		{`{command: [""]}`, "name a program"},
		{`{command: [a], forward: "https://x"}`, "make two actions"},
		{`{command: [a], when: {}}`, "empty"},
		{`{command: [a], header: {X: y}}`, "are for forward"},
		{`{command: [a], pass: [X]}`, "are for forward"},
		{`{command: [a], timeout: 2h}`, "at most 1h"},
		{`{command: [a], env: {"A=B": c}}`, "name of a variable"},
		{`{command: [a, "b\0"]}`, "zero byte"},
		{`{forward: "https://x", timeout: 61s}`, "at most 1m"},
		{`{forward: "https://x", stdin: true}`, "are for a command"},
		{`{forward: "https://x", env: {A: b}}`, "are for a command"},
		{`{forward: "https://x", dir: /}`, "are for a command"},
		{`{forward: "ftp://x"}`, "write it like https://"},
		{`{forward: "/path"}`, "write it like https://"},
		{`{forward: "https://"}`, "write it like https://"},
		{`{forward: "https://u:hush@x"}`, "user or password"},
		{`{forward: "https://x/#a"}`, "fragment"},
		{`{forward: "http://x y"}`, "not a URL"},
		{`{forward: "https://x", header: {Host: y}}`, "connection's"},
		{`{forward: "https://x", header: {content-length: "1"}}`, "connection's"},
		{`{forward: "https://x", header: {proxy-authorization: "1"}}`, "connection's"},
		{`{forward: "https://x", header: {"A B": y}}`, "not the name of a header"},
		{`{forward: "https://x", header: {A: "b\r\nC: d"}}`, "control character"},
		{`{forward: "https://x", header: {A: ` + strings.Repeat("x", 5000) + `}}`, "bytes"},
		{`{forward: "https://x", header: {` + headers(21) + `}}`, "at most 20"},
		{`{forward: "https://x", pass: [Transfer-Encoding]}`, "connection's"},
		{`{forward: "https://x", pass: [` + strings.Repeat("A,", 20) + `A]}`, "at most 20"},
	} {
		err := parseAction(t, c.text).Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "action: ") || strings.Contains(err.Error(), "hush") {
			t.Errorf("%.70s: %v, want %q in it", c.text, err, c.want)
		}
	}
	for _, good := range []string{
		`{command: [a, b], timeout: 1h, env: {A: "=b"}, dir: x, stdin: yes}`,
		`{forward: "http://[::1]:80/x?y=z", timeout: 1m, pass: [X-Sig], header: {Authorization: Bearer x, Content-Type: text/plain}}`,
	} {
		if err := parseAction(t, good).Validate(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func headers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "H%d: a,", i)
	}
	return b.String()
}

func TestAnActionIsReadByItsKeysOnly(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{comand: [a]}`, "unknown key: comand"},
		{`{command: a}`, "takes a list"},
		{`{command: [a], timeout: 30}`, "write it like 30s"},
		{`{command: [a], timeout: -3s}`, "write it like 30s"},
		{`{command: [a], stdin: "true"}`, "without quotes"},
		{`{command: [a], env: [b]}`, "names with values"},
		{`{command: [a], when: {match: {type: value, x: y}}}`, "unknown key: x"},
		{`[a]`, "keys with values"},
	} {
		var a action.Action
		if err := yaml.Unmarshal([]byte(c.text), &a); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.text, err, c.want)
		}
	}
	a := parseAction(t, `{COMMAND: [a, 1, true], Timeout: 90s}`)
	if fmt.Sprint(a.Command) != "[a 1 true]" || a.Timeout != 90*time.Second || a.When != nil {
		t.Errorf("%+v", a)
	}
}

func TestNoSecretIsInWhatIsShownOfAnAction(t *testing.T) {
	for _, text := range []string{
		`{command: [a], env: {A: hush}, when: {match: {type: github, secrets: [hush]}}}`,
		`{forward: "https://x", header: {Authorization: hush}, pass: [X-Sig], timeout: 10s}`,
	} {
		a := parseAction(t, text)
		shown, err := yaml.Marshal(a)
		if err != nil || strings.Contains(string(shown), "hush") {
			t.Errorf("%v:\n%s", err, shown)
		}
		if err := parseAction(t, string(shown)).Validate(); err != nil {
			t.Errorf("%v:\n%s", err, shown)
		}
		if a.Env["A"] != "hush" && a.Header["Authorization"] != "hush" {
			t.Error("showing it has changed it")
		}
	}
}
