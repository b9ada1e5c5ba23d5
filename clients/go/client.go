package carillon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options says where the server is and who the caller is.
type Options struct {
	// URL is the server's public address, such as https://events.example.com,
	// with or without a path under which it is mounted. Required. The schemes
	// ws and wss mean http and https.
	URL string

	// APIKey (ck_…) is the credential of an organization's own servers.
	APIKey string

	// Token is a user's token that does not change while the program runs.
	Token string

	// TokenFunc returns a user's token. It is called for every connection, when
	// the server says that a token is about to expire, and when one is refused;
	// otherwise its last answer is used again. Calls do not overlap. It must
	// return when its context ends.
	//
	// At most one of APIKey, Token and TokenFunc may be set; none sends no
	// credential.
	TokenFunc func(ctx context.Context) (string, error)

	// HTTPClient makes requests and WebSocket handshakes. Nil means one of the
	// client's own, without an overall timeout. A Timeout in it also cuts polls
	// that wait.
	HTTPClient *http.Client

	// Retries is how often Publish, History and Poll try again when the server
	// is away or asks to wait. 0 means 8; negative means never.
	Retries int

	// Logger is told of reconnects and other things nobody has to act on. Nil
	// means that nothing is logged. Credentials are never logged.
	Logger *slog.Logger
}

// defaultRetries lasts about a minute and a half when the server says nothing.
const defaultRetries = 8

// Client talks to one server with one credential. Make one with New. It is safe
// for concurrent use and needs no closing.
type Client struct {
	base    *url.URL
	http    *http.Client
	cred    *credential
	retries int
	log     *slog.Logger
}

// New makes a client. It makes no connection.
func New(o Options) (*Client, error) {
	base, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	n := 0
	for _, set := range []bool{o.APIKey != "", o.Token != "", o.TokenFunc != nil} {
		if set {
			n++
		}
	}
	if n > 1 {
		return nil, errors.New("client: more than one credential: set one of APIKey, Token and TokenFunc")
	}
	c := &Client{base: base, http: o.HTTPClient, retries: o.Retries, log: o.Logger}
	if c.http == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = 16 // all requests go to one host
		c.http = &http.Client{Transport: transport}
	}
	if c.retries == 0 {
		c.retries = defaultRetries
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.cred = &credential{fetch: o.TokenFunc, last: o.APIKey + o.Token, lock: make(chan struct{}, 1)}
	return c, nil
}

// CloseIdleConnections closes connections that are kept for later requests.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

func parseURL(s string) (*url.URL, error) {
	if s == "" {
		return nil, errors.New("client: no URL: set the server's address, such as https://events.example.com")
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("client: %q is not the address of a server; one looks like https://events.example.com", s)
	}
	switch u.Scheme {
	case "http", "https":
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	default:
		return nil, fmt.Errorf("client: %q: the scheme is http or https, not %q", s, u.Scheme)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("client: the URL has a user, a query or a fragment; it is only the server's address")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// endpoint is the address of a path of the API.
func (c *Client) endpoint(path string, query url.Values) string {
	u := *c.base
	u.Path += path
	u.RawQuery = query.Encode()
	return u.String()
}

// credential is an API key, a token, or a function that gets tokens.
type credential struct {
	fetch func(ctx context.Context) (string, error) // nil: last never changes

	lock chan struct{} // one slot; a lock whose waiters obey their context. Guards last
	last string
}

// tokenTimeout bounds one call of TokenFunc.
const tokenTimeout = 30 * time.Second

// get returns the credential: the last one, unless there is none or it is
// stale.
func (c *credential) get(ctx context.Context, op, stale string) (string, error) {
	return c.choose(ctx, op, func() bool { return c.last != "" && c.last != stale })
}

// fresh returns the credential, fetched now.
func (c *credential) fresh(ctx context.Context, op string) (string, error) {
	return c.choose(ctx, op, func() bool { return false })
}

func (c *credential) choose(ctx context.Context, op string, useLast func() bool) (string, error) {
	if c.fetch == nil {
		return c.last, nil
	}
	select {
	case c.lock <- struct{}{}:
		defer func() { <-c.lock }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if useLast() {
		return c.last, nil
	}
	tctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	token, err := c.fetch(tctx)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", &Error{Op: op, Code: CodeToken, Message: "TokenFunc returned no token", Retryable: true, Err: err}
	case token == "" || strings.ContainsAny(token, "\r\n"):
		return "", &Error{Op: op, Code: CodeToken, Message: "TokenFunc returned an empty or broken token", Retryable: true}
	}
	c.last = token
	return token, nil
}

// encode writes JSON on one line and leaves <, > and & as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
