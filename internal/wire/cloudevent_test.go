package wire_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/testkit/vectors"
	"github.com/carillon-rt/carillon/internal/wire"
)

const maxCE = 200

// least is the least that a CloudEvent has, without the closing brace.
const least = `{"specversion":"1.0","id":"7","source":"/s","type":"a.b"`

func TestACloudEventBecomesADraft(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     carillon.Draft
	}{
		{"the least", least + `}`, carillon.Draft{Type: "a.b", ID: "7", Source: "/s", Data: []byte("null"), CE: []byte(`{"source":"/s"}`)}},
		{
			"all that there is",
			least + `,"subject":"wf-1","time":"2018-04-05T17:31:00Z","datacontenttype":"application/vnd.x+json; v=1","dataschema":"https://x/y","traceparent":"00-ab","n":-5,"on":true,"data":{ "b" : 1.50 }}`,
			carillon.Draft{
				Type: "a.b", ID: "7", Source: "/s", Subject: "wf-1", Time: "2018-04-05T17:31:00Z", Data: []byte(`{"b":1.50}`),
				CE: []byte(`{"source":"/s","dataschema":"https://x/y","datacontenttype":"application/vnd.x+json; v=1","traceparent":"00-ab","n":-5,"on":true}`),
			},
		},
		{"to a room", least + `,"carillonroom":"ops"}`, carillon.Draft{Type: "a.b", ID: "7", Source: "/s", Room: "ops", Data: []byte("null"), CE: []byte(`{"source":"/s"}`)}},
		{"to a user", least + `,"carillonuser":"alice"}`, carillon.Draft{Type: "a.b", ID: "7", Source: "/s", Users: []string{"alice"}, Data: []byte("null"), CE: []byte(`{"source":"/s"}`)}},
		{"null is not there", least + `,"subject":null,"ext":null,"time":null,"data":null}`, carillon.Draft{Type: "a.b", ID: "7", Source: "/s", Data: []byte("null"), CE: []byte(`{"source":"/s"}`)}},
		{"JSON by another name", least + `,"datacontenttype":"Application/JSON; charset=UTF-8","data":"x"}`, carillon.Draft{Type: "a.b", ID: "7", Source: "/s", Data: []byte(`"x"`), CE: []byte(`{"source":"/s"}`)}},
		{"text that needs escapes", `{"specversion":"1.0","id":"\u00e9","source":"a\"b\\","type":"t","ext":"\ud83d\ude00"}`, carillon.Draft{Type: "t", ID: "é", Source: `a"b\`, Data: []byte("null"), CE: []byte(`{"source":"a\"b\\","ext":"😀"}`)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := wire.ParseCloudEvent([]byte(tc.in), maxCE)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			batch, err := wire.ParseCloudEvents([]byte(`[`+tc.in+`, `+tc.in+`]`), 2, maxCE)
			if err != nil || len(batch) != 2 || !cmp.Equal(batch[1], got) {
				t.Errorf("in a batch: %v %v", batch, err)
			}
		})
	}
}

func TestCloudEventsThatAreRefused(t *testing.T) {
	const bad, media, large = carillon.CodeBadRequest, carillon.CodeUnsupportedMedia, carillon.CodeTooLarge
	for _, tc := range []struct {
		name, in string
		code     carillon.Code
		says     string
	}{
		{"not an object", `[]`, bad, "a CloudEvent, an object"},
		{"without specversion", `{"id":"7","source":"/s","type":"a"}`, bad, "no specversion"},
		{"without id", `{"specversion":"1.0","source":"/s","type":"a"}`, bad, "no id"},
		{"with an id that is null", `{"specversion":"1.0","id":null,"source":"/s","type":"a"}`, bad, "no id"},
		{"without source", `{"specversion":"1.0","id":"7","type":"a"}`, bad, "no source"},
		{"without type", `{"specversion":"1.0","id":"7","source":"/s"}`, bad, "no type"},
		{"of another version", `{"specversion":"0.3","id":"7","source":"/s","type":"a"}`, bad, "CloudEvents 1.0"},
		{"with an empty id", `{"specversion":"1.0","id":"","source":"/s","type":"a"}`, bad, "id is empty"},
		{"with an empty subject", least + `,"subject":""}`, bad, "subject is empty"},
		{"with a number for a type", `{"specversion":"1.0","id":"7","source":"/s","type":1}`, bad, "type is a text (at byte 44)"},
		{"with base64", least + `,"data_base64":"AAAA"}`, media, "data_base64"},
		{"with XML", least + `,"datacontenttype":"application/xml","data":"<a/>"}`, media, `"application/xml"`},
		{"with XML, said later", least + `,"data":"<a/>","datacontenttype":"text/xml"}`, media, "+json"},
		{"with a type that is none", least + `,"datacontenttype":"json"}`, media, `"json"`},
		{"with another charset", least + `,"datacontenttype":"application/json; charset=latin1"}`, media, "UTF-8"},
		{"an attribute twice", least + `,"ext":"a","ext":"b"}`, bad, `"ext" is there twice`},
		{"an attribute twice, once null", least + `,"ext":null,"ext":"b"}`, bad, `"ext" is there twice`},
		{"an attribute twice, spelled differently", least + `,"\u0069d":"b"}`, bad, `"id" is there twice`},
		{"data twice", least + `,"data":1,"data":2}`, bad, `"data" is there twice`},
		{"a key twice in data", least + `,"data":{"a":1,"a":2}}`, bad, `"a" is there twice`},
		{"an extension in capitals", least + `,"traceParent":"x"}`, bad, "only a–z and 0–9"},
		{"an extension with a hyphen", least + `,"my-ext":"x"}`, bad, "only a–z and 0–9"},
		{"an extension without a name", least + `,"":"x"}`, bad, "without a name"},
		{"an extension that is an object", least + `,"ext":{}}`, bad, "for an attribute"},
		{"an extension with a fraction", least + `,"ext":1.5}`, bad, "whole number of 32 bits"},
		{"an extension with a large number", least + `,"ext":2147483648}`, bad, "whole number of 32 bits"},
		{"an extension of ours that is not known", least + `,"carillonfrom":"bob"}`, bad, "carillonroom and carillonuser"},
		{"to a room and a user", least + `,"carillonroom":"r","carillonuser":"u"}`, bad, "one of them"},
		{"a control character", least + `,"ext":"a\u0007"}`, bad, "without control characters"},
		{"no character", least + `,"ext":"\ufffe"}`, bad, "without control characters"},
		{"much", least + `,"ext":"` + strings.Repeat("x", maxCE) + `"}`, large, "more than 200 bytes"},
		{"many", least + many(100_000), large, "put what is large into the data (at byte "},
		{"a long source", `{"specversion":"1.0","id":"7","type":"a","source":"` + strings.Repeat("x", maxCE) + `"}`, large, "more than 200 bytes"},
		{"deep data", least + `,"data":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, bad, "nest deeper"},
		{"a deep extension", least + `,"ext":` + strings.Repeat("[", 1_000_000), bad, "for an attribute"},
		{"not UTF-8", least + ",\"ext\":\"\xff\"}", bad, "not UTF-8"},
		{"no end", least, bad, "'}'"},
		{"more behind it", least + `}{}`, bad, "nothing more"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := wire.ParseCloudEvent([]byte(tc.in), maxCE)
			wantRefusal(t, err, tc.code, tc.says)
		})
	}
	for name, tc := range map[string]struct {
		in   string
		code carillon.Code
		says string
	}{
		"one where a batch goes": {least + `}`, bad, "a batch, an array of CloudEvents"},
		"an empty batch":         {`[]`, bad, "1–2 events"},
		"too many":               {`[` + least + `},` + least + `},` + least + `}]`, large, "more than 2 events"},
		"a bad one":              {`[` + least + `},{}]`, bad, "event 1: the CloudEvent has no specversion"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := wire.ParseCloudEvents([]byte(tc.in), 2, maxCE)
			wantRefusal(t, err, tc.code, tc.says)
		})
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"e%d":1`, i)
	}
	return b.String()
}

// ce makes headers; names and values follow each other.
func ce(pairs ...string) http.Header {
	h := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"7"}, "Ce-Source": {"/s"}, "Ce-Type": {"a.b"}}
	for i := 0; i < len(pairs); i += 2 {
		h.Del(pairs[i])
		if pairs[i+1] != "" {
			h.Add(pairs[i], pairs[i+1])
		}
	}
	return h
}

func TestABinaryCloudEventBecomesADraft(t *testing.T) {
	got, err := wire.ParseBinaryCloudEvent(ce(
		"ce-time", "2018-04-05T03:56:24Z", "ce-subject", "Euro%20%E2%82%AC%20%f0%9f%98%80", "ce-ext", `"a \"quoted\" text"`, "ce-plain", "%61b",
		"ce-carillonuser", "alice", "content-type", "application/json; charset=utf-8", "accept", "*/*",
	), []byte(` { "n" : 1 } `), maxCE)
	if err != nil {
		t.Fatal(err)
	}
	want := carillon.Draft{
		Type: "a.b", ID: "7", Source: "/s", Subject: "Euro € 😀", Time: "2018-04-05T03:56:24Z", Users: []string{"alice"},
		Data: []byte(`{"n":1}`), CE: []byte(`{"source":"/s","ext":"a \"quoted\" text","plain":"ab"}`),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got, err = wire.ParseBinaryCloudEvent(ce("content-type", "application/x+json"), nil, maxCE)
	if err != nil || string(got.Data) != "null" || string(got.CE) != `{"source":"/s","datacontenttype":"application/x+json"}` {
		t.Errorf("without a body: %+v, %v", got, err)
	}
}

func TestBinaryCloudEventsThatAreRefused(t *testing.T) {
	const bad, media = carillon.CodeBadRequest, carillon.CodeUnsupportedMedia
	twice := ce()
	twice["Ce-Id"] = []string{"7", "8"}
	for _, tc := range []struct {
		name   string
		header http.Header
		body   string
		code   carillon.Code
		says   string
	}{
		{"without an id", ce("ce-id", ""), `1`, bad, "no id"},
		{"an attribute twice", twice, `1`, bad, "2 headers Ce-Id"},
		{"the data as a header", ce("ce-data", "1"), ``, bad, "no header Ce-Data"},
		{"the data's type as a header", ce("ce-datacontenttype", "application/json"), `1`, bad, "Content-Type"},
		{"a name with a hyphen", ce("ce-my-extension", "x"), `1`, bad, `"my-extension"`},
		{"an overlong encoding", ce("ce-ext", "%C0%A0"), `1`, bad, "Ce-Ext is not readable"},
		{"an encoding cut short", ce("ce-ext", "100%"), `1`, bad, "not readable"},
		{"an encoding that is none", ce("ce-ext", "%+1"), `1`, bad, "not readable"},
		{"a quote without end", ce("ce-ext", `"a`), `1`, bad, "not readable"},
		{"a backslash at the end", ce("ce-ext", `"a\`), `1`, bad, "not readable"},
		{"bytes that are not UTF-8", ce("ce-ext", "\xff"), `1`, bad, "not readable"},
		{"an encoded control character", ce("ce-ext", "a%0Ab"), `1`, bad, "control characters"},
		{"XML", ce("content-type", "text/xml"), `<a/>`, media, `"text/xml"`},
		{"a body that is not JSON", ce(), `<a/>`, bad, "a JSON value"},
		{"two values", ce(), `1 2`, bad, "nothing more"},
		{"a body that is not UTF-8", ce(), "\"\xff\"", bad, "UTF-8"},
		{"a key twice", ce(), `{"a":1,"a":2}`, bad, "twice"},
		{"much", ce("ce-ext", strings.Repeat("x", maxCE)), `1`, carillon.CodeTooLarge, "200 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := wire.ParseBinaryCloudEvent(tc.header, []byte(tc.body), maxCE)
			wantRefusal(t, err, tc.code, tc.says)
		})
	}
}

func TestAnEventIsGivenOutAsACloudEvent(t *testing.T) {
	ids := wire.NewKeyring([]byte("0123456789abcdef0123456789abcdef")).Org("acme")
	pos := carillon.Position{Seq: 5, Check: 9}
	when := time.Date(2025, 7, 9, 10, 30, 0, 5e6, time.UTC)
	for _, tc := range []struct {
		event carillon.Event
		want  string
	}{
		{
			carillon.Event{Type: "a.b", Time: when, Data: []byte(`{"n":1.0}`)},
			`{"specversion":"1.0","id":"ID","source":"/orgs/acme","type":"a.b","time":"2025-07-09T10:30:00.005Z","data":{"n":1.0}}`,
		},
		{
			carillon.Event{Type: "a", Time: when, Subject: "s", CE: []byte(`{"source":"/x","n":5}`), To: carillon.Audience{Room: "ops"}, From: "alice"},
			`{"specversion":"1.0","id":"ID","source":"/x","n":5,"type":"a","time":"2025-07-09T10:30:00.005Z","subject":"s","carillonroom":"ops","carillonfrom":"alice","data":null}`,
		},
		{
			carillon.Event{Type: "gh.push", Time: when, Data: []byte(`1`), To: carillon.Audience{Users: []string{"bob"}}, Source: "gh", Delivery: "d-1"},
			`{"specversion":"1.0","id":"ID","source":"/orgs/acme","type":"gh.push","time":"2025-07-09T10:30:00.005Z","carillondirect":true,"carillonsource":"gh","carillondelivery":"d-1","data":1}`,
		},
	} {
		got := string(wire.AppendCloudEvent(nil, ids, &carillon.Entry{Event: tc.event, Org: "acme", Pos: pos}))
		if want := strings.ReplaceAll(tc.want, `"ID"`, `"`+ids.String(pos)+`"`); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// FuzzParseCloudEvent: what is accepted is an event that can be given out again
// as a CloudEvent, with the attributes that were sent.
func FuzzParseCloudEvent(f *testing.F) {
	for _, s := range vectors.Inputs[vectors.Text](f, "cloudevents.json", "structured") {
		f.Add([]byte(s))
	}
	f.Add([]byte(least + many(30) + `}`))
	ids := wire.NewKeyring([]byte("0123456789abcdef0123456789abcdef")).Org("acme")
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := wire.ParseCloudEvent(raw, maxCE)
		batch, errs := wire.ParseCloudEvents(append(append([]byte{'['}, raw...), ']'), 1, maxCE)
		if (err == nil) != (errs == nil) || err == nil && !cmp.Equal(d, batch[0]) {
			t.Fatalf("alone: %v, %v; in a batch: %v, %v", d, err, batch, errs)
		}
		if err != nil {
			return
		}
		wantGivenBack(t, ids, d, raw)
	})
}

// FuzzParseBinaryCloudEvent is the same for headers: one, and a body.
func FuzzParseBinaryCloudEvent(f *testing.F) {
	for _, s := range [][3]string{
		{"Ext", "Euro%20%E2%82%AC", `{"a":1}`},
		{"Source", `"a b"`, ``},
		{"Id", "%C0%A0", `1`},
		{"My-Ext", "x", `1`},
	} {
		f.Add(s[0], s[1], []byte(s[2]))
	}
	ids := wire.NewKeyring([]byte("0123456789abcdef0123456789abcdef")).Org("acme")
	f.Fuzz(func(t *testing.T, name, value string, body []byte) {
		d, err := wire.ParseBinaryCloudEvent(ce("ce-"+name, value), body, maxCE)
		if err == nil {
			wantGivenBack(t, ids, d, nil)
		}
	})
}

// wantGivenBack checks what an accepted CloudEvent becomes when it is read again.
func wantGivenBack(t *testing.T, ids *wire.IDs, d carillon.Draft, sent []byte) {
	t.Helper()
	if len(d.CE) > maxCE || d.ID == "" || d.Source == "" || d.Type == "" {
		t.Fatalf("accepted: %+v", d)
	}
	out := wire.AppendCloudEvent(nil, ids, &carillon.Entry{
		Org:   "acme",
		Event: carillon.Event{Type: "a.b", Time: time.UnixMilli(0), Data: d.Data, CE: d.CE},
	})
	var back map[string]json.RawMessage
	if err := json.Unmarshal(out, &back); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	again, err := wire.ParseCloudEvent(out, maxCE)
	if err != nil || string(again.CE) != string(d.CE) || again.Source != d.Source || string(again.Data) != string(d.Data) {
		t.Fatalf("%s was read again as %+v: %v", out, again, err)
	}
	if sent == nil {
		return
	}
	var was map[string]any
	if err := json.Unmarshal(sent, &was); err != nil {
		t.Fatalf("accepted what is not JSON: %q", sent)
	}
	var kept map[string]any
	if err := json.Unmarshal(d.CE, &kept); err != nil {
		t.Fatalf("kept %q: %v", d.CE, err)
	}
	for name, value := range kept {
		if !cmp.Equal(was[name], value) {
			t.Fatalf("%s was %v and is %v", name, was[name], value)
		}
	}
}
