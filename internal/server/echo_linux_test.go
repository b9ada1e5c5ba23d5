package server_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/internal/server"
)

func TestTheEchoIsOnlyThereWhenAskedFor(t *testing.T) {
	for _, on := range []bool{false, true} {
		s := startWith(t, settings(""), server.Options{DebugEcho: on})
		want := http.StatusNotFound
		if on {
			want = http.StatusUpgradeRequired
		}
		if status, body := do(t, client(t), http.MethodGet, s.OpsURL()+"/debug/echo", ""); status != want {
			t.Errorf("asked for: %t: %d %s, want %d", on, status, body, want)
		}
		if status, _ := do(t, client(t), http.MethodGet, s.PublicURL()+"/debug/echo", ""); status != http.StatusNotFound {
			t.Errorf("on the public port: %d", status)
		}
		if status, _ := do(t, client(t), http.MethodGet, s.OpsURL()+"/debug/echo", "", "Host", "evil.example.com"); status != http.StatusForbidden {
			t.Errorf("by another name: %d", status)
		}
	}
}

// A client of another make gets back what it sends, however much: more than a
// socket takes at once, more than waits for one that does not read.
func TestTheEchoSendsEverythingBack(t *testing.T) {
	for name, mode := range map[string]websocket.CompressionMode{
		"plain": websocket.CompressionDisabled, "compressed": websocket.CompressionNoContextTakeover,
	} {
		t.Run(name, func(t *testing.T) { echoes(t, mode) })
	}
}

func echoes(t *testing.T, mode websocket.CompressionMode) {
	t.Helper()
	cfg := settings("")
	cfg.Connection.Compression = true
	s := startWith(t, cfg, server.Options{DebugEcho: true})
	c, resp, err := websocket.Dial(t.Context(), s.OpsURL()+"/debug/echo", &websocket.DialOptions{HTTPClient: client(t), CompressionMode: mode})
	if err != nil {
		t.Fatal(err)
	}
	if agreed := resp.Header.Get("Sec-Websocket-Extensions") != ""; agreed != (mode != websocket.CompressionDisabled) {
		t.Fatalf("compression was agreed on: %t", agreed)
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	type message struct {
		kind websocket.MessageType
		data []byte
	}
	random := rand.New(rand.NewPCG(1, 1))
	var all []message
	for i := range 300 {
		m := message{websocket.MessageText, bytes.Repeat([]byte("é"), random.IntN(100))}
		switch i % 10 {
		case 0:
			m.data = bytes.Repeat([]byte("é"), 500_000)
		case 1, 2:
			m = message{websocket.MessageBinary, []byte{0xff, byte(i)}}
		}
		all = append(all, m)
	}
	done := make(chan error, 1)
	go func() {
		for _, m := range all {
			if err := c.Write(t.Context(), m.kind, m.data); err != nil {
				done <- err
				return
			}
		}
		done <- c.Ping(t.Context())
	}()
	for i, m := range all {
		kind, data, err := c.Read(t.Context())
		if err != nil || kind != m.kind || !bytes.Equal(data, m.data) {
			t.Fatalf("message %d: %v with %d bytes, %v", i, kind, len(data), err)
		}
	}
	go func() { _, _, _ = c.Read(t.Context()) }() // takes the pong
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := c.Close(4321, "bye"); err != nil {
		t.Errorf("the answer to a close: %v", err)
	}
}

// talk is what a client sends, and what it gets for it.
type talk struct {
	name string
	send []byte
	want []string // text, binary and pong frames, as shown describes them
	code int      // of the server's close frame; 0: it closes when the client does
}

func shown(op ws.OpCode, payload []byte) string {
	if len(payload) > 40 {
		return fmt.Sprintf("%x %x… (%d bytes, %x)", op, payload[:40], len(payload), crc32.ChecksumIEEE(payload))
	}
	return fmt.Sprintf("%x %x", op, payload)
}

// sent is what a client sends: its frames, one after the other.
func sent(all ...ws.Frame) (b []byte) {
	for _, f := range all {
		one, err := ws.CompileFrame(ws.MaskFrame(f))
		if err != nil {
			panic(err)
		}
		b = append(b, one...)
	}
	return b
}

func piece(op ws.OpCode, fin bool, payload string) ws.Frame {
	return ws.NewFrame(op, fin, []byte(payload))
}

func withRSV(f ws.Frame, bits byte) ws.Frame {
	f.Header.Rsv = bits
	return f
}

// closeBody is the payload of a close frame.
func closeBody(code int, reason string) string {
	return string([]byte{byte(code >> 8), byte(code)}) + reason
}

// talks are the cases that public suites have, section by section.
func talks() (all []talk) {
	add := func(name string, code int, send []byte, want ...string) {
		all = append(all, talk{name, send, want, code})
	}
	text := func(s string) string { return shown(ws.OpText, []byte(s)) }
	pong := func(s string) string { return shown(ws.OpPong, []byte(s)) }
	hello := piece(ws.OpText, true, "hello")

	for _, n := range []int{0, 1, 125, 126, 127, 128, 65535, 65536, 200_000} {
		for _, op := range []ws.OpCode{ws.OpText, ws.OpBinary} {
			payload := bytes.Repeat([]byte("*"), n)
			if op == ws.OpBinary {
				payload = bytes.Repeat([]byte{0xfe}, n)
			}
			add(fmt.Sprintf("framing: %d bytes, opcode %d", n, op), 0, sent(ws.NewFrame(op, true, payload)), shown(op, payload))
		}
	}

	full := strings.Repeat("\xfe", 125)
	add("ping", 0, sent(piece(ws.OpPing, true, "")), pong(""))
	add("ping with text", 0, sent(piece(ws.OpPing, true, "hi")), pong("hi"))
	add("ping with bytes", 0, sent(piece(ws.OpPing, true, "\x00\xff\xfe\xfd")), pong("\x00\xff\xfe\xfd"))
	add("ping, full", 0, sent(piece(ws.OpPing, true, full)), pong(full))
	add("ping, too long", 1002, sent(piece(ws.OpPing, true, full+"x")))
	add("pong nobody asked for", 0, sent(piece(ws.OpPong, true, "hi"), piece(ws.OpPing, true, "a")), pong("a"))
	var pings []ws.Frame
	var pongs []string
	for i := range 10 {
		pings, pongs = append(pings, piece(ws.OpPing, true, fmt.Sprint(i))), append(pongs, pong(fmt.Sprint(i)))
	}
	add("ten pings", 0, sent(pings...), pongs...)

	for bits := byte(1); bits < 8; bits++ {
		for _, op := range []ws.OpCode{ws.OpText, ws.OpBinary, ws.OpPing, ws.OpClose} {
			add(fmt.Sprintf("reserved bits %d, opcode %d", bits, op), 1002, sent(hello, withRSV(piece(op, true, ""), bits), hello), text("hello"))
		}
	}
	for _, op := range []ws.OpCode{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		add(fmt.Sprintf("reserved opcode %d", op), 1002, sent(hello, piece(op, true, ""), hello), text("hello"))
		add(fmt.Sprintf("reserved opcode %d, with a payload", op), 1002, sent(piece(op, true, "hello")))
	}
	unmasked, _ := ws.CompileFrame(hello)
	add("unmasked", 1002, unmasked)

	const t0, tc = ws.OpText, ws.OpContinuation
	add("fragments: ping", 1002, sent(piece(ws.OpPing, false, "a"), piece(tc, true, "b")))
	add("fragments: pong", 1002, sent(piece(ws.OpPong, false, "a"), piece(tc, true, "b")))
	add("fragments: close", 1002, sent(piece(ws.OpClose, false, closeBody(1000, ""))))
	add("fragments: two", 0, sent(piece(t0, false, "a"), piece(tc, true, "b")), text("ab"))
	add("fragments: with pings", 0, sent(piece(t0, false, "a"), piece(ws.OpPing, true, "p"), piece(tc, false, "b"), piece(ws.OpPing, true, "q"), piece(tc, true, "c")),
		pong("p"), pong("q"), text("abc"))
	add("fragments: all empty", 0, sent(piece(t0, false, ""), piece(tc, false, ""), piece(tc, true, "")), text(""))
	add("fragments: empty around", 0, sent(piece(t0, false, ""), piece(tc, false, "middle"), piece(tc, true, "")), text("middle"))
	add("fragments: binary", 0, sent(piece(ws.OpBinary, false, "\xff"), piece(tc, true, "\xfe")), shown(ws.OpBinary, []byte("\xff\xfe")))
	add("fragments: last without first", 1002, sent(piece(tc, true, "a"), hello))
	add("fragments: middle without first", 1002, sent(piece(tc, false, "a"), hello))
	add("fragments: last twice", 1002, sent(piece(t0, false, "a"), piece(tc, true, "b"), piece(tc, true, "c")), text("ab"))
	add("fragments: text within", 1002, sent(piece(t0, false, "a"), hello))
	add("fragments: binary within", 1002, sent(piece(t0, false, "a"), piece(ws.OpBinary, true, "b")))
	small := []ws.Frame{piece(t0, false, "*")}
	for range 1000 {
		small = append(small, piece(tc, false, "*"))
	}
	add("fragments: a thousand", 0, sent(append(small, piece(tc, true, "*"))...), text(strings.Repeat("*", 1002)))

	for name, s := range map[string]string{
		"greek": "κόσμε", "two bytes": "\u0080\u07ff", "three": "\u0800\uffff\ufffd", "four": "\U00010000\U0010ffff", "no characters": "\ufffe\uffff\U0001fffe",
		"around surrogates": "\ud7ff\ue000", "a zero": "\x00",
	} {
		add("UTF-8: "+name, 0, sent(piece(t0, true, s)), text(s))
		pieces := []ws.Frame{piece(t0, false, "")}
		for i := range len(s) {
			pieces = append(pieces, piece(tc, false, s[i:i+1]))
		}
		add("UTF-8, byte for byte: "+name, 0, sent(append(pieces, piece(tc, true, ""))...), text(s))
	}
	for name, s := range map[string]string{
		"a stray continuation": "\x80", "a lonely start": "\xc3", "cut short": "κόσμ\xce", "overlong": "\xc0\xaf", "overlong, three": "\xe0\x80\xaf", "overlong zero": "\xc0\x80",
		"surrogate": "\xed\xa0\x80", "surrogates": "\xed\xa0\x80\xed\xb0\x80", "above": "\xf4\x90\x80\x80", "five bytes": "\xf8\x88\x80\x80\x80", "never a byte": "\xfe", "in the middle": "κόσμε\xed\xa0\x80edited",
	} {
		add("not UTF-8: "+name, 1007, sent(piece(t0, true, s)))
		add("not UTF-8, in pieces: "+name, 1007, sent(piece(t0, false, s[:1]), piece(tc, true, s[1:])))
	}

	add("close: then text", 1000, sent(hello, piece(ws.OpClose, true, closeBody(1000, "")), hello), text("hello"))
	add("close: then ping", 1000, sent(piece(ws.OpClose, true, closeBody(1000, "")), piece(ws.OpPing, true, "a")))
	add("close: twice", 1000, sent(piece(ws.OpClose, true, closeBody(1000, "")), piece(ws.OpClose, true, closeBody(1001, ""))))
	add("close: within a message", 1000, sent(piece(t0, false, "a"), piece(ws.OpClose, true, closeBody(1000, "")), piece(tc, true, "b")))
	add("close: empty", 1000, sent(piece(ws.OpClose, true, "")))
	add("close: one byte", 1002, sent(piece(ws.OpClose, true, "\x03")))
	add("close: with a reason", 1000, sent(piece(ws.OpClose, true, closeBody(1000, "κόσμε"))))
	add("close: with the longest", 1000, sent(piece(ws.OpClose, true, closeBody(1000, strings.Repeat("*", 123)))))
	add("close: with a longer one", 1002, sent(piece(ws.OpClose, true, closeBody(1000, strings.Repeat("*", 124)))))
	add("close: not UTF-8", 1007, sent(piece(ws.OpClose, true, closeBody(1000, "\xce\xba\xed\xa0\x80"))))
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		add(fmt.Sprintf("close: code %d", code), code, sent(piece(ws.OpClose, true, closeBody(code, ""))))
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		add(fmt.Sprintf("close: code %d, which nobody sends", code), 1002, sent(piece(ws.OpClose, true, closeBody(code, ""))))
	}

	large := strings.Repeat("κ", 512<<10) // 1 MiB, the limit
	for _, step := range []int{1 << 20, 1 << 16, 4096, 1300} {
		pieces := []ws.Frame{piece(t0, false, "")}
		for rest := large; rest != ""; rest = rest[min(step, len(rest)):] {
			pieces = append(pieces, piece(tc, false, rest[:min(step, len(rest))]))
		}
		add(fmt.Sprintf("large, in frames of %d", step), 0, sent(append(pieces, piece(tc, true, ""))...), text(large))
	}
	add("too large", 1009, sent(piece(t0, true, large+"x")))
	add("too large, in pieces", 1009, sent(piece(t0, false, large), piece(tc, true, "x")))
	return all
}

func TestWhatSuitesAskOfAWebSocket(t *testing.T) {
	s := startWith(t, settings(""), server.Options{DebugEcho: true})
	cuts := map[string]func(int) int{
		"whole": func(n int) int { return n },
		"cut":   func(n int) int { return min(n, 997) },
		"bytes": func(int) int { return 1 },
	}
	for _, x := range talks() {
		for cut, length := range cuts {
			if cut == "bytes" && len(x.send) > 2000 {
				continue
			}
			t.Run(x.name+", "+cut, func(t *testing.T) {
				t.Parallel()
				conn, in, _, err := ws.Dial(t.Context(), strings.Replace(s.OpsURL(), "http", "ws", 1)+"/debug/echo")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if in != nil {
					t.Fatal("it speaks first")
				}
				converse(t, conn, x, length)
			})
		}
	}
}

// converse sends what there is to send, in pieces, and checks what comes.
func converse(t *testing.T, conn net.Conn, x talk, length func(int) int) {
	t.Helper()
	written := make(chan struct{})
	go func() {
		defer close(written)
		for b := x.send; len(b) > 0; {
			n, err := conn.Write(b[:length(len(b))])
			if err != nil {
				return // the server has ended it, as the answers say
			}
			b = b[n:]
		}
	}()
	read := func() ws.Frame {
		f, err := ws.ReadFrame(conn) //nolint:staticcheck // the server in this process is no stranger
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, want := range x.want {
		if f := read(); !f.Header.Fin || f.Header.Masked || f.Header.Rsv != 0 || shown(f.Header.OpCode, f.Payload) != want {
			t.Fatalf("got %+v, %s, want %s", f.Header, shown(f.Header.OpCode, f.Payload), want)
		}
	}
	code := x.code
	if code == 0 {
		code = 1001
		<-written
		if _, err := conn.Write(sent(piece(ws.OpClose, true, closeBody(code, "bye")))); err != nil {
			t.Fatal(err)
		}
	}
	f := read()
	if got, _ := ws.ParseCloseFrameData(f.Payload); f.Header.OpCode != ws.OpClose || int(got) != code {
		t.Fatalf("got %s, want the close code %d", shown(f.Header.OpCode, f.Payload), code)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("after the close: %v, want the end", err)
	}
	_ = conn.Close()
	<-written
}
