package wire_test

import (
	"bytes"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/wire"
)

// An event's text frame is its header and its JSON, whatever form the header has, and
// behind what was there.
func TestATextEventIsItsHeaderAndItsJSON(t *testing.T) {
	ids := wire.NewKeyring(install).Org("acme")
	headers := map[int]bool{}
	for _, size := range []int{2, 10, 200, 65_000, 65_300, 65_400, 65_500, 70_000, 200_000} {
		e := &carillon.Entry{Org: "acme", Event: carillon.Event{Type: "a", Data: append(bytes.Repeat([]byte(" "), size-1), '1')}}
		js := wire.AppendEvent(nil, ids, e)
		want := append(wire.AppendTextHeader([]byte("before"), len(js)), js...)
		if got := wire.AppendTextEvent([]byte("before"), ids, e); !bytes.Equal(got, want) {
			t.Errorf("%d bytes of data: %.40q…, want %.40q…", size, got, want)
		}
		headers[len(want)-len(js)-len("before")] = true
	}
	if len(headers) < 2 {
		t.Errorf("headers have %v bytes only", headers)
	}
}
