package main

import (
	"errors"
	"fmt"

	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

// HooksCheckCmd checks hooks files.
type HooksCheckCmd struct {
	Files    []string `arg:"" name:"file" help:"Hooks files of adnanh/webhook, JSON or YAML, that are used together."`
	Template bool     `help:"Run them as templates first, which read files and variables of this machine."`
	JSON     bool     `help:"Print each finding as a line of JSON." name:"json"`
}

// findingJSON is one for machines.
type findingJSON struct {
	File  string `json:"file"`
	Line  int    `json:"line,omitempty"`
	Hook  string `json:"hook,omitempty"`
	Level string `json:"level"` // error, fault, risk or difference
	Text  string `json:"text"`
}

// Run prints what was found. A file that cannot be loaded and a fault, which is what
// does not do what it looks like, are errors; risks and differences are not.
func (c *HooksCheckCmd) Run(std *IO) error {
	opts := action.LoadOptions{Template: c.Template}
	bad, loaded := 0, true
	for _, file := range c.Files {
		found, err := action.Check(file, opts)
		if err != nil {
			bad, loaded = bad+1, false
			if err := c.print(std, findingJSON{File: file, Level: "error", Text: err.Error()}, err.Error()); err != nil {
				return err
			}
			continue
		}
		for _, f := range found {
			if f.Level == action.LevelFault {
				bad++
			}
			if err := c.print(std, findingJSON{f.File, f.Line, f.Hook, string(f.Level), f.Text}, f.String()); err != nil {
				return err
			}
		}
	}
	if loaded { // each for itself; now together
		if _, err := action.Load(c.Files, opts); err != nil {
			bad++
			if err := c.print(std, findingJSON{Level: "error", Text: err.Error()}, err.Error()); err != nil {
				return err
			}
		}
	}
	if bad > 0 {
		return errors.New("found " + several(bad, "error"))
	}
	return nil
}

func (c *HooksCheckCmd) print(std *IO, f findingJSON, line string) error {
	if c.JSON {
		return std.printJSON(f)
	}
	_, err := fmt.Fprintln(std.Out, visible(line))
	return err
}
