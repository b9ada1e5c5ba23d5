package wire

import (
	"bytes"

	"github.com/klauspost/compress/flate"
)

// deflateLevel is where a higher level costs more time than it saves bytes; see
// BenchmarkDeflater. What is compressed goes to many, so it is not the fastest.
const deflateLevel = 5

// deflateKept is how much memory a Deflater keeps for its output.
const deflateKept = 256 << 10

// syncTail is what a flush ends with, and a compressed message goes without (RFC
// 7692, section 7.2.1).
const syncTail = 4

// Deflater makes compressed text frames, each of which stands for itself
// (permessage-deflate without context takeover, RFC 7692). The zero value is
// ready, and takes about 1 MB with its first frame. It is used by one goroutine
// at a time.
type Deflater struct {
	z   *flate.Writer
	out bytes.Buffer
}

// Text returns the compressed text frame of a payload, or nil if it is not smaller
// than the plain one.
func (d *Deflater) Text(payload []byte) []byte {
	if d.z == nil {
		d.z, _ = flate.NewWriter(nil, deflateLevel) // a level there is
	}
	d.out.Reset()
	d.z.Reset(&d.out)
	_, err := d.z.Write(payload)
	if err != nil || d.z.Flush() != nil {
		return nil // a buffer takes everything
	}
	b := d.out.Bytes()
	b = b[:len(b)-syncTail]
	var frame []byte
	if size := headerSize(len(b)) + len(b); size < headerSize(len(payload))+len(payload) {
		frame = append(appendHeader(make([]byte, 0, size), 0xc1, len(b)), b...)
	}
	if d.out.Cap() > deflateKept {
		d.out = bytes.Buffer{}
	}
	return frame
}

// TextPayload is what a text frame of AppendTextHeader says.
func TextPayload(frame []byte) []byte {
	size := 2
	switch frame[1] {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	return frame[size:]
}

func headerSize(n int) int {
	var b [10]byte
	return len(appendHeader(b[:0], 0, n))
}
