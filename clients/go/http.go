package carillon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	requestTimeout = 30 * time.Second // one try, on top of what the server may wait
	maxAnswer      = 32 << 20         // far above a page of 1,000 events and 1 MB
	maxProblem     = 64 << 10
)

// request is one call of the API. It may be sent more than once.
type request struct {
	op      string
	method  string
	path    string
	query   url.Values
	body    []byte
	timeout time.Duration
}

// do sends r until it is answered, refused for good, out of tries, or its
// context ends, and reads the answer into out.
func (c *Client) do(ctx context.Context, r *request, out any) error {
	stale, refused := "", false
	var last *Error
	for try := 0; ; {
		used, err := c.once(ctx, r, stale, out)
		if err == nil {
			return nil
		}
		var e *Error
		errors.As(err, &e)
		if ctx.Err() != nil {
			return canceled(r.op, context.Cause(ctx), last)
		}
		last = e
		if e.Status == http.StatusUnauthorized && c.cred.fetch != nil && !refused {
			stale, refused = used, true // perhaps it has just expired
			continue
		}
		if !e.Retryable || try >= c.retries {
			return e
		}
		wait := backoff(try, e.RetryAfter)
		c.log.Info("carillon: trying again", "op", r.op, "in", wait, "error", e)
		if !sleep(ctx, wait) {
			return canceled(r.op, context.Cause(ctx), e)
		}
		try++
	}
}

// once sends r once. Its error is always an *Error. It returns the credential
// it used.
func (c *Client) once(ctx context.Context, r *request, stale string, out any) (used string, err error) {
	used, err = c.cred.get(ctx, r.op, stale)
	if err != nil {
		return used, asError(r.op, err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, c.endpoint(r.path, r.query), bytes.NewReader(r.body))
	if err != nil {
		return used, &Error{Op: r.op, Code: CodeBadRequest, Err: err}
	}
	if used != "" {
		req.Header.Set("Authorization", "Bearer "+used)
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return used, networkError(r.op, bare(err), "no answer")
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return used, problem(r.op, res)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return used, networkError(r.op, err, "the answer broke off")
	}
	if len(body) > maxAnswer {
		return used, &Error{Op: r.op, Code: CodeProtocol, Status: res.StatusCode, Message: fmt.Sprintf("the answer is larger than %d bytes", maxAnswer)}
	}
	if err := json.Unmarshal(body, out); err != nil {
		return used, &Error{
			Op: r.op, Code: CodeProtocol, Status: res.StatusCode, Err: err,
			Message: "the answer is not Carillon's; is " + c.base.String() + " its public address?",
		}
	}
	return used, nil
}

// problem reads the error that an answer carries.
func problem(op string, res *http.Response) *Error {
	var p struct {
		Code   Code   `json:"code"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	if res.Body != nil {
		body, _ := io.ReadAll(io.LimitReader(res.Body, maxProblem)) // what there is of it
		_ = json.Unmarshal(body, &p)                                // a proxy's page leaves p empty
	}
	e := &Error{Op: op, Code: p.Code, Status: res.StatusCode, Message: p.Detail, RetryAfter: retryAfter(res.Header)}
	if e.Code == "" {
		e.Code = statusCode(res.StatusCode)
	}
	if e.Message == "" {
		e.Message = p.Title
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("the server answered HTTP %d", res.StatusCode)
	}
	e.Retryable = e.Code.retryable(e.RetryAfter)
	return e
}

// maxRetryAfter bounds what a header can make a client wait.
const maxRetryAfter = time.Hour

func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if text == "" {
		return 0
	}
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	if t, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(t), 0), maxRetryAfter)
	}
	return 0
}

// bare is err without the layers that repeat the request.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
