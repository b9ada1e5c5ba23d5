package action

import (
	"fmt"
	"io"
	"os"
	"slices"
)

// maxFile is how large a hooks file may be, in bytes, before and after its
// templates.
const maxFile = 1 << 20

// LoadOptions say how hooks files are read.
type LoadOptions struct {
	// Template has the files run as templates first. A template reads any file
	// and variable that the server can read.
	Template bool

	// Strict refuses what would make a hook behave otherwise than it looks: keys
	// that mean nothing, rules that are always or never true.
	Strict bool

	// Getenv looks up a variable of the server; nil: os.Getenv.
	Getenv func(string) string
}

// Set is what hooks files say. It does not change.
type Set struct {
	hooks map[string]*hook
	ids   []string
}

// Load reads hooks files, in JSON or YAML. The same id twice is an error.
func Load(files []string, opts LoadOptions) (*Set, error) {
	s := &Set{hooks: map[string]*hook{}}
	for _, file := range files {
		text, err := readFile(file)
		if err != nil {
			return nil, err
		}
		hooks, _, err := parseFile(file, text, opts)
		if err != nil {
			return nil, err
		}
		if err := s.add(hooks); err != nil {
			return nil, err
		}
	}
	slices.Sort(s.ids)
	return s, nil
}

// IDs are those of all hooks, in order.
func (s *Set) IDs() []string { return slices.Clone(s.ids) }

func (s *Set) add(hooks []*hook) error {
	for _, h := range hooks {
		if other := s.hooks[h.id]; other != nil {
			return fmt.Errorf("action: %s:%d: the hook %q is there already, at %s:%d; give it another id",
				h.file, h.line, clip(h.id), other.file, other.line)
		}
		s.hooks[h.id] = h
		s.ids = append(s.ids, h.id)
	}
	return nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("action: hooks file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("action: hooks file: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("action: %s: larger than %d bytes; make several files of it", name, maxFile)
	}
	return text, nil
}

// parseFile reads the text of a file. d has what it says that means nothing.
func parseFile(name string, text []byte, opts LoadOptions) (hooks []*hook, d *document, err error) {
	if opts.Template {
		if text, err = expand(name, text, opts.Getenv); err != nil {
			return nil, nil, err
		}
	}
	d = &document{name: name, strict: opts.Strict}
	items, _ := d.list(d.parse(text), "a hooks file")
	for i, n := range items {
		if d.err != nil {
			break
		}
		if r := d.resolve(n); r != nil {
			hooks = append(hooks, d.hook(r, i+1))
			continue
		}
		d.fail(n, "hook %d is empty; remove it", i+1)
	}
	if d.err != nil {
		return nil, nil, fmt.Errorf("action: %w", d.err)
	}
	return hooks, d, nil
}
