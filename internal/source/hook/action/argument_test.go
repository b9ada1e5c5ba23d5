package action_test

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

func TestEachSourceGivesItsPartOfTheRequest(t *testing.T) {
	full := func() *action.Request {
		r := request(`{"ref":"refs/heads/main","n":1.0}`, "application/json")
		r.Header.Add("X-Token", "one")
		r.Header.Add("X-Token", "two")
		r.Query = url.Values{"key": {"a", "b"}}
		return r
	}
	for _, c := range []struct{ source, name, want string }{
		{"header", "x-tOKEN", "one"},
		{"url", "key", "a"},
		{"query", "key", "a"},
		{"payload", "ref", "refs/heads/main"},
		{"raw-request-body", "", `{"ref":"refs/heads/main","n":1.0}`},
		{"request", "method", "POST"},
		{"request", "METHOD", "POST"},
		{"request", "Remote-Addr", "192.0.2.7:4711"},
		{"string", "just this", "just this"},
		{"entire-payload", "", `{"n":1.0,"ref":"refs/heads/main"}`},
		{"entire-headers", "", `{"Content-Type":"application/json","X-Token":"one"}`},
		{"entire-query", "", `{"key":"a"}`},
	} {
		if got, err := action.Value(c.source, c.name, full()); got != c.want || err != nil {
			t.Errorf("%s %q is %q, %v; want %q", c.source, c.name, got, err, c.want)
		}
	}
	for _, c := range []struct {
		source, name string
		missing      bool
	}{
		{"header", "X-Other", true},
		{"url", "other", true},
		{"query", "other", true},
		{"payload", "other", true},
		{"request", "path", false},
		{"Header", "X-Token", false},
		{"", "", false},
	} {
		got, err := action.Value(c.source, c.name, full())
		if got != "" || err == nil || action.IsMissing(err) != c.missing {
			t.Errorf("%s %q is %q, %v; want an error, of something missing: %t", c.source, c.name, got, err, c.missing)
		}
	}
}

func TestAPathIsAKeyFirstThenPartsAtItsDots(t *testing.T) {
	const body = `{
		"a.b": "whole",
		"a": {"b": "never", "c.d": "last part", "c": {"e": 1.0}},
		"list": [{"x": "y"}, [10, 20], "plain", null],
		"empty": [], "no": null, "yes": true, "big": 12345678901234567890, "exp": 1e3, "tags": ["<a>", 1], "": "nameless"
	}`
	for _, c := range []struct{ path, want string }{
		{"a.b", "whole"},
		{"a.c.d", "last part"},
		{"a.c.e", "1.0"},
		{"list.0.x", "y"},
		{"list.1.1", "20"},
		{"list.01.1", "20"},
		{"list.2", "plain"},
		{"list.3", "<nil>"},
		{"no", "<nil>"},
		{"yes", "true"},
		{"big", "12345678901234567890"},
		{"exp", "1e3"},
		{"tags", `["\u003ca\u003e",1]`},
		{"a.c", `{"e":1.0}`},
		{"empty", "[]"},
		{"", "nameless"},
	} {
		if got, err := action.Value("payload", c.path, request(body, "application/json")); got != c.want || err != nil {
			t.Errorf("%q is %q, %v; want %q", c.path, got, err, c.want)
		}
	}
	for _, path := range []string{
		"b", "a.x", "a.b.c", "yes.no", "no.x", "list.4", "list.-1", "list.+1", "list.x", "list.", "list.0.", "empty.0", "list.18446744073709551616", ".a", "a..b",
	} {
		if got, err := action.Value("payload", path, request(body, "application/json")); !action.IsMissing(err) {
			t.Errorf("%q is %q, %v; want that it is missing", path, got, err)
		}
	}
}

func TestABodyIsReadByItsContentType(t *testing.T) {
	for _, c := range []struct{ what, contentType, body, want string }{
		{"json", "application/json; charset=utf-8", `{"a":1.0}`, `{"a":1.0}`},
		{"a kind of json", "application/vnd.x+JSON", `{"a":1}`, `{"a":1}`},
		{"only the word", "json", `{"a":1}`, `{"a":1}`},
		{"a list at the top", "application/json", " \n[1,{\"a\":2}]", `{"root":[1,{"a":2}]}`},
		{"a form", "application/x-www-form-urlencoded", "a=1&b=2&a=3&c", `{"a":"1","b":"2","c":""}`},
		{"xml", "text/xml", "<a>b</a>", `{"a":"b"}`},
		{"no type", "", `{"a":1}`, "null"},
		{"another type", "text/plain", `{"a":1}`, "null"},
		{"multipart without a boundary", "multipart/form-data", "x", "null"},
		{"a boundary with a word of another type", `multipart/form-data; boundary=json`, "--json\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--json--\r\n", `{"a":"1"}`},
		{"broken json", "application/json", `{"a":`, "null"},
		{"text in json", "application/json", `"a"`, "null"},
		{"an empty body", "application/json", "", "null"},
		{"a broken form", "application/x-www-form-urlencoded", "a=%zz", "null"},
		{"broken xml", "application/xml", "<a><b></a>", "null"},
		{"xml without an element", "application/xml", "  <!-- a -->", "null"},
	} {
		r := request(c.body, c.contentType)
		got, err := action.Value("entire-payload", "", r)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
		if (r.ParseError() != nil) != (c.want == "null" && !strings.HasPrefix(c.contentType, "text/plain") && c.contentType != "") {
			t.Errorf("%s: the error is %v", c.what, r.ParseError())
		}
	}
	r := request(`{"a":1}`, "text/plain")
	r.ContentType = "application/json"
	if got, _ := action.Value("payload", "a", r); got != "1" {
		t.Errorf("with a type of the hook's: %q", got)
	}
}

func TestXMLBecomesAMap(t *testing.T) {
	for _, c := range []struct{ what, body, want string }{
		{"text", "<a> b </a>", `{"a":"b"}`},
		{"nothing", "<a/>", `{"a":""}`},
		{"attributes", `<a id="1">b</a>`, `{"a":{"#text":"b","-id":"1"}}`},
		{"elements", "<a><b>1</b><c>2</c></a>", `{"a":{"b":"1","c":"2"}}`},
		{"repeated elements", "<a><b>1</b><b>2</b><b/></a>", `{"a":{"b":["1","2",""]}}`},
		{"an element twice, with an attribute", `<a><b x="y"/><b>2</b></a>`, `{"a":{"b":[{"-x":"y"},"2"]}}`},
		{"text beside elements", "<a>one<b/>two</a>", `{"a":{"#text":"one","b":""}}`},
		{"text behind elements", "<a><b/>two</a>", `{"a":{"#text":"two","b":""}}`},
		{"names without their space", `<x:a xmlns:x="u" x:k="v"><x:b>1</x:b></x:a>`, `{"a":{"-k":"v","-x":"u","b":"1"}}`},
		{"what is around it", "<?xml version=\"1.0\"?><!DOCTYPE a><!-- c --><a>b</a><rest", `{"a":"b"}`},
	} {
		got, err := action.Value("entire-payload", "", request(c.body, "application/xml"))
		if got != c.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", c.what, got, err, c.want)
		}
	}
	if got, err := action.Value("payload", "a.b.0.-x", request(`<a><b x="y"/><b>2</b></a>`, "application/xml")); got != "y" {
		t.Errorf("an attribute by its path: %q, %v", got, err)
	}
	deep := request(strings.Repeat("<a>", 5000)+strings.Repeat("</a>", 5000), "application/xml")
	if got, _ := action.Value("entire-payload", "", deep); got != "null" || deep.ParseError() == nil {
		t.Errorf("too deep: %.40s, %v", got, deep.ParseError())
	}
}

func TestAMultipartBodyHasFieldsAndFilesOfJSON(t *testing.T) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part := func(name, file, contentType, text string) {
		h := textproto.MIMEHeader{}
		d := fmt.Sprintf("form-data; name=%q", name)
		if file != "" {
			d += fmt.Sprintf("; filename=%q", file)
		}
		h.Set("Content-Disposition", d)
		if contentType != "" {
			h.Set("Content-Type", contentType)
		}
		p, err := w.CreatePart(h)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(p, text)
	}
	part("field", "", "", "one")
	part("field", "", "", "two")
	part("text", "a.txt", "text/plain", `{"not":"read"}`)
	part("json", "a.json", "application/json", `{"a":1.0}`)
	part("json", "b.json", "application/json", `{"a":2}`)
	part("list", "a.json", "application/json", `[1]`)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := action.Value("entire-payload", "", request(b.String(), w.FormDataContentType()))
	if want := `{"field":"one","json":{"a":1.0}}`; got != want || err != nil {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

func TestAMultipartBodyOfTooManyPartsIsNotRead(t *testing.T) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for range 1100 {
		if err := w.WriteField("a", "b"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := request(b.String(), w.FormDataContentType())
	if got, _ := action.Value("entire-payload", "", r); got != "null" || r.ParseError() == nil {
		t.Errorf("%.40s, %v", got, r.ParseError())
	}
}

func TestTextThatIsAnObjectIsReplacedByIt(t *testing.T) {
	r := request(`payload=%7B%22a%22%3A%7B%22b%22%3A1.0%7D%7D&x=y`, "application/x-www-form-urlencoded")
	r.Header.Set("X-Data", `{"k":"v"}`)
	r.Query = url.Values{"q": {`{"k":"w"}`}}
	for _, c := range []struct{ source, name, path, want string }{
		{"payload", "payload", "payload.a.b", "1.0"},
		{"header", "x-data", "X-Data.k", "v"},
		{"url", "q", "q.k", "w"},
	} {
		if err := action.Unfold(c.source, c.name, r); err != nil {
			t.Errorf("%s: %v", c.source, err)
		}
		if got, err := action.Value(c.source, c.path, r); got != c.want || err != nil {
			t.Errorf("%s %s is %q, %v; want %q", c.source, c.path, got, err, c.want)
		}
	}
	inner := request(`{"list":[{"s":"{\"x\":2}"},"{\"y\":3}"]}`, "application/json")
	for _, path := range []string{"list.0.s", "list.1"} {
		if err := action.Unfold("payload", path, inner); err != nil {
			t.Error(err)
		}
	}
	if got, _ := action.Value("entire-payload", "", inner); got != `{"list":[{"s":{"x":2}},{"y":3}]}` {
		t.Error(got)
	}
	for _, c := range []struct{ what, source, name string }{
		{"no object", "payload", "x"},
		{"nothing", "payload", "z"},
		{"a source that cannot be replaced", "string", `{"a":1}`},
	} {
		if err := action.Unfold(c.source, c.name, r); err == nil {
			t.Errorf("%s: no error", c.what)
		}
	}
	if r.Header.Get("X-Data") != `{"k":"v"}` {
		t.Error("the header itself is another one now")
	}
}

func TestABodyThatIsTooLargeIsNotParsed(t *testing.T) {
	r := &action.Request{ContentType: "application/json", Body: make([]byte, 25<<20+1), Header: http.Header{}}
	if _, err := action.Value("payload", "a", r); !action.IsMissing(err) || r.ParseError() == nil {
		t.Errorf("%v, %v", err, r.ParseError())
	}
}
