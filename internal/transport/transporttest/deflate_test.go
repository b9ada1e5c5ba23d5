package transporttest_test

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

// deflating opens a WebSocket, below any library, on which compression is agreed.
func deflating(t *testing.T, n *transporttest.Node) net.Conn {
	t.Helper()
	return rawAt(t, n, deflater(), "ws://"+n.Addr())
}

func deflater() (d ws.Dialer) {
	d.Extensions = append(d.Extensions, wsflate.Parameters{ClientMaxWindowBits: 1}.Option()) // as browsers do
	return d
}

// deflated is what a client sends for a text.
func deflated(text string) []byte {
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(z, text) // a buffer takes everything
	_ = z.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

// rsv1 is a frame that begins a compressed message.
func rsv1(op ws.OpCode, fin bool, payload []byte) []byte {
	f := ws.NewFrame(op, fin, payload)
	f.Header.Rsv = ws.Rsv(true, false, false)
	return masked(f)
}

func TestCompressionIsAgreedOnWithoutContextTakeover(t *testing.T) {
	t.Parallel()
	const plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	on := transporttest.New(t, transporttest.Config{})
	portable := transporttest.New(t, transporttest.Config{Portable: true})
	off := transporttest.New(t, transporttest.Config{DeflateFrom: -1})
	for name, row := range map[string]struct {
		node   *transporttest.Node
		offers []string
		status int
		want   string // "": none
	}{
		"none":                      {on, nil, 101, ""},
		"one":                       {on, []string{"permessage-deflate; client_max_window_bits"}, 101, plain},
		"the second of one header":  {on, []string{"permessage-deflate; server_max_window_bits=9, permessage-deflate"}, 101, plain},
		"the second header":         {on, []string{"x; a=b", "permessage-deflate; server_max_window_bits=15"}, 101, plain + "; server_max_window_bits=15"},
		"none that can be kept":     {on, []string{"permessage-deflate; server_max_window_bits=9", "permessage-deflate; x"}, 101, ""},
		"no list":                   {on, []string{"permessage-deflate;;"}, 400, ""},
		"one, to a portable node":   {portable, []string{"permessage-deflate"}, 101, plain},
		"one, to a node without":    {off, []string{"permessage-deflate"}, 101, ""},
		"no list to a node without": {off, []string{"permessage-deflate;;"}, 101, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, row.node.URL("/v1/ws"), nil)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
				r.Header.Set(k, v)
			}
			r.Header["Sec-WebSocket-Extensions"] = row.offers
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, headers := resp.Header.Get("Sec-Websocket-Extensions"), len(resp.Header["Sec-Websocket-Extensions"])
			if resp.StatusCode != row.status || got != row.want || headers > 1 || headers == 1 && got == "" {
				t.Errorf("%d with %q, want %d with %q", resp.StatusCode, resp.Header["Sec-Websocket-Extensions"], row.status, row.want)
			}
		})
	}
}

// payloads are data of many sizes, and how many of them have 1 KiB or more.
func payloads() (all []string, large int) {
	for _, n := range []int{1, 500, 1 << 10, 5_000, 70_000, 190_000} {
		all = append(all, fmt.Sprintf(`{"text":%q}`, strings.Repeat("to be or not to be, ", n/20+1)), `"`+noise(n)+`"`)
		if n >= 1<<10 {
			large += 2
		}
	}
	return all, large
}

// noise is text of which nothing follows from the rest: compression saves no more
// than a fifth of it.
func noise(n int) string {
	const letters = " !#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~"
	r, b := rand.New(rand.NewPCG(1, uint64(n))), make([]byte, n)
	for i := range b {
		b[i] = letters[r.IntN(len(letters))]
	}
	return string(b)
}

// Connections that agreed to compression get what others get, and each event is
// compressed once for all of them.
func TestAnEventIsCompressedOnceForAll(t *testing.T) {
	t.Parallel()
	const each = 3
	for name, cfg := range map[string]transporttest.Config{"on loops": {}, "portable": {Portable: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.DeflateFrom = 1 << 10
			n := transporttest.New(t, cfg)
			var clients []client
			for _, door := range transporttest.Doors {
				if !door.Stream {
					continue
				}
				for range each {
					clients = append(clients, open(t, n, door, ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"a"}}))
				}
			}
			all, large := payloads()
			var drafts []carillon.Draft
			for _, p := range all {
				drafts = append(drafts, carillon.Draft{Type: "a", Data: json.RawMessage(p)})
			}
			ids := n.PublishDrafts(t, "acme", drafts...)
			for _, c := range clients {
				for i, id := range ids {
					if m := next(t, c); m.ID != id || string(m.Payload) != all[i] {
						t.Fatalf("event %d: %s with %.50s", i, m.ID, m.Payload)
					}
				}
			}
			st := n.Core.Stats()
			if st.Deflated.Count != uint64(large) || st.Deflated.Sent >= st.Deflated.Bytes/2 {
				t.Errorf("of %d large events %+v were compressed", large, st.Deflated)
			}
		})
	}
}

// What is small, what does not get smaller and what is for one connection goes out
// as it is.
func TestWhatIsCompressed(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{DeflateFrom: 1 << 10})
	conn := deflating(t, n)
	if _, err := conn.Write(rsv1(ws.OpText, true, deflated(`{"type":"subscribe","pattern":"a"}`))); err != nil {
		t.Fatal(err)
	}
	event := func() (compressed bool, payload []byte) {
		t.Helper()
		for {
			h, b := readFrame(t, conn)
			if h.Rsv != 0 && (h.Rsv != ws.Rsv(true, false, false) || h.OpCode != ws.OpText || !h.Fin) {
				t.Fatalf("%+v", h)
			}
			compressed := h.Rsv != 0
			if compressed {
				in := flate.NewReader(io.MultiReader(bytes.NewReader(b), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
				var err error
				if b, err = io.ReadAll(in); err != nil {
					t.Fatal(err)
				}
			}
			var m message
			if err := json.Unmarshal(b, &m); err != nil {
				t.Fatal(err)
			}
			if m.Type == "event" {
				return compressed, m.Payload
			}
		}
	}
	text := strings.Repeat("x", 2000)
	numbered := open(t, n, transporttest.Doors[2], ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{"a"}, Extra: url.Values{"numbered": {"true"}}})
	for _, row := range []struct {
		draft      carillon.Draft
		compressed bool
	}{
		{carillon.Draft{Type: "a", Data: []byte(`1`)}, false},
		{carillon.Draft{Type: "a", Data: []byte(`"` + text + `"`)}, true},
		{carillon.Draft{Type: "a", Data: []byte(`"` + text + `"`), Ephemeral: true}, true},
		{carillon.Draft{Type: "a", Data: []byte(`"` + text[:800] + `"`)}, false},
	} {
		n.PublishDrafts(t, "acme", row.draft)
		if compressed, payload := event(); compressed != row.compressed || string(payload) != string(row.draft.Data) {
			t.Errorf("%.20s: compressed: %t, %.20s", row.draft.Data, compressed, payload)
		}
		if m := next(t, numbered); string(m.Payload) != string(row.draft.Data) {
			t.Errorf("numbered: %.20s", m.Payload)
		}
	}
	if st := n.Core.Stats(); st.Deflated.Count != 2 || st.Inflated.Count < 2 {
		t.Errorf("%+v were compressed, and %+v inflated", st.Deflated, st.Inflated)
	}
}

func TestWhatBreaksRFC7692IsClosedWithItsCode(t *testing.T) {
	t.Parallel()
	const most = 20_000
	n := transporttest.New(t, transporttest.Config{FrameBytes: most})
	portable := transporttest.New(t, transporttest.Config{FrameBytes: most, Portable: true})
	ways := map[string]func(*testing.T) net.Conn{
		"in the clear": func(t *testing.T) net.Conn { return deflating(t, n) },
		"portable":     func(t *testing.T) net.Conn { return deflating(t, portable) },
		"over TLS": func(t *testing.T) net.Conn {
			addr, settings := n.Secure()
			d := deflater()
			d.TLSConfig = settings
			return rawAt(t, n, d, "wss://"+addr)
		},
	}
	join := func(all ...[]byte) (b []byte) {
		for _, p := range all {
			b = append(b, p...)
		}
		return b
	}
	hi := masked(ws.NewPingFrame([]byte("hi")))
	says := func(n int) string { // a ping of so many bytes
		const frame = `{"type":"ping"}`
		return frame + strings.Repeat(" ", n-len(frame))
	}
	ping := deflated(says(15))
	final := append([]byte{ping[0] | 1}, append(ping[1:], 0)...) // its block is the last of its stream
	for name, row := range map[string]struct {
		bytes []byte
		code  int // 0: a pong frame answers, and a pong
	}{
		"a message":            {join(hi, rsv1(ws.OpText, true, ping)), 0},
		"its stream ended":     {join(hi, rsv1(ws.OpText, true, final)), 0},
		"in pieces":            {join(rsv1(ws.OpText, false, ping[:3]), hi, masked(ws.NewFrame(ws.OpContinuation, false, nil)), masked(ws.NewFrame(ws.OpContinuation, true, ping[3:]))), 0},
		"after a plain one":    {join(hi, masked(ws.NewTextFrame([]byte(`{"type":"ping","ref":1}`))), rsv1(ws.OpText, true, ping)), 0},
		"as long as it may be": {join(hi, rsv1(ws.OpText, true, deflated(says(most)))), 0},
		"hardly compressed":    {join(hi, rsv1(ws.OpText, true, deflated(`{"type":"ping","ref":"`+noise(200)+`"}`))), 0},

		"too long":                 {rsv1(ws.OpText, true, deflated(says(most+1))), 1009},
		"a bomb":                   {rsv1(ws.OpText, true, deflated(says(10_000_000))), 1009},
		"a bomb in pieces":         {join(rsv1(ws.OpText, false, deflated(says(10_000_000))), masked(ws.NewFrame(ws.OpContinuation, true, nil))), 1009},
		"too long as it is sent":   {rsv1(ws.OpText, true, make([]byte, most+1)), 1009},
		"no deflate data":          {rsv1(ws.OpText, true, []byte(says(15))), 1007},
		"no deflate data, longer":  {rsv1(ws.OpText, true, []byte(says(1000))), 1007},
		"cut off":                  {rsv1(ws.OpText, true, ping[:6]), 1007},
		"no UTF-8":                 {rsv1(ws.OpText, true, deflated("\xff")), 1007},
		"no UTF-8, longer":         {rsv1(ws.OpText, true, deflated(says(10_000)+"\xff")), 1007},
		"binary":                   {rsv1(ws.OpBinary, true, ping), 1003},
		"a compressed ping":        {rsv1(ws.OpPing, true, ping), 1002},
		"a compressed close":       {rsv1(ws.OpClose, true, nil), 1002},
		"a compressed piece":       {join(rsv1(ws.OpText, false, ping[:3]), rsv1(ws.OpContinuation, true, ping[3:])), 1002},
		"a piece becomes so later": {join(masked(ws.NewFrame(ws.OpText, false, nil)), rsv1(ws.OpContinuation, true, ping)), 1002},
		"another bit":              {join([]byte{0xa1}, rsv1(ws.OpText, true, ping)[1:]), 1002},
	} {
		for way, dial := range ways {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				conn := dial(t)
				if _, err := conn.Write(row.bytes); err != nil {
					t.Fatal(err)
				}
				answers(t, conn, row.code)
			})
		}
	}
	t.Cleanup(func() {
		for _, n := range []*transporttest.Node{n, portable} {
			if st := n.Core.Stats(); st.Bombs < 3 || st.Corrupt < 3 || st.Limits["frame_bytes"] < 4 {
				t.Errorf("%d bombs, %d corrupt, %d times too large", st.Bombs, st.Corrupt, st.Limits["frame_bytes"])
			}
		}
	})
}

// Messages of a client are taken in their order, however long it takes to inflate
// each, and however many wait for that.
func TestCompressedMessagesAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	const connections = 16
	sizes := []int{0, 900_000, 10, 5000, 100, 50_000, 0, 900_000, 20_000, 0}
	for name, cfg := range map[string]transporttest.Config{"on loops": {}, "portable": {Portable: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := transporttest.New(t, cfg)
			var wg sync.WaitGroup
			for range connections {
				c, err := transporttest.Doors[2].Open(t, n, ask{Token: n.Token(t, "acme", "alice"), Idle: true})
				if err != nil {
					t.Fatal(err)
				}
				s := c.(*transporttest.Socket)
				wg.Go(func() {
					for i, size := range sizes {
						s.Send(fmt.Sprintf(`{"type":"ping","ref":%d}%s`, i, strings.Repeat(" ", size)))
					}
				})
				wg.Go(func() {
					for i := 0; i < len(sizes); {
						m, err := s.Next()
						if err != nil || m.Type == "error" || m.Type == "pong" && string(m.Ref) != fmt.Sprint(i) {
							t.Errorf("%d: %+v, %v", i, m, err)
							return
						}
						if m.Type == "pong" {
							i++
						}
					}
				})
			}
			wg.Wait()
			if got := n.Core.Stats().Inflated.Count; got != connections*uint64(len(sizes)) {
				t.Errorf("%d messages were inflated, of %d", got, connections*len(sizes))
			}
		})
	}
}

// Another library that would rather keep its context does without.
func TestAClientThatOffersContextTakeoverDoesWithout(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	conn, resp, err := websocket.Dial(t.Context(), n.URL("/v1/ws"), &websocket.DialOptions{
		HTTPHeader:      http.Header{"Authorization": {"Bearer " + n.Token(t, "acme", "alice")}},
		CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	if resp.Header.Get("Sec-Websocket-Extensions") == "" {
		t.Fatal("there is no compression")
	}
	frame := func(say string, wants ...string) {
		t.Helper()
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(say)); err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			for {
				_, b, err := conn.Read(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(b, []byte(want)) {
					break
				}
			}
		}
	}
	frame(`{"type":"subscribe","pattern":"a"}`, `"caught_up"`)
	for i := range 20 { // each alike, so that context would be of use
		frame(fmt.Sprintf(`{"type":"publish","event":{"type":"a","data":"%s%d"}}`, strings.Repeat("again and ", 20), i), fmt.Sprintf(`and %d"`, i))
	}
	if st := n.Core.Stats(); st.Deflated.Count != 20 || st.Inflated.Count != 21 {
		t.Errorf("%+v compressed, %+v inflated", st.Deflated, st.Inflated)
	}
}
