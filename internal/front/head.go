package front

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// verdict is what the first bytes of a request are.
type verdict uint8

const (
	whole   verdict = iota // a request of the subset
	partial                // possibly the beginning of one
	short                  // one whose head is whole, and whose body is not
	other                  // anything else
)

// lookup tells whether there is a door for a method and a path, and how large the
// bodies of its requests may be.
type lookup func(method, path string) (bytes int, ok bool)

// request is what the head of a request is read into, again and again.
type request struct {
	http.Request

	url    url.URL
	values []string // of the header
	body   body
}

// body is one that has come whole.
type body struct{ bytes.Reader }

// Close is io.Closer's.
func (*body) Close() error { return nil }

// aliases are names as they are mostly written, and as http.Header has them.
var aliases = map[string]string{
	"Sec-WebSocket-Key": "Sec-Websocket-Key", "Sec-WebSocket-Version": "Sec-Websocket-Version",
	"Sec-WebSocket-Protocol": "Sec-Websocket-Protocol", "Sec-WebSocket-Extensions": "Sec-Websocket-Extensions",
	"host": "Host", "upgrade": "Upgrade", "connection": "Connection", "authorization": "Authorization", "accept": "Accept",
	"accept-encoding": "Accept-Encoding", "user-agent": "User-Agent", "cookie": "Cookie", "origin": "Origin",
	"sec-websocket-key": "Sec-Websocket-Key", "sec-websocket-version": "Sec-Websocket-Version",
	"sec-websocket-protocol": "Sec-Websocket-Protocol", "sec-websocket-extensions": "Sec-Websocket-Extensions",
	"content-type": "Content-Type", "content-length": "Content-Length", "idempotency-key": "Idempotency-Key",
	"DNT": "Dnt", "last-event-id": "Last-Event-Id", "Last-Event-ID": "Last-Event-Id", "x-forwarded-for": "X-Forwarded-For",
	"sec-ch-ua": "Sec-Ch-Ua", "sec-ch-ua-mobile": "Sec-Ch-Ua-Mobile", "sec-ch-ua-platform": "Sec-Ch-Ua-Platform",
}

// starts are how the requests of the subset begin.
var starts = [...]string{"GET /v1/", "POST /v1/"}

// begins reports whether b may be the beginning of one.
func begins(b []byte) bool {
	for _, s := range starts {
		if k := min(len(b), len(s)); string(b[:k]) == s[:k] {
			return true
		}
	}
	return false
}

// parse reads a request into r, when it is whole and of the subset:
//
//	GET|POST <path>[?query] HTTP/1.1
//
// with a method and a path that there is a door for, a head of at most as many bytes as said, and header fields on
// one line each, in visible ASCII, one Host among them, and none that announces an
// expectation, or another protocol than a WebSocket. A POST has a body, whose
// length it says in one Content-Length, and which the door takes; a GET has none. n
// is the length of the request, also where its body has not come whole. What r holds
// is good until the next parse, its body while b is; its strings stay.
func (r *request) parse(b []byte, door lookup, most int) (n int, v verdict) {
	if !begins(b) {
		return 0, other
	}
	end := bytes.Index(b[:min(len(b), most)], []byte("\r\n\r\n"))
	switch {
	case end >= 0:
	case len(b) >= most:
		return 0, other
	default:
		return 0, partial
	}
	n = end + len("\r\n\r\n")
	line, fields, _ := strings.Cut(string(b[:end]), "\r\n")
	length, ok := r.line(line, door)
	if !ok || !r.fields(fields) || !r.meaning() || !r.length(length) {
		return 0, other
	}
	if r.ContentLength == 0 {
		return n, whole
	}
	head := n
	if n += int(r.ContentLength); n > len(b) {
		return n, short
	}
	r.body.Reset(b[head:n])
	r.Body = &r.body
	return n, whole
}

// line reads the first line. bytes is how large the body may be.
func (r *request) line(line string, door lookup) (bytes int, ok bool) {
	method, rest, _ := strings.Cut(line, " ")
	target, ok := strings.CutSuffix(rest, " HTTP/1.1")
	if !ok || strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }) {
		return 0, false
	}
	path, query, asked := strings.Cut(target, "?")
	if bytes, ok = door(method, path); !ok {
		return 0, false
	}
	header := r.Header
	if header == nil {
		header = http.Header{}
	}
	clear(header)
	clear(r.values)
	r.values = r.values[:0]
	r.url = url.URL{Path: path, RawQuery: query, ForceQuery: asked && query == ""}
	r.Request = http.Request{
		Method: method, URL: &r.url, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: http.NoBody, RequestURI: target,
	}
	return bytes, true
}

// length reads how long the body is, of a request that has one.
func (r *request) length(most int) bool {
	said := r.Header["Content-Length"]
	if r.Method != http.MethodPost {
		return len(said) == 0
	}
	const digits = 8 // as many as make sense
	if len(said) != 1 || len(said[0]) > digits {
		return false
	}
	n := 0
	for _, c := range []byte(said[0]) {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	r.ContentLength = int64(n)
	return n > 0 && n <= most
}

// fields reads the lines of the header.
func (r *request) fields(lines string) bool {
	for more := lines != ""; more; {
		var line string
		line, lines, more = strings.Cut(lines, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if !ok || !token(name) {
			return false
		}
		if value = strings.Trim(value, " \t"); strings.ContainsFunc(value, func(c rune) bool { return (c < ' ' && c != '\t') || c >= 0x7f }) {
			return false
		}
		key, ok := aliases[name]
		if !ok {
			key = textproto.CanonicalMIMEHeaderKey(name)
		}
		if all, more := r.Header[key]; more {
			r.Header[key] = append(all[:len(all):len(all)], value)
			continue
		}
		r.values = append(r.values, value)
		last := len(r.values)
		r.Header[key] = r.values[last-1 : last : last]
	}
	return true
}

// meaning looks at the fields that say how the request is to be read.
func (r *request) meaning() bool {
	h := r.Header
	for _, name := range [...]string{"Transfer-Encoding", "Expect", "Trailer", "Te", "Http2-Settings"} {
		if len(h[name]) > 0 {
			return false
		}
	}
	if up := h["Upgrade"]; len(up) > 1 || len(up) == 1 && (r.Method != http.MethodGet || !strings.EqualFold(up[0], "websocket")) {
		return false
	}
	host := h["Host"]
	if len(host) != 1 || !hostname(host[0]) {
		return false
	}
	r.Host = host[0]
	delete(h, "Host")
	if pragma := h["Pragma"]; len(pragma) > 0 && pragma[0] == "no-cache" && len(h["Cache-Control"]) == 0 {
		h["Cache-Control"] = []string{"no-cache"} // RFC 7234, section 5.4, as net/http does
	}
	for _, list := range h["Connection"] {
		for option := range strings.SplitSeq(list, ",") {
			r.Close = r.Close || strings.EqualFold(strings.Trim(option, " \t"), "close")
		}
	}
	return true
}

// hostname reports whether s is a name or an address, with or without a port, as
// clients write it.
func hostname(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._:[]", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
