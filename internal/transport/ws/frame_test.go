package ws

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/internal/loop"
)

// input is a connection from which a few bytes come at a time.
type input struct {
	net.Conn
	*bytes.Reader
	step int
}

func (in input) Read(p []byte) (int, error) { return in.Reader.Read(p[:min(len(p), in.step)]) }

// The frames read are those that another implementation reads, however the bytes
// arrive; what it calls a violation is one here too.
func FuzzFrames(f *testing.F) {
	add := func(step uint8, left uint16, frames ...ws.Frame) {
		f.Add(compiled(frames...), step, left)
	}
	add(1, 0, ws.NewTextFrame([]byte("hello")), ws.NewPingFrame([]byte("x")), ws.NewCloseFrame([]byte{3, 232}))
	add(255, 3, ws.NewFrame(ws.OpText, false, make([]byte, 125)), ws.NewFrame(ws.OpContinuation, true, make([]byte, 126)))
	add(100, 300, ws.NewTextFrame(make([]byte, 700)), ws.NewTextFrame(nil))
	f.Add([]byte{0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0}, uint8(7), uint16(0))
	f.Add([]byte{0x81, 0x80 | 126, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5}, uint8(7), uint16(2))
	f.Fuzz(func(t *testing.T, b []byte, step uint8, left uint16) {
		n := min(int(left), len(b)) // so much came with the handshake
		c := &conn{pending: b[:n:n]}
		new(loop.Sockets).Init(&c.Socket, input{Reader: bytes.NewReader(b[n:]), step: int(step) + 1}, c)
		oracle := bytes.NewReader(b)
		for {
			start := len(b) - oracle.Len()
			h, ok, err := c.readHeader()
			want, wantErr := ws.ReadHeader(oracle)
			if err == nil && !ok {
				good := wantErr == nil && want.Masked && (want.Rsv == 0 || rsv1(want)) && !want.OpCode.IsReserved() && want.Length <= maxControl && int64(b[start+1]&0x7f) == want.Length
				if good && (want.Fin || !want.OpCode.IsControl()) {
					t.Fatalf("%+v was refused", want)
				}
				return
			}
			if err != nil {
				if wantErr == nil {
					t.Fatalf("%v, another one reads %+v", err, want)
				}
				return
			}
			if wantErr != nil || h.final != want.Fin || h.opcode != byte(want.OpCode) || h.length != uint64(want.Length) || h.mask != want.Mask || !want.Masked || h.deflated != rsv1(want) || want.Rsv != 0 && !h.deflated {
				t.Fatalf("%+v, another one reads %+v, %v", h, want, wantErr)
			}
			if h.length > 1<<20 {
				return
			}
			payload, err := c.payload(nil, int(h.length))
			wanted := make([]byte, h.length)
			if _, wantErr := io.ReadFull(oracle, wanted); (err == nil) != (wantErr == nil) {
				t.Fatalf("payload: %v, want %v", err, wantErr)
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(payload, wanted) {
				t.Fatalf("payload %q, want %q", payload, wanted)
			}
		}
	})
}

// rsv1 reports whether a header is that of a compressed message.
func rsv1(h ws.Header) bool {
	return h.Rsv == ws.Rsv(true, false, false) && (h.OpCode == ws.OpText || h.OpCode == ws.OpBinary)
}
