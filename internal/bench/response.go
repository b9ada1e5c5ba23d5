package bench

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"
)

var errResponse = errors.New("an HTTP answer that could not be read")

// maxHead is the largest head of an answer that is waited for.
const maxHead = 16 << 10

// head is what matters of the head of an HTTP/1.1 response.
type head struct {
	status  int
	length  int
	chunked bool
	stream  bool          // text/event-stream
	retry   time.Duration // when to come back
}

// parseHead reads a head from the front of b. size 0 means that it is not all
// there yet.
func parseHead(b []byte) (h head, size int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > maxHead {
			return h, 0, errResponse
		}
		return h, 0, nil
	}
	line, rest, _ := bytes.Cut(b[:end], []byte("\r\n"))
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return h, 0, errResponse
	}
	if h.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return h, 0, errResponse
	}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if h.length, err = strconv.Atoi(string(value)); err != nil || h.length < 0 {
				return h, 0, errResponse
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			h.chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Content-Type")):
			h.stream = bytes.HasPrefix(value, []byte("text/event-stream"))
		case bytes.EqualFold(name, []byte("Retry-After")):
			if s, ok := number(value); ok && s < 3600 {
				h.retry = time.Duration(s) * time.Second
			}
		}
	}
	return h, end + 4, nil
}

// parseResponse reads one HTTP/1.1 response from the front of b. size 0 means
// that it is not all there yet. The body is a part of b, or of scratch when it
// came in chunks.
func parseResponse(b, scratch []byte) (h head, body []byte, size int, err error) {
	h, at, err := parseHead(b)
	if err != nil || at == 0 {
		return h, nil, 0, err
	}
	if !h.chunked {
		if len(b)-at < h.length {
			return h, nil, 0, nil
		}
		return h, b[at : at+h.length], at + h.length, nil
	}
	var k chunks
	body = append(scratch[:0], b[at:]...)
	n, used, err := k.decode(body)
	if err != nil || !k.over {
		return h, nil, 0, err
	}
	return h, body[:n], at + used, nil
}

// chunks takes a chunked body apart as it comes. The zero value stands at its
// beginning.
type chunks struct {
	part  chunkPart
	size  uint64 // of the chunk in hand: what is left of it
	quiet bool   // in an extension, which says nothing to us
	over  bool   // the last one has been read
}

type chunkPart uint8

const (
	chunkSize chunkPart = iota
	chunkData
	chunkEnd // the line's end behind the data
	chunkLast
)

var errChunk = errors.New("a chunked body that could not be read")

// decode leaves at the front of b what the chunks in it hold and returns how much
// that is. used is how much of b it looked at: all, unless the body ended before.
func (k *chunks) decode(b []byte) (n, used int, err error) {
	for used < len(b) && !k.over {
		if k.part == chunkData {
			m := int(min(k.size, uint64(len(b)-used)))
			n += copy(b[n:], b[used:used+m])
			used += m
			if k.size -= uint64(m); k.size == 0 {
				k.part = chunkEnd
			}
			continue
		}
		c := b[used]
		used++
		switch {
		case c == '\r': // the newline behind it counts
		case c == '\n' && k.part == chunkLast:
			k.over = true // no server under test sends trailers
		case c == '\n' && k.part == chunkEnd:
			k.part = chunkSize
		case c == '\n':
			if k.part, k.quiet = chunkData, false; k.size == 0 {
				k.part = chunkLast
			}
		case k.part != chunkSize:
			return n, used, errChunk
		case c == ';':
			k.quiet = true
		case k.quiet:
		default:
			d := strings.IndexByte("0123456789abcdefABCDEF", c)
			if d < 0 || k.size > 1<<27 {
				return n, used, errChunk
			}
			if d >= 16 {
				d -= 6
			}
			k.size = k.size<<4 | uint64(d)
		}
	}
	return n, used, nil
}
