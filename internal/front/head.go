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
	other                  // anything else
)

// request is what the head of a request is read into, again and again.
type request struct {
	http.Request

	url    url.URL
	values []string // of the header
}

// aliases are names as they are mostly written, and as http.Header has them.
var aliases = map[string]string{
	"Sec-WebSocket-Key": "Sec-Websocket-Key", "Sec-WebSocket-Version": "Sec-Websocket-Version",
	"Sec-WebSocket-Protocol": "Sec-Websocket-Protocol", "Sec-WebSocket-Extensions": "Sec-Websocket-Extensions",
	"host": "Host", "upgrade": "Upgrade", "connection": "Connection", "authorization": "Authorization", "accept": "Accept",
	"accept-encoding": "Accept-Encoding", "user-agent": "User-Agent", "cookie": "Cookie", "origin": "Origin",
	"sec-websocket-key": "Sec-Websocket-Key", "sec-websocket-version": "Sec-Websocket-Version",
	"sec-websocket-protocol": "Sec-Websocket-Protocol", "sec-websocket-extensions": "Sec-Websocket-Extensions",
	"DNT": "Dnt", "last-event-id": "Last-Event-Id", "Last-Event-ID": "Last-Event-Id", "x-forwarded-for": "X-Forwarded-For",
	"sec-ch-ua": "Sec-Ch-Ua", "sec-ch-ua-mobile": "Sec-Ch-Ua-Mobile", "sec-ch-ua-platform": "Sec-Ch-Ua-Platform",
}

// start begins the head of every request of the subset.
const start = "GET /v1/"

// parse reads the head of a request into r, when it is whole and of the subset:
//
//	GET <path>[?query] HTTP/1.1
//
// with one of the paths, at most as many bytes as said, and header fields on one line each, in visible ASCII,
// one Host among them, and none that announces a body, an expectation, or another
// protocol than a WebSocket. n is its length. What r holds is good until the next
// parse; its strings stay.
func (r *request) parse(b []byte, known func(path string) bool, most int) (n int, v verdict) {
	if k := min(len(b), len(start)); string(b[:k]) != start[:k] {
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
	if !r.line(line, known) || !r.fields(fields) || !r.meaning() {
		return 0, other
	}
	return n, whole
}

// line reads the first line.
func (r *request) line(line string, known func(path string) bool) bool {
	target, ok := strings.CutSuffix(line[len("GET "):], " HTTP/1.1")
	if !ok || strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }) {
		return false
	}
	path, query, asked := strings.Cut(target, "?")
	if !known(path) {
		return false
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
		Method: http.MethodGet, URL: &r.url, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: http.NoBody, RequestURI: target,
	}
	return true
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
	for _, name := range [...]string{"Content-Length", "Transfer-Encoding", "Expect", "Trailer", "Te", "Http2-Settings"} {
		if len(h[name]) > 0 {
			return false
		}
	}
	if up := h["Upgrade"]; len(up) > 1 || len(up) == 1 && !strings.EqualFold(up[0], "websocket") {
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
