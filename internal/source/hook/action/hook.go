package action

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// hook is one item of a hooks file.
type hook struct {
	id          string
	command     string
	dir         string
	methods     []string // upper-case
	contentType string   // instead of what the request says
	json        []argument
	rule        *Rule // nil: always
	soft        bool
	arguments   []argument
	environment []argument
	files       []argument

	message     string
	headers     []header
	success     int // status; 0: 200
	mismatch    int // as success
	output      bool
	outputError bool

	// What adnanh/webhook does not have.
	timeout time.Duration // 0: the runner's
	stdin   bool          // the command gets the body there

	file string
	line int
}

type header struct{ name, value string }

func (d *document) hook(n *yaml.Node, number int) *hook {
	what := fmt.Sprintf("hook %d", number)
	f := d.fields(n, what)
	h := &hook{id: f.text("id"), file: d.name, line: n.Line}
	if h.id != "" {
		f.what = fmt.Sprintf("hook %q", clip(h.id))
	}
	h.command = f.text("execute-command")
	h.dir = f.text("command-working-directory")
	for _, m := range f.texts("http-methods") {
		if m = strings.ToUpper(strings.TrimSpace(m)); m != "" {
			h.methods = append(h.methods, m)
		}
	}
	h.contentType = f.text("incoming-payload-content-type")
	h.json = f.arguments("parse-parameters-as-json")
	h.rule = d.rule(f.take("trigger-rule"), f.what+": trigger-rule", 0)
	h.soft = f.flag("trigger-signature-soft-failures")
	h.arguments = f.arguments("pass-arguments-to-command")
	h.environment = f.arguments("pass-environment-to-command")
	h.files = f.arguments("pass-file-to-command")
	h.message = f.text("response-message")
	items, _ := f.list("response-headers")
	for _, item := range items {
		in := d.fields(item, f.what+": response-headers")
		h.headers = append(h.headers, header{in.text("name"), in.text("value")})
		in.done()
	}
	h.success = f.number("success-http-response-code")
	h.mismatch = f.number("trigger-rule-mismatch-http-response-code")
	h.output = f.flag("include-command-output-in-response")
	h.outputError = f.flag("include-command-output-in-response-on-error")
	h.timeout = f.duration("command-timeout")
	h.stdin = f.flag("pass-payload-to-stdin")
	f.done()
	h.check(d, n, f.what)
	return h
}

func (h *hook) check(d *document, n *yaml.Node, what string) {
	switch {
	case h.id == "":
		d.fail(n, "%s has no id, by which it would be called", what)
	case h.command == "":
		d.fail(n, "%s has no execute-command; name a program, without its arguments", what)
	case h.timeout > maxTimeout:
		d.fail(n, "%s: command-timeout is %s; at most %s", what, h.timeout, maxTimeout)
	}
	if d.strict {
		for _, fault := range h.faults() {
			d.fail(n, "%s: %s", what, fault)
		}
	}
}

// faults are what is wrong with the hook and is not seen before it is called.
func (h *hook) faults() []string {
	var faults []string
	if h.rule != nil {
		if err := h.rule.Validate(); err != nil {
			faults = append(faults, strings.TrimPrefix(err.Error(), "action: "))
		}
	}
	for _, list := range []struct {
		key string
		of  []argument
	}{
		{"parse-parameters-as-json", h.json},
		{"pass-arguments-to-command", h.arguments},
		{"pass-environment-to-command", h.environment},
		{"pass-file-to-command", h.files},
	} {
		for i := range list.of {
			if fault := list.of[i].fault(); fault != "" {
				faults = append(faults, list.key+": "+fault)
			}
		}
	}
	for _, code := range []struct {
		key string
		is  int
	}{
		{"success-http-response-code", h.success},
		{"trigger-rule-mismatch-http-response-code", h.mismatch},
	} {
		if code.is != 0 && status(code.is) != code.is {
			faults = append(faults, fmt.Sprintf("%s: %d is no status that an answer can have; 200 is answered", code.key, code.is))
		}
	}
	return faults
}

// status is a code that can be answered: 200 for one that nobody knows.
func status(code int) int {
	if code < http.StatusOK || http.StatusText(code) == "" {
		return http.StatusOK
	}
	return code
}

// prepare makes the request what the hook says it is. Its errors are for the log:
// what could not be read is as it was.
func (h *hook) prepare(r *Request) []error {
	r.ContentType = h.contentType
	for _, a := range h.json {
		if a.source == sourcePayload {
			r.forced = append(r.forced, a.name)
		}
	}
	var errs []error
	for i := range h.json {
		if err := h.json[i].unfold(r); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// build is the command for a request. What the request does not have is told in
// missing, for the log.
func (h *hook) build(r *Request) (c *Command, missing []error, err error) {
	c = &Command{Of: h.id, Argv: []string{h.command}, Dir: h.dir, Timeout: h.timeout}
	if h.stdin {
		c.Stdin = r.Body
	}
	for i := range h.arguments {
		v, err := h.arguments[i].value(r)
		if err != nil {
			missing = append(missing, err)
		}
		c.Argv = append(c.Argv, v)
	}
	for i := range h.environment {
		a := &h.environment[i]
		v, err := a.value(r)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		name := a.env
		if name == "" {
			name = "HOOK_" + a.name
		}
		c.Env = append(c.Env, name+"="+v)
	}
	for i := range h.files {
		a := &h.files[i]
		v, err := a.value(r)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		f := File{Env: a.env, Data: []byte(v)}
		if f.Env == "" {
			f.Env = "HOOK_" + strings.ToUpper(a.name)
		}
		if a.base64 {
			if f.Data, err = base64.StdEncoding.DecodeString(v); err != nil {
				return nil, missing, fmt.Errorf("action: the file %s is not base64: %w", clip(f.Env), err)
			}
		}
		c.Files = append(c.Files, f)
	}
	return c, missing, nil
}
