package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// publishFake takes events whole or not at all, as the server does: it refuses
// a request that has one with "refuse":true in its data.
type publishFake struct {
	*httptest.Server

	mu       sync.Mutex // guards what follows
	events   []string   // type, subject and data of what was taken
	requests int
	ids      map[string]bool
	busy     int // so many requests get 503 first
}

func newPublishFake(t *testing.T) *publishFake {
	f := &publishFake{ids: map[string]bool{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	t.Setenv("CARILLON_URL", f.URL)
	t.Setenv("CARILLON_API_KEY", "ck_fake")
	t.Setenv("CARILLON_TOKEN", "")
	return f
}

func (f *publishFake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	if f.requests <= f.busy {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var drafts []struct {
		Type, Subject, ID string
		Data              json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&drafts); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for i, d := range drafts {
		if strings.Contains(string(d.Data), `"refuse":true`) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"code":"bad_request","detail":"event %d: it asks for it"}`, i)
			return
		}
	}
	var receipts []string
	for _, d := range drafts {
		if d.ID == "" || f.ids[d.ID] {
			receipts = append(receipts, `{"id":"X","duplicate":true}`)
			continue
		}
		f.ids[d.ID] = true
		f.events = append(f.events, strings.Join(strings.Fields(d.Type+" "+d.Subject+" "+string(d.Data)), " "))
		receipts = append(receipts, fmt.Sprintf(`{"id":"E%d","duplicate":false}`, len(f.events)))
	}
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprintf(w, `{"events":[%s]}`, strings.Join(receipts, ","))
}

// publishes runs carillon publish with an input.
func publishes(t *testing.T, in string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), append([]string{"publish"}, args...), &IO{Out: &o, Err: &e, In: strings.NewReader(in)})
	return code, o.String(), e.String()
}

func TestPublishOneEvent(t *testing.T) {
	f := newPublishFake(t)
	for _, tc := range []struct {
		in   string
		args []string
		want string
	}{
		{"", []string{"a.b"}, "a.b null"},
		{"", []string{"--type", "a.b", "--data", `{"x":1}`, "--subject", "s"}, `a.b s {"x":1}`},
		{`{"from":"stdin"}`, []string{"a.b", "--data", "-"}, `a.b {"from":"stdin"}`},
		{"", []string{"a.b", "--data", "-5"}, "a.b -5"},
	} {
		f.events = nil
		code, out, errOut := publishes(t, tc.in, tc.args...)
		if code != exitOK || out != "E1\n" || errOut != "" || len(f.events) != 1 || f.events[0] != tc.want {
			t.Errorf("%q: exit %d, %q, %q; published %q, want %q", tc.args, code, out, errOut, f.events, tc.want)
		}
	}
}

func TestPublishLines(t *testing.T) {
	f := newPublishFake(t)
	in := `{"Action":"run","Package":"p"}

{"Action":"out put/2"}
{"Action":7,"Package":null}`
	code, out, errOut := publishes(t, in, "--type", "gotest", "--type-field", "Action", "--subject-field", "Package", "--subject", "none", "--json", "-")
	want := []string{
		`gotest.run p {"Action":"run","Package":"p"}`,
		`gotest.out_put_2 none {"Action":"out put/2"}`,
		`gotest.7 none {"Action":7,"Package":null}`,
	}
	if strings.Join(f.events, "\n") != strings.Join(want, "\n") {
		t.Errorf("published\n%s\nwant\n%s", strings.Join(f.events, "\n"), strings.Join(want, "\n"))
	}
	if code != exitOK || strings.Count(out, `"duplicate":false`) != 3 || !strings.HasPrefix(errOut, "published 3 events in ") || !strings.HasSuffix(errOut, "/s), 0 duplicates\n") {
		t.Errorf("exit %d\n%s\n%s", code, out, errOut)
	}
}

// A bad line is named, whoever finds it, and what is before it is published.
func TestPublishNamesABadLine(t *testing.T) {
	for name, bad := range map[string]struct{ line, says string }{
		"not JSON":       {`{"Action"`, "not JSON"},
		"not an object":  {`[1]`, "not a JSON object"},
		"no field":       {`{"Other":"x"}`, `field "Action" has no text`},
		"no type":        {`{"Action":"a..b"}`, "empty segment"},
		"too long":       {`{"Action":"` + strings.Repeat("x", maxLine) + `"}`, "longer than 1048576 bytes"},
		"refused by the": {`{"Action":"x","refuse":true}`, "it asks for it"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newPublishFake(t)
			var in []string
			for i := range 30 {
				in = append(in, fmt.Sprintf(`{"Action":"good","n":%d}`, i))
			}
			in[16] = bad.line
			code, _, errOut := publishes(t, strings.Join(in, "\n"), "--type-field", "Action", "-")
			if code != exitError || len(f.events) != 16 || !strings.Contains(errOut, "carillon: line 17: ") || !strings.Contains(errOut, bad.says) ||
				!strings.Contains(errOut, "published 16 events") || !strings.Contains(errOut, "--skip-bad") {
				t.Errorf("exit %d, %d events\n%s", code, len(f.events), errOut)
			}

			f.events = nil
			code, _, errOut = publishes(t, strings.Join(in, "\n"), "--type-field", "Action", "--skip-bad", "-")
			if code != exitOK || len(f.events) != 29 || !strings.Contains(errOut, "carillon: line 17: ") || !strings.Contains(errOut, "1 line left out") {
				t.Errorf("exit %d, %d events\n%s", code, len(f.events), errOut)
			}
			for i, e := range f.events {
				n := i
				if n >= 16 {
					n++
				}
				if want := fmt.Sprintf(`good {"Action":"good","n":%d}`, n); e != want {
					t.Fatalf("event %d is %s, want %s", i, e, want)
				}
			}
		})
	}
}

func TestPublishBatchesInOrder(t *testing.T) {
	f := newPublishFake(t)
	var in strings.Builder
	for i := range 1234 {
		fmt.Fprintf(&in, "{\"n\":%d}\n", i)
	}
	code, _, errOut := publishes(t, in.String(), "--type", "a", "-")
	if code != exitOK || !strings.Contains(errOut, "published 1,234 events") || f.requests < 3 || f.requests > 20 {
		t.Errorf("exit %d, %d requests\n%s", code, f.requests, errOut)
	}
	for i, e := range f.events {
		if e != fmt.Sprintf(`a {"n":%d}`, i) {
			t.Fatalf("event %d is %s", i, e)
		}
	}
}

func TestPublishWaitsForABusyServer(t *testing.T) {
	f := newPublishFake(t)
	f.busy = 2
	if code, out, errOut := publishes(t, "", "a.b"); code != exitOK || out != "E1\n" || f.requests != 3 {
		t.Errorf("exit %d, %q, %q, %d requests", code, out, errOut, f.requests)
	}
}

func TestPublishSaysAtOnceThatThereIsNoServer(t *testing.T) {
	f := newPublishFake(t)
	f.Close()
	for _, args := range [][]string{{"publish", "a.b"}, {"tail", ">"}} {
		code, _, errOut := typed(t, args...)
		if code != exitError || !strings.Contains(errOut, "connection refused") || !strings.Contains(errOut, "`carillon dev` starts one") {
			t.Errorf("%q: exit %d, %s", args, code, errOut)
		}
	}
}

func TestPublishRefusesFlagsThatDoNotFit(t *testing.T) {
	f := newPublishFake(t)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "no event type"},
		{[]string{"-"}, "the lines have no type"},
		{[]string{"a", "--type", "b"}, "given twice"},
		{[]string{"a", "--skip-bad"}, "for NDJSON"},
		{[]string{"-", "--type", "a", "--id", "x"}, "for one event"},
		{[]string{"a", "--data", "text"}, "the data is not JSON"},
		{[]string{"a", "--data", "@nothing.here"}, "nothing.here"},
		{[]string{"a", "--to-user", ""}, "--to-user: a user is 1–255 bytes"},
	} {
		if code, _, errOut := publishes(t, "", tc.args...); code != exitError || !strings.Contains(errOut, tc.want) {
			t.Errorf("%q: exit %d, %s", tc.args, code, errOut)
		}
	}
	if f.requests != 0 {
		t.Errorf("%d requests", f.requests)
	}
}

func TestVisibleTextCannotSteerATerminal(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":"ü→"}`:       `{"a":"ü→"}`,
		"a\u009b31mb":      `a\u009b31mb`,
		"a\x1b[2J":         `a\u001b[2J`,
		"\u202egnp\u2066":  `\u202egnp\u2066`,
		"\U000e0041":       `\udb40\udc41`,
		"family \u200d ok": `family \u200d ok`,
	} {
		if got := visible(in); got != want || !utf8.ValidString(got) {
			t.Errorf("visible(%q) is %q, want %q", in, got, want)
		}
	}
}
