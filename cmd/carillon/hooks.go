package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

// HooksCmd is about webhooks that come in: what was delivered, and from where.
type HooksCmd struct {
	List    HooksListCmd    `cmd:"" help:"List what was delivered and what became of it."`
	Show    HooksShowCmd    `cmd:"" help:"Show one delivery: its attempts, headers and body."`
	Retry   HooksRetryCmd   `cmd:"" help:"Process deliveries again, such as all dead letters."`
	Discard HooksDiscardCmd `cmd:"" help:"Give up on dead letters."`
	Test    HooksTestCmd    `cmd:"" help:"Send a sample, signed as its provider would, and say what became of it."`
	Sources HooksSourcesCmd `cmd:"" help:"List the sources, whose webhooks are taken."`
	Source  HooksSourceCmd  `cmd:"" help:"Add, change or remove a source."`
	Secret  HooksSecretCmd  `cmd:"" help:"Rotate a source's secret: add the new one, remove the old one."`
	Check   HooksCheckCmd   `cmd:"" help:"Check hooks files of adnanh/webhook, and say what is risky in them."`
	Key     HooksKeyCmd     `cmd:"" help:"Print a new key that secrets from the API are encrypted with."`
}

// HooksKeyCmd prints the text of a file for hooks.key_file.
type HooksKeyCmd struct{}

// Run prints it.
func (c *HooksKeyCmd) Run(std *IO) error {
	if _, err := fmt.Fprint(std.Out, hook.NewKeyFile()); err != nil {
		return err
	}
	fmt.Fprintln(std.Err, "keep it in a file that only the node can read, named by hooks.key_file; to change a key put the new one on the line above")
	return nil
}

// SecretFlags are where the secret of a source comes from.
type SecretFlags struct {
	Secret     string `help:"The secret that the provider signs with. Others on this machine can see it; --secret-file is safer." placeholder:"TEXT"`
	SecretFile string `help:"A file that has the secret on its only line; '-' for standard input." placeholder:"FILE"`
}

// maxSecretFile is far more than any secret has.
const maxSecretFile = 64 << 10

// text is the secret, or "" if none was given.
func (f *SecretFlags) text(std *IO) (string, error) {
	switch {
	case f.Secret != "" && f.SecretFile != "":
		return "", errors.New("the secret is given twice, with --secret and --secret-file")
	case f.SecretFile == "":
		return f.Secret, nil
	}
	text, err := readAll(f.SecretFile, std, maxSecretFile)
	if err != nil {
		return "", fmt.Errorf("--secret-file: %w", err)
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" || strings.ContainsAny(secret, "\r\n") {
		return "", fmt.Errorf("--secret-file: %s has the secret on its only line; this one is empty or has several", f.SecretFile)
	}
	return secret, nil
}

// kindOf reads a kind, or the name of a preset of kind generic.
func kindOf(text string) (kind provider.Kind, preset string, err error) {
	switch {
	case slices.Contains(provider.Kinds(), provider.Kind(text)):
		return provider.Kind(text), "", nil
	case slices.Contains(provider.Presets(), text):
		return provider.KindGeneric, text, nil
	}
	var all []string
	for _, k := range provider.Kinds() {
		all = append(all, string(k))
	}
	return "", "", fmt.Errorf("%q is no kind of webhook; there are %s", text, strings.Join(append(all, provider.Presets()...), ", "))
}

// readAll reads a file, or standard input for '-'.
func readAll(name string, std *IO, most int64) ([]byte, error) {
	in := std.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return readUpTo(in, name, most)
}
