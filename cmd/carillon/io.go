package main

import (
	"encoding/json"
	"fmt"
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

// say writes a line on Err.
func (s *IO) say(format string, args ...any) { fmt.Fprintf(s.Err, "carillon: "+format+"\n", args...) }

// readUpTo reads all of in, which is an error if there is more than that.
func readUpTo(in io.Reader, name string, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(text)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, most)
	}
	return text, err
}
