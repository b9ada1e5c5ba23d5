package transporttest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// Ask is what a client wants.
type Ask struct {
	Token    string
	Patterns []string
	After    string
	Extra    url.Values // parameters of the door's own
	Idle     bool       // WebSocket: do not subscribe
	Narrow   bool       // a small receive buffer

	way way
}

// way is how a client reaches a node: in the clear over HTTP/1.1 and plainly, or
// else.
type way struct{ tls, h2, deflate bool }

// over makes a door of clients that take another way.
func over(w way, open func(testing.TB, *Node, Ask) (Client, error)) func(testing.TB, *Node, Ask) (Client, error) {
	return func(t testing.TB, n *Node, ask Ask) (Client, error) {
		ask.way = w
		return open(t, n, ask)
	}
}

// Client is one receiver. It is used by one goroutine.
type Client interface {
	// Next returns the next message. A refusal with a status is a *Refused, an
	// end in an orderly way a *Ended.
	Next() (Message, error)
	// Cursor is from where another client, of any transport, can go on.
	Cursor() string
	Close()
}

// Refused is the status and problem of an answer.
type Refused struct {
	Status int
	Header http.Header
	Message
	Detail string `json:"detail"`
}

func (e *Refused) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Detail) }

// Ended is the end of a stream; Code is a WebSocket's, else 0.
type Ended struct{ Code websocket.StatusCode }

func (e *Ended) Error() string { return fmt.Sprintf("the stream has ended (%d)", e.Code) }

// Door is one transport.
type Door struct {
	Name   string
	Stream bool // what is open stays open
	Open   func(t testing.TB, n *Node, ask Ask) (Client, error)
}

// Doors are all of them.
var Doors = []Door{
	{"WebSocket", true, openWebSocket},
	{"WebSocket over TLS", true, over(way{tls: true}, openWebSocket)},
	{"WebSocket, compressed", true, over(way{deflate: true}, openWebSocket)},
	{"WebSocket over TLS, compressed", true, over(way{tls: true, deflate: true}, openWebSocket)},
	{"SSE over HTTP/1.1", true, openSSE},
	{"SSE over HTTP/2", true, over(way{h2: true}, openSSE)},
	{"SSE over HTTP/1.1 and TLS", true, over(way{tls: true}, openSSE)},
	{"SSE over HTTP/2 and TLS", true, over(way{tls: true, h2: true}, openSSE)},
	{"long poll", false, openLongPoll},
	{"long poll over HTTP/2 and TLS", false, over(way{tls: true, h2: true}, openLongPoll)},
	{"poll", false, func(t testing.TB, n *Node, ask Ask) (Client, error) { return openPoll(t, n, ask, "0") }},
}

// httpClient makes a client with connections of its own, which end with the
// test.
func (n *Node) httpClient(t testing.TB, w way, narrow bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{RootCAs: n.roots, MinVersion: tls.VersionTLS12}}
	tr.Protocols.SetHTTP1(!w.h2)
	tr.Protocols.SetHTTP2(w.h2 && w.tls)
	tr.Protocols.SetUnencryptedHTTP2(w.h2 && !w.tls)
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if tcp, ok := conn.(*net.TCPConn); ok && narrow {
			err = tcp.SetReadBuffer(128 << 10)
		}
		return conn, err
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// request makes one that ends with ctx.
func (n *Node) request(ctx context.Context, t testing.TB, path string, ask Ask) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url(ask.way.tls, path), nil)
	must(t, err)
	if ask.Token != "" {
		r.Header.Set("Authorization", "Bearer "+ask.Token)
	}
	return r
}

func refused(resp *http.Response) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	e := &Refused{Status: resp.StatusCode, Header: resp.Header}
	if err := json.Unmarshal(body, e); err != nil {
		return fmt.Errorf("status %d with %q: %w", resp.StatusCode, body, err)
	}
	return e
}

func (ask Ask) query() url.Values {
	q := url.Values{}
	maps.Copy(q, ask.Extra)
	if ask.After != "" {
		q.Set("after", ask.After)
	}
	return q
}

// Socket is a WebSocket client.
type Socket struct {
	t      testing.TB
	ctx    context.Context
	conn   *websocket.Conn
	cursor string
	ready  []Message
}

func openWebSocket(t testing.TB, n *Node, ask Ask) (Client, error) {
	t.Helper()
	header := http.Header{}
	if ask.Token != "" {
		header.Set("Authorization", "Bearer "+ask.Token)
	}
	s, err := n.Dial(t, ask, header)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Dial opens a WebSocket with a header.
func (n *Node) Dial(t testing.TB, ask Ask, header http.Header) (*Socket, error) {
	t.Helper()
	var offered []string
	for p := range strings.SplitSeq(header.Get("Sec-WebSocket-Protocol"), ",") {
		if p = strings.TrimSpace(p); p != "" {
			offered = append(offered, p)
		}
	}
	header.Del("Sec-WebSocket-Protocol")
	opt := websocket.DialOptions{HTTPHeader: header, Subprotocols: offered, HTTPClient: n.httpClient(t, ask.way, ask.Narrow)}
	if ask.way.deflate {
		opt.CompressionMode, opt.CompressionThreshold = websocket.CompressionNoContextTakeover, 1
	}
	conn, resp, err := websocket.Dial(n.ctx, n.url(ask.way.tls, "/v1/ws?"+ask.query().Encode()), &opt)
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, refused(resp)
		}
		return nil, err
	}
	conn.SetReadLimit(-1)
	s := &Socket{t: t, ctx: n.ctx, conn: conn, cursor: ask.After}
	t.Cleanup(s.Close)
	if ask.Idle {
		return s, nil
	}
	s.Send(map[string]any{"type": "subscribe", "patterns": append([]string{}, ask.Patterns...)})
	for { // up to its answer, which may be an error
		m, err := s.read()
		if err != nil {
			return nil, err
		}
		switch m.Type {
		case "error":
			return nil, &Refused{Status: 0, Message: m, Detail: m.Text}
		case "subscribed":
			if m.Gap != nil {
				s.ready = append(s.ready, Message{Type: "gap", Reason: m.Gap.Reason, Cursor: m.Gap.Cursor})
			}
			return s, nil
		}
	}
}

// Send sends a frame, or text as it is.
func (s *Socket) Send(frame any) {
	s.t.Helper()
	b, ok := frame.(string)
	if !ok {
		js, err := json.Marshal(frame)
		must(s.t, err)
		b = string(js)
	}
	_ = s.conn.Write(s.ctx, websocket.MessageText, []byte(b)) // what went wrong the next read says
}

func (s *Socket) read() (m Message, err error) {
	_, b, err := s.conn.Read(s.ctx)
	if err != nil {
		if code := websocket.CloseStatus(err); code != -1 {
			return m, &Ended{code}
		}
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%q: %w", b, err)
	}
	switch m.Type {
	case "event":
		if m.ID != "" {
			s.cursor = m.ID
		}
	case "welcome", "heartbeat", "caught_up", "gap":
		s.cursor = m.Cursor
	}
	return m, nil
}

// Protocol is the subprotocol that was chosen.
func (s *Socket) Protocol() string { return s.conn.Subprotocol() }

// Ping waits for the pong. Somebody must call Next meanwhile.
func (s *Socket) Ping() error { return s.conn.Ping(s.ctx) }

// Leave closes in the orderly way and waits for the answer.
func (s *Socket) Leave(code websocket.StatusCode) error { return s.conn.Close(code, "") }

// Next returns the next message.
func (s *Socket) Next() (Message, error) {
	if len(s.ready) > 0 {
		m := s.ready[0]
		s.ready = s.ready[1:]
		return m, nil
	}
	return s.read()
}

// Cursor is the place of the last message.
func (s *Socket) Cursor() string { return s.cursor }

// Close drops the connection.
func (s *Socket) Close() { _ = s.conn.CloseNow() }

// stream is an SSE client.
type stream struct {
	body   io.ReadCloser
	in     *bufio.Reader
	cancel context.CancelFunc
	cursor string
	named  string // the last event: line
	ready  []Message
	Header http.Header
}

func openSSE(t testing.TB, n *Node, ask Ask) (Client, error) {
	t.Helper()
	q := ask.query()
	q["pattern"] = ask.Patterns
	ctx, cancel := context.WithCancel(n.ctx)
	t.Cleanup(cancel)
	resp, err := n.httpClient(t, ask.way, ask.Narrow).Do(n.request(ctx, t, "/v1/sse?"+q.Encode(), ask))
	if err != nil {
		return nil, err
	}
	return newStream(t, resp, ask.After, cancel)
}

func newStream(t testing.TB, resp *http.Response, after string, cancel context.CancelFunc) (Client, error) {
	t.Helper()
	if resp.StatusCode != http.StatusOK {
		return nil, refused(resp)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("Content-Type %q", ct)
	}
	s := &stream{body: resp.Body, in: bufio.NewReader(resp.Body), cancel: cancel, cursor: after, Header: resp.Header}
	t.Cleanup(s.Close)
	for { // up to what subscribed says
		m, err := s.read()
		if err != nil {
			return nil, err
		}
		switch m.Type {
		case "subscribed":
			if m.Gap != nil {
				s.ready = append(s.ready, Message{Type: "gap", Reason: m.Gap.Reason, Cursor: m.Gap.Cursor})
			}
			return s, nil
		case "error", "goaway":
			s.ready = append(s.ready, m)
			return s, nil
		}
	}
}

// read returns the next block that dispatches something, or an id alone as
// "keepalive".
func (s *stream) read() (Message, error) {
	for {
		var id, data string
		var event *string
		for {
			line, err := s.in.ReadString('\n')
			if err != nil {
				if err == io.EOF && line == "" {
					return Message{}, &Ended{}
				}
				return Message{}, err
			}
			line = strings.TrimSuffix(line, "\n")
			if line == "" {
				break
			}
			switch name, value, _ := strings.Cut(line, ": "); name {
			case "id":
				id = value
			case "data":
				data = value
			case "event":
				event = &value
			}
		}
		if id != "" {
			s.cursor = id
		}
		if data == "" {
			if id != "" {
				return Message{Type: "keepalive", Cursor: id}, nil
			}
			continue
		}
		var m Message
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			return m, fmt.Errorf("%q: %w", data, err)
		}
		s.named = ""
		if event != nil {
			s.named = *event
		}
		if m.Type != "event" && s.named != "carillon."+m.Type {
			return m, fmt.Errorf("a %s block is named %q", m.Type, s.named)
		}
		if m.Type == "event" && id != "" && id != m.ID {
			return m, fmt.Errorf("id: %s, and %s in the data", id, m.ID)
		}
		return m, nil
	}
}

func (s *stream) Next() (Message, error) {
	if len(s.ready) > 0 {
		m := s.ready[0]
		s.ready = s.ready[1:]
		return m, nil
	}
	return s.read()
}

func (s *stream) Cursor() string { return s.cursor }

func (s *stream) Close() {
	s.cancel()
	_ = s.body.Close()
}

// poller asks again and again.
type poller struct {
	t      testing.TB
	n      *Node
	ask    Ask
	wait   string
	client *http.Client
	cursor string
	next   string // the answer's cursor, once all of it was taken
	ready  []Message
}

func openLongPoll(t testing.TB, n *Node, ask Ask) (Client, error) { return openPoll(t, n, ask, "1") }

func openPoll(t testing.TB, n *Node, ask Ask, wait string) (Client, error) {
	t.Helper()
	p := &poller{t: t, n: n, ask: ask, wait: wait, client: n.httpClient(t, ask.way, false), cursor: ask.After, next: ask.After}
	p.wait = "0" // the first only says where to begin
	err := p.poll()
	p.wait = wait
	return p, err
}

func (p *poller) poll() error {
	q := p.ask.query()
	q.Del("after")
	q["pattern"] = p.ask.Patterns
	q.Set("wait", p.wait)
	q.Set("limit", strconv.Itoa(50))
	if p.next != "" {
		q.Set("cursor", p.next)
	}
	resp, err := p.client.Do(p.n.request(p.n.ctx, p.t, "/v1/poll?"+q.Encode(), p.ask))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return refused(resp)
	}
	defer resp.Body.Close()
	var a struct {
		Events []Message `json:"events"`
		Cursor string    `json:"cursor"`
		More   *bool     `json:"more"`
		Gap    *Gap      `json:"gap"`
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &a); err != nil || a.Cursor == "" || a.More == nil || a.Events == nil {
		p.t.Errorf("not an answer: %s (%v)", b, err)
	}
	if a.Gap != nil {
		p.ready = append(p.ready, Message{Type: "gap", Reason: a.Gap.Reason, Cursor: a.Gap.Cursor})
	}
	p.ready = append(p.ready, a.Events...)
	if p.next = a.Cursor; len(p.ready) == 0 {
		p.cursor = p.next
	}
	return nil
}

func (p *poller) Next() (Message, error) {
	for len(p.ready) == 0 {
		if err := p.poll(); err != nil {
			return Message{}, err
		}
	}
	m := p.ready[0]
	p.ready = p.ready[1:]
	switch {
	case len(p.ready) == 0:
		p.cursor = p.next
	case m.Type == "gap":
		p.cursor = m.Cursor
	default:
		p.cursor = m.ID
	}
	return m, nil
}

func (p *poller) Cursor() string { return p.cursor }

func (p *poller) Close() {}
