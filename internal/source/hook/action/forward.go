package action

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Bounds of the headers that are chosen for a request.
const (
	maxHeaders     = 20
	maxHeaderBytes = 4 << 10
)

// Forward is a request to be made.
type Forward struct {
	Of      string // whose it is: the name by which it is counted
	URL     string
	Header  http.Header
	Body    []byte
	Timeout time.Duration // 0: the runner's
}

// forwardError is why there was no answer. What it shows says nothing of the
// network that the server is in; the cause is for the log.
type forwardError struct {
	text  string
	cause error
}

func (e *forwardError) Error() string { return "action: " + e.text }

func (e *forwardError) Unwrap() error { return e.cause }

// notChosen are headers that belong to the connection, or that the request has
// anyway.
var notChosen = []string{
	"Accept-Encoding", "Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// token are the characters that the name of a header can have.
const token = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// checkURL says whether requests can be made to a URL.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("forward is not a URL; write it like https://example.com/path")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("forward has the scheme %q; write it like https://example.com/path", clip(u.Scheme))
	case u.User != nil:
		return errors.New("forward has a user or password in it; put them into a header")
	case u.Fragment != "":
		return errors.New("forward has a fragment, which is never sent; leave out what follows #")
	}
	return nil
}

// checkHeader says whether headers can be chosen.
func checkHeader(h map[string]string) error {
	if len(h) > maxHeaders {
		return fmt.Errorf("there are %d headers; at most %d", len(h), maxHeaders)
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(h)) {
		size += len(name) + len(h[name])
		if err := checkHeaderName(name); err != nil {
			return err
		}
		if strings.ContainsFunc(h[name], func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return fmt.Errorf("the value of the header %s has a control character; write it on one line", name)
		}
	}
	if size > maxHeaderBytes {
		return fmt.Errorf("the headers have %d bytes; at most %d", size, maxHeaderBytes)
	}
	return nil
}

func checkHeaderName(name string) error {
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return !strings.ContainsRune(token, c) }) {
		return fmt.Errorf("%q is not the name of a header; it takes letters, digits and -", clip(name))
	}
	key := textproto.CanonicalMIMEHeaderKey(name)
	if slices.Contains(notChosen, key) || strings.HasPrefix(key, "Proxy-") {
		return fmt.Errorf("the header %s is the connection's; leave it out", key)
	}
	return nil
}

// send makes a request that has a place.
func (r *Runner) send(ctx context.Context, f *Forward) (res Result, err error) {
	if r.cfg.Client == nil {
		return Result{}, errors.New("action: no requests are made: there is no client for them")
	}
	if err := checkURL(f.URL); err != nil {
		return Result{}, fmt.Errorf("action: %w", err)
	}
	timeout := f.Timeout
	if timeout <= 0 {
		timeout = r.cfg.ForwardTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w after %s", ErrTimeout, timeout))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-r.stop:
			stop(ErrStopped)
		case <-over:
		}
	}()

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.URL, bytes.NewReader(f.Body))
	if err != nil {
		return Result{}, &forwardError{"the request cannot be made", err}
	}
	maps.Copy(req.Header, f.Header)
	req.Header.Set("Accept-Encoding", "identity") // what comes is kept as it is
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", r.cfg.UserAgent)
	}
	res.Ran = true
	began := time.Now()
	defer func() { res.Took = time.Since(began) }()
	resp, err := r.cfg.Client.Do(req)
	if err != nil {
		return res, reason(ctx, err)
	}
	defer resp.Body.Close() // what is left of it is not read
	res.Status = resp.StatusCode
	res.Output, err = io.ReadAll(io.LimitReader(resp.Body, answerBytes+1))
	if len(res.Output) > answerBytes {
		res.Output, res.Truncated = res.Output[:answerBytes], true
	}
	switch {
	case err != nil:
		return res, reason(ctx, err)
	case res.Status < 200 || res.Status > 299:
		return res, &StatusError{res.Status}
	}
	return res, nil
}

// reason is why there is no answer, in words for everybody.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return stopped(ctx)
	}
	var dns *net.DNSError
	var dial *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &dns):
		return &forwardError{"the name of the address is not found", err}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &forwardError{"it took too long and was stopped", errors.Join(ErrTimeout, err)}
	case errors.As(err, &dial) && dial.Op == "dial":
		return &forwardError{"no connection, or to an address that is not allowed", err}
	}
	return &forwardError{"the connection ended without a whole answer", err}
}
