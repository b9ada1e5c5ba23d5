// Package ws is the WebSocket door: GET /v1/ws (RFC 6455, subprotocol
// carillon.v1).
//
// A connection in the clear lives on its shard's loop, where there are loops, and
// costs no goroutine. Any other costs one, which waits for the client's next frame
// in a few hundred bytes of memory, and while there is something to send another
// one, which writes it. Both read the same frames and refuse the same. What is said
// is the session's affair.
package ws

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/admission"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/front"
	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Config is what the door stands on. Core and Auth are required.
type Config struct {
	Core    *session.Core
	Auth    *auth.Authenticator
	Origins *auth.Origins // always checked; nil: the server's own origin only

	// Admission lets handshakes through; nil: all at once.
	Admission *admission.Gate

	// Sockets are the connections this handler makes, for who ends them; nil:
	// its own.
	Sockets *loop.Sockets

	// Loops, if there are any, are those of the shards, by number. A connection
	// in the clear lives on the loop of its session's shard, any other, or where
	// there are no loops, among Sockets.
	Loops []*loop.Loop

	FrameBytes     int           // of a client's message; DefaultFrameBytes
	MessageTimeout time.Duration // from its first frame to its last; DefaultMessageTimeout
	ControlFrames  int           // in a minute, and pieces of messages; DefaultControlFrames
	Inflating      int           // compressed messages at the same time; DefaultInflating
	Logger         *slog.Logger
}

// DefaultFrameBytes is how large a client's message may be.
const DefaultFrameBytes = 1 << 20

// DefaultMessageTimeout is how long its fragments may take.
const DefaultMessageTimeout = time.Minute

// DefaultControlFrames is how many pings, pongs and pieces of messages may come
// in a minute.
const DefaultControlFrames = 60_000

// Protocol is the subprotocol spoken.
const Protocol = "carillon.v1"

type handler struct {
	Config
	rules  rules
	places chan struct{} // one in it for each message that is inflated; never closed
}

// Handler makes the door. It panics if a required field is missing.
func Handler(cfg Config) http.Handler {
	if cfg.Core == nil || cfg.Auth == nil {
		panic("ws: Config.Core and Auth are required")
	}
	if cfg.Origins == nil {
		cfg.Origins = new(auth.Origins)
	}
	return newHandler(cfg)
}

func newHandler(cfg Config) *handler {
	if cfg.Sockets == nil {
		cfg.Sockets = new(loop.Sockets)
	}
	if cfg.FrameBytes <= 0 {
		cfg.FrameBytes = DefaultFrameBytes
	}
	if cfg.MessageTimeout <= 0 {
		cfg.MessageTimeout = DefaultMessageTimeout
	}
	if cfg.ControlFrames <= 0 {
		cfg.ControlFrames = DefaultControlFrames
	}
	if cfg.Inflating <= 0 {
		cfg.Inflating = DefaultInflating
	}
	return &handler{
		Config: cfg,
		rules:  rules{bytes: cfg.FrameBytes, within: cfg.MessageTimeout, control: uint32(cfg.ControlFrames), made: time.Now()},
		places: make(chan struct{}, cfg.Inflating),
	}
}

// met counts the limit that a message was refused by, if it was by one.
func (h *handler) met(code wire.CloseCode) {
	switch code { //nolint:exhaustive // the others are no limits
	case wire.CloseTooBig:
		h.Core.Met("frame_bytes")
	case wire.ClosePolicy:
		h.Core.Met("message_timeout")
	case wire.CloseRateLimited:
		h.Core.Met("control_frames_per_minute")
	}
}

// ServeHTTP answers a handshake and returns; the connection lives on by itself.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !upgradable(w, r) {
		return
	}
	opt, echo, err := h.check(w, r)
	if err != nil {
		transport.Problem(w, r, h.Logger, err)
		return
	}
	answer := acceptance(r.Header.Get("Sec-Websocket-Key"), echo)
	if x := front.Of(w); x != nil {
		h.inherit(x, answer, opt)
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		h.release(opt)
		transport.Problem(w, r, h.Logger, err)
		return
	}
	h.open(conn, left(buf), answer, opt)
}

// left copies what the client sent behind its handshake, so that the server's
// buffers can go.
func left(buf *bufio.ReadWriter) []byte {
	n := buf.Reader.Buffered()
	if n == 0 {
		return nil
	}
	b, _ := buf.Reader.Peek(n) // they are there
	return append([]byte(nil), b...)
}

// upgradable answers what is no WebSocket handshake of a version known here.
func upgradable(w http.ResponseWriter, r *http.Request) bool {
	if err := transport.Method(w, r, http.MethodGet); err != nil {
		transport.Problem(w, r, nil, err)
		return false
	}
	h := w.Header()
	switch {
	case r.ProtoMajor != 1 || !r.ProtoAtLeast(1, 1) || !hasToken(r.Header["Connection"], "upgrade") || !hasToken(r.Header["Upgrade"], "websocket"):
		if r.ProtoMajor == 1 { // later versions have no such headers
			h.Set("Connection", "Upgrade")
			h.Set("Upgrade", "websocket")
		}
		upgradeRequired(w, "this is a WebSocket endpoint; open it with a WebSocket handshake over HTTP/1.1")
		return false
	case len(r.Header["Sec-Websocket-Version"]) != 1 || r.Header["Sec-Websocket-Version"][0] != "13":
		h.Set("Sec-WebSocket-Version", "13")
		upgradeRequired(w, "the WebSocket version is 13")
		return false
	}
	key := r.Header["Sec-Websocket-Key"]
	if len(key) == 1 {
		if nonce, err := base64.StdEncoding.DecodeString(key[0]); err == nil && len(nonce) == 16 {
			return true
		}
	}
	transport.Problem(w, r, nil, carillon.BadRequest("Sec-WebSocket-Key is 16 random bytes in base64"))
	return false
}

// upgradeRequired answers 426, which no code of carillon's has.
func upgradeRequired(w http.ResponseWriter, detail string) {
	h := w.Header()
	transport.Answers(h, transport.NoStore)
	h.Set("Content-Type", wire.ProblemContentType)
	w.WriteHeader(http.StatusUpgradeRequired)
	body := []byte(`{"type":"about:blank","title":"Upgrade Required","status":426,"code":"bad_request","detail":`)
	_, _ = w.Write(append(wire.AppendString(body, detail), '}')) // the client may be gone
}

// parameters are those of the query, and whether one may be repeated.
var parameters = map[string]bool{"ticket": false, "after": false, "numbered": false}

// release gives back the place of a connection that did not come about.
func (h *handler) release(opt session.Options) {
	if opt.Reserved {
		h.Core.Release(opt.Address)
	}
}

// check decides whether a handshake is accepted, and as what.
func (h *handler) check(w http.ResponseWriter, r *http.Request) (opt session.Options, echo agreed, err error) {
	if err := h.Origins.Check(r); err != nil {
		return opt, echo, err
	}
	if h.Core.Draining() {
		return opt, echo, transport.Draining()
	}
	addr := transport.Address(r)
	if err := h.Core.Reserve(addr); err != nil {
		return h.overload(r, err)
	}
	r, leave, err := transport.Admit(h.Admission, w, r)
	if err != nil {
		h.Core.Release(addr)
		return h.overload(r, err)
	}
	opt, echo, err = h.asked(w, r)
	leave()
	if err != nil {
		h.Core.Release(addr)
	}
	opt.Reserved, opt.Address = err == nil, addr
	return opt, echo, err
}

// overload refuses a handshake that is not looked at. A browser's page cannot see a
// 503: it is accepted and told, as long as that is not too much work by itself.
func (h *handler) overload(r *http.Request, err error) (opt session.Options, echo agreed, _ error) {
	if carillon.AsError(err).Code != carillon.CodeUnavailable || r.Header.Get("Origin") == "" || !h.Admission.Explain(time.Now()) {
		return opt, echo, err
	}
	opt.Format, opt.Refuse = session.WebSocket, err
	echo.protocol, err = subprotocol(r.Header["Sec-Websocket-Protocol"])
	return opt, echo, err
}

// asked is what a handshake asks for, and by whom.
func (h *handler) asked(w http.ResponseWriter, r *http.Request) (opt session.Options, echo agreed, err error) {
	if echo.protocol, err = subprotocol(r.Header["Sec-Websocket-Protocol"]); err != nil {
		return opt, echo, err
	}
	if echo.extensions, err = h.extensions(r); err != nil {
		return opt, echo, err
	}
	q, err := transport.Query(r, parameters)
	if err != nil {
		return opt, echo, err
	}
	if opt, err = options(q); err != nil {
		return opt, echo, err
	}
	opt.Deflate = echo.extensions != ""
	opt.Principal, err = h.caller(w, r)
	if err == nil {
		return opt, echo, nil
	}
	if carillon.AsError(err).Code != carillon.CodeUnauthenticated || r.Header.Get("Origin") == "" {
		return opt, echo, err
	}
	opt.Refuse = err // a browser's page cannot see a 401
	return opt, echo, nil
}

func options(q url.Values) (session.Options, error) {
	numbered, err := transport.Bool(q, "numbered")
	return session.Options{Format: session.WebSocket, After: q.Get("after"), Numbered: numbered}, err
}

// caller is who asks, or nil when a connect frame is to say so.
func (h *handler) caller(w http.ResponseWriter, r *http.Request) (*carillon.Principal, error) {
	c, err := h.Auth.FromRequest(r, auth.Subprotocol|auth.TicketQuery)
	if err != nil || c.None() {
		return nil, err
	}
	return transport.Verify(h.Auth, w, r, c)
}

// subprotocol chooses from the client's list; bearer.<token> in it is a
// credential, no protocol.
func subprotocol(offered []string) (echo string, err error) {
	others := false
	for _, list := range offered {
		for name := range strings.SplitSeq(list, ",") {
			switch name = strings.Trim(name, " \t"); {
			case name == Protocol:
				return Protocol, nil
			case name != "" && !strings.HasPrefix(name, "bearer."):
				others = true
			}
		}
	}
	if others {
		return "", carillon.BadRequest("none of the subprotocols offered is spoken here; it is %s", Protocol)
	}
	return "", nil
}

// extensions answers the offers of a handshake, if there is to be compression.
func (h *handler) extensions(r *http.Request) (answer string, err error) {
	if h.Core.DeflateFrom <= 0 {
		return "", nil
	}
	return agree(r.Header["Sec-Websocket-Extensions"])
}

// hasToken looks for a token in a header that is a list of them (RFC 9110,
// section 5.6.1).
func hasToken(list []string, token string) bool {
	for _, h := range list {
		for t := range strings.SplitSeq(h, ",") {
			if strings.EqualFold(strings.Trim(t, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// agreed is what a handshake has come to, as its answer says it; "": nothing.
type agreed struct{ protocol, extensions string }

// acceptance is the answer to a handshake.
func acceptance(key string, a agreed) []byte {
	b := make([]byte, 0, 184+len(a.protocol)+len(a.extensions))
	b = append(append(b, key...), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...) // RFC 6455, section 4.2.2
	sum := sha1.Sum(b)
	b = append(b[:0], "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	if a.protocol != "" {
		b = append(append(b, "\r\nSec-WebSocket-Protocol: "...), a.protocol...)
	}
	if a.extensions != "" {
		b = append(append(b, "\r\nSec-WebSocket-Extensions: "...), a.extensions...)
	}
	return append(b, "\r\n\r\n"...)
}

// answered writes the answer to a handshake. A client that does not take it is
// gone.
func answered(conn net.Conn, answer []byte) bool {
	_ = conn.SetDeadline(time.Now().Add(loop.DefaultWriteTimeout)) // if it fails so does the write
	if _, err := conn.Write(answer); err != nil {
		_ = conn.Close() // it is gone
		return false
	}
	_ = conn.SetDeadline(time.Time{}) // as above, with the next read
	return true
}

// inherit goes on with a connection whose handshake its loop has read: the answer
// goes out together with what the session says first.
func (h *handler) inherit(x *front.Exchange, answer []byte, opt session.Options) {
	c := &looped{handler: h}
	c.deflate = opt.Deflate
	opt.Conn, opt.Head = c, answer
	from, before := x.Take(http.StatusSwitchingProtocols)
	c.session = h.Core.NewOn(x.Shard(), opt)
	c.Inherit(from, before, c)
}

// open answers the handshake and starts the conversation.
func (h *handler) open(netConn net.Conn, left, answer []byte, opt session.Options) {
	if !answered(netConn, answer) {
		h.release(opt)
		return
	}
	if len(h.Loops) > 0 {
		if fd, ok := loop.Adopt(netConn, h.Sockets.SendBuffer); ok {
			c := &looped{handler: h}
			c.deflate = opt.Deflate
			opt.Conn = c
			s := h.Core.New(opt)
			s.Post(func() { c.begin(s, h.Loops[s.Shard().ID()], fd, left) })
			return
		}
	}
	c := &conn{handler: h, pending: left}
	c.deflate = opt.Deflate
	h.Sockets.Init(&c.Socket, netConn, c)
	opt.Conn = c
	s := h.Core.New(opt)
	s.Post(func() { c.begin(s) })
	h.Sockets.Go(&c.Socket, func() { c.read(s) }, func() { s.Post(s.Gone) })
}
