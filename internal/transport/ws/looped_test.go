package ws

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/wire"
)

// hearing writes down what it is told.
type hearing struct {
	heard []string
	whole int  // frames
	over  bool // nothing more is read for
	most  int  // bytes of what is inflated
	pause int  // after so many frames it wants no more for a moment; 0: never
}

func (s *hearing) note(format string, args ...any) {
	s.heard = append(s.heard, fmt.Sprintf(format, args...))
}

func (s *hearing) more() bool {
	s.whole++
	return !s.over && (s.pause == 0 || s.whole%s.pause != 0)
}

func (s *hearing) message(raw []byte, binary bool) bool {
	s.note("message %t %q", binary, raw)
	return s.more()
}

func (s *hearing) deflated(packed []byte, binary bool) bool {
	raw, err := opened(packed, binary, s.most)
	if err != nil {
		s.refuse(why(err))
		return false
	}
	s.note("inflated")
	return s.message(raw, binary)
}

func (s *hearing) control(opcode byte, payload []byte) bool {
	if opcode == wire.OpClose {
		s.over = true
		code, reason := closing(payload)
		s.note("close %d %q", code, reason)
		return false
	}
	s.note("control %d %q", opcode, payload)
	return s.more()
}

func (s *hearing) refuse(code wire.CloseCode, reason string) {
	s.over = true
	s.note("refused %d %s", code, reason)
}

// portable is what the portable reader makes of the bytes, which come step at a
// time.
func portable(b []byte, step int, r *rules, deflate bool) []string {
	var c conn
	c.deflate = deflate
	new(loop.Sockets).Init(&c.Socket, input{Reader: bytes.NewReader(b), step: step}, &c)
	s := hearing{most: r.bytes}
	for c.frame(r, &s) {
	}
	return s.heard
}

// onLoop is what the reader of the loops makes of them, when they come in pieces
// of these lengths, and it wants no more for a moment after every pause frames.
func onLoop(t *testing.T, b, cuts []byte, pause int, r *rules, deflate bool) []string {
	t.Helper()
	s := hearing{most: r.bytes, pause: pause}
	var f frames
	f.deflate = deflate
	var rest []byte
	for i := 0; len(b)+len(rest) > 0 && !s.over; i++ {
		piece := rest
		if len(piece) == 0 {
			n := len(b)
			if len(cuts) > 0 {
				n = min(n, 1+int(cuts[i%len(cuts)]))
			}
			piece, b = slices.Clone(b[:n]), b[n:] // the loop's buffer is used again
		}
		before := s.whole
		n, again := f.input(piece, r, r.made, &s)
		switch {
		case s.over:
		case n == 0:
			t.Fatal("it takes nothing, and says nothing")
		case s.whole-before > framesPerTurn:
			t.Fatalf("%d frames in a turn", s.whole-before)
		case n < len(piece) && !again && (pause == 0 || s.whole%pause != 0):
			t.Fatalf("%d of %d bytes were taken, and nothing says why", n, len(piece))
		}
		rest = piece[n:]
		for j := range piece[:n] {
			piece[j] = 0xff // what is kept was copied
		}
	}
	return s.heard
}

// A client's bytes mean the same whichever way they are read, and wherever they
// are cut.
func FuzzTwoReaders(f *testing.F) {
	var ping []byte
	for range 40 {
		ping = append(ping, compiled(ws.NewPingFrame([]byte("x")))...)
	}
	for _, b := range [][]byte{
		compiled(ws.NewTextFrame([]byte("hello")), ws.NewPingFrame(nil), ws.NewPongFrame([]byte("x")), ws.NewCloseFrame([]byte{3, 232})),
		compiled(ws.NewFrame(ws.OpText, false, []byte("\xc3")), ws.NewPingFrame([]byte("between")), ws.NewFrame(ws.OpContinuation, true, []byte("\xa9"))),
		compiled(ws.NewFrame(ws.OpBinary, false, make([]byte, 125)), ws.NewFrame(ws.OpContinuation, false, nil), ws.NewFrame(ws.OpContinuation, true, make([]byte, 126))),
		compiled(ws.NewTextFrame(make([]byte, 700)), ws.NewTextFrame(nil), ws.NewBinaryFrame(nil)),
		compiled(ws.NewFrame(ws.OpText, false, make([]byte, 600)), ws.NewFrame(ws.OpContinuation, true, make([]byte, 600))),
		compiled(ws.NewFrame(ws.OpContinuation, true, nil)),
		compiled(ws.NewFrame(ws.OpText, false, nil), ws.NewTextFrame(nil)),
		compiled(ws.NewTextFrame([]byte("\xff"))),
		compiled(ws.NewCloseFrame([]byte{3})),
		compiled(ws.NewCloseFrame(nil)),
		ping,
		append(ping, 0xf1),
		compiled(compressed(ws.OpText, true, packed("hello")), compressed(ws.OpBinary, true, packed("\xff")), compressed(ws.OpText, true, nil), ws.NewTextFrame([]byte("plain"))),
		compiled(compressed(ws.OpText, false, packed("hello, hello")[:3]), ws.NewPingFrame(nil), ws.NewFrame(ws.OpContinuation, true, packed("hello, hello")[3:])),
		compiled(compressed(ws.OpText, true, packed("\xff"))),
		compiled(compressed(ws.OpText, true, packed(string(make([]byte, 1001))))),
		compiled(compressed(ws.OpText, true, []byte("no such data"))),
		compiled(compressed(ws.OpPing, true, nil)),
		compiled(compressed(ws.OpClose, true, nil)),
		compiled(compressed(ws.OpText, false, packed("a")), compressed(ws.OpContinuation, true, nil)),
		{0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0},
		{0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1},
		{0x81, 0x80 | 126, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5},
		{0x89, 0x80 | 126, 0, 126, 0, 0, 0, 0},
	} {
		f.Add(b, []byte{0}, uint8(1), uint16(1000), true, false)
		f.Add(b, []byte{255}, uint8(0), uint16(1000), false, true)
		f.Add(b, []byte{1, 2, 3, 14, 0}, uint8(3), uint16(1000), true, true)
	}
	f.Fuzz(func(t *testing.T, b, cuts []byte, pause uint8, most uint16, binary, deflate bool) {
		r := &rules{bytes: int(most), binary: binary, made: time.Now()}
		want := portable(b, 1<<20, r, deflate)
		step := 1
		if len(cuts) > 0 {
			step += int(cuts[0])
		}
		if got := portable(b, step, r, deflate); !slices.Equal(got, want) {
			t.Errorf("%d bytes at a time the portable reader reads\n%q\nand at once\n%q", step, got, want)
		}
		if got := onLoop(t, b, cuts, int(pause), r, deflate); !slices.Equal(got, want) {
			t.Errorf("on a loop, cut %v, it is\n%q\nand on the portable way\n%q", cuts, got, want)
		}
	})
}

// compiled is frames of a client as bytes.
func compiled(frames ...ws.Frame) (b []byte) {
	for _, frame := range frames {
		one, err := ws.CompileFrame(ws.MaskFrame(frame))
		if err != nil {
			panic(err)
		}
		b = append(b, one...)
	}
	return b
}

// compressed is a frame with RSV1.
func compressed(op ws.OpCode, fin bool, payload []byte) ws.Frame {
	f := ws.NewFrame(op, fin, payload)
	f.Header.Rsv = ws.Rsv(true, false, false)
	return f
}

// A header is what another implementation reads, if it is one that RFC 6455
// allows to a client; and less than a header is never taken for more.
func FuzzHeader(f *testing.F) {
	for _, b := range [][]byte{
		{0x81, 0x85, 1, 2, 3, 4},
		{0x81, 0xfe, 0, 126, 1, 2, 3, 4},
		{0x81, 0xfe, 0, 125, 1, 2, 3, 4},
		{0x89, 0xfe, 0, 126, 1, 2, 3, 4},
		{0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4},
		{0x81, 0xff, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4},
		{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4},
		{0x88, 0x82, 1, 2, 3, 4},
		{0x08, 0x80, 1, 2, 3, 4},
		{0x83, 0x80},
		{0xc1, 0x80},
		{0xc2, 0x80, 1, 2, 3, 4},
		{0xc0, 0x80, 1, 2, 3, 4},
		{0xa1, 0x80, 1, 2, 3, 4},
		{0x81, 0x05},
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < minHeader {
			return
		}
		h, size, ok := parseHeader(b)
		for n := minHeader; n < len(b); n++ {
			_, some, fine := parseHeader(b[:n])
			if fine && some <= n && (n < size || some != size) || !fine && ok {
				t.Fatalf("%d of the bytes are %d, %t; all are %d, %t", n, some, fine, size, ok)
			}
		}
		in := bytes.NewReader(b)
		want, err := ws.ReadHeader(in)
		shortest := err == nil && (b[1]&0x7f < 126 || b[1]&0x7f == 126 && want.Length > maxControl || want.Length > 1<<16-1)
		allowed := shortest && want.Masked && (want.Rsv == 0 || rsv1(want)) && !want.OpCode.IsReserved() &&
			(!want.OpCode.IsControl() || want.Fin && want.Length <= maxControl)
		switch whole := ok && size <= len(b); {
		case whole != allowed:
			t.Fatalf("%v: %+v, %t; another one reads %+v, %v", b, h, whole, want, err)
		case whole && (h.final != want.Fin || h.opcode != byte(want.OpCode) || h.length != uint64(want.Length) || h.mask != want.Mask || h.deflated != (want.Rsv != 0) || size != len(b)-in.Len()):
			t.Fatalf("%v: %+v; another one reads %+v", b, h, want)
		case !whole && ok && !short(err):
			t.Fatalf("%v: more is asked for; another one reads %+v, %v", b, want, err)
		}
	})
}

func short(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// A message in pieces is over in time, or is refused: at its next frame, whatever
// that is, but a close.
func TestAMessageInPiecesTakesNoLongerThanItMay(t *testing.T) {
	r := &rules{bytes: 1000, within: time.Minute, made: time.Now()}
	first := compiled(ws.NewFrame(ws.OpText, false, []byte("a")))
	late := `refused 1008 the message took too long`
	for name, row := range map[string]struct {
		frame ws.Frame
		after time.Duration
		want  string
	}{
		"in time":           {ws.NewFrame(ws.OpContinuation, true, nil), time.Minute, `message false "a"`},
		"late":              {ws.NewFrame(ws.OpContinuation, true, nil), time.Minute + 1, late},
		"late, a pong":      {ws.NewPongFrame(nil), time.Minute + 1, late},
		"late, but a close": {ws.NewCloseFrame(nil), time.Hour, `close 1000 ""`},
	} {
		t.Run(name, func(t *testing.T) {
			var f frames
			var s hearing
			for range 2 { // the time of a message is not that of the next
				s.heard = nil
				r.made = r.made.Add(-time.Hour)
				begun := time.Now()
				f.input(first, r, begun, &s)
				f.input(compiled(row.frame), r, begun.Add(row.after), &s)
				if len(s.heard) != 1 || s.heard[0] != row.want {
					t.Fatalf("%q, want %q", s.heard, row.want)
				}
				if s.over {
					break
				}
			}
		})
	}
}
