package carillon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/coder/websocket"
)

const (
	subprotocol      = "carillon.v1"
	handshakeTimeout = 20 * time.Second // dial, welcome; and again until subscribed
	writeTimeout     = 10 * time.Second
	goodbyeTimeout   = time.Second      // how long Close waits for the server's answer
	defaultIdle      = 25 * time.Second // the server's max_idle_ms, when it names none
	silenceGrace     = 10 * time.Second // how much longer than that silence may last
	maxFrame         = 16 << 20         // far above any event
)

var errSilent = errors.New("nothing was heard")

// frameRef is the ref of the one subscribe frame of a connection.
const frameRef = "1"

// frame is anything the server sends. No two kinds of frame use one name for
// different things.
type frame struct {
	eventJSON
	Ref          json.RawMessage `json:"ref"`
	Cursor       string          `json:"cursor"`
	Backfill     bool            `json:"backfill"`
	Gap          *Gap            `json:"gap"`
	Reason       string          `json:"reason"`
	Pattern      string          `json:"pattern"`
	Code         Code            `json:"code"`
	Message      string          `json:"message"`
	RetryAfterMS int64           `json:"retry_after_ms"`
	MaxIdleMS    int64           `json:"max_idle_ms"`
	ConnectionID string          `json:"connection_id"`
	Org          string          `json:"org"`
	User         string          `json:"user"`
}

func (f *frame) retryAfter() time.Duration {
	return min(max(time.Duration(f.RetryAfterMS)*time.Millisecond, 0), maxRetryAfter)
}

// connection is one WebSocket of a subscription. The goroutine that made it
// reads; keep writes.
type connection struct {
	s       *Subscription
	ws      *websocket.Conn
	ctx     context.Context //nolint:containedctx // cancelling it cuts the WebSocket
	cut     context.CancelCauseFunc
	idle    time.Duration
	token   string        // the one it was authenticated with
	renewal chan struct{} // token_expiring was received

	// Owned by the reader.
	who        Connection
	silence    *time.Timer // cuts when nothing is heard for limit
	limit      time.Duration
	subscribed time.Time // zero until then
	lastError  *frame    // the last error frame, which explains a close
	leaving    *frame    // the goaway, if there was one
	told       time.Time // when it came
}

// connect makes one connection, receives from it until it ends, and says why it
// did and how long it had been subscribed.
func (s *Subscription) connect(ctx context.Context) (up time.Duration, failure *Error) {
	c := &connection{s: s, limit: handshakeTimeout, renewal: make(chan struct{}, 1)}
	if err := c.dial(ctx); err != nil {
		return 0, err
	}
	// The WebSocket outlives ctx by a moment, for a clean close.
	c.ctx, c.cut = context.WithCancelCause(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(goodbyeTimeout, func() { c.cut(nil) })
	})()
	c.silence = time.AfterFunc(c.limit, func() { c.cut(errSilent) })
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		c.keep(ctx)
	}()
	failure = c.receive(ctx)
	c.silence.Stop()
	if ctx.Err() == nil && failure.CloseCode == 0 && failure.Code != CodeNetwork {
		// The connection works; we are leaving it.
		bye := time.AfterFunc(goodbyeTimeout, func() { c.cut(nil) })
		_ = c.ws.Close(websocket.StatusNormalClosure, "")
		bye.Stop()
	}
	c.cut(nil)
	<-kept
	_ = c.ws.CloseNow()
	if !c.subscribed.IsZero() {
		up = time.Since(c.subscribed)
	}
	return up, failure
}

// dial connects and reads the welcome.
func (c *connection) dial(ctx context.Context) *Error {
	const op = "subscribe"
	client := c.s.client
	var err error
	if c.token, err = client.cred.fresh(ctx, op); err != nil {
		return asError(op, err)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	header := http.Header{}
	if c.token != "" {
		header.Set("Authorization", "Bearer "+c.token)
	}
	u := client.endpoint("/v1/ws", url.Values{"after": {c.s.after}})
	ws, res, err := websocket.Dial(ctx, u, &websocket.DialOptions{ //nolint:bodyclose // websocket.Dial has closed it
		HTTPClient: client.http, HTTPHeader: header, Subprotocols: []string{subprotocol},
	})
	if err != nil {
		if res == nil || res.StatusCode == http.StatusSwitchingProtocols {
			return networkError(op, bare(err), "no connection")
		}
		if res.StatusCode/100 == 2 || res.StatusCode/100 == 3 {
			return &Error{Op: op, Code: CodeProtocol, Status: res.StatusCode, Message: fmt.Sprintf("%s answers HTTP %d and no WebSocket; is it Carillon's public address?", client.base, res.StatusCode)}
		}
		return problem(op, res)
	}
	ws.SetReadLimit(maxFrame)
	c.ws = ws
	for {
		f, err := c.read(ctx)
		if err != nil {
			_ = ws.CloseNow()
			return c.failure(err)
		}
		switch f.Type {
		case "welcome":
			c.idle = time.Duration(f.MaxIdleMS) * time.Millisecond
			if c.idle <= 0 {
				c.idle = defaultIdle
			}
			c.who = Connection{ID: f.ConnectionID, Org: f.Org, User: f.User}
			if c.s.after == "now" {
				c.s.move(f.Cursor) // now was then
			}
			return nil
		case "error":
			c.lastError = f
		case "goaway":
			c.leaving, c.told = f, time.Now()
		}
	}
}

// read returns the next frame. An unreadable one is an error.
func (c *connection) read(ctx context.Context) (*frame, error) {
	_, data, err := c.ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	f := &frame{}
	if err := json.Unmarshal(data, f); err != nil {
		return nil, &Error{Op: "subscribe", Code: CodeProtocol, Message: "a frame is not Carillon's", Retryable: true, Err: err}
	}
	return f, nil
}

// receive subscribes, and handles what the server sends until it ends. When ctx
// ends it reads on, for the end of the close handshake that keep begins.
func (c *connection) receive(ctx context.Context) *Error {
	if err := c.subscribe(); err != nil {
		return c.failure(err)
	}
	for {
		f, err := c.read(c.ctx)
		if err != nil {
			return c.failure(err)
		}
		if ctx.Err() != nil {
			continue
		}
		if err := c.handle(ctx, f); err != nil {
			return err
		}
		c.silence.Reset(c.limit)
	}
}

func (c *connection) subscribe() error {
	b, err := encode(struct {
		Type     string          `json:"type"`
		Ref      json.RawMessage `json:"ref"`
		Patterns []string        `json:"patterns"`
		Subject  string          `json:"subject,omitempty"`
	}{"subscribe", json.RawMessage(frameRef), c.s.patterns, c.s.opts.Subject})
	if err != nil {
		return err
	}
	return c.write(b)
}

// handle takes one frame in. An error ends the connection.
//
// The connection stands at its after and has one subscribe, so that its ids are
// its cursor. Should the server make a backfill of it all the same, they are
// not until it is over: until then s.after stays where it was.
func (c *connection) handle(ctx context.Context, f *frame) *Error {
	const op = "subscribe"
	s := c.s
	c.lastError = nil
	switch f.Type {
	case "event":
		event, err := f.event()
		if err != nil {
			return &Error{Op: op, Code: CodeProtocol, Message: "an event has no readable timestamp", Retryable: true, Err: err}
		}
		if !s.backfill {
			s.move(event.ID)
		}
		if event.ID != "" && !s.seen.add(event.ID) {
			c.push(ctx, item{kind: itemCursor})
			return nil
		}
		c.push(ctx, item{kind: itemEvent, event: event})
	case "heartbeat":
		if !s.backfill && !c.subscribed.IsZero() {
			s.move(f.Cursor)
			c.push(ctx, item{kind: itemCursor})
		}
	case "subscribed":
		if string(f.Ref) != frameRef {
			return nil
		}
		c.subscribed, c.limit = time.Now(), c.idle+silenceGrace
		s.backfill = f.Backfill
		if f.Gap != nil {
			c.gap(ctx, *f.Gap)
		} else if !s.backfill && !s.opaque {
			s.move(f.Cursor)
		}
		if !s.started {
			s.started = true
			if place := s.place(); place != "" && f.Gap == nil {
				s.cursor.Store(&place) // Next has nothing yet that could say it
			}
			close(s.ready)
		}
		s.client.log.Debug("carillon: subscribed", "connection", c.who.ID, "after", s.after)
		if s.opts.OnConnect != nil {
			s.opts.OnConnect(c.who)
		}
	case "caught_up":
		s.backfill = false
		s.move(f.Cursor)
		c.push(ctx, item{kind: itemCaughtUp})
	case "gap":
		c.gap(ctx, Gap{Reason: GapReason(f.Reason), Cursor: f.Cursor})
	case "token_expiring":
		select {
		case c.renewal <- struct{}{}:
		default: // keep knows already
		}
	case "goaway":
		c.leaving, c.told = f, time.Now()
	case "unsubscribed":
		return &Error{Op: op, Code: CodeForbidden, Message: fmt.Sprintf("the server ended the subscription to %q: %s", f.Pattern, f.Reason)}
	case "error":
		c.lastError = f
		if string(f.Ref) == frameRef && c.subscribed.IsZero() {
			return &Error{Op: op, Code: f.Code, Message: f.Message, RetryAfter: f.retryAfter(), Retryable: f.Code.retryable(f.retryAfter())}
		}
		s.client.log.Warn("carillon: the server reports an error", "code", f.Code, "message", f.Message)
	}
	return nil
}

// gap moves to where delivery goes on and says that something is missing.
func (c *connection) gap(ctx context.Context, g Gap) {
	if g.Cursor == "" && g.Reason == GapReset {
		c.s.after, c.s.opaque = "now", false // or the same cursor would be refused again
	}
	c.s.move(g.Cursor)
	c.push(ctx, item{kind: itemGap, gap: g})
}

// push hands it to Next, with the cursor after it. While Next is behind, the
// connection is not read, and its silence says nothing; receive listens for it again.
func (c *connection) push(ctx context.Context, it item) {
	it.cursor = c.s.place()
	select {
	case c.s.items <- it:
		return
	default:
	}
	if it.kind == itemCursor {
		return // what comes after those waiting has a later one
	}
	c.silence.Stop()
	select {
	case c.s.items <- it:
	case <-ctx.Done():
	}
}

// keep sends what has its own time: pings, so that the server hears from a
// subscription that only listens, new tokens, and the close.
func (c *connection) keep(ctx context.Context) {
	ping := time.NewTicker(c.idle)
	defer ping.Stop()
	var again <-chan time.Time // when to try to renew the token again
	for failed := 0; ; {
		select {
		case <-c.ctx.Done():
			return
		case <-ctx.Done():
			_ = c.ws.Close(websocket.StatusNormalClosure, "")
			return
		case <-ping.C:
			_ = c.write([]byte(`{"type":"ping"}`)) // the reader sees a broken connection
			continue
		case <-c.renewal:
		case <-again:
		}
		again = nil
		if err := c.renew(ctx); err != nil {
			wait := backoff(failed, 0)
			failed++
			c.s.client.log.Warn("carillon: the token is not renewed", "error", err, "retry_in", wait)
			again = time.After(wait)
			continue
		}
		failed = 0
	}
}

// renew sends a new token. Without one the server ends the connection when the
// old one expires, and the next connection asks for a token again.
func (c *connection) renew(ctx context.Context) error {
	cred := c.s.client.cred
	if cred.fetch == nil {
		return nil // there is no other
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	token, err := cred.fresh(ctx, "subscribe")
	if err != nil {
		return err
	}
	if token == c.token {
		return errors.New("TokenFunc returned the token that is about to expire")
	}
	b, err := encode(struct {
		Type  string `json:"type"`
		Token string `json:"token"`
	}{"refresh", token})
	if err != nil {
		return err
	}
	c.token = token
	return c.write(b)
}

func (c *connection) write(b []byte) error {
	ctx, cancel := context.WithTimeout(c.ctx, writeTimeout)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, b)
}

// failure says what the end of a connection means, and what to do about it.
func (c *connection) failure(err error) *Error {
	const op = "subscribe"
	var e *Error
	var closed websocket.CloseError
	switch {
	case errors.As(err, &e): // ours already
	case errors.As(err, &closed):
		e = closeError(int(closed.Code), closed.Reason)
		if c.lastError != nil && e.CloseCode >= 4000 && e.CloseCode < 4200 { // it came right before
			e.Code, e.Message, e.RetryAfter = c.lastError.Code, c.lastError.Message, c.lastError.retryAfter()
		}
	case errors.Is(err, websocket.ErrMessageTooBig):
		e = &Error{Op: op, Code: CodeTooLarge, Message: fmt.Sprintf("a frame is larger than %d bytes", maxFrame)}
	case c.ctx != nil && errors.Is(context.Cause(c.ctx), errSilent):
		e = networkError(op, errSilent, "the connection is silent for %v", c.limit)
	default:
		e = networkError(op, err, "the connection broke")
	}
	if c.leaving != nil && e.Retryable {
		e.atOnce = true
		e.RetryAfter = max(e.RetryAfter, c.leaving.retryAfter()-time.Since(c.told))
		if c.leaving.Reason != "" {
			e.Message = "the server said goodbye: " + c.leaving.Reason
		}
	}
	return e
}

// closeError reads a close code.
func closeError(code int, reason string) *Error {
	e := &Error{Op: "subscribe", CloseCode: code, Message: reason}
	if reason == "" {
		e.Message = "the server closed the connection with " + strconv.Itoa(code)
	}
	switch {
	case code == 4001:
		e.Code = CodeUnauthenticated
	case code == 4003:
		e.Code = CodeForbidden
	case code == 4009:
		e.Code = CodeConflict
	case code >= 4000 && code <= 4099, code == 1003:
		e.Code = CodeBadRequest
	case code == 1009:
		e.Code = CodeTooLarge
	case code == 4101:
		e.Code, e.Retryable = CodeRateLimited, true
	case code >= 4100 && code <= 4199:
		e.Code, e.Retryable = CodeUnavailable, true
	case code >= 4200 && code <= 4299:
		e.Code, e.Retryable, e.atOnce = CodeUnavailable, true, true
	case code == 1011:
		e.Code, e.Retryable = CodeInternal, true
	default:
		e.Code, e.Retryable = CodeNetwork, true
	}
	return e
}
