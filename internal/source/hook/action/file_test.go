package action_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

// file writes one and is its path.
func file(t testing.TB, name, text string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func load(t testing.TB, text string, opts action.LoadOptions) (*action.Set, error) {
	t.Helper()
	return action.Load([]string{file(t, "hooks.yaml", text)}, opts)
}

func mustLoad(t testing.TB, text string) *action.Set {
	t.Helper()
	s, err := load(t, text, action.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHooksAreReadHoweverTheyAreWritten(t *testing.T) {
	for _, c := range []struct{ what, text, want string }{
		{"yaml", "- id: a\n  execute-command: /bin/true\n- id: b/c\n  execute-command: /bin/true\n", "a b/c"},
		{"json", `[{"id":"a","execute-command":"/bin/true"}]`, "a"},
		{"json with tabs, comments and a comma too many", "[\n\t{\n\t\t\"id\": \"a\", # one\n\t\t\"execute-command\": \"/bin/true\",\n\t},\n]", "a"},
		{"keys in any case", `[{"ID":"a","Execute-Command":"/bin/true"}]`, "a"},
		{"numbers and booleans as ids", "- {id: 12, execute-command: x}\n- {id: true, execute-command: x}\n- {id: 0x10, execute-command: x}\n- {id: 1.50, execute-command: x}\n- {id: yes, execute-command: x}\n- {id: \"no\", execute-command: x}\n- {id: 2020-01-02, execute-command: x}", "1.5 12 16 2020-01-02 no true"},
		{"aliases and merged keys", "- &a {id: a, execute-command: x}\n- {<<: *a, id: b}\n- {<<: [*a], ID: c}\n", "a b c"},
		{"nothing", "", ""},
		{"an empty list", "[]", ""},
		{"null", "null", ""},
		{"a key that means nothing", "- {id: a, execute-command: x, comment: [hi]}", "a"},
		{"a rule that is wrong when it is judged", `- {id: a, execute-command: x, trigger-rule: {match: {type: regex, regex: "("}}}`, "a"},
	} {
		if c.what == "numbers and booleans as ids" {
			c.text = strings.Replace(c.text, "- {id: yes, execute-command: x}\n", "", 1) // it would be true once more
		}
		s, err := load(t, c.text, action.LoadOptions{})
		if err != nil || strings.Join(s.IDs(), " ") != c.want {
			t.Errorf("%s: %v, %v; want %s", c.what, s, err, c.want)
		}
	}
}

func TestAFileThatCannotBeMeantIsRefusedWithItsLine(t *testing.T) {
	var bomb, laughing strings.Builder
	bomb.WriteString("- &a [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 8 {
		fmt.Fprintf(&bomb, "- &%c [%s]\n", 'b'+i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", 'a'+i), 10), ","))
	}
	laughing.WriteString("- id: a\n  execute-command: x\n  trigger-rule:\n    and:\n    - &r0 {match: {type: value}}\n")
	for i := range 60 {
		fmt.Fprintf(&laughing, "    - &r%d {and: [*r%d, *r%d, *r%d]}\n", i+1, i, i, i)
	}
	for _, c := range []struct{ what, text, want string }{
		{"no yaml", "- a: [", "not readable"},
		{"no list", "id: a\nexecute-command: x", ":1: a hooks file is a group of keys; it takes a list"},
		{"an item that is text", "- a", ":1: hook 1 is \"a\""},
		{"an empty item", "- {id: a, execute-command: x}\n- \n", ":2: hook 2 is empty"},
		{"no id", "- execute-command: x", ":1: hook 1 has no id"},
		{"no command", "- id: a", `:1: hook "a" has no execute-command`},
		{"an id twice", "- {id: a, execute-command: x}\n- {id: a, execute-command: y}", `:2: the hook "a" is there already, at `},
		{"a key twice", "- {id: a, execute-command: x, ID: b}", "has id twice"},
		{"text for a flag", `- {id: a, execute-command: x, trigger-signature-soft-failures: "true"}`, "true or false"},
		{"text for a number", `- {id: a, execute-command: x, success-http-response-code: "201"}`, "whole number"},
		{"a number with a point", `- {id: a, execute-command: x, success-http-response-code: 2.5}`, "whole number"},
		{"a list for text", "- {id: [a], execute-command: x}", "takes text"},
		{"text for a list", "- {id: a, execute-command: x, pass-arguments-to-command: y}", "takes a list"},
		{"a list for an argument", "- {id: a, execute-command: x, pass-arguments-to-command: [[y]]}", "item 1 is a list"},
		{"a time without a unit", "- {id: a, execute-command: x, command-timeout: 30}", "write it like 30s"},
		{"a time that is too long", "- {id: a, execute-command: x, command-timeout: 25h}", "at most 1h"},
		{"a key that is a list", "- {[a]: b}", "key that is not text"},
		{"a merge of text", "- {<<: a}", "merges"},
		{"aliases of aliases", bomb.String(), "hook 1"},
		{"rules of aliases", laughing.String(), "with what aliases repeat"},
		{"an alias in itself", "- {id: a, execute-command: x, trigger-rule: &r {not: *r}}", "deep"},
		{"merged into itself", "- &a {id: a, <<: *a}", "merges keys more than"},
		{"too large", "# " + strings.Repeat("x", action.MaxFile), "larger than"},
	} {
		s, err := load(t, c.text, action.LoadOptions{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "action: ") || len(err.Error()) > 600 {
			t.Errorf("%s: %v, %.300v; want %q in it", c.what, s, err, c.want)
		}
	}
	if _, err := action.Load([]string{"/nowhere/hooks.json"}, action.LoadOptions{}); err == nil || !strings.Contains(err.Error(), "/nowhere/hooks.json") {
		t.Errorf("no file: %v", err)
	}
}

func TestSeveralFilesAreOneSet(t *testing.T) {
	a := file(t, "a.yaml", "- {id: a, execute-command: x}")
	b := file(t, "b.json", `[{"id":"b","execute-command":"x"}]`)
	again := file(t, "c.yaml", "\n- {id: a, execute-command: x}")
	s, err := action.Load([]string{b, a}, action.LoadOptions{})
	if err != nil || !slices.Equal(s.IDs(), []string{"a", "b"}) {
		t.Errorf("%v, %v", s, err)
	}
	_, err = action.Load([]string{a, b, again}, action.LoadOptions{})
	if err == nil || !strings.Contains(err.Error(), again+":2:") || !strings.Contains(err.Error(), a+":1") {
		t.Errorf("an id in two files: %v", err)
	}
}

func TestAStrictFileHasNothingThatMeansNothing(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"- {id: a, execute-command: x, triger-rule: {}}", "unknown key: triger-rule"},
		{"- {id: a, execute-command: x, trigger-rule: {match: {type: value, valeu: y}}}", "unknown key: valeu"},
		{"- {id: a, execute-command: x, trigger-rule: {}}", "empty"},
		{"- {id: a, execute-command: x, trigger-rule: {match: {type: nope}}}", "no such type"},
		{"- {id: a, execute-command: x, pass-arguments-to-command: [{source: body}]}", "source \"body\" is none"},
		{"- {id: a, execute-command: x, success-http-response-code: 999}", "999 is no status"},
		{"- {id: a, execute-command: x, success-http-response-code: 101}", "101 is no status"},
		{"- {id: a, execute-command: x, response-headers: [{key: X}]}", "unknown key: key"},
	} {
		if _, err := load(t, c.text, action.LoadOptions{Strict: true}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.text, err, c.want)
		}
		if _, err := load(t, c.text, action.LoadOptions{}); err != nil {
			t.Errorf("%s, not strict: %v", c.text, err)
		}
	}
}

func TestTemplatesRunOnlyWhenTheyAreAskedFor(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"one": "from file\n\n", "empty": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vars := map[string]string{"NAME": "value", "one": "from variable", "two": "from variable", "empty": "instead"}
	opts := action.LoadOptions{Template: true, Getenv: func(name string) string { return vars[name] }}
	for _, c := range []struct{ what, text, want string }{
		{"getenv", `{{ getenv "NAME" | js }}`, "value"},
		{"getenv of nothing", `a{{ getenv "NONE" }}`, "a"},
		{"cat", `{{ cat "` + filepath.Join(dir, "one") + `" | js }}`, `from file\u000A`},
		{"cat of nothing", `a{{ cat "/nowhere/x" }}`, "a"},
		{"credential of a variable", `{{ credential "two" }}`, "from variable"},
	} {
		s, err := load(t, `[{"id": "`+c.text+`", "execute-command": "x"}]`, opts)
		if c.what == "cat" {
			c.want = "from file\n"
		}
		if err != nil || !slices.Equal(s.IDs(), []string{c.want}) {
			t.Errorf("%s: %v, %v", c.what, s, err)
		}
	}
	vars["CREDENTIALS_DIRECTORY"] = dir
	for name, want := range map[string]string{"one": "from file\n", "two": "from variable", "empty": "instead"} {
		s, err := load(t, `[{"id": "{{ credential "`+name+`" | js }}", "execute-command": "x"}]`, opts)
		if err != nil || !slices.Equal(s.IDs(), []string{want}) {
			t.Errorf("credential %s: %v, %v", name, s, err)
		}
	}
	for _, c := range []struct{ what, text, want string }{
		{"a credential elsewhere", `{{ credential "../x" }}`, "outside"},
		{"a function that is none", `{{ env "X" }}`, "not defined"},
		{"a directory", `{{ cat "` + dir + `" }}`, "directory"},
		{"too much", `{{ range 2000000 }}x{{ end }}`, "come out"},
		{"data, of which there is none", `{{ if .x.y }}{{ end }}- {{`, "template"},
	} {
		if _, err := load(t, c.text, opts); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "action: ") {
			t.Errorf("%s: %v, want %q in it", c.what, err, c.want)
		}
	}
	s, err := load(t, `[{"id": '{{ getenv "NAME" }}', "execute-command": "x"}]`, action.LoadOptions{Getenv: opts.Getenv})
	if err != nil || s.IDs()[0] != `{{ getenv "NAME" }}` {
		t.Errorf("without being asked for: %v, %v", s, err)
	}
}
