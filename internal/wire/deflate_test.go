package wire_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	kp "github.com/klauspost/compress/flate"

	"github.com/carillon-rt/carillon/internal/wire"
)

// A compressed frame says what the plain one does, and stands for itself: whoever
// has read no other can read it.
func TestACompressedFrameStandsForItself(t *testing.T) {
	var d wire.Deflater
	first := map[int][]byte{}
	for range 2 {
		for _, size := range []int{200, 1000, 65_535, 65_536, 300_000} {
			text := []byte(strings.Repeat("to be or not to be, ", size/20+1)[:size])
			frame := d.Text(text)
			if frame == nil || frame[0] != 0xc1 || len(frame) >= len(text) {
				t.Fatalf("%d bytes: a frame of %d that begins with %x", size, len(frame), frame[:min(len(frame), 1)])
			}
			got, err := inflated(wire.TextPayload(frame))
			if err != nil || !bytes.Equal(got, text) {
				t.Fatalf("%d bytes: %d, %v", size, len(got), err)
			}
			if first[size] != nil && !bytes.Equal(first[size], frame) {
				t.Fatalf("%d bytes: it is another frame the second time", size)
			}
			first[size] = bytes.Clone(frame) // the deflater has no part in it
		}
	}
	for size, frame := range first {
		if got, err := inflated(wire.TextPayload(frame)); err != nil || len(got) != size {
			t.Errorf("%d bytes, afterwards: %d, %v", size, len(got), err)
		}
	}
}

func TestWhatDoesNotGetSmallerIsNoFrame(t *testing.T) {
	var d wire.Deflater
	noise := make([]byte, 100_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // never fails
	for _, size := range []int{0, 1, 2, 126, 1000, 100_000} {
		if frame := d.Text(noise[:size]); frame != nil {
			t.Errorf("%d bytes: a frame of %d", size, len(frame))
		}
	}
}

func TestTextPayload(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 65_535, 65_536} {
		text := bytes.Repeat([]byte("x"), size)
		if got := wire.TextPayload(append(wire.AppendTextHeader(nil, size), text...)); !bytes.Equal(got, text) {
			t.Errorf("%d bytes of %d", len(got), size)
		}
	}
}

// inflated reads a message as RFC 7692 says.
func inflated(b []byte) ([]byte, error) {
	return io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(b), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
}

// BenchmarkDeflater is what the level was chosen by, beside the one chosen.
func BenchmarkDeflater(b *testing.B) {
	for _, size := range []int{1 << 10, 4 << 10, 64 << 10, 200_000} {
		js := []byte(`{"items":[`)
		for i := uint32(1); len(js) < size; i++ {
			h := i * 2654435761
			js = fmt.Appendf(js, `{"id":"%08x","name":"item %d","quantity":%d,"price":%d.%02d},`, h, i, h>>7%100, h>>9%1000, h>>11%100)
		}
		run := func(name string, compress func() int) {
			b.Run(fmt.Sprintf("%d bytes/%s", size, name), func(b *testing.B) {
				n := 0
				b.SetBytes(int64(len(js)))
				for b.Loop() {
					n = compress()
				}
				b.ReportMetric(float64(n)/float64(len(js)), "ratio")
			})
		}
		for _, level := range []int{1, 3, 5, 6, 9} {
			var out bytes.Buffer
			z, err := kp.NewWriter(&out, level)
			if err != nil {
				b.Fatal(err)
			}
			run(fmt.Sprintf("level %d", level), func() int {
				out.Reset()
				z.Reset(&out)
				_, _ = z.Write(js) // a buffer takes everything
				_ = z.Flush()
				return out.Len()
			})
		}
		var d wire.Deflater
		run("chosen", func() int { return len(d.Text(js)) })
	}
}
