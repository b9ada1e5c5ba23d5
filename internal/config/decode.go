package config

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxItems bounds a list in the file. Aliases could otherwise make much of
// little.
const maxItems = 100_000

// decoder puts a YAML tree into a Config. Beside what the YAML library's own
// decoding does it knows the path and line of everything, goes on after a
// problem, and knows which key was meant.
type decoder struct {
	c        *Config
	items    int
	problems []Problem
}

func (c *Config) readYAML(text []byte) []Problem {
	d := &decoder{c: c}
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) { // an empty file is fine
			d.syntax(err)
		}
		return d.problems
	}
	if len(doc.Content) == 1 {
		d.value("", doc.Content[0], reflect.ValueOf(c).Elem())
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		d.say("", &second, "the file has a second document; put all settings in one")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
	}
	return d.problems
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

func (d *decoder) syntax(err error) {
	p := Problem{Message: err.Error()}
	if m := yamlLine.FindStringSubmatch(p.Message); m != nil {
		p.Line, _ = strconv.Atoi(m[1]) // 0 where the library says none
		p.Message = "not readable as YAML: " + m[2]
	}
	d.problems = append(d.problems, p)
}

func (d *decoder) say(path string, n *yaml.Node, format string, args ...any) {
	d.problems = append(d.problems, Problem{Path: path, Line: n.Line, Message: fmt.Sprintf(format, args...)})
}

// value puts n, found at path, into v.
func (d *decoder) value(path string, n *yaml.Node, v reflect.Value) {
	if path != "" {
		d.c.lines[path] = n.Line
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.items++; d.items > maxItems {
		if d.items == maxItems+1 {
			d.say(path, n, "the file has more than %d settings", maxItems)
		}
		return
	}
	empty := n.Kind == yaml.ScalarNode && n.Tag == "!!null"
	switch {
	case v.Type() == reflect.TypeFor[Source]():
		d.source(path, n, v.Addr().Interface().(*Source))
	case v.Kind() == reflect.Struct:
		if empty {
			return // all its keys are comments
		}
		d.mapping(path, n, v)
	case v.Kind() == reflect.Slice:
		if empty {
			v.SetZero()
			return
		}
		d.list(path, n, v)
	case empty:
		d.say(path, n, "has no value; leave the line out for the default")
	case n.Kind != yaml.ScalarNode:
		d.say(path, n, "is %s; it takes %s", kindName(n), wants(v))
	default:
		if v.Kind() == reflect.Pointer {
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		}
		if err := setScalar(v, n.Value); err != nil {
			d.say(path, n, "%v", err)
		}
	}
}

func (d *decoder) mapping(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.say(path, n, "is %s; it takes keys with values: %s", kindName(n), strings.Join(keysOf(v.Type()), ", "))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		f := fieldFor(v, key.Value)
		if !f.IsValid() || key.Kind != yaml.ScalarNode {
			d.say(join(path, clip(key.Value)), key, "unknown key%s", hint(path, key.Value, v.Type()))
			continue
		}
		if seen[key.Value] > 0 {
			d.say(at, key, "is there twice, also on line %d", seen[key.Value])
			continue
		}
		seen[key.Value] = key.Line
		d.value(at, val, f)
		d.c.lines[at] = key.Line
	}
}

func (d *decoder) list(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.say(path, n, "is %s; it takes a list, like [a, b]", kindName(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), min(len(n.Content), maxItems), min(len(n.Content), maxItems)))
	for i := range v.Len() {
		d.value(fmt.Sprintf("%s[%d]", path, i), n.Content[i], v.Index(i))
	}
}

// setScalar reads text into a setting that is no list and no group.
func setScalar(v reflect.Value, text string) error {
	switch p := v.Addr().Interface().(type) {
	case *Duration:
		d, err := ParseDuration(text)
		if err != nil {
			return err
		}
		*p = d
	case *Size:
		s, err := ParseSize(text)
		if err != nil {
			return err
		}
		*p = s
	case *Secret:
		*p = Secret(text)
	case *string:
		*p = text
	case *bool:
		b, err := parseBool(text)
		if err != nil {
			return err
		}
		*p = b
	case *int:
		n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, strconv.IntSize)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", clip(text))
		}
		*p = int(n)
	case *int64:
		n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", clip(text))
		}
		*p = n
	default:
		panic("config: a setting of type " + v.Type().String())
	}
	return nil
}

func parseBool(text string) (bool, error) {
	switch text {
	case "true", "True", "TRUE":
		return true, nil
	case "false", "False", "FALSE":
		return false, nil
	}
	return false, fmt.Errorf("%q is not true or false", clip(text))
}

// keyOf is the YAML key of a field, or "" for one that is no setting.
func keyOf(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return key
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for field := range t.Fields() {
		if key := keyOf(field); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

func fieldFor(v reflect.Value, key string) reflect.Value {
	for i := range v.NumField() {
		if k := keyOf(v.Type().Field(i)); k != "" && k == key {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

// hint says which key may have been meant instead of an unknown one.
func hint(path, key string, t reflect.Type) string {
	best, at := "", len(key)/3+2
	for _, k := range keysOf(t) {
		if n := distance(strings.ToLower(key), k); n < at {
			best, at = k, n
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %s?", best)
	}
	for _, s := range settings(reflect.TypeFor[Config](), "") {
		if last := s[strings.LastIndexByte(s, '.')+1:]; last == key {
			return fmt.Sprintf("; did you mean %s?", s)
		}
	}
	if path == "" {
		path = "the file"
	}
	return fmt.Sprintf("; %s has %s", path, strings.Join(keysOf(t), ", "))
}

// settings lists the path of everything that can be set, [] for any element of
// a list.
func settings(t reflect.Type, path string) []string {
	var all []string
	for f := range t.Fields() {
		key := keyOf(f)
		if key == "" {
			continue
		}
		at := join(path, key)
		all = append(all, at)
		switch ft := f.Type; {
		case ft.Kind() == reflect.Struct:
			all = append(all, settings(ft, at)...)
		case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct:
			all = append(all, settings(ft.Elem(), at+"[]")...)
		}
	}
	return all
}

// distance is how many letters to insert, remove or replace (Levenshtein).
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			n := diag
			if a[i] != b[j] {
				n = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], n
		}
	}
	return row[len(b)]
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a group of keys"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode, yaml.DocumentNode, yaml.AliasNode:
	}
	return "a single value"
}

func wants(v reflect.Value) string {
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[Duration]():
		return "a duration, like 25s or 7d"
	case reflect.TypeFor[Size]():
		return "a size, like 200KB or 64MiB"
	case reflect.TypeFor[bool]():
		return "true or false"
	case reflect.TypeFor[int](), reflect.TypeFor[int64]():
		return "a whole number"
	}
	return "one text"
}

// environment turns NAME=value lines into a map; a later one wins, as in
// os/exec.
func environment(env []string) map[string]string {
	vars := make(map[string]string, len(env))
	for _, line := range env {
		if name, value, ok := strings.Cut(line, "="); ok {
			vars[name] = value
		}
	}
	return vars
}

// EnvName is the environment variable of a setting.
func EnvName(path string) string {
	return "CARILLON_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// readEnv lays the environment over the settings. An empty variable counts as
// not set; a list is separated by commas.
func (c *Config) readEnv(vars map[string]string) (problems []Problem) {
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		for i := range v.NumField() {
			key := keyOf(v.Type().Field(i))
			if key == "" {
				continue
			}
			at, f := join(path, key), v.Field(i)
			if f.Kind() == reflect.Struct {
				walk(at, f)
				continue
			}
			name := EnvName(at)
			text := vars[name]
			if text == "" {
				continue
			}
			switch p := f.Addr().Interface().(type) {
			case *[]string:
				*p = nil
				for s := range strings.SplitSeq(text, ",") {
					if s = strings.TrimSpace(s); s != "" {
						*p = append(*p, s)
					}
				}
			case *[]Org, *[]Issuer: // these stand in a file
				continue
			default:
				if err := setScalar(f, text); err != nil {
					problems = append(problems, Problem{Path: at, Env: name, Message: err.Error()})
				}
			}
			c.env[at] = name
			for p := range c.lines {
				if strings.HasPrefix(p, at+"[") {
					delete(c.lines, p)
				}
			}
		}
	}
	walk("", reflect.ValueOf(c).Elem())
	return slices.Clip(problems)
}
