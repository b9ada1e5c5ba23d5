package loop

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// What lies one behind the other in memory takes one piece of a call, however many
// buffers it is: they all go at once.
func TestNeighboursInMemoryAreWrittenAsOne(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := pair[0], pair[1]
	defer unix.Close(ours)
	defer unix.Close(theirs)
	page := make([]byte, 4*maxIOV)
	for i := range page {
		page[i] = byte(i >> 3)
	}
	cut := func(size int) (bufs [][]byte) {
		for rest := page; len(rest) > 0; rest = rest[size:] {
			bufs = append(bufs, rest[:size:size], nil)
		}
		return bufs
	}
	apart := [][]byte{page[8:10], page[24:32], page[10:12], page[12:13]}
	reversed := cut(2)
	for i, j := 0, len(reversed)-1; i < j; i, j = i+1, j-1 {
		reversed[i], reversed[j] = reversed[j], reversed[i]
	}
	for _, c := range []struct {
		name string
		bufs [][]byte
		once int // bytes of the first call
	}{
		{"neighbours", cut(2), len(page)},
		{"one", [][]byte{page}, len(page)},
		{"apart", apart, 13},
		{"the other way round", reversed, 2 * maxIOV},
		{"nothing", [][]byte{nil, {}}, 0},
	} {
		want := bytes.Join(c.bufs, nil)
		l := &Loop{}
		if n, asked, err := l.gather(ours, c.bufs); n != c.once || asked != n || err != nil {
			t.Fatalf("%s: %d bytes in one call, %d were asked, want %d: %v", c.name, n, asked, c.once, err)
		}
		got := make([]byte, len(page))
		if c.once > 0 {
			n, err := unix.Read(theirs, got)
			if err != nil || !bytes.Equal(got[:n], want[:c.once]) {
				t.Errorf("%s: other bytes came: %v", c.name, err)
			}
		}
	}
}
