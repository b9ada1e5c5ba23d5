package config_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/carillon-rt/carillon/internal/config"
)

var update = flag.Bool("update", false, "write docs/config.md instead of comparing it")

// TestTheReferenceIsThatOfTheCode holds docs/config.md to the example, whose keys
// and defaults other tests hold to the code. make docs writes it anew.
func TestTheReferenceIsThatOfTheCode(t *testing.T) {
	const file = "../../docs/config.md"
	want := reference(t, config.Example())
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/config.md is not that of the code; run: make docs\n(-code +file):\n%s", diff)
	}
}

// reference turns the commented example into a page.
func reference(t *testing.T, example []byte) []byte {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal(example, &doc); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.WriteString("# Settings\n\n" +
		"Every setting, with its default. This page is made from the code (`make docs`); `carillon config example` prints the same as a file to begin with, " +
		"and `carillon config check` says by line what is wrong with one.\n\n" +
		"A setting is given in the YAML file that `carillon serve --config` names, or in the environment, which wins: as `CARILLON_` and its path in capitals, " +
		"`limits.event_bytes` as `CARILLON_LIMITS_EVENT_BYTES`, a list with commas between its texts. Lists of more than texts, `orgs` and `issuers`, are in the file only. " +
		"Durations are written `500ms`, `25s`, `5m`, `1h30m` or `7d`; sizes `200KB` (1,000), `64MiB` (1,024) or as plain bytes.\n\n" +
		"Each setting under `limits` has a counter on the metrics page that says how often it was met: `carillon_limit_hits_total{limit=\"event_bytes\"}` and so on.\n")
	root := doc.Content[0]
	var single []row
	var sections bytes.Buffer
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if i == 0 { // what stands at the head of the file is not about its first key
			parts := strings.Split(key.HeadComment, "\n\n")
			key.HeadComment = parts[len(parts)-1]
		}
		rows := flatten(key.Value, key, value)
		if len(rows) == 1 && rows[0].path == key.Value {
			single = append(single, rows[0])
			continue
		}
		fmt.Fprintf(&sections, "\n## %s\n", key.Value)
		if text := comment(key.HeadComment); text != "" {
			fmt.Fprintf(&sections, "\n%s\n", text)
		}
		sections.WriteString("\n")
		table(&sections, rows)
	}
	b.WriteString("\n")
	table(&b, single)
	b.Write(sections.Bytes())
	return b.Bytes()
}

type row struct{ path, value, text string }

func table(b *bytes.Buffer, rows []row) {
	b.WriteString("| setting | default | |\n|---|---|---|\n")
	for _, r := range rows {
		value := ""
		if r.value != "" {
			value = "`" + r.value + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", r.path, value, strings.ReplaceAll(r.text, "|", "\\|"))
	}
}

// flatten lists the settings under a key. What is said of several at once, in
// front of the first, stands there.
func flatten(path string, key, value *yaml.Node) []row {
	text := comment(key.HeadComment, key.LineComment, value.LineComment, value.HeadComment)
	switch {
	case value.Kind == yaml.SequenceNode && len(value.Content) == 1 && value.Content[0].Kind == yaml.MappingNode:
		return flattenAll(path+"[]", value.Content[0], "")
	case value.Kind == yaml.MappingNode && len(value.Content) > 0:
		if !strings.Contains(path, ".") {
			return flattenAll(path, value, "")
		}
		return flattenAll(path, value, text)
	case value.Kind == yaml.MappingNode:
		return []row{{path, "", text}}
	case value.Kind == yaml.SequenceNode:
		var all []string
		for _, v := range value.Content {
			all = append(all, v.Value)
		}
		return []row{{path, "[" + strings.Join(all, ", ") + "]", text}}
	case value.Value == "":
		return []row{{path, `""`, text}}
	}
	return []row{{path, value.Value, text}}
}

func flattenAll(path string, m *yaml.Node, before string) (rows []row) {
	for i := 0; i < len(m.Content); i += 2 {
		key := m.Content[i]
		var out []string // settings that are commented out belong to what is before them
		out, key.HeadComment = commented(key.HeadComment)
		more, rest := commented(key.FootComment)
		key.FootComment = rest
		if len(out) > 0 {
			rows[len(rows)-1].text += " In it: " + strings.Join(out, ", ") + "."
		}
		rows = append(rows, flatten(path+"."+key.Value, key, m.Content[i+1])...)
		if len(more) > 0 {
			rows[len(rows)-1].text += " In it: " + strings.Join(more, ", ") + "."
		}
	}
	if before != "" {
		rows[0].text = strings.TrimSpace(before + " " + rows[0].text)
	}
	return rows
}

// comment is comments as one line of text.
func comment(comments ...string) string {
	var words []string
	for _, c := range comments {
		for line := range strings.Lines(c) {
			words = append(words, strings.Fields(strings.TrimLeft(line, "# "))...)
		}
	}
	return strings.Join(words, " ")
}

// commented takes the settings that are commented out from a comment.
func commented(c string) (settings []string, rest string) {
	for line := range strings.Lines(c) {
		name, _, ok := strings.Cut(line, ":")
		if !ok || !strings.HasPrefix(line, "#  ") {
			rest += line
			continue
		}
		settings = append(settings, "`"+strings.TrimLeft(name, "# ")+"`")
	}
	return settings, rest
}
