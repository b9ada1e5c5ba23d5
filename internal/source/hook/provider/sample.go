package provider

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

// The bodies of Sample, in a folder for each kind. A file that ends with .json is
// sent as JSON, one that ends with .payload as the field payload of a form, and one
// that ends with .form has a field of a form in each line. {{id}} stands for the id.
//
//go:embed samples
var samples embed.FS

const (
	typeJSON = "application/json"
	typeForm = "application/x-www-form-urlencoded"
)

// Samples are the names of the samples of a kind, in order. Those of GitHub are what
// X-GitHub-Event says.
func Samples(kind Kind) []string {
	if !slices.Contains(Kinds(), kind) {
		return nil
	}
	files, err := samples.ReadDir(path.Join("samples", string(kind)))
	if err != nil {
		return nil // there is none of a kind that is new
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), path.Ext(f.Name())))
	}
	return names
}

// Sample is a body as the provider could send it, to be given to Sign. id is put where
// the body has the id of the delivery, if it has; "" is one that is always the same.
func Sample(kind Kind, event, id string) (contentType string, body []byte, err error) {
	if id == "" {
		id = sampleID(kind)
	}
	if strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"\&=`, r) }) || len(id) > MaxID {
		return "", nil, fmt.Errorf("provider: the id of a sample is letters, digits and punctuation, at most %d, not %q", MaxID, clip(id))
	}
	names := Samples(kind)
	if !slices.Contains(names, event) {
		return "", nil, fmt.Errorf("provider: there is no sample %q of kind %q; there are %q", clip(event), clip(string(kind)), names)
	}
	for _, ext := range []string{".json", ".payload", ".form"} {
		text, err := samples.ReadFile(path.Join("samples", string(kind), event+ext))
		if err != nil {
			continue // it has another ending
		}
		text = bytes.ReplaceAll(text, []byte("{{id}}"), []byte(id))
		if ext == ".form" {
			return typeForm, encodeForm(string(text)), nil
		}
		var b bytes.Buffer
		if err := json.Compact(&b, text); err != nil {
			return "", nil, fmt.Errorf("provider: sample %s of kind %s: %w", event, kind, err)
		}
		if ext == ".payload" {
			return typeForm, []byte("payload=" + url.QueryEscape(b.String())), nil
		}
		return typeJSON, b.Bytes(), nil
	}
	return "", nil, fmt.Errorf("provider: sample %s of kind %s cannot be read", event, kind)
}

func encodeForm(lines string) []byte {
	var fields []string
	for line := range strings.Lines(lines) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields = append(fields, url.QueryEscape(name)+"="+url.QueryEscape(value))
	}
	return []byte(strings.Join(fields, "&"))
}

func sampleID(kind Kind) string {
	switch kind {
	case KindStripe:
		return "evt_1SampleOfCarillon000001"
	case KindSlack:
		return "Ev00SAMPLE01"
	case KindStandard:
		return "msg_sample_of_carillon_1"
	default:
		return "5a3f0c9e-7d21-4b86-9c55-0e1d2f3a4b5c"
	}
}
