package main

import (
	"encoding/json"
	"io"
)

// IO is where a command reads and writes: results on Out, everything else on
// Err.
type IO struct {
	Out, Err io.Writer
	In       io.Reader
}

// printJSON writes v as one line of JSON on Out.
func (s *IO) printJSON(v any) error {
	enc := json.NewEncoder(s.Out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
