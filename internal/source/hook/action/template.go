package action

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// errTooLong ends a template that writes too much.
var errTooLong = fmt.Errorf("more than %d bytes come out of it", maxFile)

// expand runs a file as a template. It gets no data, and these functions:
//
//	getenv NAME       a variable of the server
//	cat FILE          a file, without one newline at its end; nothing where there is none
//	credential NAME   a file in the directory $CREDENTIALS_DIRECTORY, else the variable
func expand(name string, text []byte, getenv func(string) string) ([]byte, error) {
	if getenv == nil {
		getenv = os.Getenv
	}
	t, err := template.New(filepath.Base(name)).Funcs(template.FuncMap{
		"getenv": getenv,
		"cat":    cat,
		"credential": func(name string) (string, error) {
			return credential(name, getenv)
		},
	}).Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("action: %s: its template: %w", name, err)
	}
	var out capped
	if err := t.Execute(&out, nil); err != nil {
		return nil, fmt.Errorf("action: %s: its template: %w", name, err)
	}
	return out.Bytes(), nil
}

// capped takes as much as a hooks file may have.
type capped struct{ bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	if c.Len()+len(p) > maxFile {
		return 0, errTooLong
	}
	return c.Buffer.Write(p)
}

func cat(file string) (string, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if info.Size() > maxFile {
		return "", errTooLong
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}

func credential(name string, getenv func(string) string) (string, error) {
	if dir := getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		if !filepath.IsLocal(name) {
			return "", fmt.Errorf("credential %q would be outside of its directory", clip(name))
		}
		text, err := cat(filepath.Join(dir, name))
		if err != nil || text != "" {
			return text, err
		}
	}
	return getenv(name), nil
}
