package main

import (
	"errors"
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
	Org  string `help:"The organization." env:"CARILLON_ORG" placeholder:"ORG"`
	Ops  bool   `help:"A key of the operator, for the operations port, instead."`
	JSON bool   `help:"Print JSON." name:"json"`
}

// Validate wants to know whose the key is.
func (c *KeysNewCmd) Validate() error {
	if c.Org == "" && !c.Ops {
		return errors.New("missing flags: --org=ORG or --ops")
	}
	return nil
}

// Run prints the key.
func (c *KeysNewCmd) Run(std *IO) error {
	id, place := carillon.OrgID(""), "'ops.keys'"
	if !c.Ops {
		var err error
		if id, err = carillon.ParseOrgID(c.Org); err != nil {
			return fmt.Errorf("--org: %s", carillon.AsError(err).Message)
		}
		place = fmt.Sprintf("'keys' of the org %s", id)
	}
	text, key := org.NewKey(id)
	if c.JSON {
		return std.printJSON(struct {
			Org  carillon.OrgID `json:"org,omitempty"`
			ID   string         `json:"id"`
			Key  string         `json:"key"`
			Line string         `json:"line"`
		}{id, key.ID, text, key.Line()})
	}
	if _, err := fmt.Fprintf(std.Out, "%s\n%s\n", text, key.Line()); err != nil {
		return err
	}
	_, err := fmt.Fprintf(std.Err, "the first line is the key, shown only now; put the second one under %s in the configuration\n", place)
	return err
}
