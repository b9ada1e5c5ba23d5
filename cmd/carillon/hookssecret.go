package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// HooksSecretCmd rotates secrets: all that a source has are valid together.
type HooksSecretCmd struct {
	Add    HooksSecretAddCmd    `cmd:"" help:"Add a secret of yours, or one that is made and shown once. The others stay valid."`
	Remove HooksSecretRemoveCmd `cmd:"" help:"Remove a secret by its id; 'carillon hooks sources' shows when it was last used."`
}

// HooksSecretAddCmd adds a secret to a source.
type HooksSecretAddCmd struct {
	Remote

	SecretFlags `embed:""`

	Source string `arg:"" help:"The source's name."`
	JSON   bool   `help:"Print the source as JSON." name:"json"`
}

// Run adds it.
func (c *HooksSecretAddCmd) Run(ctx context.Context, std *IO) error {
	path, err := sourcePath(c.Source)
	if err != nil {
		return err
	}
	secret, err := c.text(std)
	if err != nil {
		return err
	}
	api, err := c.hooks()
	if err != nil {
		return err
	}
	var body any
	if secret != "" {
		body = map[string]string{"secret": secret}
	}
	var raw json.RawMessage
	if err := api.do(ctx, "secret add", http.MethodPost, path+"/secrets", body, &raw); err != nil {
		return c.explain(err)
	}
	return printMade(std, api, raw, c.JSON)
}

// HooksSecretRemoveCmd removes a secret from a source.
type HooksSecretRemoveCmd struct {
	Remote

	Source string `arg:"" help:"The source's name."`
	ID     string `arg:"" help:"The secret's id."`
}

// Run removes it.
func (c *HooksSecretRemoveCmd) Run(ctx context.Context, std *IO) error {
	path, err := sourcePath(c.Source)
	if err != nil {
		return err
	}
	api, err := c.hooks()
	if err != nil {
		return err
	}
	if err := api.do(ctx, "secret remove", http.MethodDelete, path+"/secrets/"+escaped(c.ID), nil, nil); err != nil {
		return c.explain(err)
	}
	_, err = fmt.Fprintf(std.Out, "secret %s of %s removed\n", c.ID, c.Source)
	return err
}
