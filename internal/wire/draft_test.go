package wire_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/wire"
)

func TestParseDraftReadsEveryField(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     carillon.Draft
	}{
		{"the least", `{"type":"a","data":null}`, carillon.Draft{Type: "a", Data: []byte("null")}},
		{
			"all of them",
			`{"type":"workflow.step.completed","data":{"n":1},"subject":"wf-123","time":"2025-07-09T10:30:00Z","id":"own-1","to":{"user":"alice"},"ephemeral":true}`,
			carillon.Draft{Type: "workflow.step.completed", Data: []byte(`{"n":1}`), Subject: "wf-123", Time: "2025-07-09T10:30:00Z", ID: "own-1", Users: []string{"alice"}, Ephemeral: true},
		},
		{"a room", `{"data":1,"type":"a","to":{"room":"ops"}}`, carillon.Draft{Type: "a", Data: []byte("1"), Room: "ops"}},
		{"users", `{"data":1,"type":"a","to":{"users":["a" , "b"]}}`, carillon.Draft{Type: "a", Data: []byte("1"), Users: []string{"a", "b"}}},
		{"escapes in fields and their names", `{"t\u0079pe":"a\u002eb","data":"x","subject":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}`, carillon.Draft{Type: "a.b", Data: []byte(`"x"`), Subject: "\"\\/\b\f\n\r\té😀"}},
		{"no ephemeral", `{"type":"a","data":[],"ephemeral":false}`, carillon.Draft{Type: "a", Data: []byte("[]")}},
		{"space around", " \r\n\t{ \"type\" : \"a\" , \"data\" : 1 } \n", carillon.Draft{Type: "a", Data: []byte("1")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := wire.ParseDraft([]byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseDraftKeepsDataAsSentOnOneLine(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":1,"a":2}`:                        `{"b":1,"a":2}`,
		"{ \"b\" :\n[ 1.50 , -0 , 1E+9 ]\r\n}": `{"b":[1.50,-0,1E+9]}`,
		`" two  spaces, \" and \n "`:           `" two  spaces, \" and \n "`,
		`12345678901234567890.10`:              `12345678901234567890.10`,
		`"\u00e9\ud83d\ude00\/"`:               `"\u00e9\ud83d\ude00\/"`,
		"\"\u2028\"":                           "\"\u2028\"",
		` [ ] `:                                `[]`,
		`{"":{"":{}}}`:                         `{"":{"":{}}}`,
	} {
		d, err := wire.ParseDraft([]byte(`{"type":"a","data":` + in + `}`))
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if string(d.Data) != want {
			t.Errorf("%q became %q, want %q", in, d.Data, want)
		}
	}
}

func TestParseDraftHoldsNoPartOfItsInput(t *testing.T) {
	raw := []byte(`{"type":"a.b","data":{"k":"v"},"subject":"s","id":"i","to":{"users":["u"]}}`)
	d, err := wire.ParseDraft(raw)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		raw[i] = 'X'
	}
	want := carillon.Draft{Type: "a.b", Data: []byte(`{"k":"v"}`), Subject: "s", ID: "i", Users: []string{"u"}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}

func TestParseDraftRefuses(t *testing.T) {
	object := func(data string) string { return `{"type":"a","data":` + data + `}` }
	many := func(n int, last string) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := range n {
			fmt.Fprintf(&b, `"k%d":%d,`, i, i)
		}
		return b.String() + last + ":0}"
	}
	for _, tc := range []struct{ name, in, says string }{
		{"nothing", ``, "the text ends"},
		{"not an object", `"a"`, "an event, an object"},
		{"an array where one event goes", `[]`, "an event, an object"},
		{"no type", `{"data":1}`, `"type" is missing`},
		{"no data", `{"type":"a"}`, `"data" is missing`},
		{"an unknown field", `{"type":"a","data":1,"payload":2}`, `"payload" is not known; an event has type, data, subject, time, id, to and ephemeral (at byte 21)`},
		{"a field in other letters", `{"Type":"a","data":1}`, `"Type" is not known`},
		{"a field twice", `{"type":"a","data":1,"type":"b"}`, `"type" is there twice`},
		{"a field twice, spelled differently", `{"type":"a","data":1,"dat\u0061":2}`, `"data" is there twice`},
		{"a key twice in data", object(`{"a":1,"b":{"a":2},"a":3}`), `"a" is there twice in one object; keep one (at byte 38)`},
		{"a key twice deep in data", object(`[[{"x":[{"y":1,"y":1}]}]]`), `"y" is there twice`},
		{"a key twice, spelled differently", object(`{"a":1,"\u0061":2}`), `"a" is there twice`},
		{"a key twice among many", object(many(1000, `"k7"`)), `"k7" is there twice`},
		{"a key twice among many, spelled differently", object(many(1000, `"k\u0037"`)), `"k7" is there twice`},
		{"a type that is no string", `{"type":1,"data":1}`, `type is not a string`},
		{"a subject that is null", `{"type":"a","data":1,"subject":null}`, "subject is not a string; it is a string; leave it out"},
		{"an empty id", `{"type":"a","data":1,"id":""}`, "id is empty"},
		{"an id that is a number", `{"type":"a","data":1,"id":7}`, "id is not a string"},
		{"an empty time", `{"type":"a","data":1,"time":""}`, "time is empty"},
		{"a time that is a number", `{"type":"a","data":1,"time":1752057000}`, "time is not a string"},
		{"ephemeral as a string", `{"type":"a","data":1,"ephemeral":"true"}`, "true or false for ephemeral"},
		{"to as a string", `{"type":"a","data":1,"to":"alice"}`, `"to" is exactly one of`},
		{"to without content", `{"type":"a","data":1,"to":{}}`, `"to" is exactly one of`},
		{"to with two", `{"type":"a","data":1,"to":{"room":"r","user":"u"}}`, `"to" is exactly one of`},
		{"to with the same twice", `{"type":"a","data":1,"to":{"user":"r","user":"u"}}`, `"to" is exactly one of`},
		{"to with something else", `{"type":"a","data":1,"to":{"group":"g"}}`, `"group" is not known in "to"`},
		{"an empty room", `{"type":"a","data":1,"to":{"room":""}}`, "to.room is empty"},
		{"no users", `{"type":"a","data":1,"to":{"users":[]}}`, "to.users is empty"},
		{"users as a string", `{"type":"a","data":1,"to":{"users":"a"}}`, "for to.users"},
		{"users that are numbers", `{"type":"a","data":1,"to":{"users":[1]}}`, "to.users is not a string"},
		{"users unended", `{"type":"a","data":1,"to":{"users":["a"`, "']' in to.users"},
		{"more behind it", object(`1`) + `{}`, "nothing more (at byte 21)"},
		{"a comma at the end", `{"type":"a","data":1,}`, "a key, a string"},
		{"a comma at the end of an array", object(`[1,]`), "a JSON value"},
		{"no colon", `{"type" "a"}`, "':' after a key"},
		{"not UTF-8", object("\"\xff\""), "byte 0xff is not UTF-8; send JSON in UTF-8 (at byte 20)"},
		{"an encoded surrogate", object("\"\xed\xa0\x80\""), "is not UTF-8"},
		{"a byte order mark", "\ufeff" + object("1"), "unexpected byte 0xef"},
		{"half a surrogate pair", object(`"\ud800"`), "half a surrogate pair"},
		{"half a pair, then text", object(`"\ud800\u0041"`), "half a surrogate pair"},
		{"the second half alone", object(`"\udc00"`), "half a surrogate pair"},
		{"half a pair in a key", object(`{"\ud83d":1}`), "half a surrogate pair"},
		{"an unknown escape", object(`"\x"`), "the escape is not known"},
		{"an escape cut short", object(`"\u12"`), "four hexadecimal digits"},
		{"a line break in a string", object("\"a\nb\""), `write it as \u000a`},
		{"a string without end", `{"type":"a`, "has no end"},
		{"a leading zero", object(`01`), "'1' where it should have ',' or '}'"},
		{"a plus", object(`+1`), "a JSON value"},
		{"a dot without digits", object(`1.`), "a digit"},
		{"an exponent without digits", object(`1e`), "a digit"},
		{"only a minus", object(`-`), "a digit"},
		{"NaN", object(`NaN`), "a JSON value"},
		{"a word cut short", object(`tru`), "a JSON value"},
		{"a comment", object(`1 /* one */`), "'/'"},
		{"too deep", object(strings.Repeat("[", wire.MaxDepth+1) + strings.Repeat("]", wire.MaxDepth+1)), "nest deeper than 128"},
		{"too deep in objects", object(strings.Repeat(`{"a":`, wire.MaxDepth+1) + "1" + strings.Repeat("}", wire.MaxDepth+1)), "nest deeper than 128"},
		{"a million brackets", object(strings.Repeat("[", 1_000_000)), "nest deeper than 128"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := wire.ParseDraft([]byte(tc.in))
			wantRefusal(t, err, carillon.CodeBadRequest, tc.says)
		})
	}
}

func wantRefusal(t *testing.T, err error, code carillon.Code, says string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted; want %s %q", code, says)
	}
	e := carillon.AsError(err)
	if e.Code != code || !strings.Contains(e.Message, says) {
		t.Errorf("%s: %s\nwant %s with %q", e.Code, e.Message, code, says)
	}
	if len(e.Message) > 500 {
		t.Errorf("the message has %d bytes", len(e.Message))
	}
}

func TestDeepestDataIsAccepted(t *testing.T) {
	in := strings.Repeat(`[`, wire.MaxDepth) + strings.Repeat(`]`, wire.MaxDepth)
	if _, err := wire.ParseDraft([]byte(`{"type":"a","data":` + in + `}`)); err != nil {
		t.Error(err)
	}
	// Depth is nesting, not how many there are.
	in = "[" + strings.Repeat(`{"a":[]},`, 1000) + "0]"
	if _, err := wire.ParseDraft([]byte(`{"type":"a","data":` + in + `}`)); err != nil {
		t.Error(err)
	}
}

func TestParseDraftsTakesOneOrAnArray(t *testing.T) {
	one, array, err := wire.ParseDrafts([]byte(` {"type":"a","data":1} `), 10)
	if err != nil || array || len(one) != 1 || one[0].Type != "a" {
		t.Errorf("one: %v %v %v", one, array, err)
	}
	two, array, err := wire.ParseDrafts([]byte(` [ {"type":"a","data":1} , {"type":"b","data":{"x": 2}} ] `), 2)
	if err != nil || !array || len(two) != 2 || two[1].Type != "b" || string(two[1].Data) != `{"x":2}` {
		t.Errorf("two: %v %v %v", two, array, err)
	}
}

func TestParseDraftsRefuses(t *testing.T) {
	const e = `{"type":"a","data":1}`
	for _, tc := range []struct {
		name, in string
		code     carillon.Code
		says     string
	}{
		{"an empty array", `[ ]`, carillon.CodeBadRequest, "the array is empty; it has 1–3 events"},
		{"more than max", "[" + e + "," + e + "," + e + "," + e + "]", carillon.CodeTooLarge, "more than 3 events"},
		{"a bad event", "[" + e + `,{"type":"a"}]`, carillon.CodeBadRequest, `event 1: the field "data" is missing`},
		{"something else in the array", "[" + e + ",1]", carillon.CodeBadRequest, "event 1: '1' where it should have an event"},
		{"a comma at the end", "[" + e + ",]", carillon.CodeBadRequest, "event 1: ']'"},
		{"no end", "[" + e, carillon.CodeBadRequest, "']' after an event"},
		{"more behind it", "[" + e + "]]", carillon.CodeBadRequest, "nothing more"},
		{"lines of JSON", e + "\n" + e, carillon.CodeBadRequest, "nothing more"},
		{"not UTF-8", "[\xc3]", carillon.CodeBadRequest, "not UTF-8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := wire.ParseDrafts([]byte(tc.in), 3)
			wantRefusal(t, err, tc.code, tc.says)
		})
	}
}

// FuzzParseDraft compares with encoding/json: what is accepted is JSON and is
// compacted as json.Compact does; what is not JSON is refused.
func FuzzParseDraft(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"b":[true,false,null,-1.5e+3],"c":{"d":"e"}}`,
		"{ \"a\" : [ 1 , 2 ] }",
		`"\u00e9\ud83d\ude00\ud800"`,
		`{"a":1,"a":2}`,
		"\"\xff\"",
		`{"k0":0,"k1":0,"k2":0,"k3":0,"k4":0,"k5":0,"k6":0,"k7":0,"k8":0,"k9":0,"ka":0,"kb":0,"kc":0,"kd":0,"ke":0,"kf":0,"kg":0,"k1":0}`,
		`1,"subject":"s","to":{"users":["a","b"]},"x":1`,
		"[[[[]]]]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		raw := append(append([]byte(`{"type":"a","data":`), data...), '}')
		d, err := wire.ParseDraft(raw)
		if !json.Valid(raw) {
			if err == nil {
				t.Fatalf("accepted what is not JSON: %q", raw)
			}
			return
		}
		drafts, array, errs := wire.ParseDrafts(append(append([]byte{'['}, raw...), ']'), 1)
		if (err == nil) != (errs == nil) || err == nil && !array {
			t.Fatalf("alone: %v; in an array: %v", err, errs)
		}
		if err != nil {
			return
		}
		if !cmp.Equal(d, drafts[0]) {
			t.Fatalf("alone: %v; in an array: %v", d, drafts[0])
		}
		// What was sent as data, whatever fields the input closed and opened.
		var sent struct{ Data json.RawMessage }
		var want bytes.Buffer
		if err := json.Unmarshal(raw, &sent); err != nil {
			t.Fatalf("encoding/json: %v", err)
		}
		if err := json.Compact(&want, sent.Data); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(d.Data, want.Bytes()) {
			t.Fatalf("data %q, want %q", d.Data, want.Bytes())
		}
		if bytes.ContainsAny(d.Data, "\r\n") {
			t.Fatalf("line break in %q", d.Data)
		}
		if dup := repeatedKey(d.Data); dup != "" {
			t.Fatalf("the key %q is there twice in %q", dup, d.Data)
		}
	})
}

// repeatedKey finds a key that an object has twice, the slow way.
func repeatedKey(data []byte) string {
	dec := json.NewDecoder(bytes.NewReader(data))
	type level struct {
		keys   map[string]bool // nil in an array
		expect bool            // a key comes next
	}
	var open []level
	for {
		tok, err := dec.Token()
		if err != nil {
			return ""
		}
		top := len(open) - 1
		if s, ok := tok.(string); ok && top >= 0 && open[top].keys != nil && open[top].expect {
			if open[top].keys[s] {
				return s
			}
			open[top].keys[s], open[top].expect = true, false
			continue
		}
		switch tok {
		case json.Delim('{'):
			open = append(open, level{keys: map[string]bool{}, expect: true})
			continue
		case json.Delim('['):
			open = append(open, level{})
			continue
		case json.Delim('}'), json.Delim(']'):
			open = open[:top]
		}
		if top = len(open) - 1; top >= 0 {
			open[top].expect = true
		}
	}
}

// event300 is an event of about 300 bytes.
const event300 = `{"type":"workflow.step.completed","subject":"wf-8f14e45f","time":"2025-07-09T10:30:00.000Z","id":"6f1c5f0e-7a3a-4c1b","data":{"workflow":"wf-8f14e45f","step":"resize-images","attempt":1,"duration_ms":1834.25,"ok":true,"worker":"worker-eu-west-1a-17","tags":["images","batch"],"next":{"step":"publish","in":null}}}`

func BenchmarkParseDraft(b *testing.B) {
	for name, in := range map[string][]byte{
		"300B":       []byte(event300),
		"300B-blank": []byte(strings.NewReplacer(`,"`, `, "`, `":`, `": `).Replace(event300)),
		"10KB":       []byte(`{"type":"a.b","data":[` + strings.Repeat(`{"name":"a string of some length","value":12345.678,"on":true},`, 160) + `0]}`),
		"10KB-keys":  []byte(`{"type":"a.b","data":{` + manyKeys(800) + `"z":0}}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := wire.ParseDraft(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"key-%d":%d,`, i*7919%n, i)
	}
	return b.String()
}
