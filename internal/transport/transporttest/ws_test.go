package transporttest_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

// dial opens a WebSocket that has subscribed to nothing.
func dial(t *testing.T, n *transporttest.Node, a ask, header ...string) *transporttest.Socket {
	t.Helper()
	s, err := tryDial(t, n, a, header...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryDial(t *testing.T, n *transporttest.Node, a ask, header ...string) (*transporttest.Socket, error) {
	t.Helper()
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	a.Idle = true
	return n.Dial(t, a, h)
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// closes waits for the close frame, and returns the errors before it.
func closes(t *testing.T, s *transporttest.Socket, code int) (before []message) {
	t.Helper()
	for {
		m, err := s.Next()
		if err == nil {
			if m.Type == "error" {
				before = append(before, m)
			}
			continue
		}
		var end *transporttest.Ended
		if !errors.As(err, &end) || int(end.Code) != code {
			t.Fatalf("got %v, want the close code %d", err, code)
		}
		return before
	}
}

func status(t *testing.T, err error, want int, code string) *transporttest.Refused {
	t.Helper()
	var r *transporttest.Refused
	if !errors.As(err, &r) || r.Status != want || r.Code != code {
		t.Fatalf("got %v, want %d %s", err, want, code)
	}
	return r
}

func TestTheTokenMayBeInFourPlaces(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	token := n.Token(t, "acme", "alice")
	query := ask{Extra: url.Values{"token": {token}}}
	for name, open := range map[string]func() *transporttest.Socket{
		"header":     func() *transporttest.Socket { return dial(t, n, ask{}, bearer(token)...) },
		"query":      func() *transporttest.Socket { return dial(t, n, query) },
		"both alike": func() *transporttest.Socket { return dial(t, n, query, bearer(token)...) },
		"subprotocol": func() *transporttest.Socket {
			return dial(t, n, ask{}, "Sec-WebSocket-Protocol", "carillon.v1, bearer."+token)
		},
		"connect": func() *transporttest.Socket {
			s := dial(t, n, ask{})
			s.Send(map[string]any{"type": "connect", "token": token, "ref": "c"})
			return s
		},
	} {
		m := next(t, open(), "welcome")
		if m.ConnectionID == "" || m.Cursor == "" || (string(m.Ref) == `"c"`) != (name == "connect") {
			t.Errorf("%s: %+v", name, m)
		}
	}
	_, err := tryDial(t, n, query, bearer(n.Token(t, "acme", "bob"))...)
	status(t, err, 400, "bad_request")
	s := dial(t, n, query)
	s.Send(map[string]any{"type": "connect", "token": token, "ref": 1})
	if m := next(t, s, "error"); m.Code != "bad_request" || string(m.Ref) != "1" {
		t.Errorf("a second connect: %+v", m)
	}
}

func TestABadTokenFromAPageIsAnsweredOnTheWebSocket(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	for name, header := range map[string][]string{
		"header":      {"Authorization", "Bearer nonsense"},
		"subprotocol": {"Sec-WebSocket-Protocol", "carillon.v1, bearer.nonsense"},
	} {
		_, err := tryDial(t, n, ask{}, header...)
		status(t, err, 401, "unauthenticated")
		s := dial(t, n, ask{}, append(header, "Origin", n.URL(""))...)
		if before := closes(t, s, 4001); len(before) != 1 || before[0].Code != "unauthenticated" {
			t.Errorf("%s: before the close: %+v", name, before)
		}
	}
	s := dial(t, n, ask{})
	s.Send(map[string]any{"type": "connect", "token": "nonsense", "ref": 1})
	if before := closes(t, s, 4001); len(before) != 1 || before[0].Code != "unauthenticated" || string(before[0].Ref) != "1" {
		t.Errorf("connect: before the close: %+v", before)
	}
	s = dial(t, n, ask{})
	s.Send(map[string]any{"type": "ping"})
	closes(t, s, 4001)
}

func TestOnlyKnownPagesMayOpen(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{Origins: []string{"https://app.example.com"}})
	token := bearer(n.Token(t, "acme", "alice"))
	for _, origin := range []string{"https://app.example.com", n.URL("")} {
		next(t, dial(t, n, ask{}, append(token, "Origin", origin)...), "welcome")
	}
	for _, origin := range []string{"https://evil.example.com", "null", "http://app.example.com"} {
		_, err := tryDial(t, n, ask{}, append(token, "Origin", origin)...)
		status(t, err, 403, "forbidden")
	}
}

func TestOneSubprotocolIsEchoed(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	token := n.Token(t, "acme", "alice")
	for offered, want := range map[string]string{
		"":            "",
		"carillon.v1": "carillon.v1",
		"carillon.v1.msgpack, carillon.v1.protobuf, carillon.v1": "carillon.v1",
		"bearer." + token + ",carillon.v1":                       "carillon.v1",
		"bearer." + token:                                        "",
	} {
		header := bearer(token)
		if offered != "" {
			header = append(header, "Sec-WebSocket-Protocol", offered)
		}
		s := dial(t, n, ask{}, header...)
		next(t, s, "welcome")
		if s.Protocol() != want {
			t.Errorf("of %q: %q was echoed", offered, s.Protocol())
		}
	}
	for _, offered := range []string{"carillon.v1.msgpack", "graphql-ws", "carillon.v2, bearer." + token, "CARILLON.V1"} {
		_, err := tryDial(t, n, ask{}, append(bearer(token), "Sec-WebSocket-Protocol", offered)...)
		status(t, err, 400, "bad_request")
	}
}

func TestAHandshakeIsReadStrictly(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	token := bearer(n.Token(t, "acme", "alice"))
	for _, row := range []struct{ param, value, says string }{
		{"afer", "now", `"afer"`}, {"numbered", "1", "numbered"}, {"ticket", "x", "ticket"},
	} {
		_, err := tryDial(t, n, ask{Extra: url.Values{row.param: {row.value}}}, token...)
		if r := status(t, err, 400, "bad_request"); !strings.Contains(r.Detail, row.says) {
			t.Errorf("%s: %s", row.param, r.Detail)
		}
	}
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	for name, row := range map[string]struct {
		header string
		status int
		answer string
	}{
		"good":          {"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key, 101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
		"version 8":     {"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: " + key, 426, "Sec-Websocket-Version: 13"},
		"no version":    {"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: " + key, 426, "Sec-Websocket-Version: 13"},
		"no upgrade":    {"Connection: keep-alive", 426, "Upgrade: websocket"},
		"other upgrade": {"Connection: Upgrade\r\nUpgrade: h2c", 426, "Upgrade: websocket"},
		"short key":     {"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvcnQ=", 400, "bad_request"},
		"two keys":      {"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\nSec-WebSocket-Key: " + key, 400, "bad_request"},
	} {
		conn, err := net.Dial("tcp", n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /v1/ws HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", row.header)
		got := make([]byte, 4096)
		m, err := conn.Read(got)
		if s := string(got[:m]); err != nil || !strings.HasPrefix(s, fmt.Sprintf("HTTP/1.1 %d ", row.status)) || !strings.Contains(s, row.answer) {
			t.Errorf("%s: %q, %v", name, s, err)
		}
	}
}

func TestAnswersCarryTheRef(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	s := dial(t, n, ask{}, bearer(n.Token(t, "acme", "alice"))...)
	next(t, s, "welcome")
	for _, row := range []struct{ frame, typ, ref string }{
		{`{"type":"ping","ref":"a"}`, "pong", `"a"`},
		{`{"type":"ping","ref":1.50}`, "pong", `1.50`},
		{`{"type":"subscribe","pattern":"a.*","ref":2}`, "subscribed", "2"},
		{`{"type":"unsubscribe","pattern":"a.*","ref":3}`, "unsubscribed", "3"},
		{`{"type":"unsubscribe","pattern":"a.*","ref":4}`, "error", "4"},
		{`{"type":"publish","event":{"type":"x.y","data":{}},"ref":5}`, "published", "5"},
		{`{"type":"publish","event":{"type":"presence.y","data":{}},"ref":6}`, "error", "6"},
		{`{"type":"refresh","token":"` + n.Token(t, "acme", "alice") + `","ref":7}`, "refreshed", "7"},
		{`{"type":"refresh","token":"` + n.Token(t, "acme", "bob") + `","ref":8}`, "error", "8"},
		{`{"type":"nonsense","ref":9}`, "error", "9"},
		{`{"type":"chat","text":"hi","ref":10}`, "error", "10"},
	} {
		s.Send(row.frame)
		if m := next(t, s, row.typ, "error"); m.Type != row.typ || string(m.Ref) != row.ref {
			t.Errorf("%s: got %+v", row.frame, m)
		}
	}
}

func TestNumbersAreContiguous(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	n.Publish(t, "acme", "orders.paid", 1, 500)
	a := ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"orders.*"}, After: "earliest", Extra: url.Values{"numbered": {"true"}}}
	c := open(t, n, transporttest.Doors[0], a)
	for i := range 500 {
		if m := next(t, c); m.N != i+1 || string(m.Payload) != fmt.Sprint(i+1) {
			t.Fatalf("event %d: n %d, data %s", i+1, m.N, m.Payload)
		}
	}
	n.Publish(t, "acme", "orders.paid", 501, 501)
	if m := next(t, c); m.N != 501 {
		t.Errorf("then: n %d", m.N)
	}
}

func TestPingsAndPongs(t *testing.T) {
	t.Parallel()
	// The server pings at once, and a client that answers stays.
	n := transporttest.New(t, transporttest.Config{Limits: session.Limits{MaxIdle: 20 * time.Millisecond, DeadAfter: 10 * time.Second}})
	s := dial(t, n, ask{}, bearer(n.Token(t, "acme", "alice"))...)
	pinged := make(chan error, 1)
	go func() {
		for range 3 {
			if err := s.Ping(); err != nil {
				pinged <- err
				return
			}
		}
		pinged <- nil
	}()
	heartbeats := 0
	for done := false; !done || heartbeats < 3; {
		if m, err := s.Next(); err != nil {
			t.Fatal(err)
		} else if m.Type == "heartbeat" {
			heartbeats++
		}
		select {
		case err := <-pinged:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default:
		}
	}
}

func TestASilentClientIsClosed(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{Limits: session.Limits{MaxIdle: 200 * time.Millisecond, DeadAfter: 3 * time.Second}})
	conn := raw(t, n) // it answers no ping
	pings := 0
	for {
		h, payload := readFrame(t, conn)
		switch h.OpCode { //nolint:exhaustive // the rest is what may come between
		case ws.OpPing:
			pings++
		case ws.OpClose:
			if code := ws.StatusCode(uint16(payload[0])<<8 | uint16(payload[1])); code != 1000 || pings != 1 {
				t.Errorf("closed with %d after %d pings", code, pings)
			}
			return
		}
	}
}

func TestLimitsOfAConnection(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{FrameBytes: 300_000, Limits: session.Limits{ConnectTimeout: 20 * time.Millisecond, Subscriptions: 2}})
	token := bearer(n.Token(t, "acme", "alice"))
	t.Run("too large a message", func(t *testing.T) {
		s := dial(t, n, ask{}, token...)
		s.Send(strings.Repeat("x", 300_001))
		closes(t, s, 1009)
	})
	t.Run("too large an event", func(t *testing.T) {
		s := dial(t, n, ask{}, token...)
		s.Send(`{"type":"publish","event":{"type":"a","data":"` + strings.Repeat("x", 250_000) + `"},"ref":1}`)
		if m := next(t, s, "error"); m.Code != "too_large" || string(m.Ref) != "1" {
			t.Errorf("got %+v", m)
		}
		s.Send(`{"type":"ping"}`)
		next(t, s, "pong")
	})
	t.Run("too many bad frames", func(t *testing.T) {
		s := dial(t, n, ask{}, token...)
		for range 21 {
			s.Send("nonsense")
		}
		if before := closes(t, s, 4000); len(before) < 20 {
			t.Errorf("%d errors came before", len(before))
		}
	})
	t.Run("too many subscriptions", func(t *testing.T) {
		s := dial(t, n, ask{}, token...)
		s.Send(`{"type":"subscribe","patterns":["a","b"]}`)
		s.Send(`{"type":"subscribe","pattern":"c","ref":1}`)
		if m := next(t, s, "error"); m.Code != "quota_exceeded" || string(m.Ref) != "1" {
			t.Errorf("got %+v", m)
		}
	})
	t.Run("no connect in time", func(t *testing.T) {
		if before := closes(t, dial(t, n, ask{}), 4104); len(before) != 1 || before[0].Code != "unauthenticated" {
			t.Errorf("before the close: %+v", before)
		}
	})
}

// A client that publishes faster than the log stores is not read from meanwhile,
// and nothing of it is lost.
func TestPublishesAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{Limits: session.Limits{PublishesFlying: 4}})
	s := dial(t, n, ask{}, bearer(n.Token(t, "acme", "alice", func(c *auth.Claims) { c.Role = "publisher" }))...)
	next(t, s, "welcome")
	go func() {
		for i := range 500 {
			s.Send(fmt.Sprintf(`{"type":"publish","event":{"type":"a","data":%d},"ref":%d}`, i, i))
		}
	}()
	for i := range 500 {
		if m := next(t, s, "published", "error"); m.Type != "published" || string(m.Ref) != fmt.Sprint(i) {
			t.Fatalf("publish %d: %+v", i, m)
		}
	}
}

func TestTheCloseHandshake(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	s := dial(t, n, ask{}, bearer(n.Token(t, "acme", "alice"))...)
	next(t, s, "welcome")
	if err := s.Leave(3000); err != nil {
		t.Errorf("the answer to a close: %v", err)
	}
}

// raw opens a WebSocket below any library.
func raw(t *testing.T, n *transporttest.Node) net.Conn {
	t.Helper()
	return rawAt(t, n, ws.Dialer{}, "ws://"+n.Addr())
}

func rawOverTLS(t *testing.T, n *transporttest.Node) net.Conn {
	t.Helper()
	addr, settings := n.Secure()
	return rawAt(t, n, ws.Dialer{TLSConfig: settings}, "wss://"+addr)
}

func rawAt(t *testing.T, n *transporttest.Node, d ws.Dialer, url string) net.Conn {
	t.Helper()
	d.Header = ws.HandshakeHeaderHTTP{"Authorization": {"Bearer " + n.Token(t, "acme", "alice")}}
	conn, buf, agreed, err := d.Dial(t.Context(), url+"/v1/ws")
	if err != nil {
		t.Fatal(err)
	}
	if len(agreed.Extensions) != len(d.Extensions) {
		t.Fatalf("of the extensions offered %v were agreed on", agreed.Extensions)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if buf != nil {
		return buffered{conn, io.MultiReader(io.LimitReader(buf, int64(buf.Buffered())), conn)}
	}
	return conn
}

type buffered struct {
	net.Conn
	in io.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

func readFrame(t *testing.T, conn net.Conn) (ws.Header, []byte) {
	t.Helper()
	f, err := ws.ReadFrame(conn) //nolint:staticcheck // the server in this process is no stranger
	if err != nil {
		t.Fatal(err)
	}
	return f.Header, f.Payload
}

func masked(f ws.Frame) []byte {
	b, err := ws.CompileFrame(ws.MaskFrame(f))
	if err != nil {
		panic(err)
	}
	return b
}

func TestWhatBreaksRFC6455IsClosedWithItsCode(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{FrameBytes: 1000})
	portable := transporttest.New(t, transporttest.Config{FrameBytes: 1000, Portable: true})
	ways := map[string]func(*testing.T) net.Conn{
		"in the clear": func(t *testing.T) net.Conn { return raw(t, n) },
		"over TLS":     func(t *testing.T) net.Conn { return rawOverTLS(t, n) },
		"portable":     func(t *testing.T) net.Conn { return raw(t, portable) },
	}
	text := func(s string) ws.Frame { return ws.NewTextFrame([]byte(s)) }
	unmasked, _ := ws.CompileFrame(text(`{"type":"ping"}`))
	rsv := text(`{"type":"ping"}`)
	rsv.Header.Rsv = ws.Rsv(true, false, false)
	piece := func(op ws.OpCode, fin bool, s string) []byte { return masked(ws.NewFrame(op, fin, []byte(s))) }
	join := func(all ...[]byte) (b []byte) {
		for _, p := range all {
			b = append(b, p...)
		}
		return b
	}
	for name, row := range map[string]struct {
		bytes []byte
		code  int // 0: a pong frame answers, and a pong
	}{
		"unmasked":                   {unmasked, 1002},
		"reserved bit":               {masked(rsv), 1002},
		"reserved opcode":            {piece(3, true, ""), 1002},
		"reserved control":           {piece(11, true, ""), 1002},
		"fragmented ping":            {piece(ws.OpPing, false, ""), 1002},
		"long ping":                  {masked(ws.NewFrame(ws.OpPing, true, make([]byte, 126))), 1002},
		"continuation of nothing":    {piece(ws.OpContinuation, true, "x"), 1002},
		"text within a message":      {join(piece(ws.OpText, false, "x"), piece(ws.OpText, true, "x")), 1002},
		"wordy 16-bit length":        {append([]byte{0x81, 0x80 | 126, 0, 5, 0, 0, 0, 0}, "hello"...), 1002},
		"wordy 64-bit length":        {append([]byte{0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0}, "hello"...), 1002},
		"negative length":            {[]byte{0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0}, 1002},
		"binary":                     {piece(ws.OpBinary, true, "x"), 1003},
		"no UTF-8":                   {piece(ws.OpText, true, "\xff"), 1007},
		"half a character":           {join(piece(ws.OpText, false, "\xc3"), piece(ws.OpContinuation, true, "x")), 1007},
		"too large":                  {piece(ws.OpText, true, strings.Repeat("x", 1001)), 1009},
		"too large in pieces":        {join(piece(ws.OpText, false, strings.Repeat("x", 600)), piece(ws.OpContinuation, true, strings.Repeat("x", 401))), 1009},
		"huge, announced only":       {[]byte{0x81, 0x80 | 127, 0, 0, 0, 0xff, 0, 0, 0, 5, 0, 0, 0, 0}, 1009},
		"close":                      {masked(ws.NewCloseFrame(ws.NewCloseFrameBody(1001, "bye"))), 1001},
		"close of ours":              {masked(ws.NewCloseFrame(ws.NewCloseFrameBody(4321, ""))), 4321},
		"close without a code":       {masked(ws.NewCloseFrame(nil)), 1000},
		"close with half a code":     {masked(ws.NewCloseFrame([]byte{3})), 1002},
		"close 1005":                 {masked(ws.NewCloseFrame(ws.NewCloseFrameBody(1005, ""))), 1002},
		"close 999":                  {masked(ws.NewCloseFrame(ws.NewCloseFrameBody(999, ""))), 1002},
		"close without UTF-8":        {masked(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, "\xff"))), 1007},
		"close within a message":     {join(piece(ws.OpText, false, "x"), masked(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, "")))), 1000},
		"in pieces, with a ping":     {join(piece(ws.OpText, false, `{"type":`), piece(ws.OpPing, true, "hi"), piece(ws.OpContinuation, false, ""), piece(ws.OpContinuation, true, `"ping"}`)), 0},
		"a character in two pieces":  {join(piece(ws.OpPing, true, "hi"), piece(ws.OpText, false, "{\"type\":\"ping\",\"ref\":\"\xc3"), piece(ws.OpContinuation, true, "\xa9\"}")), 0},
		"everything, byte for byte,": {join(piece(ws.OpPing, true, "hi"), piece(ws.OpText, true, `{"type":"ping","ref":"`+strings.Repeat("r", 200)+`"}`)), 0},
	} {
		for way, dial := range ways {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				conn := dial(t)
				if strings.HasPrefix(name, "everything") {
					for i := range row.bytes {
						if _, err := conn.Write(row.bytes[i : i+1]); err != nil {
							t.Fatal(err)
						}
					}
				} else if _, err := conn.Write(row.bytes); err != nil {
					t.Fatal(err)
				}
				answers(t, conn, row.code)
			})
		}
	}
}

// answers expects a close frame with a code, and the end; with 0 the pong to a ping
// of "hi" and a pong.
func answers(t *testing.T, conn net.Conn, want int) {
	t.Helper()
	seen := map[string]bool{}
	for want != 0 || len(seen) < 2 {
		h, payload := readFrame(t, conn)
		switch {
		case h.OpCode == ws.OpClose:
			if code := int(payload[0])<<8 | int(payload[1]); code != want {
				t.Fatalf("closed with %d, want %d", code, want)
			}
			if _, err := ws.ReadHeader(conn); !errors.Is(err, io.EOF) {
				t.Fatalf("after the close: %v, want the end", err)
			}
			return
		case h.OpCode == ws.OpPong && string(payload) == "hi", h.OpCode == ws.OpText && strings.HasPrefix(string(payload), `{"type":"pong"`):
			seen[fmt.Sprint(h.OpCode)] = true
		}
	}
}

// What a client sends along with its handshake is not lost.
func TestFramesRightBehindTheHandshake(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	conn, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := fmt.Appendf(nil, "GET /v1/ws?token=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", n.Token(t, "acme", "alice"))
	for i := range 40 {
		b = append(b, masked(ws.NewTextFrame(fmt.Appendf(nil, `{"type":"ping","ref":%d}`, i)))...)
	}
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), `"ref":39}`) {
		m, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, got.String())
		}
		got.Write(buf[:m])
	}
}
