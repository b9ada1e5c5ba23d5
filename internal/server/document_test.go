package server_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/carillon-rt/carillon/protocol"
)

// document is the OpenAPI document, which requests to a running node and its
// answers are held against. It remembers what it has seen.
type document struct {
	t        *testing.T
	root     any
	compiler *jsonschema.Compiler
	answered map[string]bool // "GET /v1/poll 200"
	met      map[string]bool // the schemas of components that something was
}

const documentURL = "https://carillon.invalid/openapi.json"

func newDocument(t *testing.T) *document {
	t.Helper()
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(protocol.OpenAPI))
	if err != nil {
		t.Fatal(err)
	}
	closeObjects(root)
	d := &document{t: t, root: root, compiler: jsonschema.NewCompiler(), answered: map[string]bool{}, met: map[string]bool{}}
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource(documentURL, root); err != nil {
		t.Fatal(err)
	}
	return d
}

// closeObjects lets no object have a field that the document does not name.
// Clients must pass over such fields; we must not send them.
func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		_, is := v["properties"].(map[string]any)
		if _, has := v["additionalProperties"]; is && !has {
			v["additionalProperties"] = false
		}
		for _, child := range v {
			closeObjects(child)
		}
	case []any:
		for _, child := range v {
			closeObjects(child)
		}
	}
}

// at is what stands at a JSON pointer, and the pointer to it after following a
// $ref; nil if there is nothing.
func (d *document) at(pointer string) (any, string) {
	v := d.root
	for _, key := range strings.Split(pointer, "/")[1:] {
		key = strings.NewReplacer("~1", "/", "~0", "~").Replace(key)
		switch in := v.(type) {
		case map[string]any:
			v = in[key]
		case []any:
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(in) {
				return nil, pointer
			}
			v = in[i]
		default:
			return nil, pointer
		}
	}
	if m, ok := v.(map[string]any); ok {
		if ref, ok := m["$ref"].(string); ok {
			return d.at(strings.TrimPrefix(ref, "#"))
		}
	}
	return v, pointer
}

func (d *document) object(pointer string) (map[string]any, string) {
	v, where := d.at(pointer)
	m, _ := v.(map[string]any)
	return m, where
}

func under(pointer string, keys ...string) string {
	for _, key := range keys {
		pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
	}
	return pointer
}

// valid checks a value against the schema at a pointer.
func (d *document) valid(pointer string, v any) error {
	schema, err := d.compiler.Compile(documentURL + "#" + (&url.URL{Fragment: pointer}).EscapedFragment())
	if err != nil {
		d.t.Fatalf("%s: %v", pointer, err)
	}
	return schema.Validate(v)
}

// hold checks JSON text against the schema at a pointer.
func (d *document) hold(what, pointer string, text []byte) {
	d.t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		d.t.Errorf("%s: %q: %v", what, text, err)
		return
	}
	if err := d.valid(pointer, v); err != nil {
		d.t.Errorf("%s: %s\n%v", what, text, err)
		return
	}
	d.mark(pointer, v)
}

// mark notes every schema of components that a valid value meets on its way.
func (d *document) mark(pointer string, v any) {
	schema, where := d.object(pointer)
	if name, ok := strings.CutPrefix(where, "/components/schemas/"); ok && !strings.Contains(name, "/") {
		d.met[name] = true
	}
	for _, key := range []string{"oneOf", "anyOf"} {
		list, _ := schema[key].([]any)
		for i := range list {
			if branch := under(where, key, fmt.Sprint(i)); d.valid(branch, v) == nil {
				d.mark(branch, v)
			}
		}
	}
	if schema["if"] != nil {
		branch := under(where, "else")
		if d.valid(under(where, "if"), v) == nil {
			branch = under(where, "then")
		}
		d.mark(branch, v)
	}
	switch v := v.(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for name, value := range v {
			if properties[name] != nil {
				d.mark(under(where, "properties", name), value)
			}
		}
	case []any:
		for _, value := range v {
			if schema["items"] != nil {
				d.mark(under(where, "items"), value)
			}
		}
	}
}

// exchange is a request that was answered.
type exchange struct {
	path     string // as in the document
	request  *http.Request
	sent     []byte
	response *http.Response
	body     []byte
}

// check holds an exchange against the document: its answer in any case, and its
// request if it was granted.
func (d *document) check(e exchange) {
	d.t.Helper()
	method := e.request.Method
	what := method + " " + e.request.URL.String()
	operation, where := d.object(under("/paths", e.path, strings.ToLower(method)))
	if operation == nil {
		d.t.Errorf("%s: the document has no such operation", what)
		return
	}
	if e.response.StatusCode < 400 {
		d.checkRequest(what, operation, where, e)
	}
	status := fmt.Sprint(e.response.StatusCode)
	d.answered[method+" "+e.path+" "+status] = true
	response, at := d.object(under(where, "responses", status))
	if response == nil {
		d.t.Errorf("%s: %s is not one of its answers: %s", what, status, e.body)
		return
	}
	headers, _ := response["headers"].(map[string]any)
	for name := range headers {
		header, whereHeader := d.object(under(at, "headers", name))
		switch value := e.response.Header.Get(name); {
		case value != "":
			d.holdText(what+": "+name, under(whereHeader, "schema"), value)
		case header["required"] == true:
			d.t.Errorf("%s: %s without %s", what, status, name)
		}
	}
	content, _ := response["content"].(map[string]any)
	if len(content) == 0 {
		if len(e.body) > 0 {
			d.t.Errorf("%s: %s has a body: %s", what, status, e.body)
		}
		return
	}
	mediaType, _, _ := mime.ParseMediaType(e.response.Header.Get("Content-Type"))
	if content[mediaType] == nil {
		d.t.Errorf("%s: %s has the Content-Type %q", what, status, mediaType)
		return
	}
	if mediaType != "text/event-stream" {
		d.hold(what, under(at, "content", mediaType, "schema"), e.body)
	}
}

func (d *document) checkRequest(what string, operation map[string]any, where string, e exchange) {
	d.t.Helper()
	known := map[string]string{} // "in name" → pointer of its schema
	parameters, _ := operation["parameters"].([]any)
	for i := range parameters {
		p, at := d.object(under(where, "parameters", fmt.Sprint(i)))
		known[fmt.Sprint(p["in"], " ", strings.ToLower(p["name"].(string)))] = under(at, "schema")
	}
	for name, values := range e.request.URL.Query() {
		schema := known["query "+name]
		if name == "token" || name == "ticket" { // of a security scheme
			continue
		}
		if schema == "" {
			d.t.Errorf("%s: the parameter %q is not in the document", what, name)
			continue
		}
		d.holdText(what+": "+name, schema, values...)
	}
	for name, values := range e.request.Header {
		if schema := known["header "+strings.ToLower(name)]; schema != "" {
			d.holdText(what+": "+name, schema, values...)
		}
	}
	if len(e.sent) == 0 {
		return
	}
	mediaType, _, err := mime.ParseMediaType(e.request.Header.Get("Content-Type"))
	if err != nil {
		mediaType = "application/json"
	}
	schema := under(where, "requestBody", "content", mediaType, "schema")
	switch body, _ := d.at(schema); {
	case body == nil:
		d.t.Errorf("%s: a body of the type %s is not in the document", what, mediaType)
	case e.request.Header.Get("Ce-Id") != "" && mediaType == "application/json": // the data, which is anything
	case strings.HasSuffix(mediaType, "json") && mediaType != "application/x-ndjson":
		d.hold(what, schema, e.sent)
	}
}

// holdText checks what stands in a query or a header. A schema that is a list
// has all of it.
func (d *document) holdText(what, pointer string, values ...string) {
	d.t.Helper()
	one := func(pointer, s string) any {
		schema, _ := d.object(pointer)
		if schema["type"] == "integer" || schema["type"] == "boolean" {
			if v, err := jsonschema.UnmarshalJSON(strings.NewReader(s)); err == nil {
				return v
			}
		}
		return s
	}
	schema, where := d.object(pointer)
	var v any
	if schema["type"] == "array" {
		list := []any{}
		for _, s := range values {
			list = append(list, one(under(where, "items"), s))
		}
		v = list
	} else {
		v = one(where, values[0])
	}
	if err := d.valid(where, v); err != nil {
		d.t.Errorf("%s: %v", what, err)
		return
	}
	d.mark(where, v)
}

// operations calls f with every operation.
func (d *document) operations(f func(method, path string, operation map[string]any)) {
	paths, _ := d.object("/paths")
	for path, v := range paths {
		item, _ := v.(map[string]any)
		for method, operation := range item {
			o, _ := operation.(map[string]any)
			f(strings.ToUpper(method), path, o)
		}
	}
}

// missed is what the document promises and nobody has seen.
func (d *document) missed() (list []string) {
	d.operations(func(method, path string, operation map[string]any) {
		responses, _ := operation["responses"].(map[string]any)
		for status := range responses {
			if answer := method + " " + path + " " + status; status != "default" && !d.answered[answer] {
				list = append(list, answer)
			}
		}
	})
	schemas, _ := d.object("/components/schemas")
	for name := range schemas {
		if !d.met[name] {
			list = append(list, "schema "+name)
		}
	}
	slices.Sort(list)
	return list
}

// ask makes a request, checks the exchange and returns the answer. The path is
// as in the document; a query follows it. A body makes it a POST.
func (d *document) ask(c *http.Client, base, path, body string, header ...string) (*http.Response, []byte) {
	d.t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	inDocument, _, _ := strings.Cut(path, "?")
	return d.request(c, method, base+path, inDocument, body, header...)
}

// request makes a request of an operation, whose path in the document is given.
func (d *document) request(c *http.Client, method, url, path, body string, header ...string) (*http.Response, []byte) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer []byte
	if resp.Header.Get("Content-Type") != "text/event-stream" {
		if answer, err = io.ReadAll(resp.Body); err != nil {
			d.t.Fatal(err)
		}
	}
	d.check(exchange{path, r, []byte(body), resp, answer})
	if resp.Header.Get("Content-Type") == "text/event-stream" {
		d.stream(under("/paths", path, strings.ToLower(method)), resp.Body)
	}
	return resp, answer
}

// stream reads a stream up to its first event, holding the data of every block
// against the document.
func (d *document) stream(operation string, body io.Reader) {
	d.t.Helper()
	for in := bufio.NewReader(body); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			d.t.Fatalf("the stream has ended: %v", err)
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		d.hold("a block", under(operation, "responses", "200", "content", "text/event-stream", "x-data"), []byte(data))
		var f struct{ Type string }
		if err := json.Unmarshal([]byte(data), &f); err != nil || f.Type == "event" {
			return
		}
	}
}
