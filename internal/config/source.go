package config

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Source is a source of webhooks as it stands in the file. What it says is known to
// who takes webhooks in, not here.
type Source struct{ node *yaml.Node }

// SourceOf is a source with this text.
func SourceOf(text string) (Source, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) != 1 {
		return Source{}, fmt.Errorf("config: a source: not readable as YAML: %w", err)
	}
	return Source{doc.Content[0]}, nil
}

// Text is the source as YAML.
func (s Source) Text() ([]byte, error) { return yaml.Marshal(s.node) }

// Line is where it stands in the file, from 1.
func (s Source) Line() int { return s.node.Line }

// MarshalYAML hides its secrets.
func (s Source) MarshalYAML() (any, error) {
	if s.node == nil || s.node.Kind != yaml.MappingNode {
		return s.node, nil
	}
	shown := *s.node
	shown.Content = append([]*yaml.Node(nil), s.node.Content...)
	for i := 0; i+1 < len(shown.Content); i += 2 {
		if shown.Content[i].Value == "secrets" {
			shown.Content[i+1] = &yaml.Node{Kind: yaml.ScalarNode, Value: "(hidden)"}
		}
	}
	return &shown, nil
}

// source keeps a source as it is. An alias in it could make much of little.
func (d *decoder) source(path string, n *yaml.Node, to *Source) {
	switch {
	case n.Kind != yaml.MappingNode:
		d.say(path, n, "is %s; it takes keys with values, such as name, kind and secret_file", kindName(n))
		return
	case aliased(n):
		d.say(path, n, "has an alias (*); write out what it stands for")
		return
	}
	to.node = n
}

func aliased(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode {
		return true
	}
	return slices.ContainsFunc(n.Content, aliased)
}
