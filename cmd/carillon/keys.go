package main

import (
	"fmt"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/org"
)

// KeysCmd is about the API keys of servers.
type KeysCmd struct {
	New KeysNewCmd `cmd:"" help:"Make an API key and the line for the configuration."`
}

// KeysNewCmd makes an API key. It prints the key and, on the next line, its hash
// for the configuration.
type KeysNewCmd struct {
	Org  string `help:"The organization." required:"" env:"CARILLON_ORG" placeholder:"ORG"`
	JSON bool   `help:"Print JSON." name:"json"`
}

// Run prints the key.
func (c *KeysNewCmd) Run(std *IO) error {
	id, err := carillon.ParseOrgID(c.Org)
	if err != nil {
		return fmt.Errorf("--org: %s", carillon.AsError(err).Message)
	}
	text, key := org.NewKey(id)
	if c.JSON {
		return std.printJSON(struct {
			Org  carillon.OrgID `json:"org"`
			ID   string         `json:"id"`
			Key  string         `json:"key"`
			Line string         `json:"line"`
		}{id, key.ID, text, key.Line()})
	}
	if _, err := fmt.Fprintf(std.Out, "%s\n%s\n", text, key.Line()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.Err, "the first line is the key, shown only now; put the second one under 'keys' of the org %s in the configuration\n", id)
	return err
}
