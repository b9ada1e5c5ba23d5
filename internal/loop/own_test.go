package loop

import (
	"bytes"
	"testing"
)

// Who waits for a slow peer holds the memory of others only if it is most of what it
// needs itself.
func TestWhatWaitsHoldsLittleBesideItself(t *testing.T) {
	page := make([]byte, behindPiece)
	for i := range page {
		page[i] = byte(i)
	}
	var far [][]byte // a little of each of many pages
	for range 200 {
		far = append(far, bytes.Clone(page)[100:400])
	}
	var whole [][]byte // all of one, in small buffers
	for rest := page; len(rest) > 0; rest = rest[256:] {
		whole = append(whole, rest[:256], nil)
	}
	for _, c := range []struct {
		name   string
		bufs   [][]byte
		copied bool
	}{
		{"a little of many pages", far, true},
		{"a page in pieces", whole, false},
		{"a quarter of a page", [][]byte{page[:behindPiece/4]}, false},
		{"less", [][]byte{page[:behindPiece/4-1]}, true},
		{"large ones", [][]byte{make([]byte, 100_000), page, make([]byte, 50_000)}, false},
		{"pages and a little", append([][]byte{page[:300]}, whole...), false},
	} {
		got := own(c.bufs)
		if !bytes.Equal(bytes.Join(got, nil), bytes.Join(c.bufs, nil)) {
			t.Errorf("%s: other bytes", c.name)
		}
		if copied := &got[0][0] != &c.bufs[0][0]; copied != c.copied {
			t.Errorf("%s: copied: %t", c.name, copied)
		}
		if c.copied && len(got) != 1 {
			t.Errorf("%s: the copy is %d pieces", c.name, len(got))
		}
	}
	if got := own(nil); len(got) != 0 {
		t.Errorf("of nothing: %q", got)
	}
}
