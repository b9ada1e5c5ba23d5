package action

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// Level says what kind of finding it is.
type Level string

// The levels.
const (
	LevelFault      Level = "fault"      // it does not do what it looks like
	LevelRisk       Level = "risk"       // it does, and that may be too much
	LevelDifference Level = "difference" // it does otherwise than adnanh/webhook
)

// Finding is something to know about a hooks file.
type Finding struct {
	File  string
	Line  int    // 0: it is about the whole file
	Hook  string // ""; as above
	Level Level
	Text  string // what it is, and what would be better; it has no secret
}

// String is the finding on one line.
func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	fmt.Fprintf(&b, ": %s: ", f.Level)
	if f.Hook != "" {
		fmt.Fprintf(&b, "hook %q: ", f.Hook)
	}
	b.WriteString(f.Text)
	return b.String()
}

// Check reads a hooks file and says what is risky in it, and what differs from
// adnanh/webhook. An error is that it cannot be loaded.
func Check(file string, opts LoadOptions) ([]Finding, error) {
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	opts.Strict = false // what it would refuse is found
	hooks, d, err := parseFile(file, text, opts)
	if err != nil {
		return nil, err
	}
	if err := (&Set{hooks: map[string]*hook{}}).add(hooks); err != nil {
		return nil, err
	}
	i := inspection{file: file, text: text}
	if len(hooks) > 0 {
		i.add(0, LevelDifference, "commands get PATH, HOME and LANG and what is chosen, not all variables of the server; and they have a limited time (command-timeout)")
	}
	for _, key := range d.unknown {
		i.add(key.Line, LevelFault, "the key %q means nothing here and is left out", clip(key.Value))
	}
	for _, h := range hooks {
		i.id = h.id
		i.hook(h)
	}
	slices.SortStableFunc(i.found, func(a, b Finding) int { return a.Line - b.Line })
	return i.found, nil
}

// inspection is a file that is being looked at.
type inspection struct {
	file  string
	text  []byte // before templates
	id    string // of the hook that is looked at
	found []Finding
}

func (i *inspection) add(line int, level Level, format string, args ...any) {
	i.found = append(i.found, Finding{File: i.file, Line: line, Hook: i.id, Level: level, Text: fmt.Sprintf(format, args...)})
}

func (i *inspection) hook(h *hook) {
	for _, fault := range h.faults() {
		i.add(h.line, LevelFault, "%s", fault)
	}
	switch {
	case h.rule == nil:
		i.add(h.line, LevelRisk, "it has no trigger-rule: whoever reaches it runs its command")
	case !proves(h.rule):
		i.add(h.rule.line, LevelRisk, "nothing in its trigger-rule checks a signature: who knows or guesses what it asks for runs its command")
	}
	if len(h.methods) == 0 {
		i.add(h.line, LevelRisk, "it takes any method, so opening a link is enough; say http-methods: [POST]")
	}
	if h.outputError && !h.output {
		i.add(h.line, LevelFault, "include-command-output-in-response-on-error does nothing without include-command-output-in-response")
	}
	if strings.Contains(h.command, " ") {
		i.add(h.line, LevelFault, "execute-command %q has a space, so it is one name; put arguments into pass-arguments-to-command", clip(h.command))
	}
	i.shell(h)
	i.variables(h)
	if h.rule != nil {
		i.rule(h.rule, h, false)
	}
	if strings.HasPrefix(strings.ToLower(h.contentType), "multipart/") && h.rule != nil && proves(h.rule) {
		i.add(h.line, LevelDifference, "a multipart body is signed as it comes, not as an empty one")
	}
}

// proves says whether something in a rule checks a signature.
func proves(r *Rule) bool {
	found := false
	r.walk(func(r *Rule) { found = found || r.match != nil && r.match.signs() })
	return found
}

var shells = []string{"sh", "bash", "dash", "zsh", "ksh", "ash", "busybox", "python", "python3", "perl", "ruby", "node", "php", "pwsh"}

// shell looks for text of a request that a shell would run.
func (i *inspection) shell(h *hook) {
	if !slices.Contains(shells, filepath.Base(h.command)) {
		return
	}
	for n := range h.arguments {
		a := &h.arguments[n]
		if a.source != sourceString {
			script := n > 0 && h.arguments[n-1].source == sourceString && slices.Contains([]string{"-c", "-e", "-lc", "-ec", "-r"}, h.arguments[n-1].name)
			if n == 0 || script {
				i.add(h.line, LevelRisk, "%s runs what the request says; give it a script, and the request's text as arguments", clip(h.command))
				return
			}
		}
	}
}

// powers are variables that change what a program is or does.
var powers = []string{"PATH", "HOME", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "PYTHONPATH", "PERL5LIB", "RUBYLIB", "NODE_OPTIONS", "GIT_SSH_COMMAND"}

func (i *inspection) variables(h *hook) {
	for n := range h.environment {
		a := &h.environment[n]
		if a.source != sourceString && (slices.Contains(powers, a.env) || strings.HasPrefix(a.env, "LD_")) {
			i.add(a.line, LevelRisk, "the request sets %s, which changes what the command does; take another name", a.env)
		}
	}
}

// rule looks at a rule, and those in it. negated: it is in a not.
func (i *inspection) rule(r *Rule, h *hook, negated bool) {
	switch {
	case r.and != nil:
		for _, in := range r.and {
			i.rule(in, h, negated)
		}
	case r.or != nil:
		if len(r.or) > 1 && !h.soft && slices.ContainsFunc(r.or[:len(r.or)-1], classic) {
			i.add(r.line, LevelRisk, "a wrong signature in this or ends it with an error, although what follows might be true; set trigger-signature-soft-failures, or use a match of a provider")
		}
		for _, in := range r.or {
			i.rule(in, h, negated)
		}
	case r.not != nil:
		i.rule(r.not, h, !negated)
	case r.match != nil:
		i.match(r.match, negated)
	}
}

// classic says whether something in a rule checks a signature that ends an or.
func classic(r *Rule) bool {
	found := false
	r.walk(func(r *Rule) { found = found || r.match != nil && r.match.signs() && r.match.provider() == "" })
	return found
}

func (i *inspection) match(m *match, negated bool) {
	p := &m.parameter
	if negated && m.asks() && p.fromOutside() {
		i.add(m.line, LevelRisk, "this is in a not, which is true where the request has no %s %q at all; ask for it beside the not, in an and", p.source, clip(p.name))
	}
	if negated && m.signs() {
		i.add(m.line, LevelRisk, "a signature in a not: a wrong one is an error, and with soft failures it is true")
	}
	for _, secret := range append([]string{m.secret}, m.secrets...) {
		if secret != "" && bytes.Contains(i.text, []byte(secret)) {
			i.add(m.line, LevelRisk, "the secret stands in the file; with templates it can be {{ credential \"NAME\" | js }}")
			break
		}
	}
	switch {
	case m.kind == matchValue && (p.source == sourceURL || p.source == sourceQuery):
		i.add(m.line, LevelRisk, "the value is compared with one of the URL, which logs and proxies keep; send it as a header, or sign the body")
	case m.kind == matchRegex && !strings.ContainsAny(m.regex, "^$") && !strings.Contains(m.regex, `\A`) && m.bad == nil:
		i.add(m.line, LevelRisk, "the regex finds its text anywhere in the value; begin it with ^ and end it with $")
	case m.kind == matchIP:
		i.addresses(m)
	case m.kind == matchScalr || m.algorithm() == "sha1":
		i.add(m.line, LevelRisk, "the signature uses SHA-1; take one with sha256 where the sender has it")
	}
	if strings.HasPrefix(m.kind, "payload-hash-") {
		i.add(m.line, LevelDifference, "%s is an old name; write payload-hmac-%s", m.kind, m.algorithm())
	}
	if p.source == sourceRequest && strings.EqualFold(p.name, "remote-addr") {
		i.add(m.line, LevelDifference, "remote-addr is the client behind trusted proxies, not the proxy")
	}
}

func (i *inspection) addresses(m *match) {
	i.add(m.line, LevelDifference, "ip-whitelist looks at the client behind trusted proxies, not at the proxy")
	for r := range strings.FieldsSeq(m.ranges) {
		if strings.Contains(r, ":") && !strings.Contains(r, "/") {
			i.add(m.line, LevelDifference, "%s is this address alone, not a range of /32", r)
		}
	}
	if slices.ContainsFunc(m.prefixes, func(p netip.Prefix) bool { return p.Bits() == 0 }) {
		i.add(m.line, LevelRisk, "ip-range has a range that everybody is in")
	}
}
