package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	client "github.com/carillon-rt/carillon/clients/go"
)

// target is where webhooks are sent.
type target struct {
	url     *url.URL
	header  http.Header // set on each request
	timeout time.Duration
	http    *http.Client
}

// target reads where to, and what goes with it.
func (c *ListenCmd) target() (*target, error) {
	u, err := url.Parse(c.Forward)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
		return nil, fmt.Errorf("--forward %q: it is an address such as http://localhost:3000/webhooks", c.Forward)
	}
	t := &target{url: u, header: http.Header{}, timeout: c.Timeout}
	for _, text := range c.Header {
		name, value, ok := strings.Cut(text, ":")
		if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); !ok || !isHeaderName(name) || strings.ContainsFunc(value, unicode.IsControl) || hopByHop(name) {
			return nil, fmt.Errorf("--header %q: it is one such as 'X-Gitlab-Token: text', and not one of the connection", name)
		}
		t.header.Add(name, strings.TrimSpace(value))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true // it would ask for what the provider did not
	t.http = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return t, nil
}

// isHeaderName reports whether a text is made of what names of headers have.
func isHeaderName(name string) bool {
	const special = "!#$%&'*+-.^_`|~"
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(special, r))
	})
}

// String is the address, without a password.
func (t *target) String() string { return t.url.Redacted() }

// hopByHop reports whether a header is about one connection, or what is made anew for
// each request.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return strings.HasPrefix(name, "Proxy-")
}

// attempt is what came of sending a webhook once.
type attempt struct {
	status  int // 0: there was no answer
	err     error
	took    time.Duration
	again   time.Duration // until the next try; 0: there is none
	first   bool          // there was none before it
	last    bool          // it is given up
	skipped bool          // and the next one follows
}

func (a *attempt) ok() bool { return a.status/100 == 2 }

// lastAnswer is how long an answer is waited for when listening is to end: what was
// taken then need not be sent again.
const lastAnswer = 3 * time.Second

// post sends a webhook as it came, byte for byte.
func (t *target) post(ctx context.Context, d *hookDetails) (a attempt) {
	send, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.timeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastAnswer, cancel) })()
	u := *t.url
	if d.Query != "" {
		u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+d.Query, "&")
	}
	req, err := http.NewRequestWithContext(send, http.MethodPost, u.String(), bytes.NewReader(d.Body))
	if err != nil {
		return attempt{err: err}
	}
	req.Header["User-Agent"] = nil // none is made up where none came
	for name, values := range d.Headers {
		if !hopByHop(http.CanonicalHeaderKey(name)) {
			req.Header[name] = values
		}
	}
	maps.Copy(req.Header, t.header)
	req.Header.Set("Carillon-Delivery", d.ID)
	began := time.Now()
	res, err := t.http.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)) // so that the connection serves the next one
		_ = res.Body.Close()
		a.status = res.StatusCode
		if a.ok() {
			err = nil // it is taken, whatever is wrong with the rest
		}
	}
	a.took = time.Since(began)
	if a.status == 0 {
		a.err = plainly(err, t.timeout)
	}
	return a
}

// plainly is the error of a request without what the reader knows.
func plainly(err error, timeout time.Duration) error {
	var u *url.Error
	var n net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.As(err, &n) && n.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer in %v", timeout)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return errors.New("connection closed without an answer")
	case errors.As(err, &u):
		return u.Err
	}
	return err
}

// forwardWait is how long to wait after so many tries that failed, from 0.
func forwardWait(try int) time.Duration {
	const first, most = 500 * time.Millisecond, 10 * time.Second
	return min(first<<min(try, 10), most)
}

// print writes the line of one try. d is nil where there is nothing to send.
func (l *listener) print(e *client.Event, d *hookDetails, a attempt) error {
	now := time.Now()
	event := strings.TrimPrefix(e.Type, e.Source+".")
	size, id := int64(0), ""
	if d != nil {
		size, id = int64(len(d.Body)), d.ID
	}
	if l.cmd.JSON {
		line := struct {
			Time     time.Time `json:"time"`
			Source   string    `json:"source"`
			Event    string    `json:"event"`
			Delivery string    `json:"delivery"`
			ID       string    `json:"id,omitempty"`
			EventID  string    `json:"event_id"`
			Size     int64     `json:"size"`
			Status   int       `json:"status,omitempty"`
			MS       float64   `json:"ms"`
			Error    string    `json:"error,omitempty"`
			AgainMS  int64     `json:"again_ms,omitempty"`
			Skipped  bool      `json:"skipped,omitempty"`
			Body     []byte    `json:"body,omitempty"`
		}{
			Time: now.UTC(), Source: e.Source, Event: event, Delivery: e.Delivery, ID: id, EventID: e.ID, Size: size, Status: a.status,
			MS: float64(a.took.Microseconds()) / 1000, AgainMS: a.again.Milliseconds(), Skipped: a.skipped || d == nil,
		}
		if a.err != nil {
			line.Error = a.err.Error()
		}
		if l.cmd.PrintBodies && a.first {
			line.Body = d.Body
		}
		return l.std.printJSON(line)
	}
	text := fmt.Sprintf("%s  %s  %s  ", now.Format("15:04:05.000"), e.Source, visible(event))
	switch {
	case d == nil:
		text += visible(e.Delivery) + ": " + a.err.Error()
	case a.err != nil:
		text += bytesOf(size) + " → " + visible(a.err.Error())
	default:
		text += fmt.Sprintf("%s → %d  %d ms", bytesOf(size), a.status, a.took.Milliseconds())
	}
	switch {
	case a.skipped:
		text += "; skipped"
	case a.again > 0:
		text += fmt.Sprintf("; again in %v", a.again)
	}
	if l.cmd.PrintBodies && a.first {
		text += "\n" + shownBody(d.Body)
	}
	_, err := fmt.Fprintln(l.std.Out, text)
	return err
}

// shownBody is a body for a terminal: JSON in lines, other text as it is.
func shownBody(body []byte) string {
	var b bytes.Buffer
	switch {
	case json.Indent(&b, body, "  ", "  ") == nil:
		body = b.Bytes()
	case !utf8.Valid(body):
		return fmt.Sprintf("  (%s that are no text)", several(len(body), "byte"))
	}
	var lines []string
	for line := range strings.Lines(string(body)) {
		lines = append(lines, visible(strings.TrimRight(line, "\r\n")))
	}
	return "  " + strings.Join(lines, "\n")
}
