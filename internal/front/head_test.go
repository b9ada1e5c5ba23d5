package front

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// bodyMost is how large a body may be in these tests.
const bodyMost = 40

func known(method, path string) (bytes int, ok bool) {
	switch path {
	case "/v1/ws", "/v1/sse", "/v1/poll":
		return 0, method == http.MethodGet
	case "/v1/events":
		return bodyMost, method == http.MethodPost
	}
	return 0, false
}

const publish = "POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 21\r\n" +
	"Authorization: Bearer a.b.c\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n" + `{"type":"order.paid"}`

const chromium = "GET /v1/ws?after=now&token=a.b.c HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: Upgrade\r\nPragma: no-cache\r\n" +
	"Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nUpgrade: websocket\r\nOrigin: http://127.0.0.1:8080\r\n" +
	"Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" +
	"Sec-WebSocket-Protocol: carillon.v1, bearer.x.y.z\r\n\r\n"

// heads are what clients send, or might, and what becomes of it.
var heads = []struct {
	name string
	head string
	want verdict
}{
	{"a browser's WebSocket", chromium, whole},
	{"an EventSource", "GET /v1/sse?pattern=a.* HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nLast-Event-ID: abc\r\nCache-Control: no-cache\r\n\r\n", whole},
	{"a poll, all in lower case", "GET /v1/poll HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\nconnection: close\r\n\r\n", whole},
	{"a field twice", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nA: 1\r\na: 2\r\n\r\n", whole},
	{"an empty field", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nA:\r\nB: \t \r\n\r\n", whole},
	{"an empty query", "GET /v1/poll? HTTP/1.1\r\nHost: x\r\n\r\n", whole},
	{"another request behind it", "GET /v1/poll HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/poll HTTP/1.1\r\n", whole},
	{"Pragma alone", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nPragma: no-cache\r\n\r\n", whole},

	{"a publish", publish, whole},
	{"a publish, all in lower case, with another request behind it", "POST /v1/events?token=t HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-type: application/json\r\nidempotency-key: k\r\n\r\n{}GET /v1/poll", whole},
	{"a body of the largest size", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 040\r\n\r\n" + strings.Repeat("x", bodyMost), whole},

	{"a publish without its body", publish[:strings.Index(publish, "{")], short},
	{"a publish with half its body", publish[:len(publish)-3], short},

	{"the beginning of a publish", publish[:7], partial},
	{"half the header of a publish", publish[:60], partial},
	{"nothing yet", "", partial},
	{"the beginning of the line", "GET /v", partial},
	{"half a header", chromium[:len(chromium)-2], partial},

	{"another path", "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n", other},
	{"another path, of which only this much is there", "GET /index", other},
	{"a path that is written in another way", "GET /v1/%77s HTTP/1.1\r\nHost: x\r\n\r\n", other},
	{"another method", "POST /v1/poll HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", other},
	{"a larger body", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 41\r\n\r\n" + strings.Repeat("x", bodyMost+1), other},
	{"a POST without a length", "POST /v1/events HTTP/1.1\r\nHost: x\r\n\r\n", other},
	{"a length of nothing", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", other},
	{"a length with a sign", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}", other},
	{"a length that is empty", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n{}", other},
	{"a length in hexadecimal", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 0x2\r\n\r\n{}", other},
	{"two lengths", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", other},
	{"the same length twice", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 2\r\n\r\n{}", other},
	{"a length that no number holds", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551618\r\n\r\n{}", other},
	{"a length and chunks", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", other},
	{"a publish with an expectation", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}", other},
	{"a publish that would be a WebSocket", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{}", other},
	{"a GET of where only a POST is possible", "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n", other},
	{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", other},
	{"HTTP/1.0", "GET /v1/poll HTTP/1.0\r\nHost: x\r\n\r\n", other},
	{"a whole URL", "GET http://x/v1/poll HTTP/1.1\r\nHost: x\r\n\r\n", other},
	{"a body", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", other},
	{"a chunked body", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", other},
	{"an expectation", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", other},
	{"an upgrade to HTTP/2", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", other},
	{"no Host", "GET /v1/poll HTTP/1.1\r\nA: b\r\n\r\n", other},
	{"no header at all", "GET /v1/poll HTTP/1.1\r\n\r\n", other},
	{"two Hosts", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", other},
	{"a Host that is none", "GET /v1/poll HTTP/1.1\r\nHost: x/y\r\n\r\n", other},
	{"a folded line", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", other},
	{"a space before the colon", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", other},
	{"a line without a colon", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", other},
	{"lines that end with LF only", "GET /v1/poll HTTP/1.1\nHost: x\n\n\r\n\r\n", other},
	{"a NUL", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n", other},
	{"a letter that is not ASCII", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nA: \xc3\xa9\r\n\r\n", other},
	{"two spaces", "GET /v1/poll  HTTP/1.1\r\nHost: x\r\n\r\n", other},
	{"a fragment", "GET /v1/poll?a#b HTTP/1.1\r\nHost: x\r\n\r\n", other},
	{"more than 8 KB", "GET /v1/poll HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("x", MaxHeaderBytes), other},
}

func TestAHeadIsReadWholeOrLeftToOthers(t *testing.T) {
	for _, c := range heads {
		t.Run(c.name, func(t *testing.T) {
			var r request
			n, got := r.parse([]byte(c.head), known, MaxHeaderBytes)
			if got != c.want {
				t.Fatalf("it is %d, wanted %d", got, c.want)
			}
			if got == whole {
				sameAsNetHTTP(t, &r.Request, []byte(c.head), n)
			}
		})
	}
}

func TestAHeadInPiecesIsPartialUntilItIsWhole(t *testing.T) {
	for i := range len(chromium) {
		var r request
		if _, v := r.parse([]byte(chromium[:i]), known, MaxHeaderBytes); v != partial {
			t.Fatalf("the first %d bytes are %d", i, v)
		}
	}
	head := strings.Index(publish, "{")
	for i := range len(publish) {
		want, length := partial, 0
		if i >= head {
			want, length = short, len(publish)
		}
		var r request
		if n, v := r.parse([]byte(publish[:i]), known, MaxHeaderBytes); v != want || n != length {
			t.Fatalf("the first %d bytes of a publish are %d of length %d", i, v, n)
		}
	}
}

func TestARequestLeavesNothingToTheNext(t *testing.T) {
	var r request
	for range 2 {
		for _, c := range heads {
			if n, v := r.parse([]byte(c.head), known, MaxHeaderBytes); v == whole {
				sameAsNetHTTP(t, &r.Request, []byte(c.head), n)
			}
		}
	}
}

// sameAsNetHTTP compares what was read with what net/http reads.
func sameAsNetHTTP(t *testing.T, got *http.Request, b []byte, n int) {
	t.Helper()
	rest := bufio.NewReader(bytes.NewReader(b))
	want, err := http.ReadRequest(rest)
	if err != nil {
		t.Fatalf("net/http refuses %q: %v", b, err)
	}
	var bodies [2]string
	for i, r := range [2]*http.Request{got, want} {
		if r.Body != http.NoBody {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			bodies[i] = string(b)
		}
	}
	if bodies[0] != bodies[1] {
		t.Errorf("the body is %q, for net/http %q", bodies[0], bodies[1])
	}
	left, _ := io.ReadAll(rest)
	if !bytes.Equal(left, b[n:]) {
		t.Errorf("%q is left, net/http leaves %q", b[n:], left)
	}
	type part struct {
		Method, Proto, Host, RequestURI string
		Major, Minor                    int
		Length                          int64
		Close                           bool
		Body                            bool
		Encoding                        []string
	}
	of := func(r *http.Request) part {
		return part{r.Method, r.Proto, r.Host, r.RequestURI, r.ProtoMajor, r.ProtoMinor, r.ContentLength, r.Close, r.Body != http.NoBody, r.TransferEncoding}
	}
	if g, w := of(got), of(want); !reflect.DeepEqual(g, w) {
		t.Errorf("read %+v\nnet/http %+v", g, w)
	}
	if !reflect.DeepEqual(got.URL, want.URL) {
		t.Errorf("read %#v\nnet/http %#v", got.URL, want.URL)
	}
	if !reflect.DeepEqual(got.Header, want.Header) {
		t.Errorf("read %q\nnet/http %q", got.Header, want.Header)
	}
}

// FuzzHead compares the reader with net/http's on whatever comes: what is whole
// here must be the same request there, and behind it the same bytes.
func FuzzHead(f *testing.F) {
	for _, c := range heads {
		f.Add([]byte(c.head))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r request
		n, v := r.parse(b, known, MaxHeaderBytes)
		if v != whole {
			return
		}
		sameAsNetHTTP(t, &r.Request, b, n)
		// A server of net/http refuses more than ReadRequest does.
		if !strings.Contains(served(b), " 200 ") {
			t.Errorf("net/http refuses %q: %s", b, served(b))
		}
		var again request
		if m, v := again.parse(b[:n], known, MaxHeaderBytes); v != whole || m != n {
			t.Errorf("its first %d bytes are %d of length %d", n, v, m)
		}
	})
}

// served is the first line of net/http's answer.
func served(b []byte) string {
	client, server := pipe()
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go srv.Serve(&one{conn: server})
	defer srv.Close()
	go client.Write(b)
	line, _ := bufio.NewReader(client).ReadString('\n')
	return line
}
