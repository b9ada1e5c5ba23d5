package bench

import (
	"bytes"
	"errors"
	"strconv"
)

var errResponse = errors.New("an HTTP answer that could not be read")

// parseResponse reads one HTTP/1.1 response from the front of b. size 0 means
// that it is not all there yet. The body is a part of b, or of scratch when it
// came in chunks.
func parseResponse(b, scratch []byte) (status int, body []byte, size int, err error) {
	head := bytes.Index(b, []byte("\r\n\r\n"))
	if head < 0 {
		if len(b) > 16<<10 {
			return 0, nil, 0, errResponse
		}
		return 0, nil, 0, nil
	}
	line, rest, _ := bytes.Cut(b[:head], []byte("\r\n"))
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return 0, nil, 0, errResponse
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, 0, errResponse
	}
	length, chunked := 0, false
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 {
				return 0, nil, 0, errResponse
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		}
	}
	at := head + 4
	if !chunked {
		if len(b)-at < length {
			return 0, nil, 0, nil
		}
		return status, b[at : at+length], at + length, nil
	}
	body = scratch[:0]
	for {
		end := bytes.Index(b[at:], []byte("\r\n"))
		if end < 0 {
			return 0, nil, 0, nil
		}
		digits, _, _ := bytes.Cut(b[at:at+end], []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 31)
		if err != nil {
			return 0, nil, 0, errResponse
		}
		at += end + 2
		if len(b)-at < int(n)+2 {
			return 0, nil, 0, nil
		}
		body = append(body, b[at:at+int(n)]...)
		at += int(n) + 2
		if n == 0 {
			return status, body, at, nil // no server under test sends trailers
		}
	}
}
