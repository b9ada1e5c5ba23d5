package bench

import (
	"bytes"
	"errors"
)

// block is one event of an SSE stream.
type block struct {
	name  []byte // of its event field; a Carillon event has none
	id    []byte
	hasID bool
	data  []byte // one line; nil: none
}

var errBlock = errors.New("an SSE block that a Carillon server does not write")

// parseBlock reads one block from the front of b. size 0 means that it is not all
// there yet. Its parts are parts of b. Servers under test end lines with a
// newline alone and write data on one line, so anything else is an error.
func parseBlock(b []byte) (k block, size int, err error) {
	end := bytes.Index(b, []byte("\n\n"))
	if end < 0 {
		return k, 0, nil
	}
	for line := range bytes.SplitSeq(b[:end], []byte("\n")) {
		field, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || bytes.HasSuffix(value, []byte("\r")) {
			return k, 0, errBlock
		}
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "data":
			if k.data != nil {
				return k, 0, errBlock
			}
			k.data = value
		case "event":
			k.name = value
		case "id":
			k.id, k.hasID = value, true
		case "retry", "": // a comment has no field
		default:
			return k, 0, errBlock
		}
	}
	return k, end + 2, nil
}
