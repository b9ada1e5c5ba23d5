package action

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Rule says for which requests something is done. It is read from YAML: and, or, not
// and match, in each other. It does not change, and is safe from anywhere.
//
// Where a request does not have what a match asks for, the match is false. A not
// over it is true, except in an and, which is false with it.
type Rule struct {
	and, or []*Rule // nil: not given, which an empty list is not
	not     *Rule
	match   *match
	given   int // how many of them; only the first counts
	line    int
}

// ErrSignature is that a signature is wrong. It says nothing of which would be right.
var ErrSignature = errors.New("action: the signature does not match")

// UnmarshalYAML reads a rule. Keys that it does not know are an error.
func (r *Rule) UnmarshalYAML(n *yaml.Node) error {
	d := &document{strict: true}
	read := d.rule(n, "the rule", 0)
	if d.err != nil {
		return fmt.Errorf("action: %w", d.err)
	}
	if read != nil {
		*r = *read
	}
	return nil
}

// MarshalYAML writes the rule, with secrets hidden.
func (r *Rule) MarshalYAML() (any, error) {
	switch {
	case r.and != nil:
		return map[string]any{"and": r.and}, nil
	case r.or != nil:
		return map[string]any{"or": r.or}, nil
	case r.not != nil:
		return map[string]any{"not": r.not}, nil
	case r.match != nil:
		return map[string]any{"match": r.match.shown()}, nil
	}
	return map[string]any{}, nil
}

// rule reads a rule; nil: it is null.
func (d *document) rule(n *yaml.Node, what string, depth int) *Rule {
	if d.resolve(n) == nil {
		return nil
	}
	if depth == maxDepth {
		d.fail(n, "%s is more than %d deep", what, maxDepth)
		return nil
	}
	f := d.fields(n, what)
	r := &Rule{line: n.Line}
	r.and = f.rules("and", depth)
	r.or = f.rules("or", depth)
	r.not = d.rule(f.take("not"), what, depth+1)
	r.match = d.match(f.take("match"), what)
	for _, given := range []bool{r.and != nil, r.or != nil, r.not != nil, r.match != nil} {
		if given {
			r.given++
		}
	}
	f.done()
	return r
}

func (f *fields) rules(key string, depth int) []*Rule {
	items, given := f.list(key)
	if !given {
		return nil
	}
	rules := make([]*Rule, 0, len(items))
	for _, n := range items {
		r := f.d.rule(n, f.what, depth+1)
		if r == nil {
			r = &Rule{line: n.Line} // null is a rule without anything
		}
		rules = append(rules, r)
	}
	return rules
}

// Eval judges a request. An error means that it could not be judged, or that a
// signature is wrong ([ErrSignature]): either way nothing is to be done.
func (r *Rule) Eval(req *Request) (bool, error) {
	v := r.judge(req, false)
	return v.ok, v.err
}

// Validate says what makes the rule one that is never or always true, or an error
// for every request.
func (r *Rule) Validate() error {
	var faults []string
	r.walk(func(r *Rule) { faults = append(faults, r.faults()...) })
	if len(faults) > 0 {
		return fmt.Errorf("action: the rule: %s", strings.Join(faults, "; "))
	}
	return nil
}

// walk visits a rule and those in it that count.
func (r *Rule) walk(visit func(*Rule)) {
	visit(r)
	switch {
	case r.and != nil:
		for _, in := range r.and {
			in.walk(visit)
		}
	case r.or != nil:
		for _, in := range r.or {
			in.walk(visit)
		}
	case r.not != nil:
		r.not.walk(visit)
	}
}

// faults are what is wrong with this rule, without those in it.
func (r *Rule) faults() []string {
	switch {
	case r.given == 0:
		return []string{"it is empty, which is never true; give it and, or, not or match"}
	case r.given > 1:
		return []string{"it has several of and, or, not and match, of which only the first counts; put them in an and"}
	case r.and != nil && len(r.and) == 0:
		return []string{"its and is empty, which is always true"}
	case r.or != nil && len(r.or) == 0:
		return []string{"its or is empty, which is never true"}
	case r.match != nil:
		return r.match.faults()
	}
	return nil
}

// verdict is what a rule says of a request.
type verdict struct {
	ok       bool
	unsigned bool // a signature was missing or wrong
	err      error
}

// judge judges a request. soft: a wrong signature in an or does not end it.
func (r *Rule) judge(req *Request, soft bool) verdict {
	e := evaluation{req: req, soft: soft}
	ok, err := e.rule(r)
	var missing *missingError
	if errors.As(err, &missing) {
		err = nil
	}
	return verdict{ok: ok && err == nil, unsigned: e.unsigned, err: err}
}

// evaluation is a request that is being judged. A result comes with an error, and
// both count: see [Rule].
type evaluation struct {
	req      *Request
	soft     bool
	unsigned bool
}

func (e *evaluation) rule(r *Rule) (bool, error) {
	switch {
	case r.and != nil:
		return e.and(r.and)
	case r.or != nil:
		return e.or(r.or)
	case r.not != nil:
		ok, err := e.rule(r.not)
		return !ok, err
	case r.match != nil:
		return e.match(r.match)
	}
	return false, nil
}

func (e *evaluation) and(rules []*Rule) (bool, error) {
	for _, r := range rules {
		ok, err := e.rule(r)
		if err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func (e *evaluation) or(rules []*Rule) (bool, error) {
	for _, r := range rules {
		ok, err := e.rule(r)
		if err != nil && !e.passes(err) {
			return false, err
		}
		if ok {
			return true, nil
		}
	}
	return false, nil
}

// passes says whether an or goes on after an error.
func (e *evaluation) passes(err error) bool {
	var missing *missingError
	return errors.As(err, &missing) || e.soft && errors.Is(err, ErrSignature)
}

func (e *evaluation) match(m *match) (bool, error) {
	ok, err := m.test(e.req)
	if !ok && m.signs() {
		e.unsigned = true
	}
	return ok, err
}
