package config

import (
	"bytes"
	_ "embed"
	"io"
	"slices"

	"go.yaml.in/yaml/v3"
)

//go:embed example.yaml
var example []byte

// Example is the commented reference of every setting, as a file that can be
// loaded: the defaults, one organization and one issuer.
func Example() []byte { return slices.Clone(example) }

// Print writes the settings as YAML, with secrets hidden.
func (c *Config) Print(w io.Writer) error {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(c); err != nil {
		return err
	}
	if err := enc.Close(); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}
