package answer

import (
	"bytes"
	"io"
	"net/http"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Compressor makes bodies smaller for the clients that take them so. Its zero
// value is ready, and its method may be called from any goroutine.
type Compressor struct {
	gzips sync.Pool
	zstds sync.Pool
}

// MinCompressed is the smallest body that is compressed: less fits into a packet
// as it is.
const MinCompressed = 1 << 10

// Compress returns the body as the request's Accept-Encoding prefers it, zstd
// before gzip, and says so in the answer's Content-Encoding. A body that is small,
// that a client wants as it is, or that does not get smaller is returned as it is.
//
// Who can make a body hold a text of their choosing and see its compressed length
// learns whether the text is in it already. So it is for bodies without secrets.
func (c *Compressor) Compress(request, answer http.Header, body []byte) []byte {
	if len(body) < MinCompressed {
		return body
	}
	return c.CompressAs(Encoding(request), answer, body)
}

// CompressAs is Compress for a request of which only Encoding is known any more.
func (c *Compressor) CompressAs(name string, answer http.Header, body []byte) []byte {
	if len(body) < MinCompressed {
		return body
	}
	var small []byte
	switch name {
	case "zstd":
		small = c.zstd(body)
	case "gzip":
		small = c.gzip(body)
	}
	if small == nil || len(small) >= len(body) {
		return body
	}
	answer.Set("Content-Encoding", name)
	return small
}

// Encoding is the one that a request's Accept-Encoding prefers, or "" for none.
func Encoding(request http.Header) string {
	best, value := "", 0
	list := elements(request["Accept-Encoding"])
	for _, name := range []string{"zstd", "gzip"} {
		if q := coding(list, name); q > value {
			best, value = name, q
		}
	}
	if best != "" && coding(list, "identity") > value {
		return ""
	}
	return best
}

// coding is what a list values a coding with: by name, or else by "*". What is
// not named is not taken; identity counts for nothing then, since it always is.
func coding(list []element, name string) (value int) {
	for _, e := range list {
		if e.name == name {
			return e.value
		}
		if e.name == "*" && name != "identity" {
			value = e.value
		}
	}
	return value
}

func (c *Compressor) gzip(body []byte) []byte {
	z, ok := c.gzips.Get().(*gzip.Writer)
	if !ok {
		z, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // a level there is
	}
	defer func() {
		z.Reset(io.Discard) // the pool keeps no body
		c.gzips.Put(z)
	}()
	var out bytes.Buffer
	out.Grow(len(body) / 4)
	z.Reset(&out)
	_, err := z.Write(body)
	if err != nil || z.Close() != nil {
		return nil // a buffer takes everything
	}
	return out.Bytes()
}

// zstdWindow is how far back zstd looks, and so what an encoder takes of memory.
const zstdWindow = 256 << 10

func (c *Compressor) zstd(body []byte) []byte {
	z, ok := c.zstds.Get().(*zstd.Encoder)
	if !ok {
		var err error
		z, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil // the options are possible
		}
	}
	defer c.zstds.Put(z)
	return z.EncodeAll(body, make([]byte, 0, len(body)/4))
}
