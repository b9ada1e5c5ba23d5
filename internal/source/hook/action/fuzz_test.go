package action_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

// Whatever a file says, it is a set or an error; a set that is strict is one that
// is not; and looking at it finds no error that loading it does not.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{
		oneOfEach, careful, "- {id: a, execute-command: x}", "[{\"id\":\"a\",\"execute-command\":\"x\"}]", "- &a {<<: *a}", "- {id: a, execute-command: x, trigger-rule: &r {not: *r}}",
	} {
		f.Add(text)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		name := filepath.Join(dir, "hooks")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := action.Load([]string{name}, action.LoadOptions{})
		if (s == nil) == (err == nil) {
			t.Fatalf("%v, %v", s, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "action: ") {
			t.Errorf("%v", err)
		}
		strict, strictErr := action.Load([]string{name}, action.LoadOptions{Strict: true})
		if strictErr == nil && (err != nil || !slices.Equal(strict.IDs(), s.IDs())) {
			t.Errorf("strict: %v; not: %v", strict, err)
		}
		if _, checkErr := action.Check(name, action.LoadOptions{}); (checkErr == nil) != (err == nil) {
			t.Errorf("Check: %v; Load: %v", checkErr, err)
		}
	})
}

// Whatever a rule and a request say, a rule with an error is not true, judging it
// again is the same, and what is shown of it can be read.
func FuzzRule(f *testing.F) {
	for _, rule := range []string{isTrue, isMissing, isWrong, isBroken, `{and: [{not: ` + isMissing + `}, {or: []}]}`, `{match: {type: header-time, parameter: {source: header, name: X-A}}}`, `{match: {type: scalr-signature, secret: a}}`, `{match: {type: ip-whitelist, ip-range: "::/0 1.2.3.4"}}`} {
		f.Add(rule, "application/json", `{"a":[{"b":1}]}`, "1.2.3.4:5", "x")
	}
	f.Fuzz(func(t *testing.T, text, contentType, body, remote, header string) {
		var r action.Rule
		if yaml.Unmarshal([]byte(text), &r) != nil {
			return
		}
		judge := func() (bool, error) {
			return r.Eval(&action.Request{
				Method: "POST", Remote: remote, ContentType: contentType, Body: []byte(body),
				Header: http.Header{"X-A": {header}, "X-Signature": {header}, "Date": {header}}, Query: url.Values{"a": {header}},
			})
		}
		ok, err := judge()
		again, err2 := judge()
		if ok != again || (err == nil) != (err2 == nil) {
			t.Errorf("%t, %v; again %t, %v", ok, err, again, err2)
		}
		if ok && err != nil {
			t.Errorf("true, with %v", err)
		}
		valid := r.Validate()
		if valid == nil && err != nil && !errors.Is(err, action.ErrSignature) && !strings.Contains(err.Error(), "address") && !strings.Contains(err.Error(), "Date") {
			t.Errorf("valid, and %v", err)
		}
		shown, err := yaml.Marshal(&r)
		if err != nil {
			t.Fatal(err)
		}
		var read action.Rule
		if err := yaml.Unmarshal(shown, &read); err != nil {
			t.Errorf("%v:\n%s", err, shown)
		}
	})
}

// Whatever a path and a body say, what is found is what is found again, and a key
// at the top is found by its name.
func FuzzPath(f *testing.F) {
	f.Add("a.0.b", "application/json", `{"a":[{"b":1.0}],"a.0":{}}`)
	f.Add("a.b.-c", "text/xml", `<a><b c="d"/><b/>e</a>`)
	f.Add("a", "application/x-www-form-urlencoded", "a=b&c=%20")
	f.Add("a", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n")
	f.Fuzz(func(t *testing.T, path, contentType, body string) {
		r := &action.Request{ContentType: contentType, Body: []byte(body)}
		got, err := action.Value("payload", path, r)
		if err != nil && !action.IsMissing(err) {
			t.Fatal(err)
		}
		if again, err2 := action.Value("payload", path, r); again != got || (err == nil) != (err2 == nil) {
			t.Errorf("%q, then %q", got, again)
		}
		whole, err := action.Value("entire-payload", "", r)
		if err != nil {
			t.Fatal(err)
		}
		var top map[string]json.RawMessage
		if err := json.Unmarshal([]byte(whole), &top); err != nil {
			t.Fatal(err)
		}
		for key := range top {
			if strings.Contains(key, "\uFFFD") {
				continue // it stands for bytes that are no text
			}
			if _, err := action.Value("payload", key, r); err != nil {
				t.Errorf("the key %q: %v", key, err)
			}
		}
		_ = action.Unfold("payload", path, r)
	})
}
